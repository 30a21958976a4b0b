"""Kernels in which each thread writes what it found to a place of its own."""

from __future__ import annotations

import numpy as np

from compiler.launch import Axes, Machine, axes
from compiler.text import compiled, kernel_text

#: %r1 is the thread's number in its row, %r2 in the whole launch, %rd1 ``out``, %rd2 the thread's place in it.
_START = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.y;
    mad.lo.u32 %r2, %r4, %r3, %r1;
    mov.u32 %r5, %ntid.y;
    mul.lo.u32 %r5, %r5, %r3;
    mov.u32 %r6, %ctaid.x;
    mad.lo.u32 %r2, %r6, %r5, %r2;
    mul.wide.u32 %rd2, %r2, SIZE;
    add.s64 %rd2, %rd1, %rd2;
"""


def text_of(body: str, *, size: int = 4, parameters: str = "", before: str = "") -> str:
    """A kernel ``k`` with %r1, %r2, %rd1 and %rd2 set before ``body``, which does not return."""
    return kernel_text(_START.replace("SIZE", str(size)) + body + "\n    ret;", f"u64 out, {parameters}", before=before)


def found(
    machine: Machine,
    width: int,
    body: str,
    *arguments: object,
    block: int | tuple[int, ...] = 37,
    grid: int = 1,
    dtype: type = np.uint32,
    parameters: str = "",
    before: str = "",
    shared_bytes: int = 0,
) -> np.ndarray:
    """What all threads wrote: ``body`` stores at [%rd2]."""
    shape: Axes = axes(block)
    out = np.full(grid * int(np.prod(shape)), 99, dtype)
    text = text_of(body, size=np.dtype(dtype).itemsize, parameters=parameters, before=before)
    machine.run(compiled(text, width=width), grid, block, out, *arguments, shared_bytes=shared_bytes)
    return out
