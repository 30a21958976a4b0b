"""PTX text to a kernel module, in whichever process it happens."""

from __future__ import annotations

from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.ptx import find_kernel, read


def compile_ptx(ptx: bytes, entry: str) -> CompiledKernel:
    """Compile ``entry`` of a PTX text. Raises :class:`~tensor_wasm.errors.PtxError` with line and column."""
    program = read(ptx, entry)
    return compile_kernel(find_kernel(program, entry), program)
