"""PTX text for tests, without the lines that are always the same."""

from __future__ import annotations

from functools import cache

from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.compiler.region import lay_out
from tensor_wasm.compiler.strips.plan import KernelPlan, plan
from tensor_wasm.compiler.synchronisation import Region, cut, has_synchronisation
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
def compiled(text: str, entry: str = "k", width: int | None = None) -> CompiledKernel:
    """The kernel ``entry`` of a PTX text, compiled, for strips of ``width`` threads."""
    program = read(text)
    return compile_kernel(find_kernel(program, entry), program, width=width)


def planned(text: str) -> KernelPlan:
    """The plan of the kernel ``k`` of a PTX text."""
    kernel = find_kernel(read(text), "k")
    regions = cut(kernel) if has_synchronisation(kernel) else (Region(kernel, None),)
    return plan(regions, lay_out(kernel).local_bytes, 16)


def line_of(text: str, part: str) -> int:
    """The number of the one line that has ``part`` in it."""
    (line,) = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return line
