"""The Python API: a node in this process and a client of one elsewhere, plain and for event loops, alike in use.

Its names are exported lazily by ``tensor_wasm`` itself: the command line takes its client from here, and must not load
a node for it.
"""
