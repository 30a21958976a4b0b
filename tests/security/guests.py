"""Hostile guests, written with our encoder, and the input that makes one of them launch a kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tensor_wasm.abi import Tag, pack
from tensor_wasm.wasm import Body, Function, Module, ValType

I32, I64 = ValType.I32, ValType.I64
CUDA = "wasi:cuda/host@0.2.0"
CUDA_3 = "wasi:cuda/host@0.3.0"
WASI = "wasi_snapshot_preview1"

#: The probe's memory: results of kernels, then what its host calls use, then the invocation's input.
RESULTS, SCRATCH, INPUT = 0, 1024, 65_536
PROBE_PAGES = 64
PROBE_BYTES = PROBE_PAGES * 65_536
POLLS = 1024
_POLL_AT = 128 * 1024

#: The results that the probe's ``kernel`` gives: a code, and what the kernel left at ``RESULTS``.
RESULT_COUNT = 8


def for_ever(body: Body, step: Callable[[], None]) -> None:
    with body.loop() as again:
        step()
        body.br(again)


def call(body: Body, function: Function, *values: int) -> None:
    """Call with constants of the parameters' types."""
    for kind, value in zip(function.type.parameters, values, strict=True):
        (body.i64_const if kind is I64 else body.i32_const)(value)
    body.call(function)


def probe() -> bytes:
    """A guest whose exports attack from within. All loop for ever but ``nothing``, ``grow`` and ``kernel``."""
    module = Module()
    imported = {
        "clock": module.import_function(WASI, "clock_time_get", [I32, I64, I32], [I32]),
        "random": module.import_function(WASI, "random_get", [I32, I32], [I32]),
        "poll": module.import_function(WASI, "poll_oneoff", [I32] * 4, [I32]),
        "write": module.import_function(WASI, "fd_write", [I32] * 4, [I32]),
        "input": module.import_function("wasi:tensor/host@0.1.0", "read-input", [I32, I32], [I32]),
        "load": module.import_function(CUDA, "wasi_cuda_load_ptx", [I32] * 4, [I64]),
        "launch": module.import_function(CUDA, "wasi_cuda_launch", [I64] + [I32] * 9, [I32]),
        "length": module.import_function(CUDA, "wasi_cuda_last_error_len", [], [I32]),
        "alloc": module.import_function(CUDA, "wasi_cuda_alloc", [I32] * 2, [I64]),
        "free": module.import_function(CUDA, "wasi_cuda_free", [I32] * 2, [I32]),
        "up": module.import_function(CUDA, "wasi_cuda_memcpy_h2d", [I32] * 4, [I32]),
        "down": module.import_function(CUDA, "wasi_cuda_memcpy_d2h", [I32] * 4, [I32]),
    }
    module.export("memory", module.memory(PROBE_PAGES))
    # 1,024 subscriptions to a relative timer of no time, and two buffers for fd_write: 64 bytes, all of memory.
    module.data(struct.pack("<QBxxxxxxxIxxxxQQHxxxxxx", 1, 0, 1, 0, 0, 0) * POLLS, _POLL_AT)
    module.data(struct.pack("<IIII", SCRATCH, 64, 0, PROBE_BYTES), 512)
    module.function([], [], export="nothing")
    module.function([], [], export="trap").code.op("unreachable")
    spin = module.function([], [], export="spin").code
    for_ever(spin, lambda: None)
    _storms(module, imported)
    _memory(module)
    _kernel(module, imported)
    _echoes(module, imported)
    return module.encode().wasm


def _storms(module: Module, imported: dict[str, Function]) -> None:
    storms: dict[str, tuple[str, Sequence[int]]] = {
        "storm_clock": ("clock", (1, 0, SCRATCH)),
        "storm_random": ("random", (0, PROBE_BYTES)),
        "storm_poll": ("poll", (_POLL_AT, _POLL_AT + 48 * POLLS, POLLS, SCRATCH)),
        "storm_length": ("length", ()),
        "storm_input": ("input", (INPUT, PROBE_BYTES - INPUT)),
        "storm_write": ("write", (1, 512, 1, SCRATCH)),
        "storm_big_write": ("write", (2, 520, 1, SCRATCH)),
        "storm_load": ("load", (0, 8 << 20, 0, 1)),
    }
    for export, (name, values) in storms.items():
        body = module.function([], [], export=export).code

        def step(body: Body = body, name: str = name, values: Sequence[int] = values) -> None:
            call(body, imported[name], *values)
            body.op("drop")

        for_ever(body, step)
    _device_storms(module, imported)


def _device_storms(module: Module, imported: dict[str, Function]) -> None:
    """``storm_alloc(bytes)``: take and give back; ``hoard(bytes)``: take until refused, how often; ``storm_copy``."""
    storm = module.function([I32], [], export="storm_alloc")
    body = storm.code
    handle = body.local(I64)

    def take() -> None:
        body.get(storm.parameters[0])
        body.i32_const(0)
        body.call(imported["alloc"])
        body.set(handle)

    def give() -> None:
        body.get(handle)
        body.op("i32.wrap_i64")
        body.i32_const(0)
        body.call(imported["free"])
        body.op("drop")

    def both() -> None:
        take()
        give()

    for_ever(body, both)

    hoard = module.function([I32], [I32], export="hoard")
    body = hoard.code
    count = body.local(I32)
    with body.loop() as again:
        body.get(hoard.parameters[0])
        body.i32_const(0)
        body.call(imported["alloc"])
        body.i64_const(0)
        body.op("i64.gt_s")
        with body.if_():
            body.get(count)
            body.i32_const(1)
            body.op("i32.add")
            body.set(count)
            body.br(again)
    body.get(count)

    copy = module.function([I32], [], export="storm_copy")
    body = copy.code
    body.get(copy.parameters[0])
    body.i32_const(0)
    body.call(imported["alloc"])
    body.op("drop")

    def move() -> None:
        for name, order in (("up", (1, 0, 0)), ("down", (0, 1, 0))):
            for value in order:
                body.i32_const(value)
            body.get(copy.parameters[0])
            body.call(imported[name])
            body.op("drop")

    for_ever(body, move)


def _memory(module: Module) -> None:
    """``grow``: a page at a time, touched, until refused; how many pages there are. ``sweep``: the first word that
    is not 0 in memory it grew, or 0. ``stain``: fill what it can have with 0xA5."""
    grow = module.function([], [I32], export="grow").code
    with grow.loop() as again:
        grow.i32_const(1)
        grow.memory_grow()
        grow.i32_const(-1)
        grow.op("i32.ne")
        with grow.if_():
            grow.memory_size()
            grow.i32_const(65_536)
            grow.op("i32.mul")
            grow.i32_const(8)
            grow.op("i32.sub")
            grow.i64_const(-1)
            grow.memory("i64.store")
            grow.br(again)
    grow.memory_size()

    sweep = module.function([I32], [I64], export="sweep")
    body, (pages,) = sweep.code, sweep.parameters
    at, end = body.local(I32), body.local(I32)
    body.get(pages)
    body.memory_grow()
    body.i32_const(65_536)
    body.op("i32.mul")
    body.set(at)
    body.memory_size()
    body.i32_const(65_536)
    body.op("i32.mul")
    body.set(end)
    with body.loop() as again:
        body.get(at)
        body.memory("i64.load")
        body.op("i64.eqz")
        with body.if_():
            body.get(at)
            body.i32_const(8)
            body.op("i32.add")
            body.tee(at)
            body.get(end)
            body.op("i32.lt_u")
            body.br_if(again)
            body.i64_const(0)
            body.op("return")
    body.get(at)
    body.memory("i64.load")

    stain = module.function([I32], [], export="stain")
    body, (pages,) = stain.code, stain.parameters
    body.get(pages)
    body.memory_grow()
    body.op("drop")
    body.i32_const(0)
    body.i32_const(0xA5)
    body.memory_size()
    body.i32_const(65_536)
    body.op("i32.mul")
    body.memory_fill()


def _kernel(module: Module, imported: dict[str, Function]) -> None:
    """``kernel(grid, block, shared, argv_bytes, ptx_bytes, entry_bytes)``; the input is PTX, entry, argv.

    Gives the code of what failed, or 0, and ``RESULT_COUNT`` i64 of what lies at ``RESULTS``. ``kernels(...)`` loads
    and launches for ever. ``launch(kernel, block, argv, argv_bytes)`` launches what was not loaded.
    """
    shape = [I32] * 6
    one = module.function(shape, [I64] * (1 + RESULT_COUNT), export="kernel")
    body = one.code
    grid, block, shared, argv_bytes, ptx_bytes, entry_bytes = one.parameters
    identity = body.local(I64)
    call(body, imported["input"], INPUT, PROBE_BYTES - INPUT)
    body.op("drop")

    def after_ptx() -> None:
        body.i32_const(INPUT)
        body.get(ptx_bytes)
        body.op("i32.add")

    body.i32_const(INPUT)
    body.get(ptx_bytes)
    after_ptx()
    body.get(entry_bytes)
    body.call(imported["load"])
    body.tee(identity)
    body.i64_const(0)
    body.op("i64.ge_s")
    with body.if_():
        body.get(identity)
        for axis in (grid, None, None, block, None, None):
            if axis is None:
                body.i32_const(1)
            else:
                body.get(axis)
        body.get(shared)
        after_ptx()
        body.get(entry_bytes)
        body.op("i32.add")
        body.get(argv_bytes)
        body.call(imported["launch"])
        body.op("i64.extend_i32_s")
        body.set(identity)
    body.get(identity)
    for position in range(RESULT_COUNT):
        body.i32_const(RESULTS + 8 * position)
        body.memory("i64.load")

    launch = module.function([I64, I32, I32, I32], [I32], export="launch")
    body = launch.code
    kernel, block, argv, argv_bytes = launch.parameters
    body.get(kernel)
    for value in (1, 1, 1, block, 1, 1, 0, argv, argv_bytes):
        if isinstance(value, int):
            body.i32_const(value)
        else:
            body.get(value)
    body.call(imported["launch"])


def _echoes(module: Module, imported: dict[str, Function]) -> None:
    """``say``: the input to stderr. ``alloc``, ``free``, ``up``, ``down``: as the host's. ``hold``: allocate, spin."""
    say = module.function([], [], export="say").code
    say.i32_const(512)
    say.i32_const(INPUT)
    say.memory("i32.store")
    say.i32_const(516)
    call(say, imported["input"], INPUT, PROBE_BYTES - INPUT)
    say.memory("i32.store")
    call(say, imported["write"], 2, 512, 1, SCRATCH)
    say.op("drop")

    for name in ("alloc", "free", "up", "down"):
        function = imported[name]
        passed = module.function(function.type.parameters, function.type.results, export=name)
        for parameter in passed.parameters:
            passed.code.get(parameter)
        passed.code.call(function)

    hold = module.function([I32], [], export="hold")
    hold.code.get(hold.parameters[0])
    hold.code.i32_const(0)
    hold.code.call(imported["alloc"])
    hold.code.op("drop")
    for_ever(hold.code, lambda: None)


def device_probe() -> bytes:
    """A guest of 0.3.0.

    ``device(bytes, count, argv_bytes, ptx_bytes, entry_bytes)``: allocate so often, load and launch what the input
    has, as the probe's ``kernel``; the code, what lies at ``RESULTS``, and the sums of all bytes of the first three
    allocations. ``storm_unload(ptx_bytes)``: load the input's entry ``k`` and unload it, for ever.
    """
    module = Module()
    load = module.import_function(CUDA_3, "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA_3, "wasi_cuda_launch", [I64] + [I32] * 9, [I32])
    alloc = module.import_function(CUDA_3, "wasi_cuda_alloc", [I32] * 2, [I64])
    copy = module.import_function(CUDA_3, "wasi_cuda_memcpy", [I64, I64, I32, I32, I32], [I32])
    unload = module.import_function(CUDA_3, "wasi_cuda_unload", [I64], [I32])
    read = module.import_function("wasi:tensor/host@0.1.0", "read-input", [I32, I32], [I32])
    module.export("memory", module.memory(PROBE_PAGES))
    module.function([], [], export="nothing")
    one = module.function([I32] * 5, [I64] * 5, export="device")
    body = one.code
    size, count, argv_bytes, ptx_bytes, entry_bytes = one.parameters
    code, at, total = body.local(I64), body.local(I32), body.local(I64)
    with body.loop() as again:
        body.get(size)
        body.i32_const(0)
        body.call(alloc)
        body.op("drop")
        body.get(count)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(count)
        body.br_if(again)
    call(body, read, INPUT, PROBE_BYTES - INPUT)
    body.op("drop")
    body.i32_const(INPUT)
    body.get(ptx_bytes)
    body.i32_const(INPUT)
    body.get(ptx_bytes)
    body.op("i32.add")
    body.get(entry_bytes)
    body.call(load)
    body.tee(code)
    body.i64_const(0)
    body.op("i64.ge_s")
    with body.if_():
        body.get(code)
        for value in (1, 1, 1, 1, 1, 1, 0, INPUT):
            body.i32_const(value)
        body.get(ptx_bytes)
        body.get(entry_bytes)
        body.op("i32.add", "i32.add")
        body.get(argv_bytes)
        body.call(launch)
        body.op("i64.extend_i32_s")
        body.set(code)
    body.get(code)
    body.i32_const(RESULTS)
    body.memory("i64.load")
    for handle in (1, 2, 3):
        body.i64_const(handle)
        body.i64_const(0)
        body.i32_const(INPUT)
        body.get(size)
        body.i32_const(1)
        body.call(copy)
        body.op("drop")
        body.i64_const(0)
        body.set(total)
        body.get(size)
        body.set(at)
        with body.loop() as again:
            body.get(at)
            body.i32_const(1)
            body.op("i32.sub")
            body.tee(at)
            body.memory("i64.load8_u", INPUT)
            body.get(total)
            body.op("i64.add")
            body.set(total)
            body.get(at)
            body.br_if(again)
        body.get(total)
    storm = module.function([I32], [], export="storm_unload")
    body = storm.code
    call(body, read, INPUT, PROBE_BYTES - INPUT)
    body.op("drop")

    def both() -> None:
        body.i32_const(INPUT)
        body.get(storm.parameters[0])
        body.i32_const(INPUT)
        body.get(storm.parameters[0])
        body.op("i32.add")
        body.i32_const(1)
        body.call(load)
        body.call(unload)
        body.op("drop")

    for_ever(body, both)
    return module.encode().wasm


def kernel_call(
    ptx: str, argv: Sequence[tuple[object, ...]] = (), *, grid: int = 1, block: int = 1, shared: int = 0
) -> tuple[list[int], bytes]:
    """Arguments and input for the probe's ``kernel``: the entry is named ``k``."""
    text, packed = ptx.encode(), pack(argv) if argv else b""  # type: ignore[arg-type]  # attacks give what they like
    return [grid, block, shared, len(packed), len(text), 1], text + b"k" + packed


def entry(body: str, parameters: str = ".param .u64 a", before: str = "") -> str:
    """PTX of an entry ``k``: registers %r0-%r15, %rd0-%rd15, %p0-%p3, %f0-%f3; ``a`` is in %rd0 when it is there."""
    load = "ld.param.u64 %rd0, [a];" if "u64 a" in parameters else ""
    return f""".version 7.8
.target sm_80
.address_size 64
{before}
.visible .entry k({parameters})
{{
  .reg .pred %p<4>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<16>;
  .reg .f32 %f<4>;
  {load}
{body}
  ret;
}}
"""


def u64(value: int) -> tuple[Tag, int]:
    return (Tag.U64, value & (1 << 64) - 1)


def streamer() -> bytes:
    """``pour(bytes)``: emit chunks for ever, whatever the host says; ``emit(count, bytes)``: so many, the last code.

    ``say`` emits the invocation's input; ``nothing`` returns.
    """
    module = Module()
    emit = module.import_function("wasi:tensor/host@0.1.0", "emit-chunk", [I32, I32], [I32])
    read = module.import_function("wasi:tensor/host@0.1.0", "read-input", [I32, I32], [I32])
    module.export("memory", module.memory(PROBE_PAGES))
    module.function([], [], export="nothing")
    pour = module.function([I32], [], export="pour")

    def step() -> None:
        pour.code.i32_const(0)
        pour.code.get(pour.parameters[0])
        pour.code.call(emit)
        pour.code.op("drop")

    for_ever(pour.code, step)
    some = module.function([I32, I32], [I32], export="emit")
    body, (count, size) = some.code, some.parameters
    code = body.local(I32)
    with body.loop() as again:
        body.i32_const(0)
        body.get(size)
        body.call(emit)
        body.set(code)
        body.get(count)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(count)
        body.br_if(again)
    body.get(code)
    say = module.function([], [I32], export="say").code
    say.i32_const(INPUT)
    call(say, read, INPUT, PROBE_BYTES - INPUT)
    say.call(emit)
    return module.encode().wasm
