"""Extended-precision arithmetic: ``add.cc addc sub.cc subc mad.cc madc``.

They carry through the condition code register. :func:`expose` makes that a register like others, 0 or 1, the last
source of an instruction that reads it and the second destination of one that writes it. Subtraction leaves its borrow
there (PTX ISA, "Extended-Precision Integer Arithmetic Instructions").
"""

from __future__ import annotations

from dataclasses import replace

from tensor_wasm.compiler.frame import Frame
from tensor_wasm.ptx.program import Instruction, Kernel, Register, ScalarType
from tensor_wasm.wasm import Local, ValType

_FAMILY = ("add", "sub", "mad")


def handles(instruction: Instruction) -> bool:
    """Whether an instruction reads or writes the carry."""
    return instruction.root in ("addc", "subc", "madc") or (
        instruction.root in _FAMILY and "cc" in instruction.modifiers
    )


def reads(instruction: Instruction) -> bool:
    """Whether one of the family takes the carry."""
    return instruction.root.endswith("c")


def writes(instruction: Instruction) -> bool:
    """Whether one of the family leaves the carry."""
    return "cc" in instruction.modifiers


def expose(kernel: Kernel) -> Kernel:
    """The kernel with the carry flag as a register, where it has any use for one."""
    if not any(handles(instruction) for block in kernel.blocks for instruction in block.instructions):
        return kernel
    flag = Register("carry flag", ScalarType.U32, len(kernel.registers))

    def exposed(instruction: Instruction) -> Instruction:
        if not handles(instruction):
            return instruction
        sources = (*instruction.sources, flag) if reads(instruction) else instruction.sources
        destinations = (*instruction.destinations, flag) if writes(instruction) else instruction.destinations
        return replace(instruction, sources=sources, destinations=destinations)

    blocks = tuple(replace(block, instructions=tuple(map(exposed, block.instructions))) for block in kernel.blocks)
    return replace(kernel, registers=(*kernel.registers, flag), blocks=blocks)


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
    has_carry = reads(instruction)
    is_subtraction = instruction.root.startswith("sub")
    operation = "i64.sub" if is_subtraction else "i64.add"
    _first(frame, instruction)
    body.op("i64.extend_i32_u")
    frame.push_source(instruction, _last(instruction), ScalarType.U32)
    body.op("i64.extend_i32_u", operation)
    if has_carry:
        _push_carry(frame, instruction)
        body.op("i64.extend_i32_u", operation)
    if writes(instruction):
        with frame.temporary(ValType.I64) as total:
            body.tee(total)
            body.i64_const(63 if is_subtraction else 32)
            body.op("i64.shr_u", "i32.wrap_i64")
            _pop_carry(frame, instruction)
            body.get(total)
    body.op("i32.wrap_i64")


def _wide(frame: Frame, instruction: Instruction) -> None:
    """64 bits: a sum that is less than a summand has wrapped."""
    body = frame.body
    has_carry = reads(instruction)
    is_subtraction = instruction.root.startswith("sub")
    with (
        frame.temporary(ValType.I64) as total,
        frame.temporary(ValType.I64) as other,
        frame.temporary(ValType.I32) as carry,
    ):
        _first(frame, instruction)
        body.set(total)
        frame.push_source(instruction, _last(instruction), ScalarType.U64)
        body.set(other)
        _step(frame, total, other, carry, is_subtraction)
        if has_carry:
            _push_carry(frame, instruction)
            body.op("i64.extend_i32_u")
            body.set(other)
            if writes(instruction):
                body.get(carry)
            _step(frame, total, other, carry, is_subtraction)
            if writes(instruction):
                body.get(carry)
                body.op("i32.or")
                body.set(carry)
        if writes(instruction):
            body.get(carry)
            _pop_carry(frame, instruction)
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


def _last(instruction: Instruction) -> int:
    """The position of the last summand."""
    return len(instruction.sources) - 1 - reads(instruction)


def _push_carry(frame: Frame, instruction: Instruction) -> None:
    frame.push_source(instruction, len(instruction.sources) - 1, ScalarType.U32)


def _pop_carry(frame: Frame, instruction: Instruction) -> None:
    frame.store(instruction.destinations[1], ScalarType.U32)
