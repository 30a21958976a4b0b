"""Uniform and linear registers: where each lane's value is what it would be alone, and what is not kept per lane."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.strips.harness import found, text_of
from compiler.text import compiled, planned
from tensor_wasm.compiler import WIDTHS
from tensor_wasm.compiler.shapes import Shape

_WIDTHS = pytest.mark.parametrize("width", WIDTHS)
_X = np.arange(37, dtype=np.int64)


def _shapes(body: str) -> dict[str, Shape]:
    """The shapes of a kernel's registers by their names."""
    plan = planned(text_of(body))
    return {register.name: plan.shapes.of(register) for register in plan.regions[0].region.kernel.registers}


def _wrapped(values: np.ndarray, kind: str) -> np.ndarray:
    """Whole numbers as a register of a type, then as 64 bits."""
    return values.astype(np.int64).astype({"u32": np.uint32, "s32": np.int32}[kind]).astype(np.int64)


# --- lines that wrap ------------------------------------------------------------------------------------------


@_WIDTHS
@pytest.mark.parametrize("widen", ["u64.u32", "s64.s32", "u64.s32", "s64.u32"])
@pytest.mark.parametrize(
    ("start", "step"),
    [
        (-1, 1), (-3, 1), (-40, 1), (1, -1), (2, -3), ((1 << 31) - 5, 1), ((1 << 31) - 1, 4), (-(1 << 31) + 9, -2),
        ((1 << 32) - 6, 1), (7, 1 << 24), (0, -(1 << 24)), (0, 0x0700_0000), (3, 0x8000_0001), (3, 12345),
    ],
)  # fmt: skip
def test_a_line_that_wraps_within_a_strip_is_widened_lane_by_lane(
    machine: Machine, width: int, widen: str, start: int, step: int
) -> None:
    body = f"""
    mad.lo.s32 %r7, %r1, {step & 0xFFFF_FFFF}, {start & 0xFFFF_FFFF};
    cvt.{widen} %rd3, %r7;
    add.s64 %rd3, %rd3, 5;
    st.global.u64 [%rd2], %rd3;
    """
    out = found(machine, width, body, dtype=np.int64)
    assert (out == _wrapped(start + step * _X, widen[-3:]) + 5).all()


@_WIDTHS
@pytest.mark.parametrize("kind", ["u32", "s32"])
@pytest.mark.parametrize("factor", [4, 12, 0x7FFF_FFFF, 0xFFFF_FFFC])
def test_a_wide_product_of_a_line_that_wraps_is_that_of_each_lane(
    machine: Machine, width: int, kind: str, factor: int
) -> None:
    body = f"""
    sub.u32 %r7, %r1, 3;
    mul.wide.{kind} %rd3, %r7, {factor};
    neg.s64 %rd4, %rd3;
    shl.b64 %rd6, %rd4, 1;
    mad.wide.{kind} %rd5, %r7, {factor}, %rd1;
    sub.s64 %rd7, %rd5, %rd1;
    xor.b64 %rd8, %rd7, %rd3;
    add.s64 %rd9, %rd6, %rd8;
    st.global.u64 [%rd2], %rd9;
    """
    out = found(machine, width, body, dtype=np.int64)
    signed = factor - (1 << 32) if kind == "s32" and factor >> 31 else factor
    expected = [-2 * int(value) * signed for value in _wrapped(_X - 3, kind)]
    assert out.tolist() == [(value + (1 << 63)) % (1 << 64) - (1 << 63) for value in expected]


@_WIDTHS
@pytest.mark.parametrize("bound", [0, 1, 5, 36, 37])
def test_a_neighbour_to_the_left_is_read_where_there_is_one(machine: Machine, width: int, bound: int) -> None:
    """``tid - 1`` is 2^32 - 1 in lane 0, which its guard turns off."""
    body = """
    sub.u32 %r7, %r1, 1;
    mul.wide.u32 %rd3, %r7, 4;
    ld.param.u64 %rd4, [data];
    add.s64 %rd5, %rd4, %rd3;
    ld.param.u32 %r9, [bound];
    mov.u32 %r8, 7;
    setp.gt.u32 %p1, %r1, %r9;
    @%p1 ld.global.u32 %r8, [%rd5];
    st.global.u32 [%rd2], %r8;
    """
    data = np.arange(100, 137, dtype=np.uint32)
    out = found(machine, width, body, data, np.uint32(bound), parameters="u64 data, u32 bound")
    assert (out == np.where(bound < _X, 99 + _X, 7)).all()


@_WIDTHS
def test_a_narrowed_line_and_half_registers_have_every_lane_s_value(machine: Machine, width: int) -> None:
    body = """
    mul.wide.s32 %rd3, %r1, -3;
    add.s64 %rd4, %rd3, 40;
    cvt.u32.u64 %r7, %rd4;
    cvt.u16.u32 %rs1, %r7;
    sub.u16 %rs2, %rs1, 1;
    cvt.u32.u16 %r8, %rs2;
    mad.lo.u32 %r9, %r7, 65536, %r8;
    st.global.u32 [%rd2], %r9;
    """
    value = 40 - 3 * _X
    assert (found(machine, width, body) == (value * 65536 + (value - 1) % 65536) % (1 << 32)).all()


@_WIDTHS
def test_lines_that_cancel_and_lines_that_add_up(machine: Machine, width: int) -> None:
    body = """
    mul.lo.u32 %r7, %r1, 5;
    sub.u32 %r8, %r7, %r1;
    sub.u32 %r9, %r8, %r1;
    add.u32 %r10, %r9, %r1;
    shl.b32 %r11, %r1, 2;
    sub.u32 %r12, %r10, %r11;
    mad.lo.u32 %r13, %r12, 1000, %r9;
    sub.u32 %r14, 7, %r13;
    st.global.u32 [%rd2], %r14;
    """
    assert (found(machine, width, body) == (7 - 3 * _X) % (1 << 32)).all()


# --- registers that several ways write ------------------------------------------------------------------------


@_WIDTHS
@pytest.mark.parametrize("cut", [0, 1, 6, 15, 16, 40])
def test_a_register_set_to_a_constant_on_one_side_differs_after_the_join(
    machine: Machine, width: int, cut: int
) -> None:
    body = f"""
    mov.u32 %r7, 1;
    mov.u32 %r8, 100;
    setp.lt.u32 %p1, %r1, {cut};
    @%p1 bra JOIN;
    mov.u32 %r7, 2;
    add.u32 %r8, %r8, %r1;
JOIN:
    mad.lo.u32 %r7, %r7, 1000, %r8;
    st.global.u32 [%rd2], %r7;
    """
    assert (found(machine, width, body) == np.where(cut > _X, 1100, 2100 + _X)).all()


@_WIDTHS
def test_a_constant_set_under_a_guard_differs(machine: Machine, width: int) -> None:
    body = """
    and.b32 %r7, %r1, 5;
    setp.eq.u32 %p1, %r7, 4;
    mov.u32 %r8, 3;
    @%p1 mov.u32 %r8, 9;
    @!%p1 add.u32 %r8, %r8, 4;
    mov.u64 %rd3, 5;
    @%p1 mov.u64 %rd3, %rd1;
    @%p1 sub.s64 %rd3, %rd3, %rd1;
    cvt.u32.u64 %r9, %rd3;
    mad.lo.u32 %r8, %r9, 10, %r8;
    st.global.u32 [%rd2], %r8;
    """
    assert (found(machine, width, body) == np.where(_X & 5 == 4, 9, 57)).all()


@_WIDTHS
@pytest.mark.parametrize("mask", [3, 7, 31])
def test_a_counter_used_after_a_loop_is_that_of_the_iteration_in_which_a_lane_left(
    machine: Machine, width: int, mask: int
) -> None:
    body = f"""
    and.b32 %r7, %r1, {mask};
    mov.u32 %r8, 0;
    mov.u64 %rd3, 1;
LOOP:
    setp.ge.u32 %p1, %r8, %r7;
    @%p1 bra DONE;
    add.u32 %r8, %r8, 1;
    shl.b64 %rd3, %rd3, 1;
    bra LOOP;
DONE:
    cvt.u32.u64 %r9, %rd3;
    mad.lo.u32 %r8, %r8, 7, %r9;
    st.global.u32 [%rd2], %r8;
    """
    turns = _X & mask
    assert (found(machine, width, body) == (7 * turns + (1 << turns)) % (1 << 32)).all()
    assert _shapes(body)["%r8"] is Shape.VARYING


#: A loop of five under a guard that only some lanes pass, in which nothing depends on the lane but %r9.
_GUARDED_LOOP = """
    setp.gt.u32 %p1, %r1, 20;
    mov.u32 %r9, 0;
    @%p1 bra DONE;
    mov.u32 %r8, 0;
LOOP:
    mad.lo.u32 %r9, %r8, %r1, %r9;
    add.u32 %r8, %r8, 1;
    setp.lt.u32 %p2, %r8, 5;
    @%p2 bra LOOP;
DONE:
    st.global.u32 [%rd2], %r9;
"""


@_WIDTHS
def test_a_loop_under_a_guard_is_run_by_the_lanes_that_passed_it(machine: Machine, width: int) -> None:
    assert (found(machine, width, _GUARDED_LOOP) == np.where(_X > 20, 0, 10 * _X)).all()


def test_the_counter_of_a_loop_under_a_guard_is_kept_once() -> None:
    shapes = _shapes(_GUARDED_LOOP)
    assert shapes["%r8"] is Shape.UNIFORM
    assert shapes["%p2"] is Shape.UNIFORM
    assert shapes["%p1"] is Shape.VARYING
    assert shapes["%r9"] is Shape.VARYING
    assert shapes["%rd2"] is Shape.LINEAR


def test_a_pointer_that_a_loop_moves_on_stays_a_line() -> None:
    body = """
    mov.u32 %r8, 0;
    mov.u64 %rd3, %rd2;
LOOP:
    st.global.u32 [%rd3], %r1;
    add.s64 %rd3, %rd3, 256;
    add.u32 %r8, %r8, 1;
    setp.lt.u32 %p2, %r8, %r5;
    @%p2 bra LOOP;
    """
    shapes = _shapes(body)
    assert shapes["%rd3"] is Shape.LINEAR
    assert shapes["%r8"] is Shape.UNIFORM


# --- special registers ----------------------------------------------------------------------------------------


@_WIDTHS
@pytest.mark.parametrize("block", [(5, 9), (20, 4), (33, 3), (64,), (1, 70), (7, 3, 5)])
def test_places_in_a_warp_are_those_of_each_thread(machine: Machine, width: int, block: tuple[int, ...]) -> None:
    names = ["laneid", "warpid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge"]
    threads = int(np.prod(block))
    rows = "\n".join(
        f"    mov.u32 %r8, %{name};\n    st.global.u32 [%rd2+{4 * n}], %r8;" for n, name in enumerate(names)
    )
    body = f"""
    mov.u32 %r7, %tid.z;
    mad.lo.u32 %r2, %r7, %r5, %r2;
    mul.wide.u32 %rd2, %r2, 28;
    add.s64 %rd2, %rd1, %rd2;
{rows}
    """
    flat = np.zeros(7 * threads, np.uint32)
    machine.run(compiled(text_of(body), width=width), 1, block, flat)
    table = flat.reshape(threads, 7)
    lane = np.arange(threads) % 32
    bit = np.uint64(1) << lane.astype(np.uint64)
    everything = np.uint64(0xFFFF_FFFF)
    below = bit - np.uint64(1)
    expected = [lane, np.arange(threads) // 32, bit, below, bit | below, everything - (bit | below), everything - below]
    for name, column, values in zip(names, table.T, expected, strict=True):
        assert (column == values).all(), name
