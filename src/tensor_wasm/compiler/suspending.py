"""The code of one thread at the borders of its regions: what it loads when it goes on, what it leaves when it stops."""

from __future__ import annotations

from collections.abc import Iterable

from tensor_wasm.compiler import transfers, warp
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.contexts import EXITED, WAITING, Contexts
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.synchronisation import Suspend, Suspension, is_barrier
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES, OUT_OFFSET, WORD_BYTES
from tensor_wasm.compiler.warp.plans import word_count
from tensor_wasm.ptx.program import Instruction, Register, ScalarType
from tensor_wasm.wasm import Body, Local, ValType

_SCRATCH = 1

# IN words of a barrier.
BARRIER_ID, BARRIER_COUNT, BARRIER_PREDICATE = 1, 2, 3


class ThreadContext:
    """Locals that say where a thread's state, save and mailbox are; they step from thread to thread."""

    def __init__(self, body: Body, contexts: Contexts) -> None:
        self.contexts = contexts
        self.state = body.local(ValType.I32)
        self.save = body.local(ValType.I32)
        self.mailbox = body.local(ValType.I32)

    @property
    def strides(self) -> tuple[tuple[Local, int], ...]:
        """Each of the locals, and by how much it steps."""
        return ((self.state, 4), (self.save, self.contexts.save_bytes), (self.mailbox, MAILBOX_BYTES))

    def push_state(self, body: Body) -> None:
        """Push the thread's state."""
        body.get(self.state)
        body.memory("i32.load", self.contexts.states, memory=_SCRATCH)

    def set_state(self, body: Body, state: int) -> None:
        """Change the thread's state."""
        body.get(self.state)
        body.i32_const(state)
        body.memory("i32.store", self.contexts.states, memory=_SCRATCH)

    def finish(self, body: Body) -> None:
        """The thread has ended."""
        self.set_state(body, EXITED)


def result_types(instruction: Instruction) -> tuple[ScalarType, ...]:
    """The types of what an instruction gives, one a destination."""
    if is_barrier(instruction):
        return (instruction.type,) if instruction.destinations else ()
    return warp.plan(instruction).results


def arrive(frame: Frame, arrival: Suspension, live: Iterable[Register]) -> list[Register]:
    """Load the registers that a region reads; those that were never written are returned."""
    body, context = frame.body, _context(frame)
    places: dict[Register, tuple[int, ScalarType]] = {}
    place = OUT_OFFSET
    for register, kind in zip(arrival.instruction.destinations, result_types(arrival.instruction), strict=True):
        if register is not None:
            places[register] = (place, kind)
        place += WORD_BYTES * word_count(kind)
    unknown = []
    if context.contexts.carry is not None:
        body.get(context.save)
        body.memory("i32.load", context.contexts.saves + context.contexts.carry, memory=_SCRATCH)
        body.set(frame.carry)
    for register in live:
        found = places.get(register)
        if found is not None:
            offset, kind = found
            body.get(context.mailbox)
            body.memory(f"{_name(kind)}.load", context.contexts.mailboxes + offset, memory=_SCRATCH)
            frame.store(register, kind)
        elif register in context.contexts.slots and register in arrival.saved:
            body.get(context.save)
            offset = context.contexts.saves + context.contexts.slots[register]
            body.memory(f"{_name(register.type)}.load", offset, memory=_SCRATCH)
            body.set(frame.local(register))
        else:
            unknown.append(register)
    return unknown


def suspend(frame: Frame, instruction: Suspend) -> None:
    """Save what the thread needs, write its operands to its mailbox, and let it wait."""
    body, context = frame.body, _context(frame)
    suspension = instruction.suspension
    assert suspension is not None
    if context.contexts.carry is not None:
        body.get(context.save)
        body.get(frame.carry)
        body.memory("i32.store", context.contexts.saves + context.contexts.carry, memory=_SCRATCH)
    for register in instruction.stored:
        body.get(context.save)
        body.get(frame.local(register))
        offset = context.contexts.saves + context.contexts.slots[register]
        body.memory(f"{_name(register.type)}.store", offset, memory=_SCRATCH)
    if is_barrier(suspension.instruction):
        _barrier(frame, instruction, suspension.instruction)
    else:
        _warp(frame, instruction, suspension.instruction)
    context.set_state(body, WAITING - suspension.number)


def _barrier(frame: Frame, instruction: Suspend, at: Instruction) -> None:
    sources = len(at.sources)
    has_predicate = "red" in at.modifiers
    counts = sources - has_predicate
    _write(frame, instruction, BARRIER_ID, 0, ScalarType.U32)
    if counts > 1:
        _write(frame, instruction, BARRIER_COUNT, 1, ScalarType.U32)
    else:
        _write_constant(frame, BARRIER_COUNT, 0)
    if has_predicate:
        _write(frame, instruction, BARRIER_PREDICATE, sources - 1, ScalarType.PRED)


def _warp(frame: Frame, instruction: Suspend, at: Instruction) -> None:
    plan = warp.plan(at)
    if plan.mask is None:
        _write_constant(frame, 0, -1)
    else:
        _write(frame, instruction, 0, plan.mask, ScalarType.U32)
    word = 1
    for position, kind in plan.operands:
        _write(frame, instruction, word, position, kind)
        word += word_count(kind)
    if at.root == "ldmatrix":
        _load_row(frame, instruction, matrices=len(at.destinations))


def _load_row(frame: Frame, instruction: Suspend, *, matrices: int) -> None:
    """The 16 bytes of the row that this lane addresses; of lanes that address none, nothing."""
    body, context = frame.body, _context(frame)
    body.get(frame.coordinates.thread)
    body.i32_const(31)
    body.op("i32.and")
    body.i32_const(8 * matrices)
    body.op("i32.lt_u")
    with body.if_():
        for number, half in enumerate(transfers.load_row(frame, instruction)):
            body.get(context.mailbox)
            body.get(half)
            place = context.contexts.mailboxes + WORD_BYTES * (1 + 2 * number)
            body.memory("i64.store", place, align=2, memory=_SCRATCH)
            body.release(half)


def _write(frame: Frame, instruction: Suspend, word: int, position: int, kind: ScalarType) -> None:
    """Write a source to an IN word, or to two of them."""
    context = _context(frame)
    frame.body.get(context.mailbox)
    frame.push_source(instruction, position, kind)
    place = context.contexts.mailboxes + WORD_BYTES * word
    frame.body.memory(f"{_name(kind)}.store", place, align=2, memory=_SCRATCH)


def _write_constant(frame: Frame, word: int, value: int) -> None:
    context = _context(frame)
    frame.body.get(context.mailbox)
    frame.body.i32_const(value)
    frame.body.memory("i32.store", context.contexts.mailboxes + WORD_BYTES * word, memory=_SCRATCH)


def _context(frame: Frame) -> ThreadContext:
    assert frame.context is not None
    return frame.context


def _name(kind: ScalarType) -> str:
    return carrier(kind).name.lower()
