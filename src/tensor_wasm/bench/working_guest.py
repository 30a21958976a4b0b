"""A guest that works for as long as it is told to: in itself, in a kernel, asleep. Written with the encoder."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from tensor_wasm.abi import CUDA_MODULES, WASI_MODULE, Tag, pack
from tensor_wasm.dispatch.link_module import LAUNCH_PARAMETERS
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64

#: A kernel whose time is its argument: each step waits for the one before.
COMPUTE_PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry compute(.param .u32 steps)
{
    .reg .u32 %r<3>;
    .reg .pred %p;
    ld.param.u32 %r1, [steps];
    mov.u32 %r2, 1;
AGAIN:
    mad.lo.u32 %r2, %r2, 1664525, 1013904223;
    sub.u32 %r1, %r1, 1;
    setp.ne.u32 %p, %r1, 0;
    @%p bra AGAIN;
    ret;
}
"""
_PTX = (
    COMPUTE_PTX
    + b"""\
.visible .entry endless()
{
    .reg .u32 %r<2>;
    mov.u32 %r1, 0;
AGAIN:
    add.u32 %r1, %r1, 1;
    bra AGAIN;
}
"""
)
_COMPUTE, _ENDLESS = b"compute", b"endless"
_KERNEL_AT, _STEPS_AT, _COMPUTE_AT, _ENDLESS_AT, _SUBSCRIPTION_AT, _EVENT_AT, _STORED_AT, _PTX_AT = (
    8, 16, 64, 96, 128, 256, 320, 1024,
)  # fmt: skip
_STEPS = pack([(Tag.U32, 0)])
_LONG_NS = 3600 * 10**9
#: One timer on the monotonic clock.
_SUBSCRIPTION = struct.pack("<QB7xI4xQQH6x", 0, 0, 1, _LONG_NS, 0, 0)

#: A first guess, and what is measured to correct it.
_PROBE_STEPS = 200_000
_PROBES = 5


def working_guest() -> bytes:
    """The module. Exports that return: ``noop() -> i32``; ``work(steps) -> i32`` in the guest itself; ``prepare() ->
    i32`` and then ``launch(steps) -> i32`` in a kernel, which give the ABI's codes. Exports that do not:
    ``flood(steps) -> i32`` launches again and again until a code refuses it; ``spin()``, ``kernel() -> i32`` (an
    endless one) and ``sleep()`` (an hour).
    """
    module = Module()
    poll = module.import_function(WASI_MODULE, "poll_oneoff", [I32] * 4, [I32])
    load = module.import_function(CUDA_MODULES[0], "wasi_cuda_load_ptx", [I32] * 4, [I64])
    launch = module.import_function(CUDA_MODULES[0], "wasi_cuda_launch", LAUNCH_PARAMETERS, [I32])
    module.memory(2, export="memory")
    for content, place in (
        (_STEPS, _STEPS_AT),
        (_COMPUTE, _COMPUTE_AT),
        (_ENDLESS, _ENDLESS_AT),
        (_SUBSCRIPTION, _SUBSCRIPTION_AT),
        (_PTX, _PTX_AT),
    ):
        module.data(content, place)
    module.function([], [I32], export="noop").code.i32_const(0)
    add_work(module)
    prepare = module.function([], [I32], export="prepare").code
    _load(prepare, load, _COMPUTE_AT, len(_COMPUTE))
    once = module.function([I32], [I32], export="launch")
    _launch(once.code, launch, once.parameters[0])
    flood = module.function([I32], [I32], export="flood")
    code = flood.code.local(I32)
    with flood.code.loop() as again:
        _launch(flood.code, launch, flood.parameters[0])
        flood.code.tee(code)
        flood.code.op("i32.eqz")
        flood.code.br_if(again)
    flood.code.get(code)
    spin = module.function([], [], export="spin").code
    with spin.loop() as again:
        spin.br(again)
    kernel = module.function([], [I32], export="kernel").code
    _load(kernel, load, _ENDLESS_AT, len(_ENDLESS))
    kernel.op("drop")
    _launch(kernel, launch, None)
    sleep = module.function([], [], export="sleep").code
    for value in (_SUBSCRIPTION_AT, _EVENT_AT, 1, _STORED_AT):
        sleep.i32_const(value)
    sleep.call(poll)
    sleep.op("drop")
    return module.encode().wasm


def add_work(module: Module) -> Function:
    """Give a guest ``work(steps) -> i32``."""
    function = module.function([I32], [I32], export="work")
    body, (left,) = function.code, function.parameters
    # A linear congruential generator, so that each step waits for the one before.
    value = body.local(I32)
    with body.loop() as again:
        body.get(value)
        body.i32_const(1664525)
        body.op("i32.mul")
        body.i32_const(1013904223)
        body.op("i32.add")
        body.set(value)
        body.get(left)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(left)
        body.br_if(again)
    body.get(value)
    return function


def _load(body: Body, load: Function, entry: int, entry_bytes: int) -> None:
    """Load a kernel and note its id; push the code: 0, or what refused it."""
    kernel = body.local(I64)
    for value in (_PTX_AT, len(_PTX), entry, entry_bytes):
        body.i32_const(value)
    body.call(load)
    body.set(kernel)
    body.i32_const(_KERNEL_AT)
    body.get(kernel)
    body.memory("i64.store")
    body.get(kernel)
    body.i64_const(0)
    body.get(kernel)
    body.i64_const(0)
    body.op("i64.lt_s", "select", "i32.wrap_i64")


def _launch(body: Body, launch: Function, steps: Local | None) -> None:
    """Launch the kernel loaded last on one thread; push its code."""
    if steps is not None:
        body.i32_const(_STEPS_AT + 1)  # behind the record's tag
        body.get(steps)
        body.memory("i32.store", align=0)
    body.i32_const(_KERNEL_AT)
    body.memory("i64.load")
    for value in (1, 1, 1, 1, 1, 1, 0, _STEPS_AT, 0 if steps is None else len(_STEPS)):
        body.i32_const(value)
    body.call(launch)


def steps_for(work: Callable[[int], object], duration_s: float) -> int:
    """How many steps ``work`` needs for ``duration_s`` of a core's time; it must run on the calling thread.

    Counts processor time, so that what else the machine does meanwhile does not matter.
    """
    work(_PROBE_STEPS)
    durations_s = []
    for _ in range(_PROBES):
        began_ns = time.thread_time_ns()
        work(_PROBE_STEPS)
        durations_s.append((time.thread_time_ns() - began_ns) / 1e9)
    return max(round(_PROBE_STEPS * duration_s / min(durations_s)), 1)
