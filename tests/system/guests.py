"""The guest of the front-door tests: one module whose exports behave, misbehave, and pass on what they are given."""

from __future__ import annotations

from tensor_wasm.wasm import Module, ValType

I32, I64, F32, F64 = ValType.I32, ValType.I64, ValType.F32, ValType.F64
CUDA = "wasi:cuda/host@0.2.0"

#: Where the invocation's input is in the guest's memory, and how much memory there is.
INPUT = 4096
MEMORY_BYTES = 4 * 65_536

_MONOTONIC = 1
_NANOSECONDS = 1_000_000


def guest() -> bytes:
    """``run`` gives 42; ``add``, ``same_*``; ``trap``, ``spin``, ``wait(ms)``; ``hello``; ``load``, ``launch``.

    ``load(ptx_bytes, entry_bytes)`` loads what the invocation's input begins with. ``launch(grid, block, shared, argv,
    argv_bytes, ptx_bytes, entry_bytes)`` loads it and launches it, and gives the code of whichever failed.
    ``launch_id(id)`` launches a kernel that was never loaded.
    """
    module = Module()
    clock = module.import_function("wasi_snapshot_preview1", "clock_time_get", [I32, I64, I32], [I32])
    write = module.import_function("wasi_snapshot_preview1", "fd_write", [I32] * 4, [I32])
    read = module.import_function("wasi:tensor/host@0.1.0", "read-input", [I32, I32], [I32])
    load = module.import_function(CUDA, "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA, "wasi_cuda_launch", [I64] + [I32] * 9, [I32])
    module.export("memory", module.memory(4))
    module.data(b"\x10\0\0\0\x06\0\0\0", 0)
    module.data(b"hello\n", 16)
    _values(module)
    _endings(module)
    _wait(module, clock)
    _hello(module, write)
    _kernels(module, read, load, launch)
    return module.encode().wasm


def _values(module: Module) -> None:
    add = module.function([I32, I32], [I32], export="add")
    for parameter in add.parameters:
        add.code.get(parameter)
    add.code.op("i32.add")
    module.function([], [I32], export="run").code.i32_const(42)
    for kind, name in ((I32, "same_i32"), (I64, "same_i64"), (F32, "same_f32"), (F64, "same_f64")):
        same = module.function([kind], [kind], export=name)
        same.code.get(same.parameters[0])
    grow = module.function([I32], [I32], export="grow")
    grow.code.get(grow.parameters[0])
    grow.code.memory_grow()


def _endings(module: Module) -> None:
    module.function([], [], export="trap").code.op("unreachable")
    spin = module.function([], [], export="spin").code
    with spin.loop() as again:
        spin.br(again)


def _wait(module: Module, clock) -> None:
    wait = module.function([I32], [I32], export="wait")
    body = wait.code
    until = body.local(I64)

    def now() -> None:
        body.i32_const(_MONOTONIC)
        body.i64_const(0)
        body.i32_const(64)
        body.call(clock)
        body.op("drop")
        body.i32_const(64)
        body.memory("i64.load")

    now()
    body.get(wait.parameters[0])
    body.op("i64.extend_i32_u")
    body.i64_const(_NANOSECONDS)
    body.op("i64.mul", "i64.add")
    body.set(until)
    with body.loop() as again:
        now()
        body.get(until)
        body.op("i64.lt_u")
        body.br_if(again)
    body.get(wait.parameters[0])


def _hello(module: Module, write) -> None:
    body = module.function([], [], export="hello").code
    for value in (1, 0, 1, 8):
        body.i32_const(value)
    body.call(write)
    body.op("drop")


def _kernels(module: Module, read, load, launch) -> None:
    def load_input(body, ptx_bytes, entry_bytes) -> None:
        body.i32_const(INPUT)
        body.i32_const(MEMORY_BYTES - INPUT)
        body.call(read)
        body.op("drop")
        body.i32_const(INPUT)
        body.get(ptx_bytes)
        body.i32_const(INPUT)
        body.get(ptx_bytes)
        body.op("i32.add")
        body.get(entry_bytes)
        body.call(load)

    only_load = module.function([I32, I32], [I64], export="load")
    load_input(only_load.code, *only_load.parameters)

    both = module.function([I32] * 11, [I32], export="launch")
    body = both.code
    kernel = body.local(I64)
    load_input(body, *both.parameters[9:])
    body.tee(kernel)
    body.i64_const(0)
    body.op("i64.lt_s")
    with body.if_():
        body.get(kernel)
        body.op("i32.wrap_i64", "return")
    body.get(kernel)
    for parameter in both.parameters[:9]:
        body.get(parameter)
    body.call(launch)

    unknown = module.function([I64], [I32], export="launch_id")
    unknown.code.get(unknown.parameters[0])
    for value in (1, 1, 1, 1, 1, 1, 0, 0, 0):
        unknown.code.i32_const(value)
    unknown.code.call(launch)
