"""The gate's code, written with the encoder: what ``dispatch/gate.py`` binds to a guest.

Memories: 0 the guest's, 1 the ledger's (shared), 2 scratch. The ledger is exported as ``memory``, so that WASI's clock
writes the time into the instance's own slot. Order of checks: guest ABI, "launch".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tensor_wasm.abi import Code, Tag, limits
from tensor_wasm.abi.argv import VALUE_BYTES
from tensor_wasm.dispatch import layout, scratch
from tensor_wasm.dispatch.layout import BUCKETS, COUNTERS, HISTOGRAM_SUM, LATENCY_BUCKETS_NS, State
from tensor_wasm.dispatch.link_module import CLOCK_PARAMETERS, LAUNCH_PARAMETERS
from tensor_wasm.wasm import Body, Function, FunctionType, Label, Local, Module, Table, ValType

I32, I64 = ValType.I32, ValType.I64
_GUEST, _LEDGER, _SCRATCH = 0, 1, 2
_MONOTONIC = 1

#: A launch that waits looks at its flags and its deadline this often.
WAIT_SLICE_NS = 10_000_000
_MARGIN_NS = limits.LAUNCH_MARGIN_MS * 1_000_000
#: What a kernel's ``run`` takes: grid and block axes, dynamic shared bytes, address of the parameter block.
_RUN_PARAMETERS = [I32] * 8


@dataclass(frozen=True, slots=True)
class _Parts:
    """The gate's own functions and types, for the code that calls them."""

    clock: Function
    observe: Function
    acquire: Function
    lower: Function
    run: FunctionType
    kernels: Table


@cache
def gate_module() -> bytes:
    """The gate. Imports in order: guest memory, ledger, launch table, clock. Exports scratch, kernels, read_clock."""
    module = Module()
    module.import_memory("guest", "memory")
    ledger = module.import_memory("ledger", "memory", layout.PAGES, layout.PAGES, shared=True)
    launch_table = module.import_table("link", "launch_table", 1, 1)
    wasi_clock = module.import_function("link", "clock", CLOCK_PARAMETERS, [I32])
    module.memory(1, export="scratch")
    kernels = module.table(limits.KERNELS_MAX, limits.KERNELS_MAX, export="kernels")
    module.export("memory", ledger)
    clock = _clock(module, wasi_clock)
    observe = _observe(module)
    parts = _Parts(
        clock=clock,
        observe=observe,
        acquire=_acquire(module, clock, observe),
        lower=_lower(module),
        run=module.type(_RUN_PARAMETERS),
        kernels=kernels,
    )
    launch = _launch(module, parts)
    module.elements(launch_table, 0, [launch])
    _read_clock(module, clock)
    return module.encode().wasm


def _clock(module: Module, wasi_clock: Function) -> Function:
    """``(slot) -> ns`` of the store's monotonic clock."""
    function = module.function([I32], [I64], name="clock")
    body, (slot,) = function.code, function.parameters
    body.i32_const(_MONOTONIC)
    body.i64_const(1)
    body.get(slot)
    body.i32_const(layout.CLOCK)
    body.op("i32.add")
    body.call(wasi_clock)
    body.op("drop")
    body.get(slot)
    body.memory("i64.load", layout.CLOCK, memory=_LEDGER)
    return function


def _read_clock(module: Module, clock: Function) -> None:
    """Leave the time in the slot's clock field, for the host to set the deadline by."""
    body = module.function([], [], export="read_clock").code
    _load_slot(body)
    body.call(clock)
    body.op("drop")


def _load_slot(body: Body) -> None:
    body.i32_const(0)
    body.memory("i32.load", scratch.SLOT, memory=_SCRATCH)


# --- histograms --------------------------------------------------------------------------------------------


def _observe(module: Module) -> Function:
    """``(histogram address in the ledger, ns)``: count one observation."""
    function = module.function([I32, I64], [], name="observe")
    body, (histogram, value) = function.code, function.parameters
    body.get(histogram)
    body.get(histogram)
    body.memory("i64.load", HISTOGRAM_SUM, memory=_LEDGER)
    body.get(value)
    body.op("i64.add")
    body.memory("i64.store", HISTOGRAM_SUM, memory=_LEDGER)
    for bucket, bound in enumerate(LATENCY_BUCKETS_NS):
        body.get(value)
        body.i64_const(bound)
        body.op("i64.le_u")
        with body.if_():
            _increment(body, histogram, 8 * bucket)
            body.op("return")
    _increment(body, histogram, 8 * (BUCKETS - 1))
    return function


def _increment(body: Body, base: Local, offset: int) -> None:
    """Add one to a counter that only this instance writes."""
    body.get(base)
    body.get(base)
    body.memory("i64.load", offset, memory=_LEDGER)
    body.i64_const(1)
    body.op("i64.add")
    body.memory("i64.store", offset, memory=_LEDGER)


# --- permits -----------------------------------------------------------------------------------------------


def _acquire(module: Module, clock: Function, observe: Function) -> Function:
    """``(slot, now) -> code``: take a permit, waiting if there is none; counts the wait and what it refuses."""
    wait = _wait(module, clock, observe)
    function = module.function([I32, I64], [I32], name="acquire")
    body, (slot, now) = function.code, function.parameters
    available = body.local(I32)
    body.get(slot)
    body.memory("i64.load", layout.DEADLINE_NS, memory=_LEDGER)
    body.get(now)
    body.op("i64.sub")
    body.i64_const(_MARGIN_NS)
    body.op("i64.lt_s")
    with body.if_():
        _increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.rejected_deadline)
        body.i32_const(Code.DEADLINE)
        body.op("return")
    with body.block() as none_free:
        _take_one(body, slot, available, none_free)
        _increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.permit_wait)  # no wait: the first bucket
        body.i32_const(Code.OK)
        body.op("return")
    body.get(slot)
    body.get(now)
    body.call(wait)
    return function


def _take_one(body: Body, slot: Local, available: Local, none_free: Label) -> None:
    """Take a permit or branch to ``none_free``.

    Nothing that Wasmtime may interrupt stands between the exchange and the note that the permit is held.
    """
    with body.loop() as again:
        body.i32_const(0)
        body.memory("i32.atomic.load", layout.AVAILABLE, memory=_LEDGER)
        body.tee(available)
        body.i32_const(0)
        body.op("i32.le_s")
        body.br_if(none_free)
        body.i32_const(0)
        body.get(available)
        body.get(available)
        body.i32_const(1)
        body.op("i32.sub")
        body.memory("i32.atomic.rmw.cmpxchg", layout.AVAILABLE, memory=_LEDGER)
        body.get(available)
        body.op("i32.ne")
        body.br_if(again)
    body.get(slot)
    body.i32_const(1)
    body.memory("i32.store", layout.HELD, memory=_LEDGER)
    _add_to_tenant(body, slot, layout.TENANT_HELD, "add")


def _add_to_tenant(body: Body, slot: Local, field: int, direction: str) -> None:
    body.get(slot)
    body.memory("i32.load", layout.TENANT_SLOT, memory=_LEDGER)
    body.i32_const(1)
    body.memory(f"i32.atomic.rmw.{direction}", field, memory=_LEDGER)
    body.op("drop")


def _wait(module: Module, clock: Function, observe: Function) -> Function:
    """``(slot, start) -> code``: wait for a permit in slices, so that an order to end and the deadline are seen."""
    function = module.function([I32, I64], [I32], name="wait")
    body, (slot, start) = function.code, function.parameters
    available, now, left, code = body.local(I32), body.local(I64), body.local(I64), body.local(I32)
    _queue(body, slot, "add")
    _set_state(body, slot, State.WAITING)
    with body.block() as done, body.loop() as again:
        with body.block() as none_free:
            _take_one(body, slot, available, none_free)
            body.br(done)
        body.get(slot)
        body.memory("i32.load", layout.FLAGS, memory=_LEDGER)
        with body.if_():
            body.op("unreachable")  # whoever asked for the end knows why
        body.get(slot)
        body.call(clock)
        body.set(now)
        _load_wait_left(body, start, now, left)
        _refuse_if_over(body, slot, left, code, refusal=Code.SATURATED, done=done)
        _load_deadline_left(body, slot, now, left)
        _refuse_if_over(body, slot, left, code, refusal=Code.DEADLINE, done=done)
        _sleep(body, left)
        body.br(again)
    _queue(body, slot, "sub")
    _set_state(body, slot, State.RUNNING)
    body.get(slot)
    body.i32_const(layout.INSTANCE_COUNTERS + COUNTERS.permit_wait)
    body.op("i32.add")
    body.get(slot)
    body.call(clock)
    body.get(start)
    body.op("i64.sub")
    body.call(observe)
    body.get(code)
    return function


def _queue(body: Body, slot: Local, direction: str) -> None:
    """Count the launch among those that wait, or no longer."""
    body.i32_const(0)
    body.i32_const(1)
    body.memory(f"i32.atomic.rmw.{direction}", layout.WAITERS, memory=_LEDGER)
    body.op("drop")
    _add_to_tenant(body, slot, layout.TENANT_WAITING, direction)


def _set_state(body: Body, slot: Local, state: int) -> None:
    body.get(slot)
    body.i32_const(state)
    body.memory("i32.store", layout.STATE, memory=_LEDGER)


def _load_wait_left(body: Body, start: Local, now: Local, left: Local) -> None:
    """``left = allowed wait - (now - start)``."""
    body.i32_const(0)
    body.memory("i64.load", layout.MAX_WAIT_NS, memory=_LEDGER)
    body.get(now)
    body.get(start)
    body.op("i64.sub", "i64.sub")
    body.set(left)


def _load_deadline_left(body: Body, slot: Local, now: Local, left: Local) -> None:
    """``left`` becomes the lesser of itself and what is left until a launch could no longer start."""
    until = body.local(I64)
    body.get(slot)
    body.memory("i64.load", layout.DEADLINE_NS, memory=_LEDGER)
    body.get(now)
    body.op("i64.sub")
    body.i64_const(_MARGIN_NS)
    body.op("i64.sub")
    body.tee(until)
    body.get(left)
    body.get(until)
    body.get(left)
    body.op("i64.lt_s", "select")
    body.set(left)
    body.release(until)


def _refuse_if_over(body: Body, slot: Local, left: Local, code: Local, *, refusal: Code, done: Label) -> None:
    counter = COUNTERS.rejected_saturated if refusal is Code.SATURATED else COUNTERS.rejected_deadline
    body.get(left)
    body.i64_const(0)
    body.op("i64.le_s")
    with body.if_():
        _increment(body, slot, layout.INSTANCE_COUNTERS + counter)
        body.i32_const(refusal)
        body.set(code)
        body.br(done)


def _sleep(body: Body, left: Local) -> None:
    """Sleep until a permit comes back, but no longer than ``left`` nor than one slice."""
    body.i32_const(0)
    body.i32_const(0)
    body.get(left)
    body.i64_const(WAIT_SLICE_NS)
    body.get(left)
    body.i64_const(WAIT_SLICE_NS)
    body.op("i64.lt_s", "select")
    body.memory("memory.atomic.wait32", layout.AVAILABLE, memory=_LEDGER)
    body.op("drop")


def _release(body: Body, slot: Local) -> None:
    """Give the permit back and wake one launch that waits."""
    body.get(slot)
    body.i32_const(0)
    body.memory("i32.store", layout.HELD, memory=_LEDGER)
    _add_to_tenant(body, slot, layout.TENANT_HELD, "sub")
    body.i32_const(0)
    body.i32_const(1)
    body.memory("i32.atomic.rmw.add", layout.AVAILABLE, memory=_LEDGER)
    body.op("drop")
    body.i32_const(0)
    body.memory("i32.atomic.load", layout.WAITERS, memory=_LEDGER)
    with body.if_():
        body.i32_const(0)
        body.i32_const(1)
        body.memory("memory.atomic.notify", layout.AVAILABLE, memory=_LEDGER)
        body.op("drop")


# --- argv --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Walk:
    """Locals of the walk over argv: the record at ``at``, its ``value``, the parameter's ``entry``."""

    at: Local
    end: Local
    tag: Local
    value: Local
    entry: Local
    left: Local
    mismatch: Local


def _lower(module: Module) -> Function:
    """``(descriptor, argv, length) -> code``: check argv against the kernel and pack it into the parameter block.

    The form of every record comes before its fit to the kernel, so a mismatch is only noted during the walk.
    """
    function = module.function([I32, I32, I32], [I32], name="lower")
    body, (descriptor, at, length) = function.code, function.parameters
    walk = _Walk(at, *(body.local(I32) for _ in range(6)))
    records = body.local(I32)
    _return_if(body, Code.ARGV_TOO_LARGE, length, limits.ARGV_MAX_BYTES)
    _sum(body, at, length, walk.end)
    body.get(descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_COUNT, memory=_SCRATCH)
    body.set(walk.left)
    body.get(descriptor)
    body.i32_const(scratch.DESCRIPTOR_PARAMETERS)
    body.op("i32.add")
    body.set(walk.entry)
    with body.block() as done, body.loop() as again:
        body.get(at)
        body.get(walk.end)
        body.op("i32.eq")
        body.br_if(done)
        _step(body, records, 1)
        _return_if(body, Code.ARGV_TOO_LARGE, records, limits.ARGV_MAX_RECORDS)
        _match(body, walk)
        _take_record(body, walk)
        _step(body, walk.entry, 4)
        _step(body, walk.left, -1)
        body.br(again)
    body.i32_const(Code.INVALID_ARGUMENTS)
    body.i32_const(Code.OK)
    body.get(walk.mismatch)
    body.get(walk.left)
    body.op("i32.or", "select")
    return function


def _sum(body: Body, left: Local, right: Local, into: Local) -> None:
    body.get(left)
    body.get(right)
    body.op("i32.add")
    body.set(into)


def _step(body: Body, local: Local, by: int) -> None:
    body.get(local)
    body.i32_const(by)
    body.op("i32.add")
    body.set(local)


def _return_if(body: Body, code: Code, value: Local, above: int) -> None:
    """Refuse when ``value``, unsigned, is greater than ``above``."""
    body.get(value)
    body.i32_const(above)
    body.op("i32.gt_u")
    with body.if_():
        body.i32_const(code)
        body.op("return")


def _match(body: Body, walk: _Walk) -> None:
    """Read the tag; note a mismatch when there is no parameter left or it does not take the tag."""
    body.get(walk.at)
    body.memory("i32.load8_u", memory=_GUEST)
    body.tee(walk.tag)
    body.i32_const(15)
    body.op("i32.gt_u")
    body.get(walk.left)
    body.i32_const(0)
    body.op("i32.le_s", "i32.or")
    body.get(walk.mismatch)
    body.op("i32.or")
    body.tee(walk.mismatch)
    body.op("i32.eqz")
    with body.if_():
        body.get(walk.entry)
        body.memory("i32.load16_u", memory=_SCRATCH)
        body.get(walk.tag)
        body.op("i32.shr_u")
        body.i32_const(1)
        body.op("i32.and", "i32.eqz")
        body.set(walk.mismatch)


def _take_record(body: Body, walk: _Walk) -> None:
    """Step over the record; its value goes to the parameter unless something did not fit."""
    with body.block() as next_record:
        with body.block() as pointer:
            with body.block() as wide:
                with body.block() as narrow:
                    with body.block() as unknown:
                        _branch_by_tag(body, walk.tag, {4: narrow, 8: wide}, pointer, unknown)
                    body.i32_const(Code.INVALID_ARGUMENTS)
                    body.op("return")
                _step_over(body, walk, 4)
                _store_parameter(body, walk, "i32.load", "i32.store", next_record)
                body.br(next_record)
            _step_over(body, walk, 8)
            _store_parameter(body, walk, "i64.load", "i64.store", next_record)
            body.br(next_record)
        _step_over(body, walk, 8)
        _check_window(body, walk)
        _store_parameter(body, walk, "i64.load32_u", "i64.store", next_record)


def _branch_by_tag(body: Body, tag: Local, by_size: dict[int, Label], pointer: Label, unknown: Label) -> None:
    targets = [unknown] * (max(VALUE_BYTES) + 1)
    for known, size in VALUE_BYTES.items():
        targets[known] = by_size[size]
    targets[Tag.POINTER] = pointer
    body.get(tag)
    body.br_table(targets, unknown)


def _step_over(body: Body, walk: _Walk, size: int) -> None:
    """``value`` is the record's value, ``at`` the next record; refuse a record that is cut short."""
    body.get(walk.end)
    body.get(walk.at)
    body.op("i32.sub")
    body.i32_const(1 + size)
    body.op("i32.lt_u")
    with body.if_():
        body.i32_const(Code.INVALID_ARGUMENTS)
        body.op("return")
    body.get(walk.at)
    body.i32_const(1)
    body.op("i32.add")
    body.set(walk.value)
    _step(body, walk.at, 1 + size)


def _check_window(body: Body, walk: _Walk) -> None:
    """Refuse a pointer whose window (u32 offset, u32 length) is not inside guest memory."""
    for offset in (0, 4):
        body.get(walk.value)
        body.memory("i64.load32_u", offset, align=0, memory=_GUEST)
    body.op("i64.add")
    _load_guest_size(body)
    body.op("i64.gt_u")
    with body.if_():
        body.i32_const(Code.INVALID_POINTER)
        body.op("return")


def _load_guest_size(body: Body) -> None:
    """Push the guest's memory size in bytes, i64: 4 GiB does not fit 32 bits."""
    body.memory_size(_GUEST)
    body.op("i64.extend_i32_u")
    body.i64_const(16)
    body.op("i64.shl")


def _store_parameter(body: Body, walk: _Walk, load: str, store: str, mismatched: Label) -> None:
    body.get(walk.mismatch)
    body.br_if(mismatched)
    body.get(walk.entry)
    body.memory("i32.load16_u", 2, memory=_SCRATCH)
    body.get(walk.value)
    body.memory(load, align=0, memory=_GUEST)
    body.memory(store, scratch.PARAMETERS, align=0, memory=_SCRATCH)


# --- launch ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Launch:
    """Locals of a launch: its parameters in the ABI's order, then its own."""

    kernel: Local
    grid: tuple[Local, Local, Local]
    block: tuple[Local, Local, Local]
    shared_bytes: Local
    argv: Local
    argv_bytes: Local
    slot: Local
    descriptor: Local
    code: Local
    entered: Local
    started: Local
    ended: Local


def _launch(module: Module, parts: _Parts) -> Function:
    function = module.function(LAUNCH_PARAMETERS, [I32], name="launch")
    body, p = function.code, function.parameters
    own = (*(body.local(I32) for _ in range(3)), *(body.local(I64) for _ in range(3)))
    launch = _Launch(p[0], (p[1], p[2], p[3]), (p[4], p[5], p[6]), p[7], p[8], p[9], *own)
    _load_slot(body)
    body.tee(launch.slot)
    body.call(parts.clock)
    body.set(launch.entered)
    with body.block() as refused:
        _check_request(body, launch, refused)
        body.get(launch.slot)
        body.get(launch.entered)
        body.call(parts.acquire)
        body.tee(launch.code)
        body.br_if(refused)
        body.get(launch.descriptor)
        body.get(launch.argv)
        body.get(launch.argv_bytes)
        body.call(parts.lower)
        body.tee(launch.code)
        with body.if_():
            _release(body, launch.slot)
            body.br(refused)
        _run_kernel(body, launch, parts)
        _count(body, launch, parts)
    body.i32_const(0)
    body.get(launch.code)
    body.memory("i32.store", scratch.LAST_CODE, memory=_SCRATCH)
    body.get(launch.code)
    return function


def _refuse(body: Body, launch: _Launch, code: Code, refused: Label) -> None:
    """Take an i32 from the stack; where it is not zero the launch ends with ``code``."""
    with body.if_():
        body.i32_const(code)
        body.set(launch.code)
        body.br(refused)


def _check_request(body: Body, launch: _Launch, refused: Label) -> None:
    """Capability, argv range, kernel id, dimensions: what is checked before a permit is asked for."""
    body.get(launch.slot)
    body.memory("i32.load", layout.CAPABILITY, memory=_LEDGER)
    body.op("i32.eqz")
    _refuse(body, launch, Code.NOT_AVAILABLE, refused)
    body.get(launch.argv_bytes)
    body.i32_const(0)
    body.op("i32.lt_s")
    _refuse(body, launch, Code.INVALID_POINTER, refused)
    body.get(launch.argv)
    body.op("i64.extend_i32_u")
    body.get(launch.argv_bytes)
    body.op("i64.extend_i32_u", "i64.add")
    _load_guest_size(body)
    body.op("i64.gt_u")
    _refuse(body, launch, Code.INVALID_POINTER, refused)
    body.get(launch.kernel)
    body.i32_const(0)
    body.memory("i64.load32_u", scratch.KERNEL_COUNT, memory=_SCRATCH)
    body.op("i64.ge_u")
    _refuse(body, launch, Code.UNKNOWN_KERNEL, refused)
    body.get(launch.kernel)
    body.op("i32.wrap_i64")
    body.i32_const(2)
    body.op("i32.shl")
    body.memory("i32.load", scratch.DESCRIPTORS, memory=_SCRATCH)
    body.set(launch.descriptor)
    _check_dimensions(body, launch)
    _refuse(body, launch, Code.INVALID_DIMENSIONS, refused)


def _check_dimensions(body: Body, launch: _Launch) -> None:
    """Push whether grid, block or shared memory is out of range. ``x - 1`` unsigned is huge for x <= 0."""
    bounds = [
        (launch.block[0], limits.BLOCK_AXIS_MAX),
        (launch.block[1], limits.BLOCK_AXIS_MAX),
        (launch.block[2], limits.BLOCK_Z_MAX),
        (launch.grid[0], 0x7FFFFFFF),
        (launch.grid[1], limits.GRID_YZ_MAX),
        (launch.grid[2], limits.GRID_YZ_MAX),
    ]
    body.get(launch.shared_bytes)
    body.i32_const(limits.SHARED_MAX_BYTES)
    body.op("i32.gt_u")
    for axis, bound in bounds:
        body.get(axis)
        body.i32_const(1)
        body.op("i32.sub")
        body.i32_const(bound)
        body.op("i32.ge_u", "i32.or")
    # Each axis is at most 1,024 or was refused above: the product may wrap then, which changes nothing.
    for axis in launch.block:
        body.get(axis)
    body.op("i32.mul", "i32.mul")
    body.get(launch.descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_MAX_THREADS, memory=_SCRATCH)
    body.op("i32.gt_u", "i32.or")
    _push_wrong_shape(body, launch)
    body.op("i32.or")


def _push_wrong_shape(body: Body, launch: _Launch) -> None:
    """Push whether the kernel requires a block shape and this is another."""
    body.get(launch.descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_REQUIRED, memory=_SCRATCH)
    with body.if_(I32):
        for position, axis in enumerate(launch.block):
            body.get(launch.descriptor)
            body.memory("i32.load", scratch.DESCRIPTOR_REQUIRED + 4 * position, memory=_SCRATCH)
            body.get(axis)
            body.op("i32.ne")
        body.op("i32.or", "i32.or")
        body.else_()
        body.i32_const(0)


def _run_kernel(body: Body, launch: _Launch, parts: _Parts) -> None:
    body.get(launch.slot)
    body.get(launch.kernel)
    body.op("i32.wrap_i64")
    body.memory("i32.store", layout.KERNEL, memory=_LEDGER)
    for position, axis in enumerate(launch.block):  # a fault is reported by block and thread
        body.i32_const(0)
        body.get(axis)
        body.memory("i32.store", scratch.BLOCK + 4 * position, memory=_SCRATCH)
    body.get(launch.slot)
    body.call(parts.clock)
    body.set(launch.started)
    _set_state(body, launch.slot, State.IN_KERNEL)
    for argument in (*launch.grid, *launch.block, launch.shared_bytes):
        body.get(argument)
    body.i32_const(scratch.PARAMETERS)
    body.get(launch.kernel)
    body.op("i32.wrap_i64")
    body.call_indirect(parts.run, parts.kernels.index)
    _set_state(body, launch.slot, State.RUNNING)
    body.get(launch.slot)
    body.call(parts.clock)
    body.set(launch.ended)
    _release(body, launch.slot)


def _count(body: Body, launch: _Launch, parts: _Parts) -> None:
    """Count the launch: dispatch latency is what passed before the kernel, execution the kernel itself."""
    _increment(body, launch.slot, layout.INSTANCE_COUNTERS + COUNTERS.dispatches)
    spans = (
        (COUNTERS.latency, launch.entered, launch.started),
        (COUNTERS.execution, launch.started, launch.ended),
    )
    for counter, begin, end in spans:
        body.get(launch.slot)
        body.i32_const(layout.INSTANCE_COUNTERS + counter)
        body.op("i32.add")
        body.get(end)
        body.get(begin)
        body.op("i64.sub")
        body.call(parts.observe)
