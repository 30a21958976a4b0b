"""Devices: what turns PTX into something a gate can launch. One protocol; `cpu.py` runs it on the node's processors.

Nothing is imported here: a GPU's worker, which everybody waits for, needs little of this.
"""
