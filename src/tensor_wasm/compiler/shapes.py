"""How a register's values differ among the threads of a strip: not at all, by a constant step, or anyhow.

A *strip* is some neighbouring threads of one row of a block (one y, one z), which the code runs together. A register is

- *uniform* when all of them have the same value: it is kept once;
- *linear* when lane i has the first lane's value plus i times a step that is known when the code is written
  (:class:`Line`): the first lane's value is kept, and a memory access by it can be seen to be contiguous;
- *varying* otherwise: every lane's value is kept.

That is a fact about values, found here by following them from their sources; where threads of a strip go different
ways, :mod:`.divergence` adds what their different ways do to a register.

The method is divergence analysis (Karrenberg and Hack, "Whole-function vectorization", CGO 2011; Rosemann, Moll and
Hack, "An abstract interpretation for SPMD divergence on reducible control flow graphs", POPL 2021), with a lattice cut
down to what the lowering uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from tensor_wasm.compiler import special, values
from tensor_wasm.compiler.allocation import defined
from tensor_wasm.ptx.program import (
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Variable,
)


class Shape(IntEnum):
    """Ascending: the shape of what comes from two shapes is at least the greater one."""

    UNIFORM = 0
    LINEAR = 1
    VARYING = 2


@dataclass(frozen=True, slots=True)
class Line:
    """How a linear value grows from lane to lane, modulo its width.

    A value that was widened from 32 bits is the first lane's plus ``scale`` times what the 32-bit one, its *origin*,
    has grown by ``origin_step`` a lane: that may have wrapped. Then ``is_wide`` holds, and the origin's first value is
    kept as well; else ``origin_step`` is 0.
    """

    step: int
    is_wide: bool = False
    origin_step: int = 0
    is_signed: bool = False

    @property
    def scale(self) -> int:
        """What the origin's growth is multiplied by."""
        return self.step // self.origin_step


#: What there is to know of a value: None while nothing is, which is as good as anything.
Growth = Line | Shape | None

#: Special registers that threads of a strip see differently; ``%tid.x`` linearly.
OWN_VALUES: Final = frozenset(
    {"laneid", "warpid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge"}
)

#: Steps beyond this are not followed: what lanes differ by must be well below half of the range.
_STEP_MAX: Final = 1 << 24


class Shapes:
    """The shapes of a kernel's registers.

    ``entering`` are registers that are read before they are written: 0 in all lanes. ``local_bytes`` is by how much the
    addresses of local variables differ from lane to lane.
    """

    def __init__(self, registers: Iterable[Register], entering: Iterable[Register], local_bytes: int) -> None:
        self._growths: dict[Register, Growth] = dict.fromkeys(registers)
        self._local_bytes = local_bytes
        for register in entering:
            self._growths[register] = Shape.UNIFORM

    # --- what was found -----------------------------------------------------------------------------------

    def of(self, register: Register) -> Shape:
        """A register's shape."""
        return _shape(self._growths[register])

    def line(self, operand: Operand) -> Line | None:
        """How a linear operand grows, None for others."""
        found = self._growth(operand)
        return found if isinstance(found, Line) else None

    def is_wide(self, operand: Operand) -> bool:
        """Whether an operand is linear and was widened, so that its origin must be known as well."""
        line = self.line(operand)
        return line is not None and line.is_wide

    def operand(self, operand: Operand) -> Shape:
        """The shape of a source."""
        return _shape(self._growth(operand))

    def address(self, instruction: Instruction) -> Shape:
        """The shape of an instruction's address, uniform where it has none."""
        address = instruction.address
        match None if address is None else address.base:
            case Register() as register:
                return self.of(register)
            case Variable() as variable:
                return self.operand(Symbol(variable))
            case _:
                return Shape.UNIFORM

    def guard(self, instruction: Instruction) -> Shape:
        """The shape of an instruction's guard, uniform where it has none."""
        return Shape.UNIFORM if instruction.guard is None else self.of(instruction.guard.register)

    # --- finding it ---------------------------------------------------------------------------------------

    def add(self, register: Register, like: Register) -> None:
        """Make a register known that grows as another one does."""
        self._growths[register] = self._growths[like]

    def vary(self, register: Register) -> bool:
        """Say that a register varies; whether that is new."""
        is_new = self._growths[register] is not Shape.VARYING
        self._growths[register] = Shape.VARYING
        return is_new

    def spread(self, kernels: Iterable[Kernel]) -> None:
        """Follow all values from their sources until nothing changes."""
        instructions = [
            instruction for kernel in kernels for block in kernel.blocks for instruction in block.instructions
        ]
        changed = True
        while changed:
            changed = False
            for instruction in instructions:
                if not instruction.destinations:
                    continue
                growth = self._result(instruction)
                for register in defined(instruction):
                    changed |= self._join(register, growth)

    def _join(self, register: Register, growth: Growth) -> bool:
        old = self._growths[register]
        if growth is None or old is Shape.VARYING or old == growth:
            return False
        is_fit = not isinstance(growth, Line) or (register.type.bits in (32, 64) and register.type.kind in "bus")
        self._growths[register] = growth if old is None and is_fit else Shape.VARYING
        return True

    def _growth(self, operand: Operand) -> Growth:
        match operand:
            case Register():
                return self._growths[operand]
            case Special(name="tid" | special.GRID_INDEX, axis="x"):
                return Line(1)
            case Special(name):
                return Shape.VARYING if name in OWN_VALUES else Shape.UNIFORM
            case Symbol(Variable(space=Space.LOCAL)):
                return Line(self._local_bytes) if self._local_bytes else Shape.UNIFORM
            case _:
                return Shape.UNIFORM

    def _result(self, instruction: Instruction) -> Growth:
        """What an instruction makes of its sources."""
        growths = [self._growth(operand) for operand in instruction.sources]
        if instruction.guard is not None:
            guard = self._growths[instruction.guard.register]
            if guard is not Shape.UNIFORM:
                return None if guard is None else Shape.VARYING
        if instruction.address is not None and isinstance(instruction.address.base, Register):
            growths.append(self._growths[instruction.address.base])
        if any(growth is None for growth in growths):
            return None
        if instruction.root == "atom":
            return Shape.VARYING
        if instruction.root in ("ld", "ldu"):
            return Shape.UNIFORM if self.address(instruction) is Shape.UNIFORM else Shape.VARYING
        most = max(map(_shape, growths), default=Shape.UNIFORM)
        if most is not Shape.LINEAR:
            return most
        return _line(instruction, growths) or Shape.VARYING


def _shape(growth: Growth) -> Shape:
    if isinstance(growth, Line):
        return Shape.LINEAR
    return Shape.UNIFORM if growth is None else growth


# --- what operations make of lines --------------------------------------------------------------------------


def _line(instruction: Instruction, growths: list[Growth]) -> Line | None:
    """The line of a result that has linear and uniform sources; None where it has none."""
    root, sources, modifiers = instruction.root, instruction.sources, instruction.modifiers
    if {"sat", "hi", "cc"} & set(modifiers) or len(instruction.destinations) != 1 or not instruction.types:
        return None
    if any(kind.bits not in (32, 64) or kind.kind not in "bus" for kind in instruction.types):
        return None
    if not _has_widths_of_types(instruction):
        return None
    result: Line | None = None
    match root:
        case "mov" if len(sources) == 1:
            result = _plain(growths[0])
        case "cvta":
            result = _plain(growths[0])
        case "add":
            result = _sum(growths[0], growths[1], 1)
        case "sub":
            result = _sum(growths[0], growths[1], -1)
        case "neg":
            result = _times(growths[0], -1)
        case "shl" if isinstance(sources[1], Immediate) and sources[1].bits < instruction.type.bits:
            result = _times(growths[0], 1 << sources[1].bits)
        case "cvt":
            result = _converted(instruction, growths[0])
        case "mul":
            result = _product(instruction, growths)
        case "mad":
            product = _product(instruction, growths)
            # An unchanged product of uniform values, plus what is linear, is a sum like others.
            is_uniform = growths[0] is Shape.UNIFORM and growths[1] is Shape.UNIFORM
            result = _plain(growths[2]) if is_uniform else None if product is None else _sum(product, growths[2], 1)
    if result is None or abs(result.step) > _STEP_MAX or not (root == "cvta" or _is_known(instruction)):
        return None
    return result


def _has_widths_of_types(instruction: Instruction) -> bool:
    """Whether no register is wider than the text says, so that nothing is cut or extended on the way."""
    (register,) = instruction.destinations
    width = 64 if "wide" in instruction.modifiers else instruction.types[0].bits
    if register is not None and register.type.bits != width:
        return False
    wide_third = instruction.root == "mad" and "wide" in instruction.modifiers
    for position, operand in enumerate(instruction.sources):
        want = 64 if wide_third and position == 2 else instruction.type.bits
        if instruction.root == "shl" and position == 1:
            want = 32
        if isinstance(operand, Register | Special) and operand.type.bits != want:
            return False
    return True


def _is_known(instruction: Instruction) -> bool:
    return instruction.root == "mov" or values.handles(instruction)


def _plain(growth: Growth) -> Line | None:
    return growth if isinstance(growth, Line) else None


def _times(growth: Growth, factor: int) -> Line | None:
    return replace(growth, step=growth.step * factor) if isinstance(growth, Line) and factor else None


def _sum(one: Growth, two: Growth, sign: int) -> Line | None:
    if not isinstance(two, Line):
        return _plain(one)
    if not isinstance(one, Line):
        return _times(two, sign)
    if one.is_wide or two.is_wide or one.step + sign * two.step == 0:
        return None
    return Line(one.step + sign * two.step)


def _product(instruction: Instruction, growths: list[Growth]) -> Line | None:
    """Times a constant."""
    for growth, other in ((growths[0], instruction.sources[1]), (growths[1], instruction.sources[0])):
        if isinstance(growth, Line) and isinstance(other, Immediate):
            kind = instruction.type
            factor = other.bits & ((1 << kind.bits) - 1)
            if factor >> kind.bits - 1 and (kind.is_signed or "wide" not in instruction.modifiers):
                factor -= 1 << kind.bits
            is_wide = "wide" in instruction.modifiers
            return _times(_widened(growth, kind) if is_wide else growth, factor)
    return None


def _converted(instruction: Instruction, growth: Growth) -> Line | None:
    target, source = instruction.types
    if not isinstance(growth, Line):
        return None
    if target.bits == source.bits:
        return growth
    if target.bits > source.bits:
        return _widened(growth, source)
    return Line(growth.step)  # what wrapped at 32 bits is not seen in them


def _widened(growth: Line, kind: ScalarType) -> Line:
    return Line(growth.step, is_wide=True, origin_step=growth.step, is_signed=kind.is_signed)
