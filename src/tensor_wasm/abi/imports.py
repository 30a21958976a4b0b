"""Modules and functions a guest may import, with their signatures."""

from __future__ import annotations

from dataclasses import dataclass

#: The version with device pointers and everything else of 0.3.0.
CUDA_3_MODULE = "wasi:cuda/host@0.3.0"
CUDA_MODULES = ("wasi:cuda/host@0.2.0", "wasi:cuda/host@0.1.0", CUDA_3_MODULE)
TENSOR_MODULE = "wasi:tensor/host@0.1.0"
TENSOR_2_MODULE = "wasi:tensor/host@0.2.0"
TENSOR_MODULES = (TENSOR_MODULE, TENSOR_2_MODULE)
SCHEDULER_MODULE = "wasi:scheduler/host@0.1.0"
WASI_MODULE = "wasi_snapshot_preview1"


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameter and result types of an import."""

    parameters: tuple[str, ...]
    results: tuple[str, ...]


def _signature(parameters: str, result: str) -> Signature:
    return Signature(tuple(parameters.split()), (result,))


_CUDA: dict[str, Signature] = {
    "wasi_cuda_load_ptx": _signature("i32 i32 i32 i32", "i64"),
    "wasi_cuda_launch": _signature("i64 i32 i32 i32 i32 i32 i32 i32 i32 i32", "i32"),
    "wasi_cuda_sync": _signature("", "i32"),
    "wasi_cuda_last_error_len": _signature("", "i32"),
    "wasi_cuda_last_error_copy": _signature("i32 i32", "i32"),
    "wasi_cuda_alloc": _signature("i32 i32", "i64"),
    "wasi_cuda_free": _signature("i32 i32", "i32"),
    "wasi_cuda_memcpy_h2d": _signature("i32 i32 i32 i32", "i32"),
    "wasi_cuda_memcpy_d2h": _signature("i32 i32 i32 i32", "i32"),
}

#: What 0.3.0 has besides.
_CUDA_3: dict[str, Signature] = {
    "wasi_cuda_unload": _signature("i64", "i32"),
    "wasi_cuda_load_named": _signature("i32 i32 i32 i32 i32 i32", "i64"),
    "wasi_cuda_device_info": _signature("i32 i32", "i32"),
    "wasi_cuda_memset": _signature("i64 i64 i32 i64", "i32"),
    "wasi_cuda_memcpy": _signature("i64 i64 i32 i32 i32", "i32"),
    "wasi_cuda_launch_async": _signature("i64 i32 i32 i32 i32 i32 i32 i32 i32 i32", "i64"),
}

_TENSOR: dict[str, Signature] = {
    "emit-chunk": _signature("i32 i32", "i32"),
    "flush": _signature("", "i32"),
    "input-len": _signature("", "i32"),
    "read-input": _signature("i32 i32", "i32"),
}

_TENSOR_2: dict[str, Signature] = {
    "read-input-at": _signature("i32 i32 i32", "i32"),
}

_SCHEDULER: dict[str, Signature] = {
    "yield": _signature("", "i32"),
    "deadline-remaining-ms": _signature("", "i32"),
}


def signatures(module: str) -> dict[str, Signature]:
    """The functions of one import module by name; empty for a module that is not ours."""
    if module in CUDA_MODULES:
        return _CUDA | _CUDA_3 if module == CUDA_3_MODULE else _CUDA
    others = {TENSOR_MODULE: _TENSOR, TENSOR_2_MODULE: _TENSOR | _TENSOR_2, SCHEDULER_MODULE: _SCHEDULER}
    return others.get(module, {})
