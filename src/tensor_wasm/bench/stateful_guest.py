"""Guests with state: a memory to fill and to touch, an initialisation that takes its time, chunks to emit."""

from __future__ import annotations

from tensor_wasm.abi import TENSOR_MODULE
from tensor_wasm.bench.working_guest import add_work
from tensor_wasm.wasm import Body, Local, Module, ValType

I32 = ValType.I32
_PAGE_BYTES = 65_536
#: One page of the system's in a hundred.
_STRIDE = 100 * 4096
_MULTIPLIER = -1640531535  # 2654435761, Knuth's: no two words alike, and no zeros to leave out


def stateful_guest(memory_bytes: int) -> bytes:
    """A module with a memory of so many bytes.

    ``noop()``; ``fill()`` writes every word of the memory; ``at(address) -> i32`` reads a word; ``touch() -> i32``
    reads and writes a word in one of 100 pages.
    """
    return _module(memory_bytes).encode().wasm


def slow_start_guest(steps: int) -> bytes:
    """The same with one page of memory, ``work(steps) -> i32`` as the working guest's, and an ``init()`` that does so
    many steps of that.
    """
    module = _module(_PAGE_BYTES)
    work = add_work(module)
    init = module.function([], [], export="init").code
    init.i32_const(steps)
    init.call(work)
    init.op("drop")
    return module.encode().wasm


def _module(memory_bytes: int) -> Module:
    module = Module()
    module.memory(memory_bytes // _PAGE_BYTES, export="memory")
    module.function([], [], export="noop")
    at = module.function([I32], [I32], export="at")
    at.code.get(at.parameters[0])
    at.code.memory("i32.load")
    fill = module.function([], [], export="fill").code
    address = fill.local(I32)
    with fill.loop() as again:
        fill.get(address)
        fill.get(address)
        fill.i32_const(_MULTIPLIER)
        fill.op("i32.mul")
        fill.memory("i32.store")
        _advance(fill, address, 4, memory_bytes)
        fill.br_if(again)
    touch = module.function([], [I32], export="touch").code
    address, total = touch.local(I32), touch.local(I32)
    with touch.loop() as again:
        touch.get(address)
        touch.memory("i32.load")
        touch.get(total)
        touch.op("i32.add")
        touch.set(total)
        touch.get(address)
        touch.i32_const(1)
        touch.memory("i32.store")
        _advance(touch, address, _STRIDE, memory_bytes)
        touch.br_if(again)
    touch.get(total)
    return module


def _advance(body: Body, address: Local, step: int, end: int) -> None:
    """Push whether there is more."""
    body.get(address)
    body.i32_const(step)
    body.op("i32.add")
    body.tee(address)
    body.i32_const(end)
    body.op("i32.lt_u")


def emitting_guest() -> bytes:
    """``emit(count, bytes)`` emits so many chunks of so many bytes. The first eight of each are when it was emitted, in
    nanoseconds since 1970.
    """
    module = Module()
    clock = module.import_function("wasi_snapshot_preview1", "clock_time_get", [I32, ValType.I64, I32], [I32])
    send = module.import_function(TENSOR_MODULE, "emit-chunk", [I32, I32], [I32])
    module.memory(2, export="memory")
    emit = module.function([I32, I32], [], export="emit")
    count, size = emit.parameters
    body = emit.code
    with body.block() as done, body.loop() as again:
        body.get(count)
        body.op("i32.eqz")
        body.br_if(done)
        body.i32_const(0)
        body.i64_const(0)
        body.i32_const(0)
        body.call(clock)
        body.op("drop")
        body.i32_const(0)
        body.get(size)
        body.call(send)
        body.br_if(done)
        body.get(count)
        body.i32_const(1)
        body.op("i32.sub")
        body.set(count)
        body.br(again)
    return module.encode().wasm
