"""Whole rows without tests for each strip: guards that end anywhere, and rows that must go on strip by strip."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.strips.harness import text_of
from compiler.text import compiled, kernel_text
from tensor_wasm.compiler import WIDTHS, CompiledKernel

_WIDTHS = pytest.mark.parametrize("width", WIDTHS)

#: out[i] += 1 for i < n.
_INCREMENT = text_of(
    """
    ld.param.u32 %r7, [n];
    setp.ge.s32 %p1, %r2, %r7;
    @%p1 bra DONE;
    ld.global.u32 %r8, [%rd2];
    add.u32 %r8, %r8, 1;
    st.global.u32 [%rd2], %r8;
DONE:
""",
    parameters="u32 n",
)

#: The same with a grid that goes around.
_GRID_STRIDE = kernel_text(
    """
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r7, [n];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %nctaid.x;
    mad.lo.s32 %r5, %r2, %r3, %r1;
    mul.lo.u32 %r6, %r3, %r4;
    setp.ge.s32 %p1, %r5, %r7;
    @%p1 bra DONE;
LOOP:
    mul.wide.s32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r8, [%rd3];
    mad.lo.u32 %r8, %r8, 3, 1;
    st.global.u32 [%rd3], %r8;
    add.s32 %r5, %r5, %r6;
    setp.lt.s32 %p2, %r5, %r7;
    @%p2 bra LOOP;
DONE:
    ret;
""",
    "u64 out, u32 n",
)


def _in_rows(text: str, width: int) -> CompiledKernel:
    """A kernel whose rows are run without tests for each strip, or else these tests see nothing of that."""
    kernel = compiled(text, width=width)
    assert kernel.sites
    return kernel


@_WIDTHS
@pytest.mark.parametrize("block", [1, 15, 16, 17, 32, 40, 48, 1024])
def test_a_guard_ends_anywhere_in_a_row(machine: Machine, width: int, block: int) -> None:
    kernel = _in_rows(_INCREMENT, width)
    for n in {0, 1, 15, 16, 17, block - 1, block, block + 1, block + 16, 2 * block - 1, 2 * block}:
        data = np.arange(2 * block, dtype=np.uint32)
        machine.run(kernel, 2, block, data, np.uint32(n))
        assert (data == np.arange(2 * block) + (np.arange(2 * block) < n)).all(), n


@_WIDTHS
def test_a_bound_below_zero_turns_all_off(machine: Machine, width: int) -> None:
    data = np.arange(64, dtype=np.uint32)
    machine.run(_in_rows(_INCREMENT, width), 1, 64, data, np.int32(-1))
    assert (data == np.arange(64)).all()


@_WIDTHS
@pytest.mark.parametrize("block", [16, 32, 20])
def test_a_row_that_ends_in_its_second_iteration_does_nothing_twice(machine: Machine, width: int, block: int) -> None:
    kernel = _in_rows(_GRID_STRIDE, width)
    for n in {0, 1, block, 2 * block, 2 * block + 1, 3 * block - 1, 3 * block, 4 * block + 7, 6 * block, 7 * block - 1}:
        data = np.arange(8 * block, dtype=np.uint32)
        machine.run(kernel, 2, block, data, np.uint32(n))
        before = np.arange(8 * block)
        assert (data == np.where(before < n, 3 * before + 1, before)).all(), n


@_WIDTHS
@pytest.mark.parametrize("block", [(16, 5), (32, 3), (24, 4), (5, 16), (64, 1), (1, 33)])
@pytest.mark.parametrize("is_cut", [False, True])
def test_rows_of_blocks_of_two_axes(machine: Machine, width: int, block: tuple[int, int], is_cut: bool) -> None:
    """A picture whose right border cuts rows, and whose lower border, if it ``is_cut``, blocks."""
    lower_border = "setp.ge.s32 %p2, %r5, %r8;\n    @%p2 bra DONE;" if is_cut else ""
    text = kernel_text(
        f"""
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r7, [w];
    ld.param.u32 %r8, [h];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r4, %r2, %r3, %r1;
    mov.u32 %r11, %tid.y;
    mov.u32 %r12, %ctaid.y;
    mov.u32 %r13, %ntid.y;
    mad.lo.s32 %r5, %r12, %r13, %r11;
    setp.ge.s32 %p1, %r4, %r7;
    @%p1 bra DONE;
    {lower_border}
    mad.lo.s32 %r6, %r5, %r7, %r4;
    mul.wide.s32 %rd2, %r6, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r9, [%rd3];
    mad.lo.u32 %r9, %r5, 1000, %r9;
    add.u32 %r9, %r9, %r4;
    st.global.u32 [%rd3], %r9;
DONE:
    ret;
""",
        "u64 out, u32 w, u32 h",
    )
    kernel = compiled(text, width=width) if is_cut else _in_rows(text, width)
    for w, given in ((1, 1), (2 * block[0], 2 * block[1]), (2 * block[0] - 1, block[1] + 1), (2 * block[0] + 1, 1)):
        h = given if is_cut else 3 * block[1]
        picture = np.full((h, w), 7, np.uint32)
        machine.run(kernel, (3, 3), block, picture, np.uint32(w), np.uint32(h))
        assert (picture == 7 + 1000 * np.arange(h)[:, None] + np.arange(w)).all(), (w, h)


_RELATIONS = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip


@_WIDTHS
@pytest.mark.parametrize("relation", _RELATIONS)
@pytest.mark.parametrize("kind", ["s32", "u32"])
@pytest.mark.parametrize("form", ["index, n", "n, index"])
def test_comparisons_around_the_borders_of_their_type(
    machine: Machine, width: int, relation: str, kind: str, form: str
) -> None:
    """Threads' indices that run up and down over 2^31, 2^32 and 0 against a bound that is there too."""
    operands = "%r8, %r7" if form == "index, n" else "%r7, %r8"
    body = f"""
    ld.param.u32 %r7, [n];
    ld.param.u32 %r9, [start];
    SIGN
    setp.{relation}.{kind} %p1, {operands};
    @!%p1 bra DONE;
    ld.global.u32 %r10, [%rd2];
    add.u32 %r10, %r10, 1;
    st.global.u32 [%rd2], %r10;
DONE:
    """
    dtype = {"s32": np.int32, "u32": np.uint32}[kind]
    for sign, line in ((1, "add.u32 %r8, %r9, %r1;"), (-1, "sub.u32 %r8, %r9, %r1;")):
        text = text_of(body.replace("SIGN", line), parameters="u32 n, u32 start")
        # What two threads find to be equal says nothing of those between.
        kernel = compiled(text, width=width) if relation in ("eq", "ne") else _in_rows(text, width)
        for start in (0, 20, (1 << 31) - 5, (1 << 31) + 3, (1 << 32) - 7, (1 << 31) - 1, 1 << 31):
            index = ((start + sign * np.arange(32)) % (1 << 32)).astype(np.uint32).view(dtype)
            for n in (0, 10, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, start, (start + sign * 9) % (1 << 32)):
                bound = np.array([n], np.uint32).view(dtype)
                data = np.zeros(32, np.uint32)
                machine.run(kernel, 1, 32, data, np.uint32(n), np.uint32(start))
                holds = _RELATIONS[relation](index, bound) if form == "index, n" else _RELATIONS[relation](bound, index)
                assert (data == holds).all(), (sign, start, n)


@_WIDTHS
def test_a_uniform_value_carried_around_a_loop_of_rows_is_each_iteration_s_own(machine: Machine, width: int) -> None:
    """Two registers that change places each turn, over rows whose last turn is cut."""
    text = kernel_text(
        """
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r7, [n];
    mov.u32 %r5, %tid.x;
    mov.u32 %r6, %ntid.x;
    mov.u32 %r9, 1;
    mov.u32 %r10, 100;
LOOP:
    setp.ge.u32 %p1, %r5, %r7;
    @%p1 bra DONE;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r8, [%rd3];
    mad.lo.u32 %r8, %r9, %r8, %r5;
    st.global.u32 [%rd3], %r8;
    mov.u32 %r11, %r9;
    add.u32 %r9, %r10, 1;
    mov.u32 %r10, %r11;
    add.u32 %r5, %r5, %r6;
    bra LOOP;
DONE:
    ret;
""",
        "u64 out, u32 n",
    )
    kernel = _in_rows(text, width)
    for block in (32, 24):
        for n in (0, 5, 32, 70, 96, 100):
            data = np.full(128, 2, np.uint32)
            machine.run(kernel, 1, block, data, np.uint32(n))
            factors, a, b = [], 1, 100
            for _ in range(8):
                factors.append(a)
                a, b = b + 1, a
            expected = [2 * factors[i // block] + i if i < n else 2 for i in range(128)]
            assert data.tolist() == expected, (block, n)
