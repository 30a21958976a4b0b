"""The module's contract, its line table, its encoding, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.build import Builder, immediate
from compiler.launch import LaunchFault, Machine
from compiler.text import compiled, kernel_text, line_of
from tensor_wasm.compiler import (
    COMPILER_VERSION,
    WIDTHS,
    CompiledKernel,
    Fault,
    ParameterLayout,
    compile_kernel,
    limits,
)
from tensor_wasm.errors import InternalError, PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Exit, ScalarType


def test_a_kernel_survives_encoding() -> None:
    kernel = compiled(kernel_text("    ret;", "u64 a, f32 b", directives=".reqntid 8, 4"))
    assert kernel.name == "k"
    assert kernel.parameters == (ParameterLayout("a", "u64", 8, 0), ParameterLayout("b", "f32", 4, 8))
    assert kernel.parameter_bytes == 12
    assert kernel.reqntid == (8, 4, 1)
    assert kernel.maxntid is None
    assert CompiledKernel.decode(kernel.encode()) == kernel


@pytest.mark.parametrize("cut", [0, 3, 8, 20, 60])
def test_bytes_that_are_no_kernel_are_refused(cut: int) -> None:
    data = compiled(kernel_text("    ret;", "u64 a")).encode()
    with pytest.raises(InternalError):
        CompiledKernel.decode(data[:cut])


def test_a_kernel_of_another_version_is_refused() -> None:
    data = compiled(kernel_text("    ret;", "u64 a")).encode()
    other = "0" * len(COMPILER_VERSION)
    assert other != COMPILER_VERSION
    with pytest.raises(InternalError, match="version"):
        CompiledKernel.decode(
            data.replace(f'"version": "{COMPILER_VERSION}"'.encode(), f'"version": "{other}"'.encode())
        )


def test_compiling_twice_gives_the_same_bytes() -> None:
    text = kernel_text("    ld.param.u64 %rd1, [out];\n    st.global.f32 [%rd1], 0f00000000;\n    ret;")
    assert compiled(text) == compiled.__wrapped__(text)


def test_a_trap_behind_helper_functions_names_its_own_line(machine: Machine) -> None:
    # Helpers come after `run` in the module; none of them may be taken for the kernel's last line.
    body = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    cvt.rn.f32.u32 %f1, %r1;
    sin.approx.f32 %f2, %f1;
    ex2.approx.f32 %f3, %f2;
    mul.hi.u64 %rd2, %rd1, %rd1;
    st.global.f32 [%rd1+1], %f3;
    st.global.u64 [%rd1], %rd2;
    ret;"""
    text = kernel_text(body)
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(text), 1, 1, np.zeros(2, np.uint64))
    assert caught.value.fault == Fault.MISALIGNED
    assert caught.value.line == line_of(text, "[%rd1+1]")


def test_every_line_of_code_is_in_the_line_table_in_order() -> None:
    body = "    ld.param.u64 %rd1, [out];\n    st.global.u32 [%rd1], 1;\n    st.global.u32 [%rd1+4], 2;\n    ret;"
    text = kernel_text(body)
    kernel = compiled(text)
    offsets = [offset for offset, _ in kernel.lines]
    assert offsets == sorted(offsets)
    assert {line for _, line in kernel.lines} >= {line_of(text, "[%rd1],"), line_of(text, "[%rd1+4]")}


@pytest.mark.parametrize(
    "line",
    ["mbarrier.inval.shared.b64 [%rd1];", "alloca.u64 %rd2, 16;", "atom.global.exch.b128 %rq1, [%rd1], %rq1;"],
)  # fmt: skip
def test_what_this_release_lacks_is_refused_with_opcode_and_line(line: str) -> None:
    text = kernel_text(f"    .reg .b128 %rq<2>;\n    ld.param.u64 %rd1, [out];\n    {line}\n    ret;")
    with pytest.raises(PtxError) as caught:
        compiled(text)
    assert caught.value.line == line_of(text, line)
    assert line.split(".", maxsplit=1)[0] in str(caught.value)


@pytest.mark.slow
def test_a_kernel_over_the_size_of_a_function_is_refused() -> None:
    builder = Builder()
    register = builder.register(ScalarType.B64)
    large = immediate(0x1234_5678_9ABC_DEF0, ScalarType.U64)
    for _ in range(80_000):
        builder.add("add", [ScalarType.U64], [register], [register, large])
    builder.end(Exit())
    with pytest.raises(PtxError, match="too large"):
        compile_kernel(*builder.kernel())


def test_a_kernel_too_large_for_wide_strips_is_compiled_for_narrower_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join("    fma.rn.f32 %f1, %f1, %f1, %f2;" for _ in range(60))
    text = kernel_text(
        f"    ld.param.u64 %rd1, [out];\n    mov.u32 %r1, %tid.x;\n    mad.wide.u32 %rd1, %r1, 4, %rd1;\n"
        f"    ld.global.f32 %f1, [%rd1];\n    mov.f32 %f2, %f1;\n{lines}\n    st.global.f32 [%rd1], %f1;\n    ret;",
        "u64 out",
    )
    program = read(text)
    (kernel,) = program.kernels
    sizes = {width: len(compile_kernel(kernel, program, width=width).wasm) for width in WIDTHS}
    assert sizes[16] > sizes[8] > sizes[4]
    found: list[int] = []

    def compile_with_less_and_less_room() -> None:
        for most in range(sizes[16], 0, -100):
            monkeypatch.setattr(limits, "FUNCTION_BYTES_MAX", most)
            found.append(len(compile_kernel(kernel, program).wasm))

    with pytest.raises(PtxError, match="too large"):
        compile_with_less_and_less_room()
    assert list(dict.fromkeys(found)) == [sizes[16], sizes[8], sizes[4]]
