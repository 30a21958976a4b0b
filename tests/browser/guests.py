"""A guest that takes the device: exports that launch an empty kernel for ever."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.abi import CUDA_MODULES
from tensor_wasm.dispatch.link_module import LAUNCH_PARAMETERS
from tensor_wasm.wasm import Module, ValType

I32, I64 = ValType.I32, ValType.I64
_PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry nothing()
{
    ret;
}
"""
_ENTRY_AT, _PTX_AT = 16, 1024


def flooder(names: Sequence[str] = ("flood",)) -> bytes:
    """Each of the exports loads the kernel and launches it until it is ended; ``once`` does so a single time."""
    module = Module()
    load = module.import_function(CUDA_MODULES[0], "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA_MODULES[0], "wasi_cuda_launch", LAUNCH_PARAMETERS, [I32])
    module.memory(1, export="memory")
    module.data(b"nothing", _ENTRY_AT)
    module.data(_PTX, _PTX_AT)
    for name in (*names, "once"):
        body = module.function([], [], export=name).code
        kernel = body.local(I64)
        for value in (_PTX_AT, len(_PTX), _ENTRY_AT, 7):
            body.i32_const(value)
        body.call(load)
        body.set(kernel)
        with body.loop() as again:
            body.get(kernel)
            for value in (1, 1, 1, 1, 1, 1, 0, 0, 0):
                body.i32_const(value)
            body.call(launch)
            body.op("drop")
            if name != "once":
                body.br(again)
    return module.encode().wasm
