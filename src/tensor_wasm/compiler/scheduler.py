"""The scheduler of a kernel whose threads wait for each other: WebAssembly in the kernel's own module.

Here are the words its code is written in; :mod:`.warp_scheduler` and :mod:`.barrier_scheduler` have its parts, and
:mod:`.blocks` puts them together.

``run`` takes the blocks of the grid one after another. In a block it lets ready threads run, region by region; when no
thread of a warp is ready it resolves the warp's operations; when no thread of the block is, its barriers. What then
still waits can never go on: a warp operation is carried out with the lanes that are there, a barrier is a fault.
"""

from __future__ import annotations

from tensor_wasm.compiler.contexts import (
    BARRIERS,
    EXITED,
    ROW_BYTES,
    WAITING,
    Contexts,
)
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES, WORD_BYTES
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32 = ValType.I32
SCRATCH = 1
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
        self._push_at(base, thread, 4)
        self.body.memory("i32.load", self.contexts.states, memory=SCRATCH)
        self.body.set(into)

    def go_on(self, base: Local, thread: Local, state: Local) -> None:
        """Make a thread that waits in ``state`` ready where it goes on: suspension s leads to region s + 1."""
        self._push_at(base, thread, 4)
        self.body.i32_const(WAITING + 1)
        self.body.get(state)
        self.body.op("i32.sub")
        self.body.memory("i32.store", self.contexts.states, memory=SCRATCH)

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


def drop_lowest(body: Body, mask: Local) -> None:
    """Clear the lowest bit that is set."""
    body.get(mask)
    body.get(mask)
    body.i32_const(1)
    body.op("i32.sub", "i32.and")
    body.set(mask)
