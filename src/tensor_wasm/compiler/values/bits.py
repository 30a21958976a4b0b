"""Logic, shifts and counts of bits (PTX ISA, "Logic and Shift Instructions" and the bit counts)."""

from __future__ import annotations

from typing import Final

from tensor_wasm.compiler.values.formula import I32, I64, Value, apply, constant, select
from tensor_wasm.compiler.values.helper import Helper, Writer
from tensor_wasm.compiler.values.lanes import fixed, is_double, pick
from tensor_wasm.compiler.values.operation import Operation, all_ones
from tensor_wasm.ptx.program import Register, ScalarType


def conjunction(operation: Operation) -> None:
    """``and``."""
    (operation.source(0) & operation.source(1)).push(operation.body)


def disjunction(operation: Operation) -> None:
    """``or``."""
    (operation.source(0) | operation.source(1)).push(operation.body)


def exclusive(operation: Operation) -> None:
    """``xor``."""
    (operation.source(0) ^ operation.source(1)).push(operation.body)


def complement(operation: Operation) -> None:
    """``not``, of bits or of a predicate."""
    a = operation.source(0)
    (a.is_zero() if operation.type is ScalarType.PRED else a ^ -1).push(operation.body)


def logical_complement(operation: Operation) -> None:
    """``cnot``: 1 for 0, else 0."""
    a = operation.source(0)
    a.is_zero().to(a.type).push(operation.body)


def shift_left(operation: Operation) -> None:
    """``shl``: amounts from the width on give 0."""
    a = operation.source(0)
    known = operation.constant(1, ScalarType.U32)
    if known is not None:
        result = a << known if known < operation.type.bits else fixed(a, 0)
    else:
        amount = operation.source(1, ScalarType.U32)
        result = pick(amount.compare("lt_u", _carrier_bits(a)), a << amount.to(a.type), 0)
    result.push(operation.body)


def shift_right(operation: Operation) -> None:
    """``shr``: amounts from the width on give 0, or the sign of a signed type."""
    a = operation.source(0)
    known = operation.constant(1, ScalarType.U32)
    top = _carrier_bits(a) - 1
    if operation.type.is_signed:
        if known is not None:
            result = a.shr_s(min(known, top))
        else:
            amount = operation.source(1, ScalarType.U32)
            result = a.shr_s(pick(amount.compare("lt_u", top), amount, top).to(a.type))
    elif known is not None:
        result = a.shr_u(known) if known <= top else fixed(a, 0)
    else:
        amount = operation.source(1, ScalarType.U32)
        result = pick(amount.compare("le_u", top), a.shr_u(amount.to(a.type)), 0)
    result.push(operation.body)


def _carrier_bits(value: Value) -> int:
    return 64 if is_double(value) else 32


def funnel(operation: Operation) -> None:
    """``shf.l``: the high half of ``b:a`` shifted left. ``shf.r``: its low half shifted right."""
    is_left = operation.has("l")
    low, high, amount = (operation.source(position) for position in range(3))
    first, second = operation.instruction.sources[:2]
    if operation.has("wrap"):
        if isinstance(first, Register) and first is second:
            low.binary("rotl" if is_left else "rotr", amount).push(operation.body)
            return
        amount = amount & 31
    else:
        amount = pick(amount.compare("lt_u", 32), amount, 32)
    both = (high.to(I64) << 32) | low.to(I64)
    shifted = (both << amount.to(I64)).shr_u(32) if is_left else both.shr_u(amount.to(I64))
    shifted.to(I32).push(operation.body)


def population(operation: Operation) -> None:
    """``popc``."""
    operation.source(0).unary("popcnt").to(I32).push(operation.body)


def leading_zeros(operation: Operation) -> None:
    """``clz``: the width for 0."""
    operation.source(0).unary("clz").to(I32).push(operation.body)


def find_leading(operation: Operation) -> None:
    """``bfind{.shiftamt}``: the place of the first bit that is not a copy of the sign; all ones for none."""
    a = operation.source(0)
    top = _carrier_bits(a) - 1
    if operation.type.is_signed:
        a = operation.let(a ^ a.shr_s(top))
    zeros = a.unary("clz").to(I32)
    from_top = pick(a.is_zero(), all_ones(I32), zeros)
    from_bottom = constant(I32, top) - zeros
    (from_top if operation.has("shiftamt") else from_bottom).push(operation.body)


def reverse(operation: Operation) -> None:
    """``brev``."""
    a = operation.source(0)
    operation.call("reverse.b64" if a.type is I64 else "reverse.b32", a).push(operation.body)


def permute(operation: Operation) -> None:
    """``prmt``: four bytes chosen from ``b:a``, by nibbles of ``c`` or by a named mode."""
    a, b = operation.source(0, ScalarType.B32), operation.source(1, ScalarType.B32)
    modes = operation.instruction.modifiers
    known = operation.constant(2, ScalarType.B32)
    selector = operation.source(2, ScalarType.B32)
    if modes:
        # Nibble n of the mode's word for selector s stands at bit 16 * s + 4 * n.
        words = sum(word << 16 * index for index, word in enumerate(PERMUTE_MODES[modes[0]]))
        place = ((selector & 3) << 4).to(I64)
        known = None if known is None else PERMUTE_MODES[modes[0]][known & 3]
        selector = constant(I64, words).shr_u(place).to(I32)
    if known is not None and known & 0x8888 == 0:
        _shuffle(operation, a, b, known)
    else:
        operation.call("permute", a, b, selector).push(operation.body)


def _shuffle(operation: Operation, a: Value, b: Value, selector: int) -> None:
    body = operation.body
    a.push(body)
    body.op("i32x4.splat")
    b.push(body)
    body.op("i32x4.splat")
    nibbles = [selector >> 4 * index & 7 for index in range(4)]
    # Bytes 0 to 3 of the first vector hold a, 16 to 19 of both together hold b.
    body.shuffle([nibble if nibble < 4 else nibble + 12 for nibble in nibbles] * 4)
    body.lane("i32x4.extract_lane", 0)


#: For each mode of ``prmt``, the nibbles that selectors 0 to 3 stand for (PTX ISA, ``prmt``).
PERMUTE_MODES: Final = {
    "f4e": (0x3210, 0x4321, 0x5432, 0x6543),
    "b4e": (0x5670, 0x6701, 0x7012, 0x0123),
    "rc8": (0x0000, 0x1111, 0x2222, 0x3333),
    "ecl": (0x3210, 0x3211, 0x3222, 0x3333),
    "ecr": (0x0000, 0x1110, 0x2210, 0x3210),
    "rc16": (0x1010, 0x3232, 0x1010, 0x3232),
}


# --- helpers ------------------------------------------------------------------------------------------------


def _reverse_32(writer: Writer, a: Value) -> Value:
    for distance, mask in ((1, 0x5555_5555), (2, 0x3333_3333), (4, 0x0F0F_0F0F), (8, 0x00FF_00FF)):
        a = writer.let((a.shr_u(distance) & mask) | ((a & mask) << distance))
    return a.binary("rotl", 16)


def _reverse_64(writer: Writer, a: Value) -> Value:
    low = writer.call("reverse.b32", a.to(I32))
    high = writer.call("reverse.b32", a.shr_u(32).to(I32))
    return (low.to(I64) << 32) | high.to(I64)


def _permute(writer: Writer, a: Value, b: Value, selector: Value) -> Value:
    both = writer.let((b.to(I64) << 32) | a.to(I64))
    result = constant(I32, 0)
    for index in range(4):
        nibble = writer.let(selector.shr_u(4 * index) & 15)
        byte = apply("i32.extend8_s", both.shr_u(((nibble & 7) << 3).to(I64)).to(I32))
        # With bit 3 of the nibble the byte's sign fills it.
        chosen = select(nibble.compare("gt_u", 7), byte.shr_s(31), byte) & 0xFF
        result = result | (chosen << 8 * index)
    return result


HELPERS: Final = {
    "reverse.b32": Helper((I32,), I32, _reverse_32),
    "reverse.b64": Helper((I64,), I64, _reverse_64),
    "permute": Helper((I32, I32, I32), I32, _permute),
}
