"""The part of the scheduler that lets threads pass the barriers of their block."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.compiler.contexts import EXITED, ROW_LINE, ROW_RESOLVER, Contexts
from tensor_wasm.compiler.scheduler import SCRATCH, TOTAL_COUNT, TOTAL_TRUE, TOTAL_WAITING, Writer, drop_lowest
from tensor_wasm.compiler.suspending import BARRIER_COUNT, BARRIER_ID, BARRIER_PREDICATE
from tensor_wasm.compiler.warp.mailbox import OUT_OFFSET
from tensor_wasm.wasm import Function, Global, Local, Module

# Kinds of barriers, in the place of a resolver's number.
SYNC, ARRIVE, POPC, AND, OR = -1, -2, -3, -4, -5

#: What ``resolve_barriers`` gives.
DONE, PROGRESS, STUCK = 0, 1, 2


def resolve_barriers(module: Module, contexts: Contexts, stuck: tuple[Global, Global]) -> Function:
    """``(base, threads) -> DONE, PROGRESS or STUCK``: let threads pass the barriers that are full.

    ``stuck`` are globals for the first thread that waits, and for its line.
    """
    count_arrivals = _count_arrivals(module, contexts)
    pass_barrier = _pass_barrier(module, contexts)
    w = Writer(module, 2, 1, "resolve_barriers", contexts)
    body = w.body
    base, threads = w.function.parameters
    thread, state, alive, present, progress = (w.local() for _ in range(5))
    with body.loop() as again:
        w.load_state(base, thread, state)
        body.get(state)
        body.i32_const(EXITED)
        body.op("i32.ne")
        with body.if_():
            body.get(alive)
            body.op("i32.eqz")
            with body.if_():
                body.get(thread)
                body.global_set(stuck[0])
                w.push_row(base, state, ROW_LINE)
                body.global_set(stuck[1])
            w.add(alive, 1)
            w.push_row(base, state, ROW_RESOLVER)
            body.i32_const(0)
            body.op("i32.lt_s")
            with body.if_():
                body.get(base)
                body.get(thread)
                body.get(state)
                body.call(count_arrivals)
                body.get(progress)
                body.op("i32.or")
                body.set(progress)
                body.get(present)
                body.i32_const(1)
                w.push_word(base, thread, BARRIER_ID)
                w.push_barrier_number()
                body.op("i32.shl", "i32.or")
                body.set(present)
        w.add(thread, 1)
        body.get(thread)
        body.get(threads)
        body.op("i32.lt_u")
        body.br_if(again)
    body.get(alive)
    body.op("i32.eqz")
    with body.if_():
        body.i32_const(DONE)
        body.op("return")
    with body.block() as none_left, body.loop() as next_barrier:
        body.get(present)
        body.op("i32.eqz")
        body.br_if(none_left)
        for argument in (base, threads, alive):
            body.get(argument)
        body.get(present)
        body.op("i32.ctz")
        body.call(pass_barrier)
        body.get(progress)
        body.op("i32.or")
        body.set(progress)
        drop_lowest(body, present)
        body.br(next_barrier)
    body.i32_const(PROGRESS)
    body.i32_const(STUCK)
    body.get(progress)
    body.op("select")
    return w.function


def _count_arrivals(module: Module, contexts: Contexts) -> Function:
    """``(base, thread, state) -> whether``: a thread at ``bar.arrive`` is counted and goes on."""
    w = Writer(module, 3, 1, "count_arrival", contexts)
    body = w.body
    base, thread, state = w.function.parameters
    address = w.local()
    w.push_row(base, state, ROW_RESOLVER)
    body.i32_const(ARRIVE)
    body.op("i32.ne")
    with body.if_():
        body.i32_const(0)
        body.op("return")
    body.get(base)
    w.push_word(base, thread, BARRIER_ID)
    w.push_arrival_offset()
    body.op("i32.add")
    body.set(address)
    body.get(address)
    body.get(address)
    body.memory("i32.load", contexts.arrivals, memory=SCRATCH)
    body.i32_const(1)
    body.op("i32.add")
    body.memory("i32.store", contexts.arrivals, memory=SCRATCH)
    w.go_on(base, thread, state)
    body.i32_const(1)
    return w.function


def _pass_barrier(module: Module, contexts: Contexts) -> Function:
    """``(base, threads, alive, barrier) -> whether``: let all that wait at a barrier pass if it is full.

    It is full when as many threads came as it says, or, where it says nothing, as live.
    """
    walk = _walk_waiting(module, contexts)
    w = Writer(module, 4, 1, "pass_barrier", contexts)
    body = w.body
    base, threads, alive, barrier = w.function.parameters
    came, expected, counter = w.local(), w.local(), w.local()
    # Totals are left by the walk in the words behind the arrivals: see `_walk_waiting`.
    _call_walk(w, walk, (base, threads, barrier), release=0)
    body.get(base)
    body.get(barrier)
    w.push_arrival_offset()
    body.op("i32.add")
    body.tee(counter)
    body.memory("i32.load", contexts.arrivals, memory=SCRATCH)
    w.push_total(base, TOTAL_WAITING)
    body.op("i32.add")
    body.set(came)
    w.push_total(base, TOTAL_COUNT)
    body.tee(expected)
    body.op("i32.eqz")
    with body.if_():
        body.get(alive)
        body.set(expected)
    body.get(came)
    body.get(expected)
    body.op("i32.lt_u")
    with body.if_():
        body.i32_const(0)
        body.op("return")
    _call_walk(w, walk, (base, threads, barrier), release=1)
    body.get(counter)
    body.i32_const(0)
    body.memory("i32.store", contexts.arrivals, memory=SCRATCH)
    body.i32_const(1)
    return w.function


def _call_walk(w: Writer, walk: Function, arguments: Sequence[Local], *, release: int) -> None:
    for argument in arguments:
        w.body.get(argument)
    w.body.i32_const(release)
    w.body.call(walk)


def _walk_waiting(module: Module, contexts: Contexts) -> Function:
    """``(base, threads, barrier, release)``: go over the threads that wait at a barrier.

    First, without ``release``: count them, note the count of threads that the barrier is for, and how many of their
    predicates hold. Then, with it: give each its result and let it go on.
    """
    w = Writer(module, 4, 0, "walk_waiting", contexts)
    body = w.body
    base, threads, barrier, release = w.function.parameters
    thread, state, waiting, count, true = (w.local() for _ in range(5))
    with body.loop() as again:
        with body.block() as next_thread:
            w.load_state(base, thread, state)
            w.push_waits(state)
            body.op("i32.eqz")
            body.br_if(next_thread)
            w.push_row(base, state, ROW_RESOLVER)
            body.i32_const(0)
            body.op("i32.ge_s")
            body.br_if(next_thread)
            w.push_word(base, thread, BARRIER_ID)
            w.push_barrier_number()
            body.get(barrier)
            body.op("i32.ne")
            body.br_if(next_thread)
            body.get(release)
            with body.if_():
                _give_result(w, base, thread, state)
                w.go_on(base, thread, state)
                body.br(next_thread)
            w.add(waiting, 1)
            w.push_word(base, thread, BARRIER_COUNT)
            body.get(count)
            body.op("i32.or")
            body.set(count)
            w.push_row(base, state, ROW_RESOLVER)
            body.i32_const(POPC)
            body.op("i32.le_s")
            with body.if_():
                w.push_word(base, thread, BARRIER_PREDICATE)
                body.get(true)
                body.op("i32.add")
                body.set(true)
        w.add(thread, 1)
        body.get(thread)
        body.get(threads)
        body.op("i32.lt_u")
        body.br_if(again)
    body.get(release)
    body.op("i32.eqz")
    with body.if_():
        for place, total in ((TOTAL_WAITING, waiting), (TOTAL_COUNT, count), (TOTAL_TRUE, true)):
            body.get(base)
            body.get(total)
            body.memory("i32.store", contexts.totals + place, memory=SCRATCH)
    return w.function


def _give_result(w: Writer, base: Local, thread: Local, state: Local) -> None:
    """What a reduction at a barrier gives: how many predicates hold, whether all do, whether one does."""
    body = w.body
    w.push_mailbox(base, thread)
    w.push_total(base, TOTAL_TRUE)
    w.push_total(base, TOTAL_TRUE)
    w.push_total(base, TOTAL_WAITING)
    body.op("i32.eq")
    w.push_total(base, TOTAL_TRUE)
    body.i32_const(0)
    body.op("i32.ne")
    w.push_row(base, state, ROW_RESOLVER)
    body.i32_const(AND)
    body.op("i32.eq", "select")
    w.push_row(base, state, ROW_RESOLVER)
    body.i32_const(POPC)
    body.op("i32.eq", "select")
    body.memory("i32.store", w.contexts.mailboxes + OUT_OFFSET, memory=SCRATCH)
