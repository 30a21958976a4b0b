"""What a thread that stops leaves in its mailbox: the operands of a barrier or of a warp operation."""

from __future__ import annotations

from tensor_wasm.compiler import transfers, warp
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.contexts import LaneContext
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.synchronisation import Suspend, is_barrier
from tensor_wasm.compiler.warp.mailbox import WORD_BYTES
from tensor_wasm.compiler.warp.plans import word_count
from tensor_wasm.ptx.program import Instruction, ScalarType

_SCRATCH = 1

# IN words of a barrier.
BARRIER_ID, BARRIER_COUNT, BARRIER_PREDICATE = 1, 2, 3


def result_types(instruction: Instruction) -> tuple[ScalarType, ...]:
    """The types of what an instruction gives, one a destination."""
    if is_barrier(instruction):
        return (instruction.type,) if instruction.destinations else ()
    return warp.plan(instruction).results


def write_operands(frame: Frame, instruction: Suspend) -> None:
    """Write a thread's operands to its mailbox."""
    assert instruction.suspension is not None
    at = instruction.suspension.instruction
    if is_barrier(at):
        _barrier(frame, instruction, at)
    else:
        _warp(frame, instruction, at)


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


def _context(frame: Frame) -> LaneContext:
    assert frame.context is not None
    return frame.context


def _name(kind: ScalarType) -> str:
    return carrier(kind).name.lower()
