"""Accesses of a strip: side by side, once for all, or lane by lane; and which thread one that fails belongs to."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import ARRAYS_AT, LaunchFault, Machine
from compiler.strips.harness import found, text_of
from compiler.text import compiled, kernel_text, line_of
from tensor_wasm.compiler import WIDTHS, Fault

_WIDTHS = pytest.mark.parametrize("width", WIDTHS)
_PAGE = 65_536
_X = np.arange(37, dtype=np.int64)

#: A type's name, its NumPy type, how many of them a thread moves, and registers for them.
_MOVES = {
    "u8": (np.uint8, 1, "%rs1"),
    "s8": (np.int8, 1, "%r9"),
    "u16": (np.uint16, 1, "%rs1"),
    "s16": (np.int16, 1, "%r9"),
    "b32": (np.uint32, 1, "%r9"),
    "f32": (np.float32, 1, "%f1"),
    "u64": (np.uint64, 1, "%rd9"),
    "f64": (np.float64, 1, "%fd1"),
    "v2.u32": (np.uint32, 2, "{%r9, %r10}"),
    "v4.f32": (np.float32, 4, "{%f1, %f2, %f3, %f4}"),
    "v2.u64": (np.uint64, 2, "{%rd9, %rd10}"),
    "v2.u16": (np.uint16, 2, "{%rs1, %rs2}"),
    "v4.u8": (np.uint8, 4, "{%rs1, %rs2, %rs3, %rs4}"),
}

#: What makes a kernel one whose rows run without tests, one of strips, or one of single lanes.
_WAYS = {
    "rows": "",
    "strips": "setp.gt.u32 %p5, %r1, 5000;\n    @%p5 bra DONE;\n    mov.u32 %r20, %laneid;",
    "lanes": "and.b32 %r20, %r1, 0;\n    mul.wide.u32 %rd20, %r20, 4;\n    add.s64 %rd5, %rd5, %rd20;",
}


def _copy_text(move: str, way: str = "rows") -> str:
    """``out[i] = data[i]``, each thread one element or vector."""
    dtype, count, registers = _MOVES[move]
    size = np.dtype(dtype).itemsize * count
    body = f"""
    ld.param.u64 %rd3, [data];
    mul.wide.u32 %rd4, %r2, {size};
    add.s64 %rd5, %rd3, %rd4;
    {_WAYS[way]}
    ld.global.{move} {registers}, [%rd5];
    st.global.{move} [%rd2], {registers};
{"DONE:" if way == "strips" else ""}
    """
    return text_of(body, size=size, parameters="u64 data")


# --- values ---------------------------------------------------------------------------------------------------


@_WIDTHS
@pytest.mark.parametrize("move", _MOVES)
@pytest.mark.parametrize("way", _WAYS)
def test_elements_go_where_they_belong(machine: Machine, width: int, move: str, way: str) -> None:
    dtype, count, _ = _MOVES[move]
    kernel = compiled(_copy_text(move, way), width=width)
    assert bool(kernel.sites) == (way == "rows" and move not in ("v2.u16", "v4.u8"))
    for block in (64, 37):
        data = (np.arange(1, 2 * block * count + 1) * 37 % 251).astype(dtype)
        out = np.zeros_like(data)
        machine.run(kernel, 2, block, out, data)
        assert (out == data).all()


@_WIDTHS
def test_narrow_elements_are_extended_and_cut_in_every_register(machine: Machine, width: int) -> None:
    data = (np.arange(128) * 89 % 256).astype(np.uint8)
    for kind, dtype in (("u8", np.uint8), ("s8", np.int8), ("u16", np.uint16), ("s16", np.int16)):
        size = np.dtype(dtype).itemsize
        for register, wide in (("%rs1", "u16"), ("%r9", "u32"), ("%rd9", "u64")):
            widen = f"cvt.u64.{wide} %rd10, {register};" if wide != "u64" else f"mov.u64 %rd10, {register};"
            body = f"""
    ld.param.u64 %rd3, [data];
    mul.wide.u32 %rd4, %r2, {size};
    add.s64 %rd5, %rd3, %rd4;
    ld.global.{kind} {register}, [%rd5];
    {widen}
    st.global.u64 [%rd2], %rd10;
    add.{wide} {register}, {register}, 200;
    st.global.{kind} [%rd5], {register};
            """
            work = data.copy()
            out = found(machine, width, body, work, block=64, dtype=np.uint64, parameters="u64 data")
            values = data.view(dtype)[:64].astype(np.int64)
            bits = {"u16": 16, "u32": 32, "u64": 64}[wide]
            assert out.tolist() == [value % (1 << bits) for value in values.tolist()], (kind, wide)
            assert (work.view(dtype)[:64] == (values + 200).astype(dtype)).all(), (kind, wide)
            assert (work[64 * size :] == data[64 * size :]).all()


@_WIDTHS
@pytest.mark.parametrize("kind", ["u8", "u16", "u32", "u64"])
def test_uniform_and_linear_values_are_stored_for_each_lane(machine: Machine, width: int, kind: str) -> None:
    """Of a value that all lanes share, of one that grows by lanes, and of a constant."""
    dtype = np.dtype(f"u{int(kind[1:]) // 8}")
    register = "%rd7" if kind == "u64" else "%r7"
    wide = "cvt.u64.u32 %rd7, %r7;" if kind == "u64" else ""
    for value, expected in (("mov.u32 %r7, %r3;", 37), ("mad.lo.u32 %r7, %r1, 9, 3;", 9 * _X + 3)):
        body = f"{value}\n    {wide}\n    st.global.{kind} [%rd2], {register};"
        assert (found(machine, width, body, dtype=dtype) == np.broadcast_to(expected, 37).astype(dtype)).all()
    out = found(machine, width, f"st.global.{kind} [%rd2], 77;", dtype=dtype)
    assert (out == 77).all()


@_WIDTHS
@pytest.mark.parametrize("step", [1, 2, 3, -1, 0])
def test_elements_apart_backwards_and_at_one_place(machine: Machine, width: int, step: int) -> None:
    body = f"""
    ld.param.u64 %rd3, [data];
    mad.lo.s32 %r7, %r1, {step}, {40 if step < 0 else 0};
    mul.wide.s32 %rd4, %r7, 4;
    add.s64 %rd5, %rd3, %rd4;
    ld.global.u32 %r8, [%rd5+4];
    st.global.u32 [%rd2], %r8;
    """
    data = np.arange(1000, 1200, dtype=np.uint32)
    out = found(machine, width, body, data, parameters="u64 data")
    assert (out == data[1 + (40 if step < 0 else 0) + step * _X]).all()


@_WIDTHS
@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("kind", ["u8", "u32", "u64"])
def test_the_last_lane_of_all_that_write_one_place_wins(machine: Machine, width: int, space: str, kind: str) -> None:
    registers, loaded = ("%rd8", "%rd9") if kind == "u64" else ("%r8", "%r9")
    for guard, last in (("", 36), ("@%p1 ", 36), ("@!%p1 ", 35)):
        place = "%rd5" if space == "global" else "%rd6"
        body = f"""
    ld.param.u64 %rd5, [data];
    mov.u64 %rd6, buffer;
    and.b32 %r7, %r1, 1;
    setp.eq.u32 %p1, %r7, 0;
    add.u32 %r8, %r1, 100;
    cvt.u64.u32 %rd8, %r8;
    {guard}st.{space}.{kind} [{place}], {registers};
    ld.{space}.{kind} {loaded}, [{place}];
    st.global.{kind} [%rd5+8], {loaded};
        """
        data = np.zeros(4, np.uint64)
        found(machine, width, body, data, parameters="u64 data", before=".shared .align 8 .b8 buffer[8];")
        assert data[1] == 100 + last, guard


@_WIDTHS
def test_lanes_that_write_overlapping_places_write_in_their_order(machine: Machine, width: int) -> None:
    """Three of four neighbours write the same word, the fourth one the half word next to it."""
    body = """
    ld.param.u64 %rd5, [data];
    shr.u32 %r7, %r1, 2;
    mul.wide.u32 %rd6, %r7, 8;
    add.s64 %rd7, %rd5, %rd6;
    and.b32 %r8, %r1, 3;
    setp.ne.u32 %p1, %r8, 3;
    @%p1 st.global.u32 [%rd7], %r1;
    @!%p1 st.global.u16 [%rd7+4], %r1;
    """
    data = np.zeros(20, np.uint32)
    found(machine, width, body, data, parameters="u64 data")
    expected = np.zeros(20, np.uint32)
    for lane in range(37):
        expected[lane // 4 * 2 + (lane % 4 == 3)] = lane
    assert (data == expected).all()


@_WIDTHS
def test_lanes_read_what_lanes_before_them_wrote_only_after_all_did(machine: Machine, width: int) -> None:
    """Each thread moves its element one to the right: an instruction at a time within a strip, so reads come first."""
    body = """
    ld.global.u32 %r8, [%rd2];
    add.u32 %r8, %r8, %r1;
    st.global.u32 [%rd2], %r8;
    ld.global.u32 %r9, [%rd2];
    add.u32 %r9, %r9, 1;
    st.global.u32 [%rd2], %r9;
    """
    assert (found(machine, width, body, block=64) == 100 + np.arange(64)).all()


@_WIDTHS
@pytest.mark.parametrize("block", [37, 64])
def test_local_variables_are_each_lane_s_own_by_any_address(machine: Machine, width: int, block: int) -> None:
    body = """
    .local .align 8 .b8 own[24];
    mov.u64 %rd5, own;
    cvta.local.u64 %rd6, %rd5;
    mul.lo.u32 %r7, %r1, 11;
    st.local.u32 [%rd5], %r7;
    st.u32 [%rd6+4], %r1;
    and.b32 %r8, %r1, 1;
    mul.wide.u32 %rd7, %r8, 4;
    add.s64 %rd8, %rd6, %rd7;
    ld.u32 %r9, [%rd8];
    st.local.u16 [own+22], %r1;
    ld.local.u16 %r10, [%rd5+22];
    mad.lo.u32 %r9, %r10, 1000, %r9;
    st.global.u32 [%rd2], %r9;
    """
    lanes = np.arange(block)
    out = found(machine, width, body, block=block)
    assert (out == np.where(lanes % 2, lanes, 11 * lanes) + 1000 * lanes).all()


@_WIDTHS
@pytest.mark.parametrize("block", [37, 64])
def test_generic_addresses_reach_shared_and_global_memory(machine: Machine, width: int, block: int) -> None:
    body = """
    mov.u64 %rd5, buffer;
    cvta.shared.u64 %rd6, %rd5;
    mul.wide.u32 %rd7, %r1, 4;
    add.s64 %rd8, %rd6, %rd7;
    mul.lo.u32 %r7, %r1, 3;
    st.u32 [%rd8], %r7;
    add.s64 %rd9, %rd5, %rd7;
    ld.shared.u32 %r8, [%rd9];
    st.u32 [%rd2], %r8;
    ld.u32 %r9, [%rd2];
    ld.u32 %r10, [%rd8];
    add.u32 %r9, %r9, %r10;
    st.u32 [%rd2], %r9;
    """
    out = found(machine, width, body, block=block, before=".shared .align 4 .b8 buffer[256];")
    assert (out == 6 * np.arange(block)).all()


# --- guards ---------------------------------------------------------------------------------------------------


@_WIDTHS
@pytest.mark.parametrize("kept", [0, 1, 7, 16, 36])
@pytest.mark.parametrize("kind", ["ld.global.u32 %r8, [%rd5]", "st.global.u32 [%rd5], %r1"])
def test_a_guard_keeps_lanes_from_what_is_past_the_end(machine: Machine, width: int, kept: int, kind: str) -> None:
    body = f"""
    ld.param.u64 %rd3, [data];
    sub.s64 %rd4, %rd2, %rd1;
    add.s64 %rd5, %rd3, %rd4;
    mov.u32 %r8, 5;
    setp.lt.u32 %p1, %r1, {kept};
    @%p1 {kind};
    st.global.u32 [%rd2], %r8;
    """
    text = text_of(body, parameters="u64 data")
    out = np.full(37, 9, np.uint32)
    machine.run(compiled(text, width=width), 1, 37, out, _PAGE - 4 * kept, guest_pages=1)
    assert (out == np.where((kept > _X) & ("ld" in kind), 0, 5)).all()


@_WIDTHS
def test_a_load_at_one_address_is_made_only_where_a_lane_s_guard_holds(machine: Machine, width: int) -> None:
    text = text_of(
        """
    ld.param.u64 %rd3, [data];
    ld.param.u32 %r9, [who];
    mov.u32 %r8, 5;
    setp.eq.u32 %p1, %r1, %r9;
    @%p1 ld.global.u32 %r8, [%rd3];
    st.global.u32 [%rd2], %r8;
    """,
        parameters="u64 data, u32 who",
    )
    kernel = compiled(text, width=width)
    out = np.zeros(37, np.uint32)
    machine.run(kernel, 1, 37, out, 1 << 40, np.uint32(100))
    assert (out == 5).all()
    data = np.array([77], np.uint32)
    machine.run(kernel, 1, 37, out, data, np.uint32(23))
    assert (out == np.where(_X == 23, 77, 5)).all()
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, 1, 37, out, 1 << 40, np.uint32(23))
    assert (caught.value.thread, caught.value.line) == (23, line_of(text, "@%p1 ld"))
    assert caught.value.fault == Fault.ADDRESS


# --- faults ---------------------------------------------------------------------------------------------------


@_WIDTHS
@pytest.mark.parametrize("move", _MOVES)
@pytest.mark.parametrize("way", _WAYS)
def test_the_first_thread_past_the_end_of_memory_is_named(machine: Machine, width: int, move: str, way: str) -> None:
    dtype, count, _ = _MOVES[move]
    size = np.dtype(dtype).itemsize * count
    text = _copy_text(move, way)
    kernel = compiled(text, width=width)
    for block, whole in ((64, 0), (64, 13), (64, 64 + 48), (37, 15), (37, 16), (37, 36), (37, 37)):
        for at, arguments in (
            ("ld.global", (ARRAYS_AT, _PAGE - size * whole)),
            ("st.global", (_PAGE - size * whole, ARRAYS_AT)),
        ):
            with pytest.raises(LaunchFault) as caught:
                machine.run(kernel, 2, block, *arguments, guest_pages=1)
            error = caught.value
            assert (error.block, error.thread) == ((whole // block, 0, 0), whole % block), (block, whole, at)
            assert error.line == line_of(text, at), (block, whole, at)
        machine.run(kernel, 2, block, ARRAYS_AT, _PAGE - size * 2 * block, guest_pages=1)  # to the very end


@_WIDTHS
@pytest.mark.parametrize("way", _WAYS)
def test_an_address_of_wrong_alignment_is_its_first_thread_s_fault(machine: Machine, width: int, way: str) -> None:
    for move, wrong in (("u16", 1), ("b32", 2), ("u64", 4), ("v2.u32", 4), ("v4.f32", 8)):
        text = _copy_text(move, way)
        with pytest.raises(LaunchFault) as caught:
            machine.run(compiled(text, width=width), 1, 64, ARRAYS_AT, ARRAYS_AT + 4096 + wrong, guest_pages=1)
        error = caught.value
        assert (error.fault, error.thread, error.line) == (Fault.MISALIGNED, 0, line_of(text, "ld.global")), move


@_WIDTHS
@pytest.mark.parametrize("offset", [-2, 2, 6])
def test_of_two_accesses_near_each_other_the_misaligned_one_faults(machine: Machine, width: int, offset: int) -> None:
    text = text_of(
        f"""
    ld.param.u64 %rd3, [data];
    mul.wide.u32 %rd4, %r2, 4;
    add.s64 %rd5, %rd3, %rd4;
    ld.global.u32 %r8, [%rd5];
    ld.global.u32 %r9, [%rd5+{offset}];
    add.u32 %r8, %r8, %r9;
    st.global.u32 [%rd2], %r8;
    """,
        parameters="u64 data",
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(text, width=width), 1, 64, ARRAYS_AT, ARRAYS_AT + 4096, guest_pages=1)
    error = caught.value
    assert (error.fault, error.thread, error.line) == (Fault.MISALIGNED, 0, line_of(text, f"[%rd5+{offset}]"))


@_WIDTHS
@pytest.mark.parametrize(
    "access", ["ld.shared.u32 %r8, [%r10]", "st.shared.u32 [%r10], %r1", "ld.shared.u8 %r8, [%r10]"]
)
@pytest.mark.parametrize("block", [32, 37])
def test_shared_memory_ends_where_it_does(machine: Machine, width: int, access: str, block: int) -> None:
    size = 1 if "u8" in access else 4
    text = text_of(
        f"""
    mov.u32 %r9, buffer;
    mad.lo.u32 %r10, %r1, {size}, %r9;
    mov.u32 %r8, 0;
    {access};
    st.global.u32 [%rd2], %r8;
    """,
        before=".extern .shared .align 16 .b8 buffer[];",
    )
    kernel = compiled(text, width=width)
    out = np.ones(block, np.uint32)
    machine.run(kernel, 1, block, out, shared_bytes=size * block)
    assert not out.any()
    for whole in (0, 5, 16, block - 1):
        for rest in range(size):
            with pytest.raises(LaunchFault) as caught:
                machine.run(kernel, 1, block, out, shared_bytes=size * whole + rest)
            error = caught.value
            assert (error.fault, error.thread, error.line) == (Fault.ADDRESS, whole, line_of(text, access)), whole


@_WIDTHS
def test_an_index_below_the_start_of_memory_is_named(machine: Machine, width: int) -> None:
    """Threads 0 to 4 are below address 0; the last one that is comes out above 2^63."""
    text = text_of(
        """
    ld.param.u64 %rd3, [data];
    sub.s32 %r7, 20, %r1;
    mul.wide.s32 %rd4, %r7, 4;
    add.s64 %rd5, %rd3, %rd4;
    ld.global.u32 %r8, [%rd5];
    st.global.u32 [%rd2], %r8;
    """,
        parameters="u64 data",
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(text, width=width), 1, 37, np.zeros(37, np.uint32), 0)
    error = caught.value
    assert (error.fault, error.thread, error.line) == (Fault.ADDRESS, 21, line_of(text, "ld.global"))


@_WIDTHS
@pytest.mark.parametrize("block", [32, 37])
def test_an_index_that_wraps_within_a_strip_reaches_for_both_ends(machine: Machine, width: int, block: int) -> None:
    """A 32-bit byte offset goes from 2^32 - 8 over to 0: the first lanes are 4 GiB away from the others."""
    text = text_of(
        """
    ld.param.u64 %rd3, [data];
    mad.lo.u32 %r7, %r1, 4, -8;
    cvt.u64.u32 %rd4, %r7;
    add.s64 %rd5, %rd3, %rd4;
    setp.gt.u32 %p1, %r1, 1;
    GUARD ld.global.u32 %r8, [%rd5];
    st.global.u32 [%rd2], %r8;
    """,
        parameters="u64 data",
    )
    data = np.arange(50, 50 + block, dtype=np.uint32)
    out = np.zeros(block, np.uint32)
    machine.run(compiled(text.replace("GUARD", "@%p1"), width=width), 1, block, out, data)
    assert (out[2:] == data[:-2]).all()
    bad = text.replace("GUARD", "")
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(bad, width=width), 1, block, out, data)
    error = caught.value
    assert (error.fault, error.thread, error.line) == (Fault.ADDRESS, 0, line_of(bad, "ld.global"))
    # The other way around: the first lanes are inside of memory, the others 4 GiB below.
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(bad, width=width), 1, block, ARRAYS_AT, ARRAYS_AT + 4096 - (2**32 - 8), guest_pages=1)
    error = caught.value
    assert (error.fault, error.thread, error.line) == (Fault.ADDRESS, 2, line_of(bad, "ld.global"))


@_WIDTHS
def test_a_base_near_2_to_the_64_wraps_around_to_the_start_lane_by_lane(machine: Machine, width: int) -> None:
    text = kernel_text(
        """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r1;
    ret;
"""
    )
    for start in (-4, -8, -64):
        with pytest.raises(LaunchFault) as caught:
            machine.run(compiled(text, width=width), 1, 32, start, guest_pages=1)
        assert (caught.value.fault, caught.value.thread) == (Fault.ADDRESS, 0), start
