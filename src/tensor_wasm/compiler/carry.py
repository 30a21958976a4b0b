"""Extended-precision arithmetic: ``add.cc addc sub.cc subc mad.cc madc``.

They carry through the condition code register, which here is an i32 local that is 0 or 1. Subtraction leaves its
borrow there (PTX ISA, "Extended-Precision Integer Arithmetic Instructions").
"""

from __future__ import annotations

from tensor_wasm.compiler.frame import Frame
from tensor_wasm.ptx.program import Instruction, ScalarType
from tensor_wasm.wasm import Local, ValType

_FAMILY = ("add", "sub", "mad")


def handles(instruction: Instruction) -> bool:
    """Whether an instruction reads or writes the carry."""
    return instruction.root in ("addc", "subc", "madc") or (
        instruction.root in _FAMILY and "cc" in instruction.modifiers
    )


def lower(frame: Frame, instruction: Instruction) -> None:
    """Lower one of the family."""
    with frame.guarded(instruction.guard):
        if instruction.type.bits == 64:
            _wide(frame, instruction)
        else:
            _narrow(frame, instruction)
        frame.store(instruction.destinations[0], instruction.type)


def _narrow(frame: Frame, instruction: Instruction) -> None:
    """32 bits: computed in 64, where the carry is bit 32, and a borrow the sign."""
    body = frame.body
    reads, writes = instruction.root.endswith("c"), "cc" in instruction.modifiers
    is_subtraction = instruction.root.startswith("sub")
    operation = "i64.sub" if is_subtraction else "i64.add"
    _first(frame, instruction)
    body.op("i64.extend_i32_u")
    frame.push_source(instruction, len(instruction.sources) - 1, ScalarType.U32)
    body.op("i64.extend_i32_u", operation)
    if reads:
        body.get(frame.carry)
        body.op("i64.extend_i32_u", operation)
    if writes:
        with frame.temporary(ValType.I64) as total:
            body.tee(total)
            body.i64_const(63 if is_subtraction else 32)
            body.op("i64.shr_u", "i32.wrap_i64")
            body.set(frame.carry)
            body.get(total)
    body.op("i32.wrap_i64")


def _wide(frame: Frame, instruction: Instruction) -> None:
    """64 bits: a sum that is less than a summand has wrapped."""
    body = frame.body
    reads, writes = instruction.root.endswith("c"), "cc" in instruction.modifiers
    is_subtraction = instruction.root.startswith("sub")
    with (
        frame.temporary(ValType.I64) as total,
        frame.temporary(ValType.I64) as other,
        frame.temporary(ValType.I32) as carry,
    ):
        _first(frame, instruction)
        body.set(total)
        frame.push_source(instruction, len(instruction.sources) - 1, ScalarType.U64)
        body.set(other)
        _step(frame, total, other, carry, is_subtraction)
        if reads:
            body.get(frame.carry)
            body.op("i64.extend_i32_u")
            body.set(other)
            if writes:
                body.get(carry)
            _step(frame, total, other, carry, is_subtraction)
            if writes:
                body.get(carry)
                body.op("i32.or")
                body.set(carry)
        if writes:
            body.get(carry)
            body.set(frame.carry)
        body.get(total)


def _step(frame: Frame, total: Local, other: Local, carry: Local, is_subtraction: bool) -> None:
    """``total`` plus or minus ``other``; ``carry`` whether that wrapped."""
    body = frame.body
    if is_subtraction:
        body.get(total)
        body.get(other)
        body.op("i64.lt_u")
        body.set(carry)
    body.get(total)
    body.get(other)
    body.op("i64.sub" if is_subtraction else "i64.add")
    body.set(total)
    if not is_subtraction:
        body.get(total)
        body.get(other)
        body.op("i64.lt_u")
        body.set(carry)


def _first(frame: Frame, instruction: Instruction) -> None:
    """Push the first summand, in the carrier of the type: a source, or half of the product of two."""
    body = frame.body
    kind = instruction.type
    if not instruction.root.startswith("mad"):
        frame.push_source(instruction, 0, ScalarType.U32 if kind.bits == 32 else ScalarType.U64)
        return
    if kind.bits == 64:
        _product_64(frame, instruction)
        return
    operand = ScalarType.S32 if kind.is_signed else ScalarType.U32
    for position in (0, 1):
        frame.push_source(instruction, position, operand)
        body.op("i64.extend_i32_s" if kind.is_signed else "i64.extend_i32_u")
    body.op("i64.mul")
    if "hi" in instruction.modifiers:
        body.i64_const(32)
        body.op("i64.shr_u")
    body.op("i32.wrap_i64")


def _product_64(frame: Frame, instruction: Instruction) -> None:
    """Push half of the 128-bit product of the first two sources."""
    kind = instruction.type
    for position in (0, 1):
        frame.push_source(instruction, position, kind)
    if "hi" in instruction.modifiers:
        frame.body.call(frame.library.function(f"multiply_high.{kind.kind}64"))
    else:
        frame.body.op("i64.mul")
