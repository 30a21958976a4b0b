"""Kernels with calls, run: programs at random against Python, and what functions do that single threads cannot."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from compiler.calling import Programs
from compiler.launch import LaunchFault, Machine
from tensor_wasm.compiler import CompiledKernel, Fault, compile_kernel
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read, support
from tensor_wasm.runtime import Engine
from thinning import some

HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"


@pytest.fixture(scope="module")
def machine(engine: Engine) -> Machine:
    return Machine(engine)


def compiled(text: str) -> CompiledKernel:
    program = read(HEADING + text)
    return compile_kernel(program.kernels[0], program)


@pytest.mark.parametrize("seed", some(range(150), 15))
def test_random_programs_compute_what_python_says(machine: Machine, seed: int) -> None:
    made = Programs(seed)
    text = made.text
    program = read(text)
    assert support(program) == (), text
    out = np.zeros((40, 5), np.uint32)
    machine.run(compile_kernel(program.kernels[0], program), 1, 40, out)
    assert out.tolist() == [made.run(thread) for thread in range(40)], f"seed {seed}\n{text}"


@pytest.mark.parametrize("size", [2, 4, 8])
def test_any_part_of_an_argument_may_be_written_and_read(machine: Machine, size: int) -> None:
    """Every access of 1, 2, 4 or 8 bytes after every other, in registers and, with its address taken, in memory."""
    places = [(width, place) for width in (1, 2, 4, 8) if width <= size for place in range(0, size, width)]
    lines, expected = [], []
    whole = bytearray(size)
    for number, (width, place) in enumerate(places):
        value = 0xF1E2D3C4B5A69788 * (2 * number + 1) % (1 << 8 * width)
        whole[place : place + width] = value.to_bytes(width, "little")
        source = "f" if width == 4 and number % 2 else "w"
        lines += [f"mov.u64 w, {value};", *(["cvt.u32.u64 s, w; mov.b32 f, s;"] if source == "f" else [])]
        lines.append(f"st.param.b{8 * width} [a+{place}], {source};")
        for kind, (read_width, at) in product("us", places):
            lines.append(f"ld.param.{kind}{8 * read_width} w, [a+{at}]; st.global.u64 [d], w; add.s64 d, d, 8;")
            found = int.from_bytes(whole[at : at + read_width], "little", signed=kind == "s")
            expected.append(found % (1 << 64))
        if size >= 4:
            lines.append("ld.param.f32 f, [a]; st.global.f32 [d], f; add.s64 d, d, 8;")
            expected.append(int.from_bytes(whole[:4], "little"))
    for taken in ("", "mov.u64 w, a;"):
        kernel = compiled(
            ".entry k(.param .u64 out) { .reg .b64 d, w; .reg .b32 s; .reg .f32 f; .param .align 8 .b8 a[8];"
            f" ld.param.u64 d, [out]; st.param.b{8 * size} [a], 0;\n{taken}" + "\n".join(lines) + "ret; }"
        )
        out = np.zeros(len(expected), np.uint64)
        machine.run(kernel, 1, 1, out)
        assert out.tolist() == expected


def test_registers_of_every_type_are_arguments_and_results(machine: Machine) -> None:
    kinds = [
        "pred",
        "b16",
        "u16",
        "s16",
        "f16",
        "bf16",
        "b32",
        "u32",
        "s32",
        "f32",
        "f16x2",
        "b64",
        "u64",
        "s64",
        "f64",
    ]
    functions = "".join(
        f".func (.reg .{kind} o) r_{kind}(.reg .{kind} a) {{ mov.{_bits(kind)} o, a; ret; }}\n"
        + ("" if kind == "pred" else f".func (.param .{_bits(kind)} o) p_{kind}(.param .{_bits(kind)} a)"
           f" {{ .reg .{kind} x; ld.param.{_bits(kind)} x, [a]; st.param.{_bits(kind)} [o], x; ret; }}\n")
        for kind in kinds
    )  # fmt: skip
    lines = []
    for kind in kinds:
        calls = [f"call (x), r_{kind}, (x);"]
        if kind != "pred":
            calls.append(f"call (x), p_{kind}, (x);")
            calls.append(f"{{ .param .{_bits(kind)} v; call (v), r_{kind}, (x); call (x), r_{kind}, (v); }}")
        fill, width = ("setp.ne.b16 x, 1, 0;", 0) if kind == "pred" else (f"ld.global.{_bits(kind)} x, [d];", 1)
        store = f"st.global.{_bits(kind)} [d], x;" if width else "@x st.global.b8 [d], 0x7F;"
        lines.append(f"{{ .reg .{kind} x; {fill} {' '.join(calls)} {store} add.s64 d, d, 8; }}")
    kernel = compiled(
        f"{functions}.entry k(.param .u64 out) {{ .reg .b64 d; ld.param.u64 d, [out];\n" + "\n".join(lines) + "ret; }"
    )
    out = np.full(len(kinds), 0xF1E2D3C4B5A69781, np.uint64)
    machine.run(kernel, 1, 1, out)
    assert out.tolist() == [0xF1E2D3C4B5A6977F, *[0xF1E2D3C4B5A69781] * (len(kinds) - 1)]


def _bits(kind: str) -> str:
    return "pred" if kind == "pred" else f"b{32 if kind == 'f16x2' else int(kind.lstrip('bufs'))}"


def test_a_kernels_own_parameter_is_handed_on(machine: Machine) -> None:
    kernel = compiled(
        """.func f(.param .b64 a, .reg .b32 b) { .reg .b64 d; ld.param.b64 d, [a]; st.global.b32 [d], b; ret; }
        .entry k(.param .u64 out, .param .u32 n) { call f, (out, n); ret; }"""
    )
    out = np.zeros(1, np.uint32)
    machine.run(kernel, 1, 1, out, 17)
    assert out[0] == 17


def test_an_address_of_no_function_ends_the_launch_at_the_call(machine: Machine) -> None:
    kernel = compiled(
        """.func f(.param .b32 a) { ret; }
        .entry k(.param .u64 where) { .reg .b64 d; .reg .b32 r; ld.param.u64 d, [where]; mov.u64 d, f; add.s64 d, d, 16;
        kind: .callprototype _ (.param .b32 _);
        call d, (r), kind; ret; }"""
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, 1, 1, 0)
    assert (caught.value.fault, caught.value.line) == (Fault.TRAP, 7)


def test_a_fault_in_a_function_has_the_functions_line(machine: Machine) -> None:
    kernel = compiled(
        """.func f(.param .b64 a) { .reg .b64 d;
        ld.param.b64 d, [a];
        st.global.b32 [d], 1; ret; }
        .entry k(.param .u64 out) { .reg .b64 d; ld.param.u64 d, [out]; call f, (d); add.s64 d, d, 1;
        call f, (d); ret; }"""
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, 1, 1, np.zeros(4, np.uint32))
    assert (caught.value.fault, caught.value.line) == (Fault.MISALIGNED, 6)


def test_a_function_whose_barrier_some_threads_never_reach_is_told(machine: Machine) -> None:
    kernel = compiled(
        """.func wait() {
        bar.sync 0; ret; }
        .entry k() { .reg .pred p; .reg .b32 r; mov.u32 r, %tid.x; setp.eq.u32 p, r, 1;
        @p bra other; call wait;
        ret; other: bar.sync 1; ret; }"""
    )
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, 1, 4)
    assert (caught.value.fault, caught.value.stuck_line) == (Fault.BARRIER, 5)


def test_a_kernel_too_large_with_its_functions_is_refused_by_name() -> None:
    functions = ".func f0(.param .b64 a) { .reg .b64 d; ld.param.b64 d, [a]; st.global.b32 [d], 1; ret; }\n"
    functions += "".join(
        f".func f{n}(.param .b64 a) {{ .reg .b64 d; ld.param.b64 d, [a];"
        f" call f{n - 1}, (d); add.s64 d, d, 4; call f{n - 1}, (d); ret; }}\n"
        for n in range(1, 18)
    )
    with pytest.raises(PtxError, match="call: with all that is called, the kernel has more"):
        compiled(functions + ".entry k(.param .u64 a) { .reg .b64 d; ld.param.u64 d, [a]; call f17, (d); ret; }")


def test_a_kernel_and_what_it_prints_survive_encoding() -> None:
    kernel = compiled(
        """.extern .func (.param .b32 o) vprintf(.param .b64 a, .param .b64 b);
        .global .b8 text[8] = {37, 100, 32, 255, 10};
        .entry k() { .reg .b64 d; mov.u64 d, text; cvta.global.u64 d, d; call (_), vprintf, (d, 0); ret; }"""
    )
    assert kernel.records is not None
    assert [record.format for record in kernel.records.records] == [b"%d \xff\n"]
    assert CompiledKernel.decode(kernel.encode()) == kernel
