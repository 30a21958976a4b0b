"""A guest for traces: ``run(n)`` loads a kernel, launches it n times, the number in dynamic shared bytes, syncs once.

``each(n)`` syncs after each launch; ``refused`` launches what it did not load; ``fault`` launches what traps; ``emit``
streams a word.
"""

from __future__ import annotations

from tensor_wasm.abi import CUDA_MODULES
from tensor_wasm.abi.imports import TENSOR_MODULES
from tensor_wasm.dispatch.link_module import LAUNCH_PARAMETERS
from tensor_wasm.wasm import Module, ValType

I32, I64 = ValType.I32, ValType.I64
PTX_AT, ENTRY_AT, FAULT_AT, WORD_AT = 1024, 16, 48, 96
PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry nothing()
{
    ret;
}
.visible .entry trap_it()
{
    trap;
}
"""


def guest() -> bytes:
    module = Module()
    load = module.import_function(CUDA_MODULES[0], "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA_MODULES[0], "wasi_cuda_launch", LAUNCH_PARAMETERS, [I32])
    sync = module.import_function(CUDA_MODULES[0], "wasi_cuda_sync", [], [I32])
    emit = module.import_function(TENSOR_MODULES[0], "emit-chunk", [I32, I32], [I32])
    module.memory(2, export="memory")
    module.data(b"nothing", ENTRY_AT)
    module.data(b"trap_it", FAULT_AT)
    module.data(b"word", WORD_AT)
    module.data(PTX, PTX_AT)
    for export, is_each in (("run", False), ("each", True)):
        function = module.function([I32], [I32], export=export)
        body, (count,) = function.code, function.parameters
        kernel, number = body.local(I64), body.local(I32)
        for value in (PTX_AT, len(PTX), ENTRY_AT, 7):
            body.i32_const(value)
        body.call(load)
        body.set(kernel)
        with body.block() as done, body.loop() as again:
            body.get(number)
            body.get(count)
            body.op("i32.ge_s")
            body.br_if(done)
            body.get(kernel)
            for value in (2, 1, 1, 32, 1, 1):
                body.i32_const(value)
            body.get(number)
            body.i32_const(0)
            body.i32_const(0)
            body.call(launch)
            body.op("drop")
            if is_each:
                body.call(sync)
                body.op("drop")
            body.get(number)
            body.i32_const(1)
            body.op("i32.add")
            body.set(number)
            body.br(again)
        if not is_each:
            body.call(sync)
            body.op("drop")
        body.get(number)
    refused = module.function([], [I32], export="refused").code
    refused.i64_const(5)
    for value in (1, 1, 1, 1, 1, 1, 0, 0, 0):
        refused.i32_const(value)
    refused.call(launch)
    fault = module.function([], [I32], export="fault").code
    for value in (PTX_AT, len(PTX), FAULT_AT, 7):
        fault.i32_const(value)
    fault.call(load)
    for value in (1, 1, 1, 1, 1, 1, 0, 0, 0):
        fault.i32_const(value)
    fault.call(launch)
    word = module.function([], [], export="emit").code
    word.i32_const(WORD_AT)
    word.i32_const(4)
    word.call(emit)
    word.op("drop")
    return module.encode().wasm
