"""NVIDIA GPUs: kernels of all tenants in one process for each GPU, every one confined to its tenant's memory.

The *worker* holds the driver's context; the node and Python programs talk to it over a socket, and launch through
shared memory (see :mod:`.board`), so that no launch waits for an interpreter. A worker that a kernel broke is ended and
another takes its place.
"""
