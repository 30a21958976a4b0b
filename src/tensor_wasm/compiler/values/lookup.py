"""``lop3``: any function of three bits, given by its truth table, as few WebAssembly instructions.

Bit ``4 * a + 2 * b + c`` of the table is the result. Split by one operand, say ``c``, every table is
``low ^ (c & (low ^ high))`` with ``low`` and ``high`` functions of the other two; those sixteen are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tensor_wasm.compiler.values.formula import Value
from tensor_wasm.compiler.values.lanes import fixed
from tensor_wasm.compiler.values.operation import Operation
from tensor_wasm.ptx.program import ScalarType

_Pair = Callable[[Value, Value], Value]

#: Functions of two bits by their table (bit ``2 * x + y``), with what they cost in instructions.
_PAIRS: Final[tuple[tuple[int, _Pair], ...]] = (
    (0, lambda x, _y: fixed(x, 0)),
    (2, lambda x, y: (x | y) ^ -1),
    (2, lambda x, y: y & (x ^ -1)),
    (1, lambda x, _y: x ^ -1),
    (2, lambda x, y: x & (y ^ -1)),
    (1, lambda _x, y: y ^ -1),
    (1, lambda x, y: x ^ y),
    (2, lambda x, y: (x & y) ^ -1),
    (1, lambda x, y: x & y),
    (2, lambda x, y: (x ^ y) ^ -1),
    (0, lambda _x, y: y),
    (2, lambda x, y: y | (x ^ -1)),
    (0, lambda x, _y: x),
    (2, lambda x, y: x | (y ^ -1)),
    (1, lambda x, y: x | y),
    (0, lambda x, _y: fixed(x, -1)),
)
_NONE, _ALL = 0, 15


def lookup(operation: Operation) -> None:
    """``lop3``; with ``.and`` or ``.or`` also the predicate "the result is not 0" combined with the last source."""
    table = operation.constant(3, ScalarType.B32)
    if table is None or table > 255:
        raise operation.refuse("the truth table must be a constant from 0 to 255")
    operands = [operation.source(position, ScalarType.B32) for position in range(3)]
    result = three(table, operands)
    if len(operation.instruction.sources) == 4:
        result.push(operation.body)
        return
    result = operation.let(result)
    result.push(operation.body)
    predicate = operation.source(4, ScalarType.PRED)
    is_any = result.compare("ne", 0)
    (is_any & predicate if operation.has("and") else is_any | predicate).push(operation.body)


def three(table: int, operands: list[Value]) -> Value:
    """The function of three i32 values that ``table`` (0 to 255) describes."""
    split = min(range(3), key=lambda position: _cost(*_halves(table, position)))
    low, high = _halves(table, split)
    x, y = (operand for position, operand in enumerate(operands) if position != split)
    z = operands[split]
    base, change = _PAIRS[low][1], _PAIRS[low ^ high][1]
    if low == high:
        return base(x, y)
    if low ^ high == _ALL:
        return base(x, y) ^ z
    if low == _NONE:
        return change(x, y) & z
    if high == _ALL:
        return base(x, y) | z
    if high == _NONE:
        return base(x, y) & (z ^ -1)
    return base(x, y) ^ (z & change(x, y))


def _halves(table: int, position: int) -> tuple[int, int]:
    """The tables of the other two operands where operand ``position`` is 0 and where it is 1."""
    halves = [0, 0]
    for index in range(8):
        bits = [index >> 2 & 1, index >> 1 & 1, index & 1]
        chosen = bits.pop(position)
        halves[chosen] |= (table >> index & 1) << (2 * bits[0] + bits[1])
    return halves[0], halves[1]


def _cost(low: int, high: int) -> int:
    if low == high:
        return _PAIRS[low][0]
    if low ^ high == _ALL or high == _ALL:
        return _PAIRS[low][0] + 1
    if low == _NONE:
        return _PAIRS[high][0] + 1
    if high == _NONE:
        return _PAIRS[low][0] + 2
    return _PAIRS[low][0] + _PAIRS[low ^ high][0] + 2
