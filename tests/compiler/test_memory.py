"""Loads, stores, spaces, and every way an address can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import ARRAYS_AT, LaunchFault, Machine
from compiler.text import compiled, kernel_text, line_of
from tensor_wasm.compiler import Fault
from tensor_wasm.errors import PtxError

_OUT = "    ld.param.u64 %rd1, [out];\n"
_PAGE = 65_536


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("u8", np.uint8), ("s8", np.int8), ("u16", np.uint16), ("s16", np.int16), ("u32", np.uint32),
        ("s32", np.int32), ("u64", np.uint64), ("s64", np.int64), ("b8", np.uint8), ("b16", np.uint16),
        ("b32", np.uint32), ("b64", np.uint64),
    ],
)  # fmt: skip
def test_a_load_extends_by_its_type_into_every_wider_register(machine: Machine, kind: str, dtype: type) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    body = _OUT + "    ld.param.u64 %rd2, [data];\n"
    place = 0
    for width, register in ((16, "%rs1"), (32, "%r1"), (64, "%rd3")):
        if width >= bits:
            body += f"    ld.global.{kind} {register}, [%rd2];\n"
            body += f"    st.global.b{width} [%rd1+{place}], {register};\n"
        place += 8
    kernel = compiled(kernel_text(body + "    ret;", "u64 out, u64 data"))
    for value in (0, 1, (1 << bits) - 1, 1 << (bits - 1), 0x8182_8384_8586_8788 & ((1 << bits) - 1)):
        out = np.zeros(3, np.uint64)
        data = np.frombuffer(value.to_bytes(8, "little"), dtype)[:1].copy()
        machine.run(kernel, 1, 1, out, data)
        wide = int(data[0])
        for place, width in enumerate((16, 32, 64)):
            assert int(out[place]) == (wide % (1 << width) if width >= bits else 0), (value, width)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_a_store_cuts_every_wider_register(machine: Machine, bits: int) -> None:
    body = _OUT + "    mov.b16 %rs1, 0x8182;\n    mov.b32 %r1, 0x91929394;\n    mov.b64 %rd2, 0xA1A2A3A4A5A6A7A8;\n"
    expected = bytearray(24)
    for place, (width, register, value) in enumerate(
        ((16, "%rs1", 0x8182), (32, "%r1", 0x91929394), (64, "%rd2", 0xA1A2A3A4A5A6A7A8))
    ):
        if width >= bits:
            body += f"    st.global.u{bits} [%rd1+{8 * place}], {register};\n"
            expected[8 * place : 8 * place + bits // 8] = value.to_bytes(8, "little")[: bits // 8]
    out = np.zeros(24, np.uint8)
    machine.run(compiled(kernel_text(body + "    ret;")), 1, 1, out)
    assert out.tobytes() == bytes(expected)


def test_constants_and_addresses_can_be_stored(machine: Machine) -> None:
    body = (
        _OUT
        + """
    st.global.u8 [%rd1], 200;
    st.global.s16 [%rd1+2], -2;
    st.global.u32 [%rd1+4], 0xDEADBEEF;
    st.global.f32 [%rd1+8], 0f3FC00000;
    st.global.u32 [%rd1+12], %ntid.x;
    st.global.f64 [%rd1+16], 0d3FF8000000000000;
    ret;"""
    )
    out = np.zeros(24, np.uint8)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert out[0] == 200
    assert out[2:4].view(np.int16)[0] == -2
    assert list(out[4:8].view(np.uint32)) == [0xDEADBEEF]
    assert out[8:12].view(np.float32)[0] == 1.5
    assert out[12:16].view(np.uint32)[0] == 1
    assert out[16:24].view(np.float64)[0] == 1.5


def test_vectors_move_their_elements_in_order(machine: Machine) -> None:
    body = (
        _OUT
        + """    ld.param.u64 %rd2, [data];
    ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd2];
    st.global.v4.f32 [%rd1], {%f4, %f3, %f2, %f1};
    ld.global.v2.u64 {%rd5, %rd6}, [%rd2+16];
    st.global.v2.b64 [%rd1+16], {%rd6, %rd5};
    ld.global.v4.u8 {%r1, %r2, %r3, %r4}, [%rd2+32];
    st.global.v4.u16 [%rd1+32], {%r1, %r2, %r3, %r4};
    ld.global.v2.u32 {_, %r5}, [%rd2+40];
    st.global.u32 [%rd1+40], %r5;
    ret;"""
    )
    data = np.arange(1, 49, dtype=np.uint8)
    out = np.zeros(48, np.uint8)
    machine.run(compiled(kernel_text(body, "u64 out, u64 data")), 1, 1, out, data)
    assert list(out[:16].view(np.uint32)) == list(data[:16].view(np.uint32)[::-1])
    assert list(out[16:32].view(np.uint64)) == list(data[16:32].view(np.uint64)[::-1])
    assert list(out[32:40].view(np.uint16)) == list(data[32:36])
    assert out[40:44].view(np.uint32)[0] == data[44:48].view(np.uint32)[0]


def test_a_vector_load_may_overwrite_its_own_address(machine: Machine) -> None:
    body = (
        _OUT
        + """    ld.param.u64 %rd2, [data];
    ld.global.v2.u64 {%rd2, %rd3}, [%rd2];
    st.global.v2.u64 [%rd1], {%rd2, %rd3};
    ret;"""
    )
    out, data = np.zeros(2, np.uint64), np.array([5, 6], np.uint64)
    machine.run(compiled(kernel_text(body, "u64 out, u64 data")), 1, 1, out, data)
    assert list(out) == [5, 6]


def test_a_load_that_its_guard_turns_off_leaves_the_register_and_checks_no_address(machine: Machine) -> None:
    body = (
        _OUT
        + """
    mov.u32 %r1, %tid.x;
    setp.eq.u32 %p1, %r1, 1;
    mov.u32 %r2, 77;
    mov.u64 %rd2, 3;
    @%p1 mov.u64 %rd2, %rd1;
    @%p1 ld.global.u32 %r2, [%rd2];
    mul.wide.u32 %rd3, %r1, 4;
    add.u64 %rd4, %rd1, %rd3;
    st.global.u32 [%rd4+8], %r2;
    @!%p1 st.global.u32 [%rd4+16], %r2;
    ret;"""
    )
    out = np.array([9, 0, 0, 0, 0, 0], np.uint32)
    machine.run(compiled(kernel_text(body)), 1, 2, out)
    assert list(out) == [9, 0, 77, 9, 77, 0]


def test_parameters_of_every_kind_are_read(machine: Machine) -> None:
    body = (
        _OUT
        + """
    ld.param.u8 %rs1, [a];
    ld.param.s16 %r1, [b];
    ld.param.f32 %f1, [c];
    ld.param.f64 %fd1, [d];
    ld.param.v2.u32 {%r2, %r3}, [e+8];
    ld.param.b8 %rs2, [e+3];
    st.global.u16 [%rd1], %rs1;
    st.global.u32 [%rd1+4], %r1;
    st.global.f32 [%rd1+8], %f1;
    st.global.f64 [%rd1+16], %fd1;
    st.global.v2.u32 [%rd1+24], {%r3, %r2};
    st.global.u8 [%rd1+32], %rs2;
    ret;"""
    )
    text = kernel_text(body, "u64 out, u8 a, s16 b, f32 c, f64 d").replace(
        ".param .f64 d)", ".param .f64 d, .param .align 8 .b8 e[16])"
    )
    kernel = compiled(text)
    assert [(p.name, p.kind, p.size_bytes) for p in kernel.parameters][3:] == [
        ("c", "f32", 4), ("d", "f64", 8), ("e", "b8[16]", 16),
    ]  # fmt: skip
    out = np.zeros(40, np.uint8)
    machine.run(kernel, 1, 1, out, 255, -3, 1.5, 2.5, bytes(range(16)))
    assert out[:2].view(np.uint16)[0] == 255
    assert out[4:8].view(np.int32)[0] == -3
    assert out[8:12].view(np.float32)[0] == 1.5
    assert out[16:24].view(np.float64)[0] == 2.5
    assert out[24:32].tobytes() == bytes((12, 13, 14, 15, 8, 9, 10, 11))
    assert out[32] == 3


def test_more_parameters_than_have_locals_are_read(machine: Machine) -> None:
    count = 100
    body = _OUT + "".join(
        f"    ld.param.u32 %r1, [p{i}];\n    st.global.u32 [%rd1+{4 * i}], %r1;\n" for i in range(count)
    )
    kernel = compiled(kernel_text(body + "    ret;", "u64 out, " + ", ".join(f"u32 p{i}" for i in range(count))))
    out = np.zeros(count, np.uint32)
    machine.run(kernel, 1, 1, out, *range(7, 7 + count))
    assert list(out) == list(range(7, 7 + count))


def test_a_parameter_can_be_read_through_its_address_and_no_further(machine: Machine) -> None:
    body = (
        _OUT
        + """
    ld.param.u64 %rd2, [index];
    mov.b64 %rd3, s;
    add.u64 %rd4, %rd3, %rd2;
    ld.param.u32 %r1, [%rd4];
    cvta.param.u64 %rd5, %rd4;
    ld.u32 %r2, [%rd5];
    st.global.v2.u32 [%rd1], {%r1, %r2};
    ret;"""
    )
    text = kernel_text(body, "u64 out, u64 index").replace("u64 index)", "u64 index, .param .align 4 .b8 s[12])")
    kernel = compiled(text)
    out = np.zeros(2, np.uint32)
    machine.run(kernel, 1, 1, out, 8, np.array([1, 2, 3], np.uint32).tobytes())
    assert list(out) == [3, 3]
    for index, fault in ((12, Fault.ADDRESS), (-20, Fault.ADDRESS), (2, Fault.MISALIGNED), (1 << 32, Fault.ADDRESS)):
        with pytest.raises(LaunchFault) as caught:
            machine.run(kernel, 1, 1, out, index, bytes(12))
        assert caught.value.fault == fault
        assert caught.value.line == line_of(text, "ld.param.u32")


def test_a_parameter_cannot_be_written(machine: Machine) -> None:
    body = _OUT + "    mov.b64 %rd3, out;\n    mov.u64 %rd4, 0;\n    st.u64 [%rd3], %rd4;\n    ret;"
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(kernel_text(body)), 1, 1, np.zeros(1, np.uint64))
    assert caught.value.fault == Fault.ADDRESS


# --- addresses that are wrong --------------------------------------------------------------------------------

_FAULTS = [
    ("first byte past the end", _PAGE, "u8", Fault.NONE),
    ("last bytes past the end", _PAGE, "u32", Fault.NONE),
    ("the end of 32 bits", 0xFFFF_FFF8, "u64", Fault.NONE),
    ("high half", 1 << 32, "u32", Fault.ADDRESS),
    ("high half and misaligned", (1 << 32) + 1, "u32", Fault.ADDRESS),
    ("high half 2", (2 << 32) + 64, "u32", Fault.ADDRESS),
    ("top bit", 1 << 63, "u8", Fault.ADDRESS),
    ("minus four", -4, "u32", Fault.ADDRESS),
    ("misaligned by one", 65, "u32", Fault.MISALIGNED),
    ("misaligned 16", 65, "u16", Fault.MISALIGNED),
    ("misaligned 64", 68, "u64", Fault.MISALIGNED),
    ("misaligned vector", 68, "v2.u32", Fault.MISALIGNED),
    ("misaligned wide vector", 72, "v4.u32", Fault.MISALIGNED),
]


def _access(kind: str, is_load: bool, space: str) -> str:
    registers = {"u64": "%rd3", "v2.u32": "{%r1, %r2}", "v4.u32": "{%r1, %r2, %r3, %r4}"}.get(kind, "%r1")
    return f"ld{space}.{kind} {registers}, [%rd2];" if is_load else f"st{space}.{kind} [%rd2], {registers};"


@pytest.mark.parametrize("has_window", [False, True])
@pytest.mark.parametrize("is_load", [False, True])
@pytest.mark.parametrize(("name", "address", "kind", "fault"), _FAULTS)
def test_a_wrong_address_says_where(
    machine: Machine, name: str, address: int, kind: str, fault: Fault, is_load: bool, has_window: bool
) -> None:
    # The thread with number 5 of block (1, 2, 0) is the one that goes wrong.
    body = """
    ld.param.u64 %rd1, [good];
    ld.param.u64 %rd2, [bad];
    mov.u32 %r5, %tid.x;
    mov.u32 %r6, %tid.y;
    setp.eq.u32 %p1, %r5, 1;
    setp.eq.and.u32 %p1, %r6, 1, %p1;
    mov.u32 %r7, %ctaid.x;
    mov.u32 %r8, %ctaid.y;
    setp.eq.and.u32 %p1, %r7, 1, %p1;
    setp.eq.and.u32 %p1, %r8, 2, %p1;
    @!%p1 mov.u64 %rd2, %rd1;
    mov.u32 %r1, 0; mov.u32 %r2, 0; mov.u32 %r3, 0; mov.u32 %r4, 0; mov.u64 %rd3, 0;
    """
    before = ""
    if has_window:
        before = ".global .u32 table[4];"
        body += "mov.u64 %rd9, table;\n    st.global.u64 [%rd1+16], %rd9;\n    "
    text = kernel_text(body + _access(kind, is_load, ".global") + "\n    ret;", "u64 good, u64 bad", before=before)
    kernel = compiled(text)
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, (2, 3), (4, 2), 32, address, guest_pages=1)
    assert caught.value.fault == fault, name
    assert caught.value.thread == 5
    assert caught.value.block == (1, 2, 0)
    assert caught.value.line == line_of(text, _access(kind, is_load, ".global"))


@pytest.mark.parametrize("mask", [0, 3])
def test_local_variables_and_constants_have_addresses_of_32_bits_too(machine: Machine, mask: int) -> None:
    body = f"""
    .local .align 4 .b8 places[32];
    mov.u32 %r1, %tid.x;
    and.b32 %r2, %r1, {mask};
    shl.b32 %r2, %r2, 2;
    mov.u32 %r3, places;
    add.u32 %r3, %r3, %r2;
    st.local.u32 [%r3+4], %r1;
    ld.local.u32 %r4, [%r3+4];
    mov.u32 %r5, table;
    add.u32 %r5, %r5, %r2;
    ld.const.u32 %r6, [%r5];
    mad.lo.u32 %r4, %r6, 1000, %r4;
    mul.wide.u32 %rd2, %r1, 4;
    ld.param.u64 %rd1, [out];
    add.u64 %rd1, %rd1, %rd2;
    st.global.u32 [%rd1], %r4;
    ret;"""
    text = kernel_text(body).replace(".visible", ".const .align 4 .b32 table[4] = {5, 6, 7, 8};\n.visible", 1)
    out, thread = np.zeros(40, np.uint32), np.arange(40)
    machine.run(compiled(text), 1, 40, out)
    assert (out == thread + 1000 * (5 + (thread & mask))).all()


def test_the_last_bytes_of_guest_memory_can_be_used(machine: Machine) -> None:
    body = _OUT + "    ld.global.u32 %r1, [%rd1];\n    add.u32 %r1, %r1, 1;\n    st.global.u32 [%rd1], %r1;\n    ret;"
    machine.run(compiled(kernel_text(body)), 1, 1, _PAGE - 4, guest_pages=1)


def test_an_offset_counts_before_the_check(machine: Machine) -> None:
    body = (
        _OUT
        + """
    st.global.u32 [%rd1+-4], 5;
    add.u64 %rd2, %rd1, 0x100000000;
    st.global.u32 [%rd2-4294967296], 6;
    ret;"""
    )
    out = np.zeros(4, np.uint32)
    prepared = machine.prepare(compiled(kernel_text(body)), 1, 1, out)
    prepared.call()
    view = np.frombuffer(prepared.memory("memory"), np.uint32)
    assert list(view[ARRAYS_AT // 4 - 1 : ARRAYS_AT // 4 + 1]) == [5, 6]
    del view
    prepared.store.close()


def test_an_absolute_address_is_checked_like_any_other(machine: Machine) -> None:
    kernel = compiled(kernel_text("    st.global.u32 [64], 5;\n    ret;", ""))
    machine.run(kernel, 1, 1, guest_pages=1)
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, 1, 1, guest_pages=0)
    assert caught.value.fault == Fault.NONE


def test_a_trap_says_so(machine: Machine) -> None:
    body = "    mov.u32 %r1, %tid.x;\n    setp.eq.u32 %p1, %r1, 3;\n    @%p1 trap;\n    ret;"
    text = kernel_text(body, "")
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(text), 2, 8)
    assert caught.value.fault == Fault.TRAP
    assert caught.value.thread == 3
    assert caught.value.line == line_of(text, "trap;")


def test_a_store_to_a_parameter_is_refused() -> None:
    with pytest.raises(PtxError) as caught:
        compiled(kernel_text("    st.param.u64 [out], 0;\n    ret;"))
    assert caught.value.line > 0


def test_a_load_outside_the_parameters_is_refused() -> None:
    with pytest.raises(PtxError) as caught:
        compiled(kernel_text("    ld.param.u64 %rd1, [out+8];\n    ret;"))
    assert caught.value.line > 0
