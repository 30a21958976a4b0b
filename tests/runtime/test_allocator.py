"""What is large goes back to the system: in a process of its own, for there is no way back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys
from tensor_wasm.runtime.allocator import give_back_large_blocks

class Usage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c mapped d e used free f".split()]

usage = ctypes.CDLL(None).mallinfo2
usage.restype = Usage
if sys.argv[1] == "told":
    give_back_large_blocks()
before = usage().mapped
for _ in range(2):
    block = bytearray(4 << 20)
    mapped = usage().mapped - before
    del block
print(mapped, usage().mapped - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("told", "mapped_bytes"), [("told", 4 << 20), ("untold", 0)])
def test_a_large_block_is_pages_of_its_own_each_time(told, mapped_bytes):
    done = subprocess.run([sys.executable, "-c", SCRIPT, told], capture_output=True, text=True, check=True)
    mapped, left = map(int, done.stdout.split())
    assert mapped_bytes <= mapped < mapped_bytes + 65_536
    assert left == 0
