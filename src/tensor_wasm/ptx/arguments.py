"""Variables for arguments and results of calls, made registers; or local variables where that cannot be.

A variable in the ``.param`` space that is only read and written at constant places, by accesses that do not overlap
in part, is one register for each such place. One whose address is taken, or that is written as a whole and read in
parts, is a local variable of the thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tensor_wasm.ptx.drafts import Draft
from tensor_wasm.ptx.program import (
    Address,
    Immediate,
    Instruction,
    Operand,
    Register,
    ScalarType,
    Space,
    Symbol,
    Variable,
)

_ACCESSES: Final = ("ld", "st")
_BITS: Final = {1: ScalarType.B16, 2: ScalarType.B16, 4: ScalarType.B32, 8: ScalarType.B64}
_FLOATS: Final = {4: ScalarType.F32, 8: ScalarType.F64}
_UNSIGNED: Final = {8: ScalarType.U8, 16: ScalarType.U16, 32: ScalarType.U32, 64: ScalarType.U64}
_SIGNED: Final = {8: ScalarType.S8, 16: ScalarType.S16, 32: ScalarType.S32, 64: ScalarType.S64}
_ALIGNMENT: Final = 16


@dataclass(slots=True)
class _Uses:
    """How a variable is used: for each place, as (offset, bytes), whether all registers there are floats."""

    places: dict[tuple[int, int], bool]
    is_addressed: bool = False

    @property
    def fits_registers(self) -> bool:
        """Whether each place can be a register of its own."""
        end = 0
        for offset, size in sorted(self.places):
            if offset < end or size not in _BITS:
                return False
            end = offset + size
        return not self.is_addressed


def to_registers(drafts: Sequence[Draft], registers: list[Register]) -> list[Variable]:
    """Rewrite all accesses to ``.param`` variables; new registers are added, the local variables made are returned."""
    uses = _uses(instruction for draft in drafts for instruction in draft.instructions)
    if not uses:
        return []
    places: dict[Variable, dict[int, Register]] = {}
    made: dict[Variable, Variable] = {}
    for variable, use in uses.items():
        if use.fits_registers:
            found = places[variable] = {}
            for (offset, size), is_float in use.places.items():
                kind = _FLOATS[size] if is_float and size in _FLOATS else _BITS[size]
                found[offset] = Register(variable.name, kind, len(registers))
                registers.append(found[offset])
        else:
            alignment = max(variable.alignment, _ALIGNMENT)
            made[variable] = replace(variable, space=Space.LOCAL, alignment=alignment)
    for draft in drafts:
        changed: list[Instruction] = []
        for instruction in draft.instructions:
            base = instruction.address.base if instruction.address is not None else None
            if isinstance(base, Variable) and base in places:
                changed += _moves(instruction, places[base])
            else:
                changed.append(_relocated(instruction, made) if made else instruction)
        draft.instructions = changed
    return list(made.values())


def _uses(instructions: Iterable[Instruction]) -> dict[Variable, _Uses]:
    uses: dict[Variable, _Uses] = {}

    def of(variable: Variable) -> _Uses:
        found = uses.get(variable)
        if found is None:
            found = uses[variable] = _Uses({})
        return found

    for instruction in instructions:
        for operand in instruction.sources:
            target = operand.target if type(operand) is Symbol else None
            if isinstance(target, Variable) and target.space is Space.PARAM:
                of(target).is_addressed = True
        address = instruction.address
        if address is None or not isinstance(address.base, Variable) or address.base.space is not Space.PARAM:
            continue
        use = of(address.base)
        if instruction.root not in _ACCESSES:
            use.is_addressed = True
            continue
        size = instruction.type.size_bytes
        for place, moved in enumerate(_moved(instruction)):
            key = (address.offset + place * size, size)
            is_float = not isinstance(moved, Register) or (moved.type.is_float and moved.type.bits == 8 * size)
            use.places[key] = use.places.get(key, True) and is_float
    return uses


def _moved(instruction: Instruction) -> Sequence[Operand | None]:
    return instruction.destinations if instruction.root == "ld" else instruction.sources


def _moves(instruction: Instruction, registers: dict[int, Register]) -> list[Instruction]:
    """A load or store as moves from or to registers."""
    assert instruction.address is not None
    kind = instruction.type
    found: list[Instruction] = []
    for place, operand in enumerate(_moved(instruction)):
        register = registers[instruction.address.offset + place * kind.size_bytes]
        if instruction.root == "st":
            assert operand is not None
            found.append(_write(instruction, register, operand, kind))
        elif isinstance(operand, Register):
            found.append(_read(instruction, operand, register, kind))
    return found


def _write(instruction: Instruction, register: Register, value: Operand, kind: ScalarType) -> Instruction:
    if isinstance(value, Immediate):
        return _made(instruction, "mov", (register.type,), register, Immediate(value.bits, _BITS[kind.size_bytes]))
    width = value.type.bits if not isinstance(value, Symbol) else 64
    if kind.bits == 8:
        return _made(instruction, "cvt", (ScalarType.U16, ScalarType.U8), register, value)
    if width > kind.bits:
        return _made(instruction, "cvt", (_UNSIGNED[kind.bits], _UNSIGNED[width]), register, value)
    return _made(instruction, "mov", (register.type,), register, value)


def _read(instruction: Instruction, target: Register, register: Register, kind: ScalarType) -> Instruction:
    if target.type.bits == kind.bits and kind.bits != 8:
        return _made(instruction, "mov", (register.type,), target, register)
    widths = _SIGNED if kind.is_signed else _UNSIGNED
    return _made(instruction, "cvt", (widths[target.type.bits], widths[kind.bits]), target, register)


def _made(
    instruction: Instruction, root: str, types: tuple[ScalarType, ...], target: Register, source: Operand
) -> Instruction:
    return Instruction(root, (), types, (target,), (source,), instruction.guard, instruction.line, instruction.column)


def _relocated(instruction: Instruction, made: dict[Variable, Variable]) -> Instruction:
    """An instruction with the local variables in the place of those in the ``.param`` space."""
    sources = tuple(
        Symbol(made[operand.target], operand.offset)
        if type(operand) is Symbol and isinstance(operand.target, Variable) and operand.target in made
        else operand
        for operand in instruction.sources
    )
    address, space = instruction.address, instruction.space
    if address is not None and isinstance(address.base, Variable) and address.base in made:
        address = Address(made[address.base], address.offset)
        space = Space.LOCAL if space is Space.PARAM else space
    elif sources == instruction.sources:
        return instruction
    return replace(instruction, sources=sources, address=address, space=space)
