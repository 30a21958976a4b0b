"""Blocks whose rows are joined: which kernels have such, each thread once, and faults that name block and thread."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from compiler.launch import LaunchFault, Machine
from compiler.text import compiled, kernel_text
from tensor_wasm.compiler.joining import join
from tensor_wasm.compiler.special import GRID_INDEX
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.ptx.program import Kernel, Special

_PARTS = """
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
"""
_INDEX = f"{_PARTS}    mad.lo.s32 %r4, %r1, %r2, %r3;\n"

#: The same, but not where blocks have 9 threads.
_LATE = """
    mov.u32 %r2, %ntid.x;
    setp.eq.u32 %p1, %r2, 9;
    @%p1 bra SKIP;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r3, %tid.x;
SKIP:
"""

#: Stores what is in %r10 at out[%r4].
_STORE = """
    ld.param.u64 %rd1, [out];
    mul.wide.u32 %rd2, %r4, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r10;
    ret;
"""

#: out[y * width + x] += 1, and 7 where x < limit, for x < columns.
_CELLS = kernel_text(
    _INDEX
    + """
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r5, [columns];
    ld.param.u32 %r6, [limit];
    setp.ge.u32 %p1, %r4, %r5;
    @%p1 bra DONE;
    mad.lo.u32 %r7, %ctaid.y, %ntid.y, %tid.y;
    mad.lo.u32 %r8, %ctaid.z, %ntid.z, %tid.z;
    mul.lo.u32 %r9, %ntid.y, %nctaid.y;
    mad.lo.u32 %r7, %r8, %r9, %r7;
    mad.lo.u32 %r7, %r7, %r5, %r4;
    mul.wide.u32 %rd2, %r7, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r10, [%rd3];
    add.u32 %r10, %r10, 1;
    setp.ge.u32 %p2, %r4, %r6;
    @%p2 bra STORE;
    add.u32 %r10, %r10, 7;
STORE:
    st.global.u32 [%rd3], %r10;
DONE:
    ret;
""",
    "u64 out, u32 columns, u32 limit",
)


def _kernel(body: str, **more: str) -> Kernel:
    return find_kernel(read(kernel_text(body, **more)), "k")


def _indices(kernel: Kernel) -> int:
    return sum(
        isinstance(source, Special) and source.name == GRID_INDEX
        for block in kernel.blocks
        for instruction in block.instructions
        for source in instruction.sources
    )


@pytest.mark.parametrize(
    "index",
    [
        _INDEX,
        "mad.lo.u32 %r4, %ntid.x, %ctaid.x, %tid.x;",
        "mad.lo.u32 %r4, %clusterid.x, %ntid.x, %tid.x;",
        _PARTS + "mul.lo.s32 %r5, %r2, %r1; add.s32 %r4, %r3, %r5;",
        _PARTS + "mov.b32 %r6, %r3; mul.lo.s32 %r5, %r2, %r1; add.u32 %r4, %r5, %r6;",
        _PARTS + "mul.wide.s32 %rd8, %r2, %r1; cvt.s64.s32 %rd7, %r3; add.s64 %rd9, %rd8, %rd7; cvt.u32.u64 %r4, %rd9;",
        _PARTS + "cvt.u64.u32 %rd7, %r3; mad.wide.u32 %rd9, %r1, %r2, %rd7; cvt.u32.u64 %r4, %rd9;",
        _INDEX + "setp.eq.u32 %p1, %r2, 8; @%p1 bra NEXT; add.u32 %r4, %r4, 1; NEXT:",
    ],
)
def test_an_index_in_the_grid_is_found(index: str) -> None:
    joined = join(_kernel(index + "mov.u32 %r10, 1;" + _STORE))
    assert joined is not None
    assert _indices(joined) == 1


@pytest.mark.parametrize(
    ("body", "before"),
    [
        ("mov.u32 %r4, 5; mov.u32 %r10, 1;", ""),  # without an index there is nothing to join for
        (_INDEX + "mov.u32 %r10, %r3;", ""),
        (_INDEX + "mov.u32 %r10, %tid.x;", ""),
        (_INDEX + "mov.u32 %r10, %ctaid.x;", ""),
        (_INDEX + "mov.u32 %r10, %laneid;", ""),
        (_INDEX + "mov.u32 %r10, %warpid;", ""),
        (_INDEX + "mov.u32 %r10, %lanemask_lt;", ""),
        (_INDEX + "mul.lo.u32 %r10, %r1, %r2;", ""),
        (_INDEX + "cvt.u64.u32 %rd5, %r3; cvt.u32.u64 %r10, %rd5;", ""),
        (_INDEX + "bar.sync 0; mov.u32 %r10, 1;", ""),
        (_INDEX + "mov.u32 %r10, 1; and.b32 %r5, %r4, 7; st.shared.u32 [s], %r5;", ".shared .align 4 .b8 s[32];"),
        (_INDEX + "mov.u64 %rd5, s; cvt.u32.u64 %r10, %rd5;", ".shared .align 4 .b8 s[32];"),
        (_INDEX + "mov.u64 %rd5, g; ld.volatile.global.u32 %r10, [%rd5];", ".global .align 4 .b8 g[32];"),
        (_INDEX + "mov.u32 %r10, 1; membar.gl;", ""),
        # %r3 is 0 at first, and then something else.
        ("mad.lo.u32 %r4, %ctaid.x, %ntid.x, %r3; mov.u32 %r3, %tid.x; mov.u32 %r10, 1;", ""),
        (_PARTS + "add.u32 %r3, %r3, 1; mad.lo.s32 %r4, %r1, %r2, %r3; mov.u32 %r10, 1;", ""),
        (_PARTS + "mov.u32 %r3, 5; mad.lo.s32 %r4, %r1, %r2, %r3; mov.u32 %r10, 1;", ""),
        (_LATE + "mad.lo.s32 %r4, %r1, %r2, %r3; mov.u32 %r10, 1;", ""),
        (_PARTS + "setp.eq.u32 %p1, %r2, 9; @%p1 mad.lo.s32 %r4, %r1, %r2, %r3; mov.u32 %r10, 1;", ""),
        (_PARTS + "mad.lo.s32 %r4, %r1, %r3, %r2; mov.u32 %r10, 1;", ""),
        (_PARTS + "mad.hi.s32 %r4, %r1, %r2, %r3; mov.u32 %r10, 1;", ""),
        ("mad.lo.u32 %r4, %ctaid.y, %ntid.x, %tid.x; mov.u32 %r10, 1;", ""),
        ("mad.lo.u32 %r4, %ctaid.x, %ntid.y, %tid.x; mov.u32 %r10, 1;", ""),
        (_INDEX + "mov.u32 %r10, 1; T: .branchtargets A, B; brx.idx %r3, T; A: B:", ""),
    ],
)
def test_threads_that_know_more_are_not_joined(body: str, before: str) -> None:
    assert join(_kernel(body + _STORE, before=before)) is None


_SHAPES = [
    ((5,), (7,)),
    ((300,), (1,)),
    ((40,), (8,)),
    ((3,), (1000,)),
    ((700,), (16,)),
    ((9, 2, 2), (3,)),
    ((9, 2, 2), (3, 2, 2)),
    ((33, 3), (4, 4)),
    ((5, 3), (17, 2)),
    ((2, 1, 3), (16, 2, 3)),
]


@pytest.mark.parametrize(("grid", "block"), _SHAPES)
def test_every_thread_of_joined_blocks_runs_once(
    machine: Machine, grid: tuple[int, ...], block: tuple[int, ...]
) -> None:
    kernel = compiled(_CELLS)
    x = grid[0] * block[0]
    rows = int(np.prod(grid[1:], dtype=int) * np.prod(block[1:], dtype=int))
    limits = sorted({0, 1, block[0], x // 2, x - 1, x})
    for columns, limit in product(sorted({1, x // 2 + 1, max(x - 1, 1), x}), limits):
        data = np.zeros((rows, columns), np.uint32)
        machine.run(kernel, grid, block, data, np.uint32(columns), np.uint32(limit))
        want = np.where(np.arange(columns) < limit, 8, 1)
        assert (data == want).all(), (columns, limit)


@pytest.mark.parametrize("y", [1, 3])
@pytest.mark.parametrize("x", [1, 3, 8, 16, 40])
def test_a_trap_names_the_thread_s_own_block(machine: Machine, x: int, y: int) -> None:
    text = kernel_text(
        _INDEX
        + """
        ld.param.u32 %r5, [bad];
        ld.param.u32 %r6, [row];
        setp.ne.u32 %p1, %r4, %r5;
        setp.ne.or.u32 %p1, %tid.y, %r6, %p1;
        @%p1 bra DONE;
        trap;
    DONE:
        ret;
        """,
        "u32 bad, u32 row",
    )
    kernel = compiled(text)
    row = y // 2
    for bad in (0, x - 1, x, 5 * x + x // 2, 29 * x):
        with pytest.raises(LaunchFault) as caught:
            machine.run(kernel, 30, (x, y), np.uint32(bad), np.uint32(row))
        assert (caught.value.block, caught.value.thread) == ((bad // x, 0, 0), row * x + bad % x)
