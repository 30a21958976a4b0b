"""Small guests, written with the encoder, for tests of the node."""

from __future__ import annotations

from tensor_wasm.wasm import Module, ValType

I32, I64, F32, F64 = ValType.I32, ValType.I64, ValType.F32, ValType.F64


def add() -> bytes:
    """``add(i32, i32) -> i32`` and ``run() -> i32``, which gives 42."""
    module = Module()
    function = module.function([I32, I32], [I32], export="add")
    for parameter in function.parameters:
        function.code.get(parameter)
    function.code.op("i32.add")
    module.function([], [I32], export="run").code.i32_const(42)
    return module.encode().wasm


def troublesome() -> bytes:
    """Exports that do not return: ``spin``, ``trap``, ``recurse``; and ``count``, ``grow(pages)``, ``div(a, b)``."""
    module = Module()
    memory = module.memory(1, export="memory")
    module.export("not_a_function", memory)
    spin = module.function([], [], export="spin").code
    with spin.loop() as again:
        spin.br(again)
    module.function([], [], export="trap").code.op("unreachable")
    recurse = module.function([], [], export="recurse")
    recurse.code.call(recurse)
    count = module.function([], [I32], export="count").code
    for _ in range(2):
        count.i32_const(0)
    count.memory("i32.load")
    count.i32_const(1)
    count.op("i32.add")
    count.memory("i32.store")
    count.i32_const(0)
    count.memory("i32.load")
    grow = module.function([I32], [I32], export="grow")
    grow.code.get(grow.parameters[0])
    grow.code.memory_grow()
    divide = module.function([I32, I32], [I32], export="div")
    for parameter in divide.parameters:
        divide.code.get(parameter)
    divide.code.op("i32.div_s")
    return module.encode().wasm


def started_with(pages: int) -> bytes:
    """A module whose memory starts with ``pages`` pages."""
    module = Module()
    module.memory(pages, export="memory")
    module.function([], [], export="run")
    return module.encode().wasm


def spinning_start() -> bytes:
    """A module whose start function never ends."""
    module = Module()
    spin = module.function([], [])
    with spin.code.loop() as again:
        spin.code.br(again)
    module.start(spin)
    module.function([], [], export="run")
    return module.encode().wasm


def printer() -> bytes:
    """``run`` writes "hello" to stdout through WASI."""
    module = Module()
    write = module.import_function("wasi_snapshot_preview1", "fd_write", [I32] * 4, [I32])
    module.memory(1, export="memory")
    module.data(b"\x10\0\0\0\x05\0\0\0", 0)
    module.data(b"hello", 16)
    body = module.function([], [], export="run").code
    for value in (1, 0, 1, 8):
        body.i32_const(value)
    body.call(write)
    body.op("drop")
    return module.encode().wasm


def importing(module_name: str, name: str, *, memory: bool = True) -> bytes:
    """A module with one import of type () -> i32."""
    module = Module()
    module.import_function(module_name, name, [], [I32])
    if memory:
        module.memory(1, export="memory")
    module.function([], [], export="run")
    return module.encode().wasm
