"""Records of kernels as text, from buffers that kernels may have damaged."""

from __future__ import annotations

import random
import struct
import sys

import numpy as np
import pytest

import tensor_wasm
from tensor_wasm.compiler import HEAD_BYTES, CompiledKernel, RecordBuffer
from tensor_wasm.compiler.records import Record
from tensor_wasm.device.printed import Printed, take_printed

BASE = 4096
RECORDS = (
    Record("print", b"%d %s\n", (4, 8)),
    Record("text", b"", (8,)),
    Record("assert", b"", (8, 8, 4, 8, *(4,) * 6)),
)
BUFFER = RecordBuffer(64, 1024, 32, RECORDS)
CONSTANTS = b"one\0two\0a.cu\0".ljust(32, b"z")
HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"


def kernel() -> CompiledKernel:
    return CompiledKernel(b"", "k", (), 0, 2048, None, None, (), records=BUFFER)


def region(*records: bytes, dropped: int = 0) -> bytearray:
    found = bytearray(2048)
    found[: len(CONSTANTS)] = CONSTANTS
    content = b"".join(records)
    struct.pack_into("<II", found, 64, len(content), dropped)
    found[64 + HEAD_BYTES : 64 + HEAD_BYTES + len(content)] = content
    return found


def line(number: int, address: int) -> bytes:
    return struct.pack("<IIQ", 0, number, address)


def at(place: int) -> int:
    return 1 << 32 | BASE + place


def taken(content: bytearray, limit_bytes: int = 10_000) -> Printed:
    return take_printed(kernel(), memoryview(content), BASE, limit_bytes)


def test_records_become_text_once() -> None:
    content = region(line(7, at(0)), line(8, at(4)), struct.pack("<IQ", 1, at(8)))
    assert taken(content) == Printed(b"7 one\n8 two\na.cu")
    assert taken(content) == Printed(b"")


@pytest.mark.parametrize("address", [5, at(32), at(-1), 2 << 32 | BASE, (1 << 64) - 1, BASE])
def test_strings_that_are_no_constants_are_shown_as_addresses(address: int) -> None:
    assert taken(region(line(7, address))).text == f"7 (string at {address:#x})\n".encode()


def test_a_null_string_and_one_without_an_end() -> None:
    assert taken(region(line(7, 0), line(8, at(20)))).text == b"7 (null)\n8 zzzzzzzzzzzz\n"


def test_a_failed_assertion_is_named() -> None:
    record = struct.pack("<IQQIQ6I", 2, at(0), at(8), 12, at(4), 1, 2, 3, 4, 5, 6)
    assert taken(region(line(7, at(0)), record)) == Printed(
        b"7 one\na.cu:12: two: block: [1,2,3], thread: [4,5,6] Assertion `one` failed.\n",
        "assertion `one` failed at a.cu:12",
    )
    assert taken(region(line(7, at(0)), record), 0).assertion == "assertion `one` failed at a.cu:12"


def test_what_is_dropped_is_said() -> None:
    assert taken(region(dropped=1)).text == b"[kernel k: 1 record that it printed was dropped: there was no room]\n"
    many = region(*[line(n, at(0)) for n in range(50)], dropped=3)
    *lines, last = taken(many, 20).text.splitlines()
    assert lines == [b"0 one", b"1 one", b"2 one", b"3 one"]
    assert last == b"[kernel k: 49 records that it printed were dropped: there was no room]"


@pytest.mark.parametrize("used", [1, 3, 15, 17, 1025, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_damaged_length_harms_nobody(used: int) -> None:
    content = region(line(7, at(0)))
    struct.pack_into("<I", content, 64, used)
    assert taken(content).text.startswith(b"7 one\n" if used >= 16 else b"")


def test_damaged_records_harm_nobody() -> None:
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    for _ in range(300):
        content = region()
        content[64:] = choose.randbytes(len(content) - 64)
        for place in range(64 + HEAD_BYTES, 1000, 16):
            content[place : place + 4] = struct.pack("<I", choose.randrange(4))
        assert len(taken(content, 500).text) < 5000, seed


# --- in a Python program -----------------------------------------------------------------------------------

PRINTING = (
    HEADING
    + """.extern .func (.param .b32 o) vprintf(.param .b64 a, .param .b64 b);
.global .b8 plain[6] = {104, 105, 37, 100, 10};
.entry known() { .reg .b64 d, e; .local .align 8 .b8 values[8]; .reg .b32 r;
mov.u64 d, plain; cvta.global.u64 d, d; mov.u64 e, values; cvta.local.u64 e, e; st.local.b32 [values], 5;
call (r), vprintf, (d, e); ret; }
.entry unknown(.param .u64 far) { .reg .b64 d, e; .reg .b32 r; ld.param.u64 d, [far];
call (r), vprintf, (d, 0); mov.u64 e, plain; call (r), vprintf, (e, 0x100000000000); ret; }
.entry computed(.param .u64 out) { .reg .b64 d, e; .reg .b32 r; mov.u64 d, plain; ld.param.u64 e, [out];
mul.lo.s64 d, d, 1; call (r), vprintf, (d, e); st.global.b32 [e], r; ret; }
.global .b8 other[7] = {104, 97, 32, 37, 100, 10};
.entry either(.param .u64 out) { .reg .b64 d, e, o; .local .align 8 .b8 values[8]; .reg .b32 r, s; .reg .pred p;
mov.u64 d, plain; mov.u64 o, other; mov.u64 e, values; mov.u32 r, %tid.x; st.local.b32 [values], r;
and.b32 s, r, 1; setp.eq.u32 p, s, 0; @p bra E; call (s), vprintf, (o, e); ret;
E: call (s), vprintf, (d, e); ret; }
.entry meet() { .reg .b64 d, e; .local .align 8 .b8 values[8]; .reg .b32 r; .reg .pred p; mov.u64 d, plain;
mov.u64 e, values; mov.u32 r, %tid.x; st.local.b32 [values], r; setp.gt.u32 p, r, 1; @p call (_), vprintf, (d, e);
bar.sync 0; @!p call (_), vprintf, (d, e); ret; }
.entry stop(.param .u32 n) { .reg .b64 d, e; .local .align 8 .b8 values[8]; .reg .b32 r;
mov.u64 d, plain; mov.u64 e, values; ld.param.u32 r, [n]; st.local.b32 [values], r;
call (_), vprintf, (d, e); trap; }
"""
)


def test_a_program_without_stderr_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    with tensor_wasm.open_device("cpu") as device:
        kernel = device.load_ptx(PRINTING, "known")
        monkeypatch.setattr(sys, "stderr", None)
        kernel.launch(1, 1)


def test_threads_that_part_print_each_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with tensor_wasm.open_device("cpu") as device:
        device.load_ptx(PRINTING, "either").launch(1, 50, [np.zeros(1)])
        lines = capsys.readouterr().err.splitlines()
        assert sorted(lines) == sorted(f"ha {n}" if n % 2 else f"hi{n}" for n in range(50))


def test_threads_that_wait_for_each_other_print_in_between(capsys: pytest.CaptureFixture[str]) -> None:
    with tensor_wasm.open_device("cpu") as device:
        device.load_ptx(PRINTING, "meet").launch(1, 4)
        assert capsys.readouterr().err == "hi2\nhi3\nhi0\nhi1\n"


def test_what_was_printed_before_a_fault_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with tensor_wasm.open_device("cpu") as device:
        kernel = device.load_ptx(PRINTING, "stop")
        for number in (3, 4):
            with pytest.raises(tensor_wasm.errors.KernelFault, match="trap instruction"):
                kernel.launch(1, 1, [np.uint32(number)])
            assert capsys.readouterr().err == f"hi{number}\n"


def test_a_format_that_is_not_known_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with tensor_wasm.open_device("cpu") as device:
        out = np.full(1, 9, np.int32)
        device.load_ptx(PRINTING, "computed").launch(1, 1, [out])
        assert capsys.readouterr().err == "hi%d\n"
        assert out[0] == 0
        with pytest.raises(tensor_wasm.errors.KernelFault):  # the second format is known, its values are nowhere
            device.load_ptx(PRINTING, "unknown").launch(1, 1, [np.uint64(0x123456)])
        assert capsys.readouterr().err == "(string at 0x123456)"
