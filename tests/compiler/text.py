"""PTX text for tests, without the lines that are always the same."""

from __future__ import annotations

from functools import cache

from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.ptx import find_kernel, read

_REGISTERS = """    .reg .pred %p<16>;
    .reg .b16 %rs<16>;
    .reg .b32 %r<32>;
    .reg .b64 %rd<32>;
    .reg .f32 %f<16>;
    .reg .f64 %fd<16>;
"""


def kernel_text(body: str, parameters: str = "u64 out", *, before: str = "", directives: str = "") -> str:
    """A module with one kernel ``k``. ``parameters`` are types and names: ``"u64 out, u32 n"``.

    Registers %p %rs %r %rd %f %fd, 16 or 32 of each, are declared; ``before`` stands at module level.
    """
    declared = [f".param .{' '.join(p.split())}" for p in parameters.split(",") if p.strip()]
    return (
        ".version 8.0\n.target sm_80\n.address_size 64\n"
        f"{before}\n.visible .entry k({', '.join(declared)})\n{directives}\n{{\n{_REGISTERS}{body}\n}}\n"
    )


@cache
def compiled(text: str, entry: str = "k") -> CompiledKernel:
    """The kernel ``entry`` of a PTX text, compiled."""
    program = read(text)
    return compile_kernel(find_kernel(program, entry), program)


def line_of(text: str, part: str) -> int:
    """The number of the one line that has ``part`` in it."""
    (line,) = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return line
