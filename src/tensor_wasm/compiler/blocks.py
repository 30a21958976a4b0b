"""Kernels whose threads wait for each other: a function for each region, and ``run``, which schedules them.

See :mod:`.synchronisation` for regions, :mod:`.contexts` for what threads leave behind, :mod:`.scheduler` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensor_wasm.compiler import barrier_scheduler, scheduler, suspending, warp, warp_scheduler
from tensor_wasm.compiler.allocation import Allocation, allocate
from tensor_wasm.compiler.contexts import Contexts, Row
from tensor_wasm.compiler.faults import Fault, Faults
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.limits import check_locals, check_size
from tensor_wasm.compiler.lowering import Walk, clear, enter, nest, skip_empty
from tensor_wasm.compiler.region import WINDOW, Region
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.structure import Run, structure
from tensor_wasm.compiler.suspending import ThreadContext
from tensor_wasm.compiler.synchronisation import Region as CodeRegion
from tensor_wasm.compiler.synchronisation import Suspension, is_barrier
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Instruction, Kernel
from tensor_wasm.wasm import Body, Function, Global, Local, Module, ValType

I32 = ValType.I32
_SCRATCH = 1
#: What a region is given: the launch's eight, the block's three, the first thread and the one after the last.
_REGION_PARAMETERS = 13
_LAUNCH_PARAMETERS = 8

_BARRIERS = {
    "sync": barrier_scheduler.SYNC,
    "arrive": barrier_scheduler.ARRIVE,
    "popc": barrier_scheduler.POPC,
    "and": barrier_scheduler.AND,
    "or": barrier_scheduler.OR,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the functions of one kernel module share."""

    module: Module
    base: Global
    clock: Global
    block_globals: Sequence[Global]
    thread_global: Global
    line_global: Global
    faults: Faults
    library: Library
    layout: Region
    contexts: Contexts


def write_blocks(parts: Parts, kernel: Kernel, regions: Sequence[CodeRegion]) -> bytes:
    """Write all functions of a kernel; the content of the scheduler's table is returned."""
    module = parts.module
    suspensions = [region.arrival for region in regions if region.arrival is not None]
    names = list(dict.fromkeys(_resolver(s.instruction) for s in suspensions if not is_barrier(s.instruction)))
    functions = [_write_region(parts, number, region) for number, region in enumerate(regions)]
    resolve_warp = None
    if names:
        resolvers = [warp.RESOLVERS[name](module, _SCRATCH) for name in names]
        resolve_warp = warp_scheduler.resolve_warp(module, parts.contexts, resolvers)
    _write_run(parts, kernel, functions, resolve_warp)
    return b"".join(_row(suspension, names).encode() for suspension in suspensions)


def _resolver(instruction: Instruction) -> str:
    return warp.plan(instruction).resolver


def _row(suspension: Suspension, names: Sequence[str]) -> Row:
    instruction = suspension.instruction
    if not is_barrier(instruction):
        plan = warp.plan(instruction)
        return Row(names.index(plan.resolver), instruction.line, plan.waits)
    # One that says nothing more (``barrier 0``) is ``sync``.
    kinds = [_BARRIERS[word] for word in instruction.modifiers if word in _BARRIERS]
    return Row(kinds[0] if kinds else barrier_scheduler.SYNC, instruction.line, waits=True)


def _frame(
    parts: Parts, kernel: Kernel, at: Coordinates, allocation: Allocation, context: ThreadContext | None = None
) -> Frame:
    return Frame(
        kernel,
        at.body,
        allocation=allocation,
        region=parts.layout,
        coordinates=at,
        library=parts.library,
        faults=parts.faults,
        context=context,
    )


# --- regions -----------------------------------------------------------------------------------------------


def _write_region(parts: Parts, number: int, region: CodeRegion) -> Function:
    """``region(launch, block, first, last)``: run the threads from ``first`` to ``last`` that are ready for it."""
    function = parts.module.function([I32] * _REGION_PARAMETERS, name=f"region_{number}")
    body = function.code
    at = Coordinates(function, parts.clock, function.parameters[8:11])
    first, last = function.parameters[11:13]
    graph = Graph(region.kernel)
    steps = structure(region.kernel, graph)
    order = [step.block for step in steps if isinstance(step, Run)]
    allocation = allocate(region.kernel, graph.successors, order)
    check_locals(region.kernel, allocation)
    context = ThreadContext(body, parts.contexts)
    frame = _frame(parts, region.kernel, at, allocation, context)
    enter(frame, parts.base)
    _go_to_thread(frame, context, first)
    with body.loop() as again:
        context.push_state(body)
        body.i32_const(number)
        body.op("i32.eq")
        with body.if_():
            body.get(at.thread)
            body.global_set(parts.thread_global)
            undefined = list(allocation.undefined)
            if region.arrival is not None:
                undefined = suspending.arrive(frame, region.arrival, undefined)
            clear(frame, undefined, with_carry=region.arrival is None)
            with body.block() as end:
                Walk(frame, end).run(steps)
        _go_to_next_thread(frame, context)
        body.get(at.thread)
        body.get(last)
        body.op("i32.lt_u")
        body.br_if(again)
    check_size(region.kernel, body)
    return function


def _go_to_thread(frame: Frame, context: ThreadContext, first: Local) -> None:
    """Set all that depends on the thread for thread ``first``."""
    body, at = frame.body, frame.coordinates
    body.get(first)
    body.set(at.thread)
    x, y, z = at.thread_index
    body.get(first)
    body.get(at.block[0])
    body.op("i32.rem_u")
    body.set(x)
    body.get(first)
    body.get(at.block[0])
    body.op("i32.div_u")
    body.set(z)
    body.get(z)
    body.get(at.block[1])
    body.op("i32.rem_u")
    body.set(y)
    body.get(z)
    body.get(at.block[1])
    body.op("i32.div_u")
    body.set(z)
    strides = [*context.strides]
    if frame.local_base is not frame.base:
        strides.append((frame.local_base, frame.region.local_bytes))
    for local, stride in strides:
        body.get(frame.base)
        body.get(first)
        body.i32_const(stride)
        body.op("i32.mul", "i32.add")
        body.set(local)
    _set_local_window(frame)


def _set_local_window(frame: Frame) -> None:
    if frame.local_window is not frame.window:
        frame.body.get(frame.local_base)
        frame.body.op("i64.extend_i32_u")
        frame.body.i64_const(WINDOW)
        frame.body.op("i64.or")
        frame.body.set(frame.local_window)


def _go_to_next_thread(frame: Frame, context: ThreadContext) -> None:
    body, at = frame.body, frame.coordinates
    _add(body, at.thread, 1)
    for local, stride in context.strides:
        _add(body, local, stride)
    if frame.local_base is not frame.base:
        _add(body, frame.local_base, frame.region.local_bytes)
        _set_local_window(frame)
    x, y, z = at.thread_index
    _add(body, x, 1)
    body.get(x)
    body.get(at.block[0])
    body.op("i32.ge_u")
    with body.if_():
        body.i32_const(0)
        body.set(x)
        _add(body, y, 1)
        body.get(y)
        body.get(at.block[1])
        body.op("i32.ge_u")
        with body.if_():
            body.i32_const(0)
            body.set(y)
            _add(body, z, 1)


def _add(body: Body, local: Local, amount: int) -> None:
    body.get(local)
    body.i32_const(amount)
    body.op("i32.add")
    body.set(local)


# --- run ---------------------------------------------------------------------------------------------------


def _write_run(parts: Parts, kernel: Kernel, functions: Sequence[Function], resolve_warp: Function | None) -> None:
    module = parts.module
    stuck = (module.global_(I32), module.global_(I32))
    table = module.table(len(functions), len(functions))
    module.elements(table, 0, functions)
    next_ready = scheduler.next_ready(module, parts.contexts)
    barriers = barrier_scheduler.resolve_barriers(module, parts.contexts, stuck)
    run = module.function([I32] * _LAUNCH_PARAMETERS, export="run")
    body = run.code
    at = Coordinates(run, parts.clock)
    frame = _frame(parts, kernel, at, Allocation({}, ()))
    base, threads, first, last, region, outcome = (body.local(I32) for _ in range(6))
    skip_empty(frame)
    body.global_get(parts.base)
    body.set(base)
    body.get(at.block[0])
    body.get(at.block[1])
    body.get(at.block[2])
    body.op("i32.mul", "i32.mul")
    body.set(threads)

    def advance() -> None:
        """Run the threads from first to last until none is ready and no operation of their warp can be resolved."""
        with body.block() as waiting, body.loop() as again:
            for argument in (base, first, last):
                body.get(argument)
            body.call(next_ready)
            body.tee(region)
            body.i32_const(0)
            body.op("i32.lt_s")
            with body.if_():
                if resolve_warp is None:
                    body.br(waiting)
                else:
                    for argument in (base, first, last):
                        body.get(argument)
                    body.i32_const(0)
                    body.call(resolve_warp)
                    body.br_if(again)
                    body.br(waiting)
            for argument in (*run.parameters, *at.block_index, first, last, region):
                body.get(argument)
            body.call_indirect(functions[0].type, table.index)
            body.br(again)

    def over_warps(inside: Callable[[], None]) -> None:
        """Do something for each warp; where warps do not matter, for the block as a whole."""
        body.i32_const(0)
        body.set(first)
        with body.loop() as next_warp:
            _set_last(body, first, last, threads, is_whole=resolve_warp is None)
            inside()
            body.get(last)
            body.set(first)
            body.get(first)
            body.get(threads)
            body.op("i32.lt_u")
            body.br_if(next_warp)

    def block() -> None:
        for axis, variable in enumerate(parts.block_globals):
            body.get(at.block_index[axis])
            body.global_set(variable)
        _reset(parts, body, base, threads)
        with body.block() as done, body.loop() as again:
            over_warps(advance)
            body.get(base)
            body.get(threads)
            body.call(barriers)
            body.tee(outcome)
            body.op("i32.eqz")
            body.br_if(done)
            body.get(outcome)
            body.i32_const(barrier_scheduler.PROGRESS)
            body.op("i32.eq")
            body.br_if(again)
            if resolve_warp is not None:
                body.i32_const(0)
                body.set(outcome)

                def force() -> None:
                    for argument in (base, first, last):
                        body.get(argument)
                    body.i32_const(1)
                    body.call(resolve_warp)
                    body.get(outcome)
                    body.op("i32.or")
                    body.set(outcome)

                over_warps(force)
                body.get(outcome)
                body.br_if(again)
            body.global_get(stuck[0])
            body.global_set(parts.thread_global)
            body.global_get(stuck[1])
            body.global_set(parts.line_global)
            parts.faults.raise_(body, Fault.BARRIER)

    nest(frame, at.block_index, at.grid, block)


def _set_last(body: Body, first: Local, last: Local, threads: Local, *, is_whole: bool) -> None:
    if is_whole:
        body.get(threads)
        body.set(last)
        return
    body.get(first)
    body.i32_const(scheduler.WARP)
    body.op("i32.add")
    body.tee(last)
    body.get(threads)
    body.get(last)
    body.get(threads)
    body.op("i32.lt_u", "select")
    body.set(last)


def _reset(parts: Parts, body: Body, base: Local, threads: Local) -> None:
    """All threads are ready for the first region, and nobody has passed a barrier."""
    contexts = parts.contexts
    body.get(base)
    body.i32_const(contexts.states)
    body.op("i32.add")
    body.i32_const(0)
    body.get(threads)
    body.i32_const(4)
    body.op("i32.mul")
    body.memory_fill(_SCRATCH)
    body.get(base)
    body.i32_const(contexts.arrivals)
    body.op("i32.add")
    body.i32_const(0)
    body.i32_const(contexts.totals - contexts.arrivals)
    body.memory_fill(_SCRATCH)
