"""What the soak deploys and launches: one guest that behaves or misbehaves as it is told, numbered ones, and PTX."""

from __future__ import annotations

import struct
from random import Random

from tensor_wasm.wasm import Body, Function, Module, ValType

I32, I64 = ValType.I32, ValType.I64
CUDA = "wasi:cuda/host@0.2.0"
WASI = "wasi_snapshot_preview1"

#: Where the invocation's input goes in the guest's memory, and the most that there may be of it.
INPUT = 65_536
INPUT_MAX_BYTES = 3 << 20
HELLO = b"hello\n"
_PAGES = 1 + (INPUT_MAX_BYTES >> 16)
_HOUR_NS = 3600 * 10**9
#: Low memory: a buffer list for ``hello``, one for ``flood``, a timer of an hour, and what calls write.
_HELLO_AT, _FLOOD_AT, _TIMER_AT, _TEXT_AT, _OUT_AT = 0, 16, 64, 256, 512
_STEPS_AT = 1024
#: Where ``step`` counts from after ``init``.
WARM_STEPS = 1000


def guest() -> bytes:
    """The guest.

    Returning: ``nothing``; ``run``, 42; ``add``; ``sum``, of the input's bytes; ``hello``, on stdout; ``grow(pages)``;
    ``bomb``, grow until refused, how many pages there are; ``hoard(bytes)``, allocate until refused, how often;
    ``kernel(grid, block, shared, ptx_bytes, entry_bytes)``, load and launch what the input begins with, the code;
    ``step``, how often it was called in this instance; ``emit(count, bytes)``, so many chunks, the last code; ``init``,
    after which ``step`` counts on from 1000.
    Not returning: ``trap``, ``recurse``; until the deadline ``spin``, ``sleep``, ``flood`` (stdout), ``pour`` (chunks),
    ``storm`` (as ``kernel``, again and again).
    """
    module = Module()
    write = module.import_function(WASI, "fd_write", [I32] * 4, [I32])
    poll = module.import_function(WASI, "poll_oneoff", [I32] * 4, [I32])
    read = module.import_function("wasi:tensor/host@0.1.0", "read-input", [I32, I32], [I32])
    chunk = module.import_function("wasi:tensor/host@0.1.0", "emit-chunk", [I32, I32], [I32])
    load = module.import_function(CUDA, "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA, "wasi_cuda_launch", [I64] + [I32] * 9, [I32])
    allocate = module.import_function(CUDA, "wasi_cuda_alloc", [I32, I32], [I64])
    module.export("memory", module.memory(_PAGES))
    module.data(struct.pack("<II", _TEXT_AT, len(HELLO)), _HELLO_AT)
    module.data(struct.pack("<II", INPUT, 65_536), _FLOOD_AT)
    module.data(struct.pack("<QB7xI4xQQH6x", 1, 0, 1, _HOUR_NS, 0, 0), _TIMER_AT)
    module.data(HELLO, _TEXT_AT)
    _values(module, read)
    _memory(module, allocate)
    _endings(module)
    _host(module, write, poll)
    _kernels(module, read, load, launch)
    _between_calls(module)
    _stream(module, chunk)
    return module.encode().wasm


def numbered(number: int) -> bytes:
    """A module of its own: ``run`` gives ``number``."""
    module = Module()
    module.function([], [I32], export="run").code.i32_const(number)
    return module.encode().wasm


def spinning_start() -> bytes:
    """A module whose start function never ends."""
    module = Module()
    start = module.function([], [])
    _for_ever(start.code)
    module.start(start)
    module.function([], [], export="run")
    return module.encode().wasm


def unlinkable() -> bytes:
    """A module that imports what no host has."""
    module = Module()
    module.import_function("env", "system", [I32], [I32])
    module.function([], [], export="run")
    return module.encode().wasm


def damaged(random: Random, wasm: bytes) -> bytes:
    """A module with a few bytes of another value, or cut short; one in many is valid by chance."""
    if random.random() < 0.3:
        return wasm[: random.randrange(8, len(wasm))]
    changed = bytearray(wasm)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(8, len(changed))] = random.randrange(256)
    return bytes(changed)


# --- PTX ----------------------------------------------------------------------------------------------------


def ptx(body: str) -> bytes:
    """An entry ``k`` without parameters."""
    return f"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry k()
{{
    .reg .b32 %r<8>;
    .reg .b64 %rd<4>;
{body}
    ret;
}}
""".encode()


NOTHING = ptx("")
ENDLESS = ptx("    mov.u32 %r1, 0;\nAGAIN:\n    add.u32 %r1, %r1, 1;\n    bra AGAIN;")
FAULT = ptx("    mov.u64 %rd1, 4294967280;\n    mov.u32 %r1, 1;\n    st.global.u32 [%rd1], %r1;")
TRAP = ptx("    trap;")


def numbered_ptx(number: int, statements: int = 1) -> bytes:
    """A kernel of its own, so that no cache has it; the more statements the longer it takes to compile."""
    lines = "\n".join(f"    add.u32 %r1, %r1, {(number + n) & 0x7FFFFFFF};" for n in range(statements))
    return ptx(f"    mov.u32 %r1, {number & 0x7FFFFFFF};\n{lines}")


def damaged_ptx(random: Random, number: int) -> bytes:
    """PTX that does not compile, unless the damage is to what does not matter."""
    text = bytearray(numbered_ptx(number, 4))
    start = random.randrange(len(text) - 16)
    text[start : start + random.randint(1, 12)] = random.choice([b"", b"@", b"%r99", b".f64 ", b"}", b"\0", b"(", b";"])
    return bytes(text)


# --- exports ------------------------------------------------------------------------------------------------


def _for_ever(body: Body, function: Function | None = None, *values: int) -> None:
    """Call a function with constants again and again, its results dropped."""
    with body.loop() as again:
        if function is not None:
            for value in values:
                body.i32_const(value)
            body.call(function)
            body.op(*["drop"] * len(function.type.results))
        body.br(again)


def _values(module: Module, read: Function) -> None:
    module.function([], [], export="nothing")
    module.function([], [I32], export="run").code.i32_const(42)
    add = module.function([I32, I32], [I32], export="add")
    for parameter in add.parameters:
        add.code.get(parameter)
    add.code.op("i32.add")

    body = module.function([], [I64], export="sum").code
    at, end, total = body.local(I32), body.local(I32), body.local(I64)
    _read(body, read)
    body.i32_const(INPUT)
    body.tee(at)
    body.op("i32.add")
    body.set(end)
    with body.loop() as again:
        body.get(at)
        body.get(end)
        body.op("i32.lt_u")
        with body.if_():
            body.get(total)
            body.get(at)
            body.memory("i64.load8_u")
            body.op("i64.add")
            body.set(total)
            body.get(at)
            body.i32_const(1)
            body.op("i32.add")
            body.set(at)
            body.br(again)
    body.get(total)


def _read(body: Body, read: Function) -> None:
    body.i32_const(INPUT)
    body.i32_const(INPUT_MAX_BYTES)
    body.call(read)


def _memory(module: Module, allocate: Function) -> None:
    grow = module.function([I32], [I32], export="grow")
    grow.code.get(grow.parameters[0])
    grow.code.memory_grow()

    bomb = module.function([], [I32], export="bomb").code
    with bomb.loop() as again:
        bomb.i32_const(16)
        bomb.memory_grow()
        bomb.i32_const(-1)
        bomb.op("i32.ne")
        with bomb.if_():
            # A byte in the new pages, so that there are any.
            bomb.memory_size()
            bomb.i32_const(65_536)
            bomb.op("i32.mul")
            bomb.i32_const(8)
            bomb.op("i32.sub")
            bomb.i64_const(-1)
            bomb.memory("i64.store")
            bomb.br(again)
    bomb.memory_size()

    hoard = module.function([I32], [I32], export="hoard")
    body = hoard.code
    count = body.local(I32)
    with body.loop() as again:
        body.get(hoard.parameters[0])
        body.i32_const(0)
        body.call(allocate)
        body.i64_const(0)
        body.op("i64.gt_s")
        with body.if_():
            body.get(count)
            body.i32_const(1)
            body.op("i32.add")
            body.set(count)
            body.br(again)
    body.get(count)


def _endings(module: Module) -> None:
    module.function([], [], export="trap").code.op("unreachable")
    recurse = module.function([], [], export="recurse")
    recurse.code.call(recurse)
    _for_ever(module.function([], [], export="spin").code)


def _host(module: Module, write: Function, poll: Function) -> None:
    hello = module.function([], [], export="hello").code
    for value in (1, _HELLO_AT, 1, _OUT_AT):
        hello.i32_const(value)
    hello.call(write)
    hello.op("drop")
    _for_ever(module.function([], [], export="flood").code, write, 1, _FLOOD_AT, 1, _OUT_AT)
    _for_ever(module.function([], [], export="sleep").code, poll, _TIMER_AT, _OUT_AT, 1, _OUT_AT + 64)


def _between_calls(module: Module) -> None:
    init = module.function([], [], export="init").code
    init.i32_const(_STEPS_AT)
    init.i32_const(WARM_STEPS)
    init.memory("i32.store")
    step = module.function([], [I32], export="step").code
    step.i32_const(_STEPS_AT)
    step.i32_const(_STEPS_AT)
    step.memory("i32.load")
    step.i32_const(1)
    step.op("i32.add")
    step.memory("i32.store")
    step.i32_const(_STEPS_AT)
    step.memory("i32.load")


def _stream(module: Module, chunk: Function) -> None:
    _for_ever(module.function([], [], export="pour").code, chunk, INPUT, 65_536)
    emit = module.function([I32, I32], [I32], export="emit")
    body, (count, size) = emit.code, emit.parameters
    code = body.local(I32)
    with body.loop() as again:
        body.i32_const(INPUT)
        body.get(size)
        body.call(chunk)
        body.set(code)
        body.get(count)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(count)
        body.br_if(again)
    body.get(code)


def _kernels(module: Module, read: Function, load: Function, launch: Function) -> None:
    kernel = module.function([I32] * 5, [I32], export="kernel")
    body = kernel.code
    grid, block, shared, ptx_bytes, entry_bytes = kernel.parameters
    identity = body.local(I64)
    _read(body, read)
    body.op("drop")
    body.i32_const(INPUT)
    body.get(ptx_bytes)
    body.i32_const(INPUT)
    body.get(ptx_bytes)
    body.op("i32.add")
    body.get(entry_bytes)
    body.call(load)
    body.tee(identity)
    body.i64_const(0)
    body.op("i64.lt_s")
    with body.if_():
        body.get(identity)
        body.op("i32.wrap_i64", "return")
    body.get(identity)
    body.get(grid)
    body.i32_const(1)
    body.i32_const(1)
    body.get(block)
    body.i32_const(1)
    body.i32_const(1)
    body.get(shared)
    body.i32_const(0)
    body.i32_const(0)
    body.call(launch)

    storm = module.function([I32] * 5, [], export="storm")
    with storm.code.loop() as again:
        for parameter in storm.parameters:
            storm.code.get(parameter)
        storm.code.call(kernel)
        storm.code.op("drop")
        storm.code.br(again)
