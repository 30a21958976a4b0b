"""Integer arithmetic: sums, products, differences, extremes (PTX ISA, "Integer Arithmetic Instructions")."""

from __future__ import annotations

from typing import Final

from tensor_wasm.compiler.values.formula import I32, I64, Value, select
from tensor_wasm.compiler.values.helper import Helper, Writer
from tensor_wasm.compiler.values.lanes import pick
from tensor_wasm.compiler.values.operation import Operation
from tensor_wasm.ptx.program import ScalarType

#: The type of a ``.wide`` product.
WIDER: Final = {
    ScalarType.U16: ScalarType.U32,
    ScalarType.S16: ScalarType.S32,
    ScalarType.U32: ScalarType.U64,
    ScalarType.S32: ScalarType.S64,
}


def add(operation: Operation) -> None:
    """``add{.sat}``."""
    _sum(operation, "add")


def subtract(operation: Operation) -> None:
    """``sub{.sat}``."""
    _sum(operation, "sub")


def _sum(operation: Operation, name: str) -> None:
    a, b = operation.source(0), operation.source(1)
    if operation.has("sat"):
        exact = a.to(I64, signed=True).binary(name, b.to(I64, signed=True))
        operation.call("saturate.s32", exact).push(operation.body)
    else:
        a.binary(name, b).push(operation.body)


def multiply(operation: Operation) -> None:
    """``mul.lo``, ``mul.hi``, ``mul.wide``."""
    _product(operation).push(operation.body)


def multiply_add(operation: Operation) -> None:
    """``mad.lo``, ``mad.hi{.sat}``, ``mad.wide``."""
    if operation.has("sat"):
        high = _wide_product(operation).shr_s(32)
        _saturated_sum(operation, high)
    else:
        kind = WIDER[operation.type] if operation.has("wide") else operation.type
        (_product(operation) + operation.source(2, kind)).push(operation.body)


def _saturated_sum(operation: Operation, product: Value) -> None:
    exact = product + operation.source(2).to(I64, signed=True)
    operation.call("saturate.s32", exact).push(operation.body)


def _product(operation: Operation) -> Value:
    a, b = operation.source(0), operation.source(1)
    kind = operation.type
    if operation.has("wide"):
        return a * b if kind.bits == 16 else _wide_product(operation)
    if not operation.has("hi"):
        return a * b
    match kind.bits:
        case 16:
            return (a * b).shr_u(16)
        case 32:
            return _wide_product(operation).shr_u(32).to(I32)
        case _:
            return operation.call(f"multiply_high.{kind.ptx_name}", a, b)


def _wide_product(operation: Operation) -> Value:
    is_signed = operation.type.is_signed
    a, b = operation.source(0), operation.source(1)
    return a.to(I64, signed=is_signed) * b.to(I64, signed=is_signed)


def multiply_24(operation: Operation) -> None:
    """``mul24.lo``, ``mul24.hi``: of the low 24 bits; ``.hi`` is bits 16 to 47 of the product."""
    _product_24(operation).push(operation.body)


def multiply_add_24(operation: Operation) -> None:
    """``mad24.lo``, ``mad24.hi{.sat}``."""
    if operation.has("sat"):
        _saturated_sum(operation, _product_24(operation).to(I64, signed=True))
    else:
        (_product_24(operation) + operation.source(2)).push(operation.body)


def _product_24(operation: Operation) -> Value:
    a, b = (_low_24(operation, position) for position in (0, 1))
    if not operation.has("hi"):
        return a * b
    is_signed = operation.type.is_signed
    return (a.to(I64, signed=is_signed) * b.to(I64, signed=is_signed)).shr_u(16).to(I32)


def _low_24(operation: Operation, position: int) -> Value:
    value = operation.source(position)
    return (value << 8).shr_s(8) if operation.type.is_signed else value & 0xFF_FFFF


def sum_of_difference(operation: Operation) -> None:
    """``sad``: ``c + |a - b|``."""
    a, b, c = (operation.source(position) for position in range(3))
    is_less = a.compare(_relation("lt", operation.type), b)
    (c + pick(is_less, b - a, a - b)).push(operation.body)


def absolute(operation: Operation) -> None:
    """``abs``; the most negative number stays what it is."""
    a = operation.source(0)
    pick(a.compare("lt_s", 0), -a, a).push(operation.body)


def negate(operation: Operation) -> None:
    """``neg``."""
    (-operation.source(0)).push(operation.body)


def minimum(operation: Operation) -> None:
    """``min{.relu}``."""
    _extreme(operation, "lt")


def maximum(operation: Operation) -> None:
    """``max{.relu}``."""
    _extreme(operation, "gt")


def _extreme(operation: Operation, relation: str) -> None:
    a, b = operation.source(0), operation.source(1)
    result = pick(a.compare(_relation(relation, operation.type), b), a, b)
    if operation.has("relu"):
        result = operation.let(result)
        result = pick(result.compare("gt_s", 0), result, 0)
    result.push(operation.body)


def _relation(name: str, kind: ScalarType) -> str:
    return f"{name}_s" if kind.is_signed else f"{name}_u"


def dot_4(operation: Operation) -> None:
    """``dp4a``: ``c`` plus the products of four pairs of bytes."""
    _dot(operation, "dot_4")


def dot_2(operation: Operation) -> None:
    """``dp2a.lo``, ``dp2a.hi``: ``c`` plus the products of two 16-bit numbers and two bytes of the half named."""
    _dot(operation, "dot_2_high" if operation.has("hi") else "dot_2_low")


def _dot(operation: Operation, helper: str) -> None:
    first, second = operation.instruction.types
    a, b = operation.source(0, ScalarType.B32), operation.source(1, ScalarType.B32)
    c = operation.source(2, ScalarType.B32)
    operation.call(f"{helper}.{first.ptx_name}.{second.ptx_name}", a, b, c).push(operation.body)


# --- helpers ------------------------------------------------------------------------------------------------


def _saturate(_writer: Writer, value: Value) -> Value:
    """An i64 limited to the range of s32."""
    low, high = -(2**31), 2**31 - 1
    not_above = select(value.compare("lt_s", high), value, high)
    return select(value.compare("gt_s", low), not_above, low).to(I32)


def _multiply_high(writer: Writer, a: Value, b: Value) -> Value:
    """The high 64 bits of an unsigned product, from four products of halves."""
    low_mask = 0xFFFF_FFFF
    a_low, a_high = writer.let(a & low_mask), writer.let(a.shr_u(32))
    b_low, b_high = writer.let(b & low_mask), writer.let(b.shr_u(32))
    middle = writer.let(a_high * b_low + (a_low * b_low).shr_u(32))
    other = writer.let(a_low * b_high + (middle & low_mask))
    return a_high * b_high + middle.shr_u(32) + other.shr_u(32)


def _multiply_high_signed(writer: Writer, a: Value, b: Value) -> Value:
    """The unsigned result less what the signs' weight of -2**63 instead of 2**63 changes."""
    unsigned = writer.call("multiply_high.u64", a, b)
    return unsigned - (a.shr_s(63) & b) - (b.shr_s(63) & a)


def _field(value: Value, position: int, bits: int, is_signed: bool) -> Value:
    """``bits`` bits of an i32 from bit ``position`` on, extended."""
    top = value << (32 - bits - position) if position + bits < 32 else value
    return top.shr_s(32 - bits) if is_signed else top.shr_u(32 - bits)


def _dot_helper(count: int, first_bits: int, second_start: int, is_signed: tuple[bool, bool]) -> Helper:
    def formula(_writer: Writer, a: Value, b: Value, c: Value) -> Value:
        total = c
        for index in range(count):
            left = _field(a, index * first_bits, first_bits, is_signed[0])
            right = _field(b, second_start + index * 8, 8, is_signed[1])
            total = total + left * right
        return total

    return Helper((I32, I32, I32), I32, formula)


def _dot_helpers() -> dict[str, Helper]:
    helpers = {}
    for first in ("u32", "s32"):
        for second in ("u32", "s32"):
            signs = (first == "s32", second == "s32")
            helpers[f"dot_4.{first}.{second}"] = _dot_helper(4, 8, 0, signs)
            helpers[f"dot_2_low.{first}.{second}"] = _dot_helper(2, 16, 0, signs)
            helpers[f"dot_2_high.{first}.{second}"] = _dot_helper(2, 16, 16, signs)
    return helpers


HELPERS: Final = {
    "saturate.s32": Helper((I64,), I32, _saturate),
    "multiply_high.u64": Helper((I64, I64), I64, _multiply_high),
    "multiply_high.s64": Helper((I64, I64), I64, _multiply_high_signed),
    **_dot_helpers(),
}
