"""Special registers have the values of the launch, or sensible ones."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.build import Builder
from compiler.launch import Machine
from compiler.text import compiled, kernel_text
from tensor_wasm.compiler import compile_kernel
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Exit, ScalarType, Special

_WHERE = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %ctaid.z; mov.u32 %r2, %nctaid.y; mov.u32 %r3, %ctaid.y;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    mov.u32 %r2, %nctaid.x; mov.u32 %r3, %ctaid.x;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    mov.u32 %r2, %ntid.z; mov.u32 %r3, %tid.z;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    mov.u32 %r2, %ntid.y; mov.u32 %r3, %tid.y;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    mul.wide.u32 %rd2, %r1, SIZE;
    add.u64 %rd1, %rd1, %rd2;
"""
_SHAPES = [
    ((1, 1, 1), (1, 1, 1)),
    ((5, 1, 1), (64, 1, 1)),
    ((2, 3, 1), (8, 4, 1)),
    ((2, 3, 4), (3, 2, 5)),
    ((1, 1, 3), (1, 1, 7)),
    ((1, 2, 1), (1, 9, 1)),
]


def _per_thread(machine: Machine, names: list[str], grid: tuple[int, ...], block: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(grid) * np.prod(block))
    body = _WHERE.replace("SIZE", str(4 * len(names)))
    for place, name in enumerate(names):
        body += f"    mov.u32 %r9, %{name};\n    st.global.u32 [%rd1+{4 * place}], %r9;\n"
    out = np.full((count, len(names)), 0xFFFF_FFF0, np.uint32)
    machine.run(compiled(kernel_text(body + "    ret;")), grid, block, out, shared_bytes=1234)
    return out


@pytest.mark.parametrize(("grid", "block"), _SHAPES)
def test_every_thread_of_every_block_runs_once_and_knows_its_place(
    machine: Machine, grid: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    names = [f"{name}.{axis}" for name in ("ctaid", "tid", "nctaid", "ntid") for axis in "xyz"]
    out = _per_thread(machine, names, grid, block)
    expected = [
        (cx, cy, cz, tx, ty, tz, *grid, *block)
        for cz in range(grid[2])
        for cy in range(grid[1])
        for cx in range(grid[0])
        for tz in range(block[2])
        for ty in range(block[1])
        for tx in range(block[0])
    ]
    assert [tuple(int(v) for v in row) for row in out] == expected


def test_warps_and_lanes_follow_the_linear_thread_number(machine: Machine) -> None:
    names = ["laneid", "warpid", "nwarpid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge"]
    out = _per_thread(machine, names, (2, 1, 1), (7, 10, 1))
    for number, row in enumerate(out):
        thread = number % 70
        lane = thread % 32
        one = 1 << lane
        below, full = one - 1, 0xFFFF_FFFF
        assert [int(v) for v in row] == [
            lane, thread // 32, 3, one, below, below | one, full & ~(below | one), full & ~below,
        ]  # fmt: skip


def test_the_machine_is_one_multiprocessor(machine: Machine) -> None:
    out = _per_thread(machine, ["smid", "nsmid", "dynamic_smem_size"], (2, 1, 1), (2, 1, 1))
    assert [list(map(int, row)) for row in out] == [[0, 1, 1234]] * 4


def test_clocks_rise_with_every_read(machine: Machine) -> None:
    body = """
    ld.param.u64 %rd1, [out];
    mov.u64 %rd2, %clock64;
    mov.u64 %rd3, %globaltimer;
    mov.u32 %r1, %clock;
    cvt.u64.u32 %rd4, %r1;
    mov.u64 %rd5, %clock64;
    st.global.v2.u64 [%rd1], {%rd2, %rd3};
    st.global.v2.u64 [%rd1+16], {%rd4, %rd5};
    ret;"""
    out = np.zeros(4, np.uint64)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert len(set(out.tolist())) == 4
    assert sorted(out.tolist()) == out.tolist()


def test_a_wait_for_the_clock_ends(machine: Machine) -> None:
    body = """
    mov.u64 %rd1, %clock64;
L:  mov.u64 %rd2, %clock64;
    sub.u64 %rd3, %rd2, %rd1;
    setp.lt.u64 %p1, %rd3, 100000;
    @%p1 bra L;
    ret;"""
    machine.run(compiled(kernel_text(body, "")), 1, 1)


def test_a_special_register_that_is_not_known_is_refused() -> None:
    builder = Builder()
    register = builder.register(ScalarType.B32)
    builder.add("mov", [ScalarType.U32], [register], [Special("nonsense", "x", ScalarType.U32)])
    builder.end(Exit())
    with pytest.raises(PtxError, match=r"%nonsense\.x") as caught:
        compile_kernel(*builder.kernel())
    assert caught.value.line == 1
