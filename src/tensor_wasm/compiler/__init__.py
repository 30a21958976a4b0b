"""Typed PTX to WebAssembly: compiles one kernel to a module that runs in its caller's own sandbox."""

from tensor_wasm.compiler.compiled import COMPILER_VERSION, CompiledKernel, ParameterLayout
from tensor_wasm.compiler.faults import Fault, faulting_thread
from tensor_wasm.compiler.module import compile_kernel
from tensor_wasm.compiler.records import HEAD_BYTES, RecordBuffer
from tensor_wasm.compiler.strips.plan import WIDTHS

__all__ = [
    "COMPILER_VERSION",
    "WIDTHS",
    "HEAD_BYTES",
    "CompiledKernel",
    "Fault",
    "ParameterLayout",
    "RecordBuffer",
    "compile_kernel",
    "faulting_thread",
]
