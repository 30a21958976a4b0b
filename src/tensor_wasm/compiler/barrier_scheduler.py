"""The part of the scheduler that lets threads pass the barriers of their block."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.compiler.contexts import EXITED, ROW_BARRIER, ROW_LINE, ROW_RESOLVER, Contexts
from tensor_wasm.compiler.scheduler import (
    SCRATCH,
    TOTAL_COUNT,
    TOTAL_TRUE,
    TOTAL_WAITING,
    TOTAL_WARPS,
    WARP,
    Writer,
    drop_lowest,
)
from tensor_wasm.compiler.suspending import BARRIER_COUNT, BARRIER_ID, BARRIER_PREDICATE
from tensor_wasm.compiler.warp.mailbox import OUT_OFFSET, WORD_BYTES
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
            _fill_mailbox(w, base, thread, state)
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
                body.get(threads)
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


def _fill_mailbox(w: Writer, base: Local, thread: Local, state: Local) -> None:
    """Write what a thread at a plain barrier has not: that barrier's number, and that it says no count."""
    body, number = w.body, w.local()
    w.push_row(base, state, ROW_BARRIER)
    body.tee(number)
    body.i32_const(0)
    body.op("i32.ge_s")
    with body.if_():
        for word, value in ((BARRIER_ID, number), (BARRIER_COUNT, None)):
            w.push_mailbox(base, thread)
            if value is None:
                body.i32_const(0)
            else:
                body.get(value)
            body.memory("i32.store", w.contexts.mailboxes + WORD_BYTES * word, memory=SCRATCH)


def _count_arrivals(module: Module, contexts: Contexts) -> Function:
    """``(base, thread, state, threads) -> whether``: a thread at ``bar.arrive`` is counted and goes on.

    Barriers count warps as 32: with the last thread of the block come the lanes that its warp does not have.
    """
    w = Writer(module, 4, 1, "count_arrival", contexts)
    body = w.body
    base, thread, state, threads = w.function.parameters
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
    _push_absent(w, thread, threads)
    body.op("i32.add")
    body.memory("i32.store", contexts.arrivals, memory=SCRATCH)
    body.get(address)
    w.push_word(base, thread, BARRIER_COUNT)
    body.memory("i32.store", contexts.counts, memory=SCRATCH)
    w.go_on(base, thread, state)
    body.i32_const(1)
    return w.function


def _pass_barrier(module: Module, contexts: Contexts) -> Function:
    """``(base, threads, alive, barrier) -> whether``: let all that wait at a barrier pass if it is full.

    It is full when as many came as it says, a warp counting as 32; or, where it says nothing, all threads that live.
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
    body.set(came)
    w.push_total(base, TOTAL_COUNT)
    body.get(counter)
    body.memory("i32.load", contexts.counts, memory=SCRATCH)
    body.op("i32.or")
    body.tee(expected)
    with body.if_():
        _add_total(w, base, came, TOTAL_WARPS)
        body.else_()
        _add_total(w, base, came, TOTAL_WAITING)
        body.get(alive)
        body.set(expected)
    body.get(came)
    body.get(expected)
    body.op("i32.lt_u")
    with body.if_():
        body.i32_const(0)
        body.op("return")
    _call_walk(w, walk, (base, threads, barrier), release=1)
    for words in (contexts.arrivals, contexts.counts):
        body.get(counter)
        body.i32_const(0)
        body.memory("i32.store", words, memory=SCRATCH)
    body.i32_const(1)
    return w.function


def _add_total(w: Writer, base: Local, came: Local, total: int) -> None:
    w.body.get(came)
    w.push_total(base, total)
    w.body.op("i32.add")
    w.body.set(came)


def _push_absent(w: Writer, thread: Local, threads: Local) -> None:
    """Push how many lanes the last warp lacks when ``thread`` is the last of the block, else 0."""
    body = w.body
    body.i32_const(0)
    body.get(threads)
    body.op("i32.sub")
    body.i32_const(WARP - 1)
    body.op("i32.and")
    body.i32_const(0)
    body.get(threads)
    body.i32_const(1)
    body.op("i32.sub")
    body.get(thread)
    body.op("i32.eq", "select")


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
    warps, here, gone = (w.local() for _ in range(3))
    with body.loop() as again:
        with body.block() as next_thread:
            w.load_state(base, thread, state)
            body.get(state)
            body.i32_const(EXITED)
            body.op("i32.eq")
            with body.if_():
                w.add(gone, 1)
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
            w.add(here, 1)
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
        _end_of_warp(w, (thread, threads), (here, gone), warps)
        w.add(thread, 1)
        body.get(thread)
        body.get(threads)
        body.op("i32.lt_u")
        body.br_if(again)
    body.get(release)
    body.op("i32.eqz")
    with body.if_():
        for place, total in _totals(waiting, count, true, warps):
            body.get(base)
            body.get(total)
            body.memory("i32.store", contexts.totals + place, memory=SCRATCH)
    return w.function


def _totals(waiting: Local, count: Local, true: Local, warps: Local) -> Sequence[tuple[int, Local]]:
    return ((TOTAL_WAITING, waiting), (TOTAL_COUNT, count), (TOTAL_TRUE, true), (TOTAL_WARPS, warps))


def _end_of_warp(w: Writer, place: tuple[Local, Local], lanes: tuple[Local, Local], warps: Local) -> None:
    """At a warp's last thread add its lanes ``here``, and with them those that have ended or never were."""
    body = w.body
    thread, threads = place
    here, gone = lanes
    body.get(thread)
    body.i32_const(WARP - 1)
    body.op("i32.and")
    body.i32_const(WARP - 1)
    body.op("i32.eq")
    body.get(thread)
    body.i32_const(1)
    body.op("i32.add")
    body.get(threads)
    body.op("i32.eq", "i32.or")
    with body.if_():
        body.get(here)
        with body.if_():
            body.get(warps)
            body.get(here)
            body.get(gone)
            body.op("i32.add", "i32.add")
            _push_absent(w, thread, threads)
            body.op("i32.add")
            body.set(warps)
        w.set_to(here, 0)
        w.set_to(gone, 0)


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
