"""The scheduler of a kernel whose threads wait for each other: WebAssembly in the kernel's own module.

``run`` takes the blocks of the grid one after another. In a block it lets ready threads run, region by region; when no
thread of a warp is ready it resolves the warp's operations; when no thread of the block is, its barriers. What then
still waits can never go on: a warp operation is carried out with the lanes that are there, a barrier is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.compiler.contexts import (
    BARRIERS,
    EXITED,
    ROW_BYTES,
    ROW_LINE,
    ROW_RESOLVER,
    ROW_WAITS,
    WAITING,
    Contexts,
)
from tensor_wasm.compiler.suspending import BARRIER_COUNT, BARRIER_ID, BARRIER_PREDICATE
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES, OUT_OFFSET, WORD_BYTES
from tensor_wasm.wasm import Body, Function, Global, Local, Module, ValType

I32 = ValType.I32
_SCRATCH = 1
WARP = 32

# Kinds of barriers, in the place of a resolver's number.
SYNC, ARRIVE, POPC, AND, OR = -1, -2, -3, -4, -5

#: What ``resolve_barriers`` gives.
DONE, PROGRESS, STUCK = 0, 1, 2

# Totals of one barrier, while it is looked at.
TOTAL_WAITING, TOTAL_COUNT, TOTAL_TRUE = 0, 4, 8


class _Writer:
    """A function of the scheduler under construction: small words for its code."""

    def __init__(self, module: Module, parameters: int, results: int, name: str, contexts: Contexts) -> None:
        self.function = module.function([I32] * parameters, [I32] * results, name=name)
        self.body: Body = self.function.code
        self.contexts = contexts

    def local(self) -> Local:
        return self.body.local(I32)

    def add(self, local: Local, amount: int) -> None:
        self.body.get(local)
        self.body.i32_const(amount)
        self.body.op("i32.add")
        self.body.set(local)

    def set_to(self, local: Local, value: int) -> None:
        self.body.i32_const(value)
        self.body.set(local)

    def load_state(self, base: Local, thread: Local, into: Local) -> None:
        """``into = states[thread]``."""
        self._push_at(base, thread, 4)
        self.body.memory("i32.load", self.contexts.states, memory=_SCRATCH)
        self.body.set(into)

    def go_on(self, base: Local, thread: Local, state: Local) -> None:
        """Make a thread that waits in ``state`` ready where it goes on: suspension s leads to region s + 1."""
        self._push_at(base, thread, 4)
        self.body.i32_const(WAITING + 1)
        self.body.get(state)
        self.body.op("i32.sub")
        self.body.memory("i32.store", self.contexts.states, memory=_SCRATCH)

    def push_row(self, base: Local, state: Local, field: int) -> None:
        """Push a field of the table's row for the suspension that ``state`` waits at."""
        self.body.get(base)
        self.body.i32_const(WAITING)
        self.body.get(state)
        self.body.op("i32.sub")
        self.body.i32_const(ROW_BYTES)
        self.body.op("i32.mul", "i32.add")
        self.body.memory("i32.load", self.contexts.table + field, memory=_SCRATCH)

    def push_word(self, base: Local, thread: Local, word: int) -> None:
        """Push an IN word of a thread's mailbox."""
        self._push_at(base, thread, MAILBOX_BYTES)
        self.body.memory("i32.load", self.contexts.mailboxes + WORD_BYTES * word, memory=_SCRATCH)

    def push_mailbox(self, base: Local, thread: Local) -> None:
        """Push the address of a thread's mailbox, less the offset of all mailboxes."""
        self._push_at(base, thread, MAILBOX_BYTES)

    def push_waits(self, state: Local) -> None:
        """Push whether a state is that of a thread that waits."""
        self.body.get(state)
        self.body.i32_const(WAITING)
        self.body.op("i32.le_s")

    def push_total(self, base: Local, place: int) -> None:
        """Push a total of the barrier that is looked at."""
        self.body.get(base)
        self.body.memory("i32.load", self.contexts.totals + place, memory=_SCRATCH)

    def push_barrier_number(self) -> None:
        """Turn the operand on the stack into the number of a barrier: there are 16."""
        self.body.i32_const(BARRIERS - 1)
        self.body.op("i32.and")

    def push_arrival_offset(self) -> None:
        """Turn the operand on the stack into the offset of that barrier's count of arrivals."""
        self.push_barrier_number()
        self.body.i32_const(4)
        self.body.op("i32.mul")

    def _push_at(self, base: Local, thread: Local, stride: int) -> None:
        self.body.get(base)
        self.body.get(thread)
        self.body.i32_const(stride)
        self.body.op("i32.mul", "i32.add")


def next_ready(module: Module, contexts: Contexts) -> Function:
    """``(base, first, last) -> region``: the lowest region that a thread from ``first`` on is ready for, or below 0.

    The lowest first, so that threads that went different ways come together again.
    """
    w = _Writer(module, 3, 1, "next_ready", contexts)
    body = w.body
    base, first, last = w.function.parameters
    lowest, state = w.local(), w.local()
    w.set_to(lowest, EXITED)
    with body.loop() as again:
        w.load_state(base, first, state)
        # As unsigned numbers the states of threads that are not ready are the large ones.
        body.get(state)
        body.get(lowest)
        body.get(state)
        body.get(lowest)
        body.op("i32.lt_u", "select")
        body.set(lowest)
        w.add(first, 1)
        body.get(first)
        body.get(last)
        body.op("i32.lt_u")
        body.br_if(again)
    body.get(lowest)
    return w.function


# --- warp operations ---------------------------------------------------------------------------------------


def resolve_warp(module: Module, contexts: Contexts, resolvers: Sequence[Function]) -> Function:
    """``(base, first, last, force) -> whether``: carry out one operation of the warp from ``first`` on, if one can be.

    Lanes take part together when they wait at the same operation with the same mask, wherever in the code. It is
    carried out when all lanes of the mask that still live are there; with ``force``, with those that are.
    """
    signature = module.type([I32, I32])
    table = module.table(len(resolvers), len(resolvers))
    module.elements(table, 0, resolvers)
    group_of = _group(module, contexts)
    w = _Writer(module, 4, 1, "resolve_warp", contexts)
    body = w.body
    base, first, last, force = w.function.parameters
    alive, todo, thread, state, group, resolver = (w.local() for _ in range(6))
    _survey(w, (base, first, last), alive, todo)
    with body.block() as nothing, body.loop() as again:
        body.get(todo)
        body.op("i32.eqz")
        body.br_if(nothing)
        body.get(first)
        body.get(todo)
        body.op("i32.ctz", "i32.add")
        body.set(thread)
        w.load_state(base, thread, state)
        w.push_row(base, state, ROW_RESOLVER)
        body.set(resolver)
        body.get(base)
        body.get(first)
        body.get(todo)
        body.get(thread)
        body.get(resolver)
        body.call(group_of)
        body.set(group)
        # Complete: no lane of the mask that lives is missing; or one that does not wait, or must not.
        w.push_word(base, thread, 0)
        body.get(alive)
        body.op("i32.and")
        body.get(group)
        body.i32_const(-1)
        body.op("i32.xor", "i32.and", "i32.eqz")
        w.push_row(base, state, ROW_WAITS)
        body.op("i32.eqz", "i32.or")
        body.get(force)
        body.op("i32.or")
        with body.if_():
            w.push_mailbox(base, first)
            body.i32_const(contexts.mailboxes)
            body.op("i32.add")
            body.get(group)
            body.get(resolver)
            body.call_indirect(signature, table.index)
            _release(w, base, first, group)
            body.i32_const(1)
            body.op("return")
        body.get(todo)
        body.get(group)
        body.i32_const(-1)
        body.op("i32.xor", "i32.and")
        body.set(todo)
        body.br(again)
    body.i32_const(0)
    return w.function


def _survey(w: _Writer, place: tuple[Local, Local, Local], alive: Local, todo: Local) -> None:
    """Which lanes live, and which wait at an operation of the warp."""
    body = w.body
    base, first, last = place
    thread, state = w.local(), w.local()
    body.get(first)
    body.set(thread)
    with body.loop() as again:
        w.load_state(base, thread, state)
        body.get(state)
        body.i32_const(EXITED)
        body.op("i32.ne")
        with body.if_():
            _add_lane(body, first, thread, alive)
            w.push_waits(state)
            with body.if_():
                w.push_row(base, state, ROW_RESOLVER)
                body.i32_const(0)
                body.op("i32.ge_s")
                with body.if_():
                    _add_lane(body, first, thread, todo)
        w.add(thread, 1)
        body.get(thread)
        body.get(last)
        body.op("i32.lt_u")
        body.br_if(again)


def _add_lane(body: Body, first: Local, thread: Local, mask: Local) -> None:
    body.get(mask)
    body.i32_const(1)
    body.get(thread)
    body.get(first)
    body.op("i32.sub", "i32.shl", "i32.or")
    body.set(mask)


def _group(module: Module, contexts: Contexts) -> Function:
    """``(base, first, todo, thread, resolver) -> lanes`` of ``todo`` that wait at the same with the thread's mask."""
    w = _Writer(module, 5, 1, "group", contexts)
    body = w.body
    base, first, todo, thread, resolver = w.function.parameters
    mask, group, other, state = (w.local() for _ in range(4))
    w.push_word(base, thread, 0)
    body.set(mask)
    with body.loop() as again:
        body.get(first)
        body.get(todo)
        body.op("i32.ctz", "i32.add")
        body.set(other)
        w.load_state(base, other, state)
        w.push_row(base, state, ROW_RESOLVER)
        body.get(resolver)
        body.op("i32.eq")
        w.push_word(base, other, 0)
        body.get(mask)
        body.op("i32.eq", "i32.and")
        with body.if_():
            _add_lane(body, first, other, group)
        _drop_lowest(body, todo)
        body.get(todo)
        body.br_if(again)
    body.get(group)
    return w.function


def _drop_lowest(body: Body, mask: Local) -> None:
    body.get(mask)
    body.get(mask)
    body.i32_const(1)
    body.op("i32.sub", "i32.and")
    body.set(mask)


def _release(w: _Writer, base: Local, first: Local, group: Local) -> None:
    """Make the lanes of a group ready."""
    body = w.body
    thread, state = w.local(), w.local()
    with body.loop() as again:
        body.get(first)
        body.get(group)
        body.op("i32.ctz", "i32.add")
        body.set(thread)
        w.load_state(base, thread, state)
        w.go_on(base, thread, state)
        _drop_lowest(body, group)
        body.get(group)
        body.br_if(again)


# --- barriers ----------------------------------------------------------------------------------------------


def resolve_barriers(module: Module, contexts: Contexts, stuck: tuple[Global, Global]) -> Function:
    """``(base, threads) -> DONE, PROGRESS or STUCK``: let threads pass the barriers that are full.

    ``stuck`` are globals for the first thread that waits, and for its line.
    """
    count_arrivals = _count_arrivals(module, contexts)
    pass_barrier = _pass_barrier(module, contexts)
    w = _Writer(module, 2, 1, "resolve_barriers", contexts)
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
        _drop_lowest(body, present)
        body.br(next_barrier)
    body.i32_const(PROGRESS)
    body.i32_const(STUCK)
    body.get(progress)
    body.op("select")
    return w.function


def _count_arrivals(module: Module, contexts: Contexts) -> Function:
    """``(base, thread, state) -> whether``: a thread at ``bar.arrive`` is counted and goes on."""
    w = _Writer(module, 3, 1, "count_arrival", contexts)
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
    body.memory("i32.load", contexts.arrivals, memory=_SCRATCH)
    body.i32_const(1)
    body.op("i32.add")
    body.memory("i32.store", contexts.arrivals, memory=_SCRATCH)
    w.go_on(base, thread, state)
    body.i32_const(1)
    return w.function


def _pass_barrier(module: Module, contexts: Contexts) -> Function:
    """``(base, threads, alive, barrier) -> whether``: let all that wait at a barrier pass if it is full.

    It is full when as many threads came as it says, or, where it says nothing, as live.
    """
    walk = _walk_waiting(module, contexts)
    w = _Writer(module, 4, 1, "pass_barrier", contexts)
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
    body.memory("i32.load", contexts.arrivals, memory=_SCRATCH)
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
    body.memory("i32.store", contexts.arrivals, memory=_SCRATCH)
    body.i32_const(1)
    return w.function


def _call_walk(w: _Writer, walk: Function, arguments: Sequence[Local], *, release: int) -> None:
    for argument in arguments:
        w.body.get(argument)
    w.body.i32_const(release)
    w.body.call(walk)


def _walk_waiting(module: Module, contexts: Contexts) -> Function:
    """``(base, threads, barrier, release)``: go over the threads that wait at a barrier.

    First, without ``release``: count them, note the count of threads that the barrier is for, and how many of their
    predicates hold. Then, with it: give each its result and let it go on.
    """
    w = _Writer(module, 4, 0, "walk_waiting", contexts)
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
            body.memory("i32.store", contexts.totals + place, memory=_SCRATCH)
    return w.function


def _give_result(w: _Writer, base: Local, thread: Local, state: Local) -> None:
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
    body.memory("i32.store", w.contexts.mailboxes + OUT_OFFSET, memory=_SCRATCH)
