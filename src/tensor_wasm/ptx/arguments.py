"""Variables for arguments and results of calls, made registers; or local variables where that cannot be.

A variable in the ``.param`` space that is only read and written at constant places is one register for each place, or
for up to 8 bytes of places that overlap: a ``char`` is passed as 32 bits and read as 8. One whose address is taken, or
of which more overlaps, is a local variable of the thread.
"""

from __future__ import annotations

from bisect import bisect_right
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
_CELLS: Final = {8: ScalarType.B16, 16: ScalarType.B16, 32: ScalarType.B32, 64: ScalarType.B64}
_CELL_BYTES_MAX: Final = 8
_FLOATS: Final = {4: ScalarType.F32, 8: ScalarType.F64}
_UNSIGNED: Final = {8: ScalarType.U8, 16: ScalarType.U16, 32: ScalarType.U32, 64: ScalarType.U64}
_SIGNED: Final = {8: ScalarType.S8, 16: ScalarType.S16, 32: ScalarType.S32, 64: ScalarType.S64}
_ALIGNMENT: Final = 16


@dataclass(slots=True)
class _Uses:
    """How a variable is used: for each place, as (offset, bytes), whether all registers there are floats."""

    places: dict[tuple[int, int], bool]
    is_addressed: bool = False

    def cells(self) -> list[tuple[int, int, bool]] | None:
        """Registers that hold all its places, as (offset, bytes, whether it is a float); None where none can."""
        if self.is_addressed:
            return None
        found: list[tuple[int, int, bool]] = []
        for (offset, size), is_float in sorted(self.places.items()):
            if found and offset < found[-1][0] + found[-1][1]:
                start, width, _ = found.pop()
                found.append((start, max(width, offset + size - start), False))
            else:
                found.append((offset, size, is_float))
        if any(size > _CELL_BYTES_MAX for _, size, _ in found):
            return None
        return found


@dataclass(frozen=True, slots=True)
class _Part:
    """A place in a register: from bit ``bit`` on. ``is_whole``: the register holds nothing else."""

    register: Register
    bit: int
    is_whole: bool


class _Places:
    """Where each place of the variables is that became registers."""

    def __init__(self, registers: list[Register]) -> None:
        self.registers = registers
        self._found: dict[Variable, dict[tuple[int, int], _Part]] = {}

    def add(self, variable: Variable, places: Iterable[tuple[int, int]], cells: list[tuple[int, int, bool]]) -> None:
        """Make a variable's registers."""
        made = [(start, size, self.new(_cell_type(size, is_float), variable.name)) for start, size, is_float in cells]
        starts = [start for start, _, _ in made]
        found = self._found[variable] = {}
        for offset, size in places:
            start, width, register = made[bisect_right(starts, offset) - 1]
            found[offset, size] = _Part(register, 8 * (offset - start), size == width)

    def of(self, base: object) -> dict[tuple[int, int], _Part] | None:
        """The places of a variable; None for what is none that became registers."""
        return self._found.get(base) if isinstance(base, Variable) else None

    def new(self, kind: ScalarType, name: str = "%part") -> Register:
        """A further register of the kernel."""
        register = Register(name, kind, len(self.registers))
        self.registers.append(register)
        return register


def _cell_type(size: int, is_float: bool) -> ScalarType:
    if is_float and size in _FLOATS:
        return _FLOATS[size]
    return ScalarType.B64 if size > 4 else ScalarType.B32 if size > 2 else ScalarType.B16


def to_registers(drafts: Sequence[Draft], registers: list[Register]) -> list[Variable]:
    """Rewrite all accesses to ``.param`` variables; new registers are added, the local variables made are returned."""
    uses = _uses(instruction for draft in drafts for instruction in draft.instructions)
    if not uses:
        return []
    places = _Places(registers)
    made: dict[Variable, Variable] = {}
    for variable, use in uses.items():
        cells = use.cells()
        if cells is not None:
            places.add(variable, use.places, cells)
        else:
            alignment = max(variable.alignment, _ALIGNMENT)
            made[variable] = replace(variable, space=Space.LOCAL, alignment=alignment)
    for draft in drafts:
        changed: list[Instruction] = []
        for instruction in draft.instructions:
            parts = None if instruction.address is None else places.of(instruction.address.base)
            if parts is not None:
                changed += _moves(instruction, parts, places)
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


def _moves(instruction: Instruction, parts: dict[tuple[int, int], _Part], places: _Places) -> list[Instruction]:
    """A load or store as moves from or to registers."""
    assert instruction.address is not None
    kind = instruction.type
    found: list[Instruction] = []
    for place, operand in enumerate(_moved(instruction)):
        part = parts[instruction.address.offset + place * kind.size_bytes, kind.size_bytes]
        if instruction.root == "st":
            assert operand is not None
            found += _write(instruction, part, operand, places)
        elif isinstance(operand, Register):
            found += _read(instruction, operand, part, places)
    return found


def _write(instruction: Instruction, part: _Part, value: Operand, places: _Places) -> list[Instruction]:
    kind, register = instruction.type, part.register
    if register.type.bits == kind.bits:
        return [_copy(instruction, register, value, kind)]
    if kind.bits == 8 and part.is_whole:
        return [_made(instruction, "cvt", (ScalarType.U16, ScalarType.U8), register, value)]
    made: list[Instruction] = []
    bits = _UNSIGNED[kind.bits]
    if isinstance(value, Register) and value.type.is_float:
        moved = places.new(_CELLS[kind.bits])
        made.append(_made(instruction, "mov", (moved.type,), moved, value))
        value = moved
    widened: Operand = Immediate(value.bits, register.type) if isinstance(value, Immediate) else value
    if not isinstance(value, Immediate):
        widened = places.new(register.type)
        made.append(_made(instruction, "cvt", (_UNSIGNED[register.type.bits], bits), widened, value))
    numbers = (Immediate(part.bit, ScalarType.U32), Immediate(kind.bits, ScalarType.U32))
    if register.type is ScalarType.B16:  # two bytes, and there is no insertion into 16 bits
        return [*made, *_insert_byte(instruction, part, widened, places)]
    made.append(_made(instruction, "bfi", (register.type,), register, widened, register, *numbers))
    return made


def _insert_byte(instruction: Instruction, part: _Part, value: Operand, places: _Places) -> list[Instruction]:
    """Put the low byte of a 16-bit value into a 16-bit register."""
    kind, register = ScalarType.B16, part.register
    shifted, kept = places.new(kind), places.new(kind)
    byte = Immediate(0xFF, kind)
    return [
        _made(instruction, "and", (kind,), shifted, value, byte),
        _made(instruction, "shl", (kind,), shifted, shifted, Immediate(part.bit, ScalarType.U32)),
        _made(instruction, "and", (kind,), kept, register, Immediate(0xFF00 >> part.bit, kind)),
        _made(instruction, "or", (kind,), register, kept, shifted),
    ]


def _copy(instruction: Instruction, register: Register, value: Operand, kind: ScalarType) -> Instruction:
    """Write a whole register."""
    if isinstance(value, Immediate):
        return _made(instruction, "mov", (register.type,), register, Immediate(value.bits, _CELLS[kind.bits]))
    width = 64 if isinstance(value, Symbol) else value.type.bits
    if width > kind.bits:
        return _made(instruction, "cvt", (_UNSIGNED[kind.bits], _UNSIGNED[width]), register, value)
    return _made(instruction, "mov", (register.type,), register, value)


def _read(instruction: Instruction, target: Register, part: _Part, places: _Places) -> list[Instruction]:
    kind, source = instruction.type, part.register
    if source.type.bits == target.type.bits == kind.bits:
        return [_made(instruction, "mov", (source.type,), target, source)]
    made: list[Instruction] = []
    if part.bit:
        shifted = places.new(source.type)
        kinds = (_UNSIGNED[source.type.bits],)
        made.append(_made(instruction, "shr", kinds, shifted, source, Immediate(part.bit, ScalarType.U32)))
        source = shifted
    widths = _SIGNED if kind.is_signed else _UNSIGNED
    if target.type.is_float:
        cut = places.new(_CELLS[target.type.bits])
        made.append(_made(instruction, "cvt", (_UNSIGNED[cut.type.bits], _UNSIGNED[kind.bits]), cut, source))
        made.append(_made(instruction, "mov", (cut.type,), target, cut))
    else:
        made.append(_made(instruction, "cvt", (widths[target.type.bits], widths[kind.bits]), target, source))
    return made


def _made(
    instruction: Instruction, root: str, types: tuple[ScalarType, ...], target: Register, *sources: Operand
) -> Instruction:
    at = instruction
    return Instruction(root, (), types, (target,), sources, at.guard, at.line, at.column)


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
