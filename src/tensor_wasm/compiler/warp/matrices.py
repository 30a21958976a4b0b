"""``ldmatrix`` and ``movmatrix``: 8x8 matrices of 16-bit elements spread over a warp (PTX ISA, "ldmatrix").

A warp holds such a matrix in one register: lane L has the elements ``2 * (L % 4)`` and the next of row ``L // 4``.
For ``ldmatrix`` the operand words 1 to 4 of lane ``8 * m + r`` are row r of matrix m, 16 bytes which the lowering has
loaded; result word m is the lane's part of matrix m. Rows of lanes that do not take part are zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.values.formula import I32, Value, constant, read
from tensor_wasm.compiler.warp.mailbox import (
    FIRST,
    IN_OFFSET,
    WORD_BYTES,
    Box,
    Builder,
    Resolver,
    box_address,
    builder,
    has_lane,
)
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.ptx.program import Instruction, ScalarType
from tensor_wasm.wasm import Body

_COUNTS: Final[Mapping[str, int]] = MappingProxyType({"x1": 1, "x2": 2, "x4": 4})
_LOAD: Final = ("sync", "aligned", "m8n8")


def plan_load(instruction: Instruction) -> Plan | None:
    """The plan of an ``ldmatrix``, None for a form there is not. Its operands are rows, which are no sources."""
    modifiers = instruction.modifiers
    if modifiers[:3] != _LOAD or modifiers[4:] not in ((), ("trans",)) or instruction.types != (ScalarType.B16,):
        return None
    count = _COUNTS.get(modifiers[3]) if len(modifiers) > 3 else None
    if count is None or (len(instruction.sources), len(instruction.destinations)) != (0, count):
        return None
    return Plan(".".join(("ldmatrix", *modifiers[3:])), results=(ScalarType.B32,) * count)


def plan_move(instruction: Instruction) -> Plan | None:
    """The plan of a ``movmatrix``, None for a form there is not."""
    shape = (instruction.modifiers, instruction.types, len(instruction.sources), len(instruction.destinations))
    if shape != ((*_LOAD, "trans"), (ScalarType.B16,), 1, 1):
        return None
    return Plan("movmatrix", (Operand(0, ScalarType.B32),), results=(ScalarType.B32,))


def _load(name: str, count: int, *, is_transposed: bool) -> Builder:
    def write(resolver: Resolver) -> None:
        with resolver.each(resolver.members) as box:
            for matrix in range(count):
                resolver.give(box, matrix, _part(resolver, box, matrix, is_transposed))

    return builder(name, write)


def _part(resolver: Resolver, box: Box, matrix: int, is_transposed: bool) -> Value:
    """A lane's register of a matrix whose rows are in mailboxes."""
    lane = read(box.lane)
    row, column = lane.shr_u(2), lane & 3
    if not is_transposed:
        return _masked(resolver, row + 8 * matrix, column << 2, "i32.load")
    first = (column << 1) + 8 * matrix
    return _pair(resolver, first, first + 1, row << 1, row << 1)


def _move(resolver: Resolver) -> None:
    with resolver.each(resolver.members) as box:
        lane = read(box.lane)
        row, column = lane.shr_u(2), lane & 3
        # Elements (2 * column, row) and (2 * column + 1, row): four lanes hold a row.
        first = (column << 3) + row.shr_u(1)
        place = (row & 1) << 1
        resolver.give(box, 0, _pair(resolver, first, first + 4, place, place))


def _pair(resolver: Resolver, low: Value, high: Value, low_place: Value, high_place: Value) -> Value:
    """Two elements of two lanes' operands, each at a byte offset, as one register."""
    first = _masked(resolver, low, low_place, "i32.load16_u")
    second = _masked(resolver, high, high_place, "i32.load16_u")
    return first | (second << 16)


def _masked(resolver: Resolver, lane: Value, place: Value, load: str) -> Value:
    """What lies ``place`` bytes into a lane's operands; 0 if it does not take part."""
    kept = resolver.let(lane)
    address = box_address(resolver.mail, kept) + place

    def push(body: Body) -> None:
        address.push(body)
        body.memory(load, IN_OFFSET + WORD_BYTES * FIRST, memory=resolver.memory)

    return Value(I32, push) & (constant(I32, 0) - has_lane(resolver.members, kept))


#: The resolvers by key.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "movmatrix": builder("movmatrix", _move),
        **{
            f"ldmatrix.{name}": _load(f"ldmatrix.{name}", count, is_transposed=False) for name, count in _COUNTS.items()
        },
        **{
            f"ldmatrix.{name}.trans": _load(f"ldmatrix.{name}.trans", count, is_transposed=True)
            for name, count in _COUNTS.items()
        },
    }
)
