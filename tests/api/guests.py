"""Guests that the tests of the Python API call."""

from __future__ import annotations

import string

from tensor_wasm.abi import TENSOR_MODULE
from tensor_wasm.wasm import Module, ValType

I32, I64, F32, F64 = ValType.I32, ValType.I64, ValType.F32, ValType.F64
_COUNT_AT, _ECHO_AT = 0, 65_536
_TEXT_AT, _IO_AT = 1024, 512


def emitter() -> bytes:
    """What a guest can do that callers notice.

    ``emit(count, bytes)`` emits so many chunks of ``abc…`` and gives the last code, ``fail`` does and traps, ``echo``
    emits its input; ``step`` counts in memory; ``spin`` never returns; ``add`` adds, ``half`` halves an f64, ``same``
    gives its i64 back; ``hello`` writes to stdout.
    """
    module = Module()
    send = module.import_function(TENSOR_MODULE, "emit-chunk", [I32, I32], [I32])
    length = module.import_function(TENSOR_MODULE, "input-len", [], [I32])
    read = module.import_function(TENSOR_MODULE, "read-input", [I32, I32], [I32])
    write = module.import_function("wasi_snapshot_preview1", "fd_write", [I32] * 4, [I32])
    module.memory(4, export="memory")
    module.data((string.ascii_lowercase.encode() * 40)[:1000], _TEXT_AT)
    module.data(b"hi\xff", _IO_AT)
    module.data(_IO_AT.to_bytes(4, "little") + (3).to_bytes(4, "little"), _IO_AT + 8)
    for name in ("emit", "fail"):
        function = module.function([I32, I32], [I32], export=name)
        count, size = function.parameters
        body = function.code
        code = body.local(I32)
        with body.block() as done, body.loop() as again:
            body.get(count)
            body.op("i32.eqz")
            body.br_if(done)
            body.i32_const(_TEXT_AT)
            body.get(size)
            body.call(send)
            body.tee(code)
            body.br_if(done)
            body.get(count)
            body.i32_const(1)
            body.op("i32.sub")
            body.set(count)
            body.br(again)
        if name == "fail":
            body.op("unreachable")
        else:
            body.get(code)
    echo = module.function([], [I32], export="echo").code
    echo.i32_const(_ECHO_AT)
    echo.call(length)
    echo.call(read)
    echo.op("drop")
    echo.i32_const(_ECHO_AT)
    echo.call(length)
    echo.call(send)
    step = module.function([], [I32], export="step").code
    step.i32_const(_COUNT_AT)
    step.i32_const(_COUNT_AT)
    step.memory("i32.load")
    step.i32_const(1)
    step.op("i32.add")
    step.memory("i32.store")
    step.i32_const(_COUNT_AT)
    step.memory("i32.load")
    spin = module.function([], [], export="spin").code
    with spin.loop() as again:
        spin.br(again)
    add = module.function([I32, I32], [I32], export="add")
    for parameter in add.parameters:
        add.code.get(parameter)
    add.code.op("i32.add")
    for kind, name in ((F64, "half"), (I64, "same"), (F32, "single")):
        function = module.function([kind], [kind], export=name)
        function.code.get(function.parameters[0])
        if name == "half":
            function.code.f64_const(0.5)
            function.code.op("f64.mul")
    hello = module.function([], [], export="hello").code
    for value in (1, _IO_AT + 8, 1, _IO_AT + 16):
        hello.i32_const(value)
    hello.call(write)
    hello.op("drop")
    return module.encode().wasm
