"""What NVIDIA's compiler makes of much of CUDA C is read, whatever its options."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from tensor_wasm.ptx import Graph, read, support

SOURCE = Path(__file__).with_name("intrinsics.cu")

#: Roots that a kernel without cooperation may still have, because its mathematics calls slow paths.
CALLING = {"call", "st", "ld"}

Compile = Callable[[list[str]], bytes]


@pytest.fixture(scope="module")
def compile_source() -> Compile:
    nvidia = pytest.importorskip("nvidia", reason="needs the PyPI package nvidia-cuda-nvrtc")
    found = sorted(path for root in nvidia.__path__ for path in Path(root).glob("*/lib/libnvrtc.so.*"))
    if not found:
        pytest.skip("needs the PyPI package nvidia-cuda-nvrtc")
    library = ctypes.CDLL(str(found[0]))

    def compile_with(options: list[str]) -> bytes:
        program = ctypes.c_void_p()
        source = SOURCE.read_bytes()
        assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"intrinsics.cu", 0, None, None) == 0
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        result = library.nvrtcCompileProgram(program, len(options), given)
        assert result == 0, text(program, "ProgramLog").decode()
        return text(program, "PTX")

    def text(program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    return compile_with


@pytest.mark.parametrize(
    "options",
    [
        ["-arch=compute_80"],
        ["-arch=compute_75"],
        ["-arch=compute_90"],
        ["-arch=compute_80", "-use_fast_math"],
        ["-arch=compute_80", "-ftz=true", "-prec-div=false", "-prec-sqrt=false"],
        ["-arch=compute_80", "-fmad=false", "-rdc=true", "-lineinfo"],
    ],
    ids=" ".join,
)
def test_everything_the_compiler_emits_is_read(compile_source: Compile, options: list[str]) -> None:
    program = read(compile_source(options))
    listed = {kernel.name: support(kernel) for kernel in program.kernels}
    assert set(listed) == {"integers", "floats", "flow", "together", "calls"}
    assert listed["integers"] == ()
    assert listed["flow"] == ()
    assert {place.opcode.split(".")[0] for place in listed["floats"]} <= CALLING
    assert listed["together"] == ()
    assert "call" in {place.opcode.split(".")[0] for place in listed["calls"]}
    assert all(Graph(kernel).is_reducible for kernel in program.kernels)
    calls = next(kernel for kernel in program.kernels if kernel.name == "calls")
    assert calls.maxntid == (128, 1, 1)
