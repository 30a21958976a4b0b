"""The guest contract as data: module names, signatures, codes, limits, argv records."""

from tensor_wasm.abi.argv import Tag, pack
from tensor_wasm.abi.codes import Code
from tensor_wasm.abi.imports import (
    CUDA_3_MODULE,
    CUDA_MODULES,
    SCHEDULER_MODULE,
    TENSOR_2_MODULE,
    TENSOR_MODULE,
    TENSOR_MODULES,
    WASI_MODULE,
    Signature,
    signatures,
)

__all__ = [
    "CUDA_3_MODULE",
    "CUDA_MODULES",
    "SCHEDULER_MODULE",
    "TENSOR_2_MODULE",
    "TENSOR_MODULE",
    "TENSOR_MODULES",
    "WASI_MODULE",
    "Code",
    "Signature",
    "Tag",
    "pack",
    "signatures",
]
