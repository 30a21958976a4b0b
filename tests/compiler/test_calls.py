"""Kernels with calls, run: programs at random against Python, and what functions do that single threads cannot."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.calling import Programs
from compiler.launch import LaunchFault, Machine
from tensor_wasm.compiler import CompiledKernel, Fault, compile_kernel
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read, support
from tensor_wasm.runtime import Engine

HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"


@pytest.fixture(scope="module")
def machine(engine: Engine) -> Machine:
    return Machine(engine)


def compiled(text: str) -> CompiledKernel:
    program = read(HEADING + text)
    return compile_kernel(program.kernels[0], program)


@pytest.mark.parametrize("seed", range(150))
def test_random_programs_compute_what_python_says(machine: Machine, seed: int) -> None:
    made = Programs(seed)
    text = made.text
    program = read(text)
    assert support(program) == (), text
    out = np.zeros((40, 5), np.uint32)
    machine.run(compile_kernel(program.kernels[0], program), 1, 40, out)
    assert out.tolist() == [made.run(thread) for thread in range(40)], f"seed {seed}\n{text}"


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
