"""The gate's code, written with the encoder: what ``dispatch/gate.py`` binds to a guest.

Memories: 0 the guest's, 1 the ledger's (shared), 2 scratch. The ledger is exported as ``memory``, so that WASI's clock
writes the time into the instance's own slot. Order of checks: guest ABI, "launch".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tensor_wasm.abi import Code, limits
from tensor_wasm.dispatch import layout, scratch
from tensor_wasm.dispatch.arbiter import arbiter
from tensor_wasm.dispatch.crew_module import BOARD_BYTES, write_lead
from tensor_wasm.dispatch.gate_argv import lower
from tensor_wasm.dispatch.gate_permits import acquire, release
from tensor_wasm.dispatch.gate_trace import Notes
from tensor_wasm.dispatch.gate_words import (
    I32,
    I64,
    LEDGER,
    SCRATCH,
    increment,
    load_guest_size,
    observe,
    set_state,
)
from tensor_wasm.dispatch.layout import COUNTERS, State
from tensor_wasm.dispatch.link_module import CLOCK_PARAMETERS, GATE_PARAMETERS
from tensor_wasm.dispatch.scratch import Helpers
from tensor_wasm.wasm import Body, Function, FunctionType, Global, Label, Local, Module, Table

#: The exports that can stand in the launch table.
LAUNCH, TRACED_LAUNCH = "launch", "traced_launch"
_MONOTONIC = 1
#: What a kernel's ``run`` takes: grid and block axes, dynamic shared bytes, address of the parameter block.
_RUN_PARAMETERS = [I32] * 8


@dataclass(frozen=True, slots=True)
class _Parts:
    """The gate's own functions and types, for the code that calls them."""

    clock: Function
    observe: Function
    arbiter: Function
    acquire: Function
    lower: Function
    run: FunctionType
    kernels: Table
    crew: _Crew
    has_windows: bool


class _Crew:
    """The guest's helpers: globals, because nothing but the gate may ever reach them.

    ``board`` is 0 without helpers.
    """

    def __init__(self, module: Module, hire: Function, lead: Function) -> None:
        self.hire = hire
        self.lead = lead
        self.board, self.helpers = module.global_(I32), module.global_(I32)


@cache
def gate_module(has_windows: bool = False) -> bytes:
    """The gate. Imports in order: guest memory, ledger, launch table, clock, hire.

    Exports scratch, kernels, shares, enter, and both launches: the one that is in the launch table from the start, and
    the one that is to be there while the instance is traced. ``has_windows`` is for a device that does not see the
    guest's memory: guest pointers are listed, see :func:`lower`, and what a launch waits for the driver is its latency.
    """
    module = Module()
    module.import_memory("guest", "memory")
    ledger = module.import_memory("ledger", "memory", layout.PAGES, layout.PAGES, shared=True)
    launch_table = module.import_table("link", "launch_table", 1, 1)
    wasi_clock = module.import_function("link", "clock", CLOCK_PARAMETERS, [I32])
    hire = module.import_function("link", "hire", [I32], [I32])
    module.memory(1, export="scratch")
    kernels = module.table(limits.KERNELS_MAX, limits.KERNELS_MAX, export="kernels")
    shares = module.table(limits.KERNELS_MAX, limits.KERNELS_MAX, export="shares")
    module.export("memory", ledger)
    clock = _clock(module, wasi_clock)
    observe_function = observe(module)
    arbiter_function = arbiter(module, LEDGER)
    parts = _Parts(
        clock=clock,
        observe=observe_function,
        arbiter=arbiter_function,
        acquire=acquire(module, clock, observe_function, arbiter_function),
        lower=lower(module, has_windows=has_windows),
        run=module.type(_RUN_PARAMETERS),
        kernels=kernels,
        crew=_Crew(module, hire, write_lead(module, LEDGER, SCRATCH, shares)),
        has_windows=has_windows,
    )
    # A global, because nothing but the gate may ever reach it: kernels can write to scratch memory.
    slot = module.global_(I32)
    launch = _launch(module, parts, slot, LAUNCH)
    _launch(module, parts, slot, TRACED_LAUNCH)
    module.elements(launch_table, 0, [launch])
    _enter(module, clock, slot)
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
    body.memory("i64.load", layout.CLOCK, memory=LEDGER)
    return function


def _enter(module: Module, clock: Function, slot_global: Global) -> None:
    """``(slot)``: tie the gate to its slot; leave the time there, for the host to set the deadline by."""
    function = module.function([I32], [], export="enter")
    body, (slot,) = function.code, function.parameters
    body.get(slot)
    body.global_set(slot_global)
    body.get(slot)
    body.call(clock)
    body.op("drop")


# --- launch ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Launch:
    """Locals of a launch: its parameters in the ABI's order, then its own; ``number`` is the kernel's in the tables."""

    kernel: Local
    grid: tuple[Local, Local, Local]
    block: tuple[Local, Local, Local]
    shared_bytes: Local
    argv: Local
    argv_bytes: Local
    last_tag: Local
    slot: Local
    number: Local
    descriptor: Local
    code: Local
    entered: Local
    started: Local
    ended: Local
    threads: Local
    cores: Local


def _launch(module: Module, parts: _Parts, slot: Global, export: str) -> Function:
    function = module.function(GATE_PARAMETERS, [I32], export=export)
    body, p = function.code, function.parameters
    own = (*(body.local(I32) for _ in range(4)), *(body.local(I64) for _ in range(4)), body.local(I32))
    launch = _Launch(p[0], (p[1], p[2], p[3]), (p[4], p[5], p[6]), p[7], p[8], p[9], p[10], *own)
    body.global_get(slot)
    body.tee(launch.slot)
    body.call(parts.clock)
    body.set(launch.entered)
    notes = Notes(body, launch.slot) if export == TRACED_LAUNCH else None
    if notes is not None:
        notes.begin(launch.kernel, (*launch.grid, *launch.block), launch.shared_bytes, launch.entered)
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
        body.get(launch.last_tag)
        body.call(parts.lower)
        body.tee(launch.code)
        with body.if_():
            release(body, launch.slot, parts.arbiter)
            body.br(refused)
        _run_kernel(body, launch, parts, notes)
        _count(body, launch, parts)
    if notes is not None:
        notes.end(launch.code, launch.ended, parts.clock)
    body.i32_const(0)
    body.get(launch.code)
    body.memory("i32.store", scratch.LAST_CODE, memory=SCRATCH)
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
    body.memory("i32.load", layout.CAPABILITY, memory=LEDGER)
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
    load_guest_size(body)
    body.op("i64.gt_u")
    _refuse(body, launch, Code.INVALID_POINTER, refused)
    body.get(launch.kernel)
    body.op("i32.wrap_i64")
    body.i32_const(limits.KERNELS_MAX - 1)
    body.op("i32.and")
    body.tee(launch.number)
    body.i32_const(scratch.KERNEL_BYTES)
    body.op("i32.mul")
    body.tee(launch.descriptor)
    body.memory("i64.load", scratch.KERNELS + scratch.KERNEL_ID, memory=SCRATCH)
    body.get(launch.kernel)
    body.i64_const(1)
    body.op("i64.add", "i64.ne")
    body.get(launch.kernel)
    body.i64_const(0)
    body.op("i64.lt_s", "i32.or")
    _refuse(body, launch, Code.UNKNOWN_KERNEL, refused)
    body.get(launch.descriptor)
    body.memory("i32.load", scratch.KERNELS + scratch.KERNEL_DESCRIPTOR, memory=SCRATCH)
    body.set(launch.descriptor)
    _check_dimensions(body, launch)
    _refuse(body, launch, Code.INVALID_DIMENSIONS, refused)


def _check_dimensions(body: Body, launch: _Launch) -> None:
    """Push whether grid, block or shared memory is out of range. ``x - 1`` unsigned is huge for x <= 0."""
    bounds = [
        (launch.block[0], limits.BLOCK_AXIS_MAX),
        (launch.block[1], limits.BLOCK_AXIS_MAX),
        (launch.block[2], limits.BLOCK_Z_MAX),
        (launch.grid[0], limits.GRID_X_MAX),
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
    body.memory("i32.load", scratch.DESCRIPTOR_MAX_THREADS, memory=SCRATCH)
    body.op("i32.gt_u", "i32.or")
    _push_wrong_shape(body, launch)
    body.op("i32.or")


def _push_wrong_shape(body: Body, launch: _Launch) -> None:
    """Push whether the kernel requires a block shape and this is another."""
    body.get(launch.descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_REQUIRED, memory=SCRATCH)
    with body.if_(I32):
        for position, axis in enumerate(launch.block):
            body.get(launch.descriptor)
            body.memory("i32.load", scratch.DESCRIPTOR_REQUIRED + 4 * position, memory=SCRATCH)
            body.get(axis)
            body.op("i32.ne")
        body.op("i32.or", "i32.or")
        body.else_()
        body.i32_const(0)


def _run_kernel(body: Body, launch: _Launch, parts: _Parts, notes: Notes | None) -> None:
    body.get(launch.slot)
    body.get(launch.number)
    body.memory("i32.store", layout.KERNEL, memory=LEDGER)
    for position, axis in enumerate(launch.block):  # a fault is reported by block and thread
        body.i32_const(0)
        body.get(axis)
        body.memory("i32.store", scratch.BLOCK + 4 * position, memory=SCRATCH)
    body.get(launch.slot)
    body.call(parts.clock)
    body.set(launch.started)
    if notes is not None:
        notes.run(launch.started)
    set_state(body, launch.slot, State.IN_KERNEL)
    _choose_cores(body, launch, parts.crew)
    body.get(launch.cores)
    body.i32_const(1)
    body.op("i32.eq")
    with body.if_():
        _push_launch(body, launch)
        body.get(launch.number)
        body.call_indirect(parts.run, parts.kernels.index)
        body.else_()
        body.global_get(parts.crew.board)
        body.i32_const(scratch.COUNTER)
        body.get(launch.cores)
        body.get(launch.number)
        _push_launch(body, launch)
        body.call(parts.crew.lead)
        with body.if_():
            body.op("unreachable")  # the host knows what failed
    set_state(body, launch.slot, State.RUNNING)
    body.get(launch.slot)
    body.call(parts.clock)
    body.set(launch.ended)
    _measure(body, launch)
    if parts.has_windows:
        _begin_when_accepted(body, launch)
        if notes is not None:
            notes.measure()
    release(body, launch.slot, parts.arbiter)


def _begin_when_accepted(body: Body, launch: _Launch) -> None:
    """Say that the kernel began when the driver had taken it, where the host has said how the clocks differ.

    A driver that has not told was not back from the call when the kernel had ended already.
    """
    accepted = body.local(I64)
    body.i32_const(0)
    body.memory("i64.load", scratch.GPU_CLOCK_NS, memory=SCRATCH)
    body.op("i64.eqz", "i32.eqz")
    with body.if_():
        body.i32_const(0)
        body.memory("i64.load", scratch.GPU_ACCEPTED_NS, memory=SCRATCH)
        body.i32_const(0)
        body.memory("i64.load", scratch.GPU_CLOCK_NS, memory=SCRATCH)
        body.op("i64.sub")
        body.get(launch.ended)
        body.i32_const(0)
        body.memory("i64.load", scratch.GPU_ACCEPTED_NS, memory=SCRATCH)
        body.op("i64.eqz", "i32.eqz", "select")
        body.set(accepted)
        # Not before the launch, nor after its end: what the board says is another process's.
        for bound, relation in ((launch.started, "i64.gt_s"), (launch.ended, "i64.lt_s")):
            body.get(accepted)
            body.get(bound)
            body.get(accepted)
            body.get(bound)
            body.op(relation, "select")
            body.set(accepted)
        body.get(accepted)
        body.set(launch.started)
    body.release(accepted)


def _push_launch(body: Body, launch: _Launch) -> None:
    for argument in (*launch.grid, *launch.block, launch.shared_bytes):
        body.get(argument)
    body.i32_const(scratch.PARAMETERS)


def _choose_cores(body: Body, launch: _Launch, crew: _Crew) -> None:
    """One core, or where the launch is large, the guest's helpers as well; the host is asked for them once."""
    body.i32_const(1)
    body.set(launch.cores)
    for axis in (*launch.grid, *launch.block):
        body.get(axis)
        body.op("i64.extend_i32_u")
    body.op(*["i64.mul"] * 5)
    body.tee(launch.threads)
    body.op("f64.convert_i64_u")
    body.get(launch.descriptor)
    body.memory("f64.load", scratch.DESCRIPTOR_THREAD_NS, memory=SCRATCH)
    body.op("f64.mul")
    body.f64_const(scratch.WORTH_NS)
    body.op("f64.ge")
    for axis in launch.grid:
        body.get(axis)
    body.op("i32.or", "i32.or")  # more than one block: an axis is not 1
    body.i32_const(1)
    body.op("i32.ne", "i32.and")
    body.get(launch.descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_CREW, memory=SCRATCH)
    body.i32_const(Helpers.NEVER)
    body.op("i32.ne", "i32.and")
    with body.if_():
        _ask(body, launch, crew)
        _push_is_known(body, launch, crew)
        with body.if_():
            body.global_get(crew.helpers)
            body.i32_const(1)
            body.op("i32.add")
            body.set(launch.cores)


def _push_is_known(body: Body, launch: _Launch, crew: _Crew) -> None:
    """Push whether there are helpers, and know the kernel."""
    body.get(launch.descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_CREW, memory=SCRATCH)
    body.i32_const(Helpers.KNOW)
    body.op("i32.eq")
    body.global_get(crew.board)
    body.i32_const(0)
    body.op("i32.ne", "i32.and")


def _ask(body: Body, launch: _Launch, crew: _Crew) -> None:
    """Ask the host for helpers where there are none that know; after a refusal, not for a while."""
    state, answer = body.local(I32), body.local(I32)

    def keep() -> None:
        body.get(launch.descriptor)
        body.get(state)
        body.memory("i32.store", scratch.DESCRIPTOR_CREW, memory=SCRATCH)

    body.get(launch.descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_CREW, memory=SCRATCH)
    body.tee(state)
    body.i32_const(0)
    body.op("i32.lt_s")
    with body.if_():
        body.get(state)
        body.i32_const(1)
        body.op("i32.add")
        body.set(state)
        keep()
        body.else_()
        _push_is_known(body, launch, crew)
        body.op("i32.eqz")
        with body.if_():
            body.get(launch.number)
            body.call(crew.hire)
            body.tee(answer)
            body.i32_const(-BOARD_BYTES)
            body.op("i32.and")
            body.global_set(crew.board)
            body.get(answer)
            body.i32_const(BOARD_BYTES - 1)
            body.op("i32.and")
            body.global_set(crew.helpers)
            body.i32_const(Helpers.KNOW)
            body.i32_const(Helpers.AGAIN)
            body.get(answer)
            body.op("select")
            body.set(state)
            keep()


def _measure(body: Body, launch: _Launch) -> None:
    """Note what a thread of the launch cost."""
    body.get(launch.descriptor)
    body.get(launch.ended)
    body.get(launch.started)
    body.op("i64.sub")
    body.get(launch.cores)
    body.op("i64.extend_i32_u", "i64.mul", "f64.convert_i64_s")
    body.get(launch.threads)
    body.op("f64.convert_i64_u", "f64.div")
    body.memory("f64.store", scratch.DESCRIPTOR_THREAD_NS, memory=SCRATCH)


def _count(body: Body, launch: _Launch, parts: _Parts) -> None:
    """Count the launch: dispatch latency is what passed before the kernel, execution the kernel itself."""
    increment(body, launch.slot, layout.INSTANCE_COUNTERS + COUNTERS.dispatches)
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
