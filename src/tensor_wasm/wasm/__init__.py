"""Writing and reading WebAssembly binaries: an encoder for modules, an inspector for untrusted ones."""

from tensor_wasm.wasm.body import Body, Label, Local, ValType
from tensor_wasm.wasm.encoder import EncodedModule, Function, FunctionType, Global, Memory, Module, Table

__all__ = [
    "Body",
    "EncodedModule",
    "Function",
    "FunctionType",
    "Global",
    "Label",
    "Local",
    "Memory",
    "Module",
    "Table",
    "ValType",
]
