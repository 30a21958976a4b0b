"""The scheduler of a kernel whose threads wait for each other: WebAssembly in the kernel's own module.

Here are the words its code is written in; :mod:`.warp_scheduler` and :mod:`.barrier_scheduler` have its parts, and
:mod:`.blocks` puts them together.

``run`` takes the blocks of the grid one after another. In a block it lets ready threads run, region by region; when no
thread of a warp is ready it resolves the warp's operations; when no thread of the block is, its barriers. What then
still waits can never go on: a warp operation is carried out with the lanes that are there, a barrier is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tensor_wasm.compiler.contexts import (
    BARRIERS,
    EXITED,
    ROW_BARRIER,
    ROW_BYTES,
    WAITING,
    Contexts,
)
from tensor_wasm.compiler.values.lanes import fill
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES, WORD_BYTES
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32, V128 = ValType.I32, ValType.V128
SCRATCH = 1
QUAD = 4
WARP = 32

# Totals of one barrier, while it is looked at.
TOTAL_WAITING, TOTAL_COUNT, TOTAL_TRUE, TOTAL_WARPS = 0, 4, 8, 12


class Writer:
    """A function of the scheduler under construction: small words for its code."""

    def __init__(self, module: Module, parameters: int, results: int, name: str, contexts: Contexts) -> None:
        self.function = module.function([I32] * parameters, [I32] * results, name=name)
        self.body: Body = self.function.code
        self.contexts = contexts

    def local(self) -> Local:
        """A new i32 local, 0 at first."""
        return self.body.local(I32)

    def add(self, local: Local, amount: int) -> None:
        """Add a constant to a local."""
        self.body.get(local)
        self.body.i32_const(amount)
        self.body.op("i32.add")
        self.body.set(local)

    def set_to(self, local: Local, value: int) -> None:
        """Set a local to a constant."""
        self.body.i32_const(value)
        self.body.set(local)

    def load_state(self, base: Local, thread: Local, into: Local) -> None:
        """``into = states[thread]``."""
        self.push_state(base, thread)
        self.body.set(into)

    def each_quad(self, thread: Local, last: Local) -> AbstractContextManager[None]:
        """Run what is written inside for each four threads, as long as there are four before ``last``."""
        return self._each(QUAD, thread, last)

    def each_thread(self, thread: Local, last: Local) -> AbstractContextManager[None]:
        """Run what is written inside for each thread before ``last``."""
        return self._each(1, thread, last)

    @contextmanager
    def _each(self, count: int, thread: Local, last: Local) -> Iterator[None]:
        body = self.body
        with body.block() as done, body.loop() as again:
            body.get(thread)
            if count > 1:
                body.i32_const(count - 1)
                body.op("i32.add")
            body.get(last)
            body.op("i32.ge_u")
            body.br_if(done)
            yield
            self.add(thread, count)
            body.br(again)

    def push_place(self, base: Local, thread: Local) -> None:
        """Push the address of a thread's state, less the offset of all states."""
        self._push_at(base, thread, 4)

    def push_state(self, base: Local, thread: Local) -> None:
        """Push a thread's state."""
        self.push_place(base, thread)
        self.body.memory("i32.load", self.contexts.states, memory=SCRATCH)

    def push_states(self, base: Local, thread: Local) -> None:
        """Push the states of four threads."""
        self.push_place(base, thread)
        self.body.memory("v128.load", self.contexts.states, align=2, memory=SCRATCH)

    def push_least(self, other: Local, relation: str = "i32.lt_u") -> None:
        """Turn the number on the stack into the lesser one of it and a local, without signs."""
        body = self.body
        number = body.local(I32)
        body.tee(number)
        body.get(other)
        body.get(number)
        body.get(other)
        body.op(relation, "select")
        body.release(number)

    def push_lower(self, other: Local) -> None:
        """As :meth:`push_least`, with signs."""
        self.push_least(other, "i32.lt_s")

    def go_on(self, base: Local, thread: Local, state: Local) -> None:
        """Make a thread that waits in ``state`` ready where it goes on."""
        self.push_place(base, thread)
        self.push_region_after(state)
        self.body.memory("i32.store", self.contexts.states, memory=SCRATCH)

    def push_region_after(self, state: Local) -> None:
        """Push the region where threads go on that wait in ``state``: suspension s leads to region s + 1."""
        self.body.i32_const(WAITING + 1)
        self.body.get(state)
        self.body.op("i32.sub")

    def push_row(self, base: Local, state: Local, field: int) -> None:
        """Push a field of the table's row for the suspension that ``state`` waits at."""
        self.body.get(base)
        self.body.i32_const(WAITING)
        self.body.get(state)
        self.body.op("i32.sub")
        self.body.i32_const(ROW_BYTES)
        self.body.op("i32.mul", "i32.add")
        self.body.memory("i32.load", self.contexts.table + field, memory=SCRATCH)

    def push_word(self, base: Local, thread: Local, word: int) -> None:
        """Push an IN word of a thread's mailbox."""
        self._push_at(base, thread, MAILBOX_BYTES)
        self.body.memory("i32.load", self.contexts.mailboxes + WORD_BYTES * word, memory=SCRATCH)

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
        self.body.memory("i32.load", self.contexts.totals + place, memory=SCRATCH)

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
    w = Writer(module, 3, 1, "next_ready", contexts)
    body = w.body
    base, first, last = w.function.parameters
    state, lowest = w.local(), body.local(V128)
    body.v128_const(b"\xff" * 16)
    body.set(lowest)
    # As unsigned numbers the states of threads that are not ready are the large ones.
    with w.each_quad(first, last):
        body.get(lowest)
        w.push_states(base, first)
        body.op("i32x4.min_u")
        body.set(lowest)
    for lane in range(QUAD):
        body.get(lowest)
        body.lane("i32x4.extract_lane", lane)
        if lane:
            w.push_least(state)
        body.set(state)
    with w.each_thread(first, last):
        w.push_state(base, first)
        w.push_least(state)
        body.set(state)
    body.get(state)
    return w.function


#: What :func:`pass_together` gives when there is no such region.
APART, ENDED = -1, -2


def pass_together(module: Module, contexts: Contexts) -> Function:
    """``(base, threads) -> region``: let all threads of a block that live pass a plain barrier when all wait there.

    Gives the region where they go on, ``ENDED`` when all threads have ended, ``APART`` when it is neither. This is what
    nearly every barrier comes to; others are for :mod:`.barrier_scheduler`.
    """
    w = Writer(module, 2, 1, "pass_together", contexts)
    body = w.body
    base, threads = w.function.parameters
    state, place, apart = w.local(), w.local(), w.local()
    lowest, others = body.local(V128), body.local(V128)
    body.v128_const(b"\xff" * 16)
    body.set(lowest)
    with w.each_quad(place, threads):
        body.get(lowest)
        w.push_states(base, place)
        body.op("i32x4.min_s")
        body.set(lowest)
    w.set_to(state, EXITED)
    for lane in range(QUAD):
        body.get(lowest)
        body.lane("i32x4.extract_lane", lane)
        w.push_lower(state)
        body.set(state)
    with w.each_thread(place, threads):
        w.push_state(base, place)
        w.push_lower(state)
        body.set(state)
    # Every thread must be in that state, the lowest there is, or have ended.
    w.set_to(place, 0)
    with w.each_quad(place, threads):
        w.push_states(base, place)
        body.get(state)
        body.op("i32x4.splat", "i32x4.ne")
        w.push_states(base, place)
        fill("i32x4", EXITED).push(body)
        body.op("i32x4.ne", "v128.and")
        body.get(others)
        body.op("v128.or")
        body.set(others)
    with w.each_thread(place, threads):
        w.push_state(base, place)
        body.get(state)
        body.op("i32.ne")
        w.push_state(base, place)
        body.i32_const(EXITED)
        body.op("i32.ne", "i32.and")
        body.get(apart)
        body.op("i32.or")
        body.set(apart)
    body.get(others)
    body.op("v128.any_true")
    body.get(apart)
    body.op("i32.or")
    with body.if_():
        body.i32_const(APART)
        body.op("return")
    body.get(state)
    body.i32_const(EXITED)
    body.op("i32.eq")
    with body.if_():
        body.i32_const(ENDED)
        body.op("return")
    w.push_row(base, state, ROW_BARRIER)
    body.i32_const(0)
    body.op("i32.lt_s")
    with body.if_():
        body.i32_const(APART)
        body.op("return")
    _release_all(w, base, threads, state)
    w.push_region_after(state)
    return w.function


def _release_all(w: Writer, base: Local, threads: Local, state: Local) -> None:
    """Let all threads that wait in ``state`` go on."""
    body = w.body
    region, place = w.local(), w.local()
    w.push_region_after(state)
    body.set(region)
    with w.each_quad(place, threads):
        w.push_place(base, place)
        body.get(region)
        body.op("i32x4.splat")
        w.push_states(base, place)
        w.push_states(base, place)
        body.get(state)
        body.op("i32x4.splat", "i32x4.eq", "v128.bitselect")
        body.memory("v128.store", w.contexts.states, align=2, memory=SCRATCH)
    with w.each_thread(place, threads):
        w.push_state(base, place)
        body.get(state)
        body.op("i32.eq")
        with body.if_():
            w.go_on(base, place, state)


def drop_lowest(body: Body, mask: Local) -> None:
    """Clear the lowest bit that is set."""
    body.get(mask)
    body.get(mask)
    body.i32_const(1)
    body.op("i32.sub", "i32.and")
    body.set(mask)
