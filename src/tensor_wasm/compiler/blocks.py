"""Kernels whose threads wait for each other: a function for each region, and ``run``, which schedules them.

See :mod:`.synchronisation` for regions, :mod:`.contexts` for what threads leave behind, :mod:`.scheduler` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler import barrier_scheduler, scheduler, warp, warp_scheduler
from tensor_wasm.compiler.axes import push_least, skip_empty, to_next_row
from tensor_wasm.compiler.contexts import Contexts, Row
from tensor_wasm.compiler.faults import Fault, push_thread_place
from tensor_wasm.compiler.grid import LAUNCH_PARAMETERS, coordinates, each_block, write_entries
from tensor_wasm.compiler.limits import check_size
from tensor_wasm.compiler.lowering import enter
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.code import make_strip, push_bits_below, run_strip
from tensor_wasm.compiler.strips.parts import Parts
from tensor_wasm.compiler.strips.plan import KernelPlan, RegionPlan
from tensor_wasm.compiler.strips.strip import Strip, push_bits
from tensor_wasm.compiler.synchronisation import Suspension, is_barrier, is_plain
from tensor_wasm.compiler.values.lanes import fill
from tensor_wasm.ptx.program import Immediate, Instruction, Kernel
from tensor_wasm.wasm import Body, Function, Label, Local, ValType

I32 = ValType.I32
_SCRATCH = 1
#: What a region is given: the launch's eight, the block's three, the first thread and the one after the last.
_REGION_PARAMETERS = 13

_BARRIERS = {
    "sync": barrier_scheduler.SYNC,
    "arrive": barrier_scheduler.ARRIVE,
    "popc": barrier_scheduler.POPC,
    "and": barrier_scheduler.AND,
    "or": barrier_scheduler.OR,
}


def write_blocks(parts: Parts, kernel: Kernel, plan: KernelPlan, contexts: Contexts) -> bytes:
    """Write all functions of a kernel; the content of the scheduler's table is returned."""
    module = parts.module
    suspensions = [region.region.arrival for region in plan.regions if region.region.arrival is not None]
    names = list(dict.fromkeys(_resolver(s.instruction) for s in suspensions if not is_barrier(s.instruction)))
    functions = [_write_region(parts, number, region, plan, contexts) for number, region in enumerate(plan.regions)]
    resolve_warp = None
    if names:
        resolvers = [warp.RESOLVERS[name](module, _SCRATCH) for name in names]
        resolve_warp = warp_scheduler.resolve_warp(module, contexts, resolvers)
    _write_run(parts, kernel, contexts, functions, resolve_warp)
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
    number = -1
    if is_plain(instruction):
        (operand,) = instruction.sources
        assert isinstance(operand, Immediate)
        number = operand.bits & 15
    return Row(kinds[0] if kinds else barrier_scheduler.SYNC, instruction.line, waits=True, barrier=number)


# --- regions -----------------------------------------------------------------------------------------------


def _write_region(parts: Parts, number: int, region: RegionPlan, plan: KernelPlan, contexts: Contexts) -> Function:
    """``region(launch, block, first, last)``: run the threads from ``first`` to ``last`` that are ready for it."""
    function = parts.module.function([I32] * _REGION_PARAMETERS, name=f"region_{number}")
    body = function.code
    at = Coordinates(function, parts.clock, function.parameters[8:11])
    first, last = function.parameters[11:13]
    strip = make_strip(parts, plan, region, body, at, contexts)
    context = strip.context
    assert context is not None
    count, ready = body.local(I32), body.local(I32)
    enter(strip.first, parts.base, parts.variables)
    _go_to_thread(at, first)
    with body.loop() as next_strip:
        _push_count(strip, last)
        body.set(count)
        context.enter(at.thread)
        with body.block() as done, body.loop() as again:

            def push_is_ready(quad: int) -> None:
                context.push_state(quad)
                fill("i32x4", number).push(body)
                body.op("i32x4.eq")

            push_bits(body, strip.quads, push_is_ready)
            push_bits_below(body, count)
            body.op("i32.and")
            body.tee(strip.mask.bits)
            body.tee(ready)
            body.op("i32.eqz")
            body.br_if(done)
            strip.enter()
            undefined = list(region.allocation.undefined)
            taken = body.local(I32)
            if region.region.arrival is not None:
                undefined = context.arrive(strip, region.region.arrival, undefined)
            body.get(strip.mask.bits)
            body.set(taken)
            run_strip(strip, region, undefined)
            # Lanes that did not agree with the first ones come now.
            body.get(taken)
            body.get(ready)
            body.op("i32.ne")
            body.br_if(again)
        _go_to_next_strip(at, count)
        body.get(at.thread)
        body.get(last)
        body.op("i32.lt_u")
        body.br_if(next_strip)
    check_size(region.region.kernel, body)
    return function


def _push_count(strip: Strip, last: Local) -> None:
    """Push how many threads the strip has: up to its width, the end of the row, and the last thread."""
    body, at = strip.body, strip.first.coordinates
    in_row, in_range = body.local(I32), body.local(I32)
    body.get(at.block[0])
    body.get(at.thread_index[0])
    body.op("i32.sub")
    body.set(in_row)
    body.get(last)
    body.get(at.thread)
    body.op("i32.sub")
    body.set(in_range)
    push_least(body, in_row, in_range)
    body.tee(in_row)
    body.i32_const(strip.width)
    body.get(in_row)
    body.i32_const(strip.width)
    body.op("i32.lt_u", "select")
    body.release(in_row, in_range)


def _go_to_thread(at: Coordinates, first: Local) -> None:
    """Set the place of thread ``first``."""
    body = at.body
    x, y, z = at.thread_index
    body.get(first)
    body.set(at.thread)
    body.get(first)
    body.get(at.block[0])
    body.op("i32.rem_u")
    body.set(x)
    body.get(first)
    body.get(at.block[0])
    body.op("i32.div_u")
    body.tee(z)
    body.get(at.block[1])
    body.op("i32.rem_u")
    body.set(y)
    body.get(z)
    body.get(at.block[1])
    body.op("i32.div_u")
    body.set(z)


def _go_to_next_strip(at: Coordinates, count: Local) -> None:
    body = at.body
    for local in (at.thread, at.thread_index[0]):
        body.get(local)
        body.get(count)
        body.op("i32.add")
        body.set(local)
    to_next_row(body, at.thread_index, at.block)


# --- run ---------------------------------------------------------------------------------------------------


def _write_run(
    parts: Parts, kernel: Kernel, contexts: Contexts, functions: Sequence[Function], resolve_warp: Function | None
) -> None:
    module = parts.module
    stuck = (module.global_(I32), module.global_(I32))
    table = module.table(len(functions), len(functions))
    module.elements(table, 0, functions)
    next_ready = scheduler.next_ready(module, contexts)
    barriers = barrier_scheduler.resolve_barriers(module, contexts, stuck)
    run = write_entries(module)
    body = run.code
    at = coordinates(run, parts.clock)
    base, threads, first, last, region, outcome = (body.local(I32) for _ in range(6))
    skip_empty(body, at)
    body.global_get(parts.base)
    body.set(base)
    body.get(at.block[0])
    body.get(at.block[1])
    body.get(at.block[2])
    body.op("i32.mul", "i32.mul")
    body.set(threads)

    together = scheduler.pass_together(module, contexts)

    def call_region(end: Local) -> None:
        """Run the threads from first on of those that are ready for the region."""
        for argument in (*run.parameters[:LAUNCH_PARAMETERS], *at.block_index, first, end, region):
            body.get(argument)
        body.call_indirect(functions[0].type, table.index)

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
            call_region(last)
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
        _reset(contexts, body, base, threads)
        body.i32_const(0)
        body.set(region)
        with body.block() as done, body.loop() as again:
            if resolve_warp is None:  # all that live are ready for the region
                body.i32_const(0)
                body.set(first)
                call_region(threads)
            else:
                over_warps(advance)
            body.get(base)
            body.get(threads)
            body.call(together)
            body.tee(region)
            body.i32_const(0)
            body.op("i32.ge_s")
            body.br_if(again)
            body.get(region)
            body.i32_const(scheduler.ENDED)
            body.op("i32.eq")
            body.br_if(done)
            apart(done)

    def apart(done: Label) -> None:
        """Run a block whose threads are in different places, to its end."""
        with body.loop() as again:
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
            push_thread_place(body)
            body.global_set(parts.place_global)
            body.global_get(stuck[1])
            body.global_set(parts.line_global)
            parts.faults.raise_(body, Fault.BARRIER)

    each_block(run, at, block)
    check_size(kernel, body)


def _set_last(body: Body, first: Local, last: Local, threads: Local, *, is_whole: bool) -> None:
    if is_whole:
        body.get(threads)
        body.set(last)
        return
    body.get(first)
    body.i32_const(scheduler.WARP)
    body.op("i32.add")
    body.set(last)
    push_least(body, last, threads)
    body.set(last)


def _reset(contexts: Contexts, body: Body, base: Local, threads: Local) -> None:
    """All threads are ready for the first region, and nobody has passed a barrier."""
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
