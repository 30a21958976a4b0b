"""What each operand of a written opcode must be: the roles of its form, with its types filled in.

Which register types an operand takes follows the PTX ISA, "Operand Type Checking".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.forms import TYPES, Opcode, Role, RoleKind
from tensor_wasm.ptx.lexer import quote
from tensor_wasm.ptx.opcodes import find
from tensor_wasm.ptx.program import ScalarType

_WIDER: Final = {
    ScalarType.U16: ScalarType.U32,
    ScalarType.U32: ScalarType.U64,
    ScalarType.S16: ScalarType.S32,
    ScalarType.S32: ScalarType.S64,
}
_SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)", re.ASCII)
_ELEMENT_BITS: Final = {ScalarType.TF32: 32}
_WARP_SIZE = 32
#: How the parts of a packed value are held.
PART_TYPES: Final = {8: ScalarType.B8, 16: ScalarType.B16, 32: ScalarType.B32, 64: ScalarType.B64}


@cache
def accepted(kind: ScalarType, *, is_relaxed: bool = False) -> frozenset[ScalarType]:
    """Types of the registers that an operand of type ``kind`` takes."""
    if kind is ScalarType.PRED:
        return frozenset((kind,))
    kinds = {"b": "busfx", "u": "bus", "s": "bus", "f": "bf", "x": "b"}[kind.kind]
    found = {other for other in ScalarType if other.bits == kind.bits and other.kind in kinds}
    if is_relaxed:
        wider = "b" if kind.is_float else "bus"
        found |= {other for other in ScalarType if other.bits > kind.bits and other.kind in wider}
    return frozenset(found | {kind})


@dataclass(slots=True)
class Expected:
    """A role with its type.

    ``type`` is None where any register will do. ``count`` is the number of elements, 0 for any number of them, None
    for a whole or its parts.
    """

    role: Role
    type: ScalarType | None
    accepts: frozenset[ScalarType]
    count: int | None = 1


@dataclass(slots=True)
class Plan:
    """An opcode and what its operands must be, by their number."""

    opcode: Opcode
    text: str
    by_count: dict[int, tuple[Expected, ...]]

    def expected(self, count: int) -> tuple[Expected, ...]:
        """What ``count`` operands must be. Raises :class:`PtxError`, without a place, for a wrong number."""
        found = self.by_count.get(count)
        if found is None:
            numbers = sorted(self.by_count)
            wanted = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
            raise PtxError(f"{quote(self.text)} has {wanted} operands, not {count}")
        return found


def plan(text: str) -> Plan:
    """What an opcode as it is written asks of its operands. Raises :class:`PtxError`, without a place."""
    opcode = find(text)
    roles = list(opcode.form.roles)
    by_count: dict[int, tuple[Expected, ...]] = {}
    while True:
        by_count[len(roles)] = tuple(_expected(role, opcode) for role in roles)
        last = next((place for place in reversed(range(len(roles))) if roles[place].is_optional), None)
        if last is None:
            return Plan(opcode, text, by_count)
        del roles[last]


def _expected(role: Role, opcode: Opcode) -> Expected:
    if role.kind not in (RoleKind.SOURCE, RoleKind.DESTINATION):
        return Expected(role, None, frozenset(ScalarType))
    if role.type == "any":
        return Expected(role, None, frozenset(ScalarType), 0 if role.many else 1)
    kind = _type(role.type, opcode)
    count: int | None = 1
    match role.many:
        case "v":
            count = opcode.vector
        case "n":
            count = 0
        case "p":
            count = None
        case "x":
            count = next(int(part[1:]) for part in opcode.modifiers if part in ("x1", "x2", "x4"))
        case "a" | "b" | "c":
            kind, count = _fragment(role.many, kind, opcode)
    return Expected(role, kind, accepted(kind, is_relaxed=role.is_relaxed), count)


def _type(notation: str, opcode: Opcode) -> ScalarType:
    match notation:
        case "t":
            return opcode.types[-1]
        case "t0" | "t1" | "t2" | "t3":
            return opcode.types[int(notation[1])]
        case "w":
            return _WIDER[opcode.types[-1]]
    return TYPES[notation]


def _fragment(letter: str, kind: ScalarType, opcode: Opcode) -> tuple[ScalarType, int]:
    """Type and number of the registers of one lane that hold a matrix of a product (PTX ISA, ``mma``)."""
    shape = next(part for part in opcode.modifiers if _SHAPE.fullmatch(part))
    match = _SHAPE.fullmatch(shape)
    assert match is not None
    m, n, k = (int(size) for size in match.groups())
    held = kind if kind in (ScalarType.F32, ScalarType.F64, ScalarType.S32) else ScalarType.B32
    if shape == "m8n8k4" and held is not ScalarType.F64:
        # Four products of quarter warps.
        return held, 2 if letter in "ab" else (8 if held is ScalarType.F32 else 4)
    elements = {"a": m * k, "b": k * n, "c": m * n}[letter]
    bits = _ELEMENT_BITS.get(kind, kind.bits)
    return held, max(elements * bits // _WARP_SIZE // held.bits, 1)
