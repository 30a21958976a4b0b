"""How a register's values differ among the threads of a strip: not at all, linearly, or anyhow.

A *strip* is some neighbouring threads of one row of a block (one y, one z), which the code runs together. A register is

- *uniform* when all of them have the same value: it is kept once;
- *linear* when the value is a start plus the thread's place times a step, modulo the width: the first thread's value and
  how far the last one's is from it are kept besides all values, so that a memory access of all threads can be seen to
  be contiguous;
- *varying* otherwise.

That is a fact about values, found here by following them from their sources (:func:`result_shape`); where threads of a
strip go different ways, :mod:`.divergence` adds what their different ways do to a register.

The method is divergence analysis (Karrenberg and Hack, "Whole-function vectorization", CGO 2011; Rosemann, Moll and
Hack, "An abstract interpretation for SPMD divergence on reducible control flow graphs", POPL 2021), with the lattice cut
down to what the lowering uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from tensor_wasm.compiler import values
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


#: Special registers that threads of a strip see differently; ``%tid.x`` linearly.
_OWN_VALUES: Final = frozenset(
    {"laneid", "warpid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge"}
)
_LINEAR_INTEGERS: Final = frozenset({"add", "sub", "mul", "mad", "shl", "neg", "cvt", "mov", "cvta"})
_PRODUCTS: Final = ("mul", "mad")

#: Steps beyond this are not followed: a strip's span must be well below half of the range.
_STEP_MAX: Final = 1 << 24


class Shapes:
    """The shapes of a kernel's registers, found by raising them until nothing changes."""

    def __init__(self, registers: Iterable[Register]) -> None:
        self._shapes = dict.fromkeys(registers, Shape.UNIFORM)
        self._steps: dict[Register, int] = {}
        self._refused: set[Register] = set()

    def of(self, register: Register) -> Shape:
        """A register's shape."""
        return self._shapes[register]

    def operand(self, operand: Operand) -> Shape:
        """The shape of a source."""
        match operand:
            case Register():
                return self._shapes[operand]
            case Immediate():
                return Shape.UNIFORM
            case Special(name="tid", axis="x"):
                return Shape.LINEAR
            case Special(name):
                return Shape.VARYING if name in _OWN_VALUES else Shape.UNIFORM
            case Symbol(target):
                return _variable_shape(target)

    def address(self, instruction: Instruction) -> Shape:
        """The shape of an instruction's address, uniform where it has none."""
        address = instruction.address
        match None if address is None else address.base:
            case Register() as register:
                return self._shapes[register]
            case Variable() as variable:
                return _variable_shape(variable)
            case _:
                return Shape.UNIFORM

    def guard(self, instruction: Instruction) -> Shape:
        """The shape of an instruction's guard, uniform where it has none."""
        return Shape.UNIFORM if instruction.guard is None else self._shapes[instruction.guard.register]

    def raise_to(self, register: Register, shape: Shape) -> bool:
        """Give a register at least ``shape``; whether that changed something."""
        kind = register.type
        if shape is Shape.LINEAR and (kind.is_float or kind.bits < 32):
            shape = Shape.VARYING
        if self._shapes[register] >= shape:
            return False
        self._shapes[register] = shape
        return True

    def step(self, operand: Operand) -> int | None:
        """What a 32-bit linear value grows by from lane to lane, where that is known; 0 for what is uniform."""
        match operand:
            case Register():
                return 0 if self._shapes[operand] is Shape.UNIFORM else self._steps.get(operand)
            case Special(name="tid", axis="x"):
                return 1
            case _:
                return 0 if self.operand(operand) is Shape.UNIFORM else None

    def find_steps(self, kernels: Iterable[Kernel], known: Iterable[Register]) -> None:
        """Find the steps of linear registers, all shapes being known; those ``known`` to come from elsewhere have none.

        A register has a step when every instruction that writes it gives it the same.
        """
        outside = set(known)
        written: dict[Register, list[Instruction]] = {}
        for kernel in kernels:
            for block in kernel.blocks:
                for instruction in block.instructions:
                    for register in defined(instruction):
                        if self._shapes[register] is Shape.LINEAR and register.type.bits == 32:
                            written.setdefault(register, []).append(instruction)
        # Assumed for all that are not from elsewhere, and taken back until what is left holds.
        self._steps = {}
        waiting = {register for register in written if register not in outside}
        changed = True
        while changed:
            changed = False
            for register in waiting:
                found = {self._result_step(instruction) for instruction in written[register]}
                step = found.pop() if len(found) == 1 else None
                if step is not None and self._steps.get(register) is None and register not in self._refused:
                    self._steps[register] = step
                    changed = True
                elif self._steps.get(register) is not None and step != self._steps[register]:
                    del self._steps[register]
                    self._refused.add(register)
                    changed = True

    def _result_step(self, instruction: Instruction) -> int | None:
        sources = instruction.sources
        steps = [self.step(source) for source in sources]
        if any(kind.bits != 32 for kind in instruction.types) or instruction.guard is not None:
            return None
        result: int | None = None
        match instruction.root, steps:
            case "mov" | "cvt" | "cvta", [int(step)]:
                result = step
            case "add", [int(one), int(two)]:
                result = one + two
            case "sub", [int(one), int(two)]:
                result = one - two
            case "neg", [int(step)]:
                result = -step
            case "shl", [int(step), 0] if isinstance(sources[1], Immediate) and sources[1].bits < 32:
                result = step << sources[1].bits
            case "mul", [int(one), int(two)]:
                result = _scaled(one, sources[1]) if two == 0 else _scaled(two, sources[0])
            case "mad", [int(one), int(two), int(three)]:
                product = _scaled(one, sources[1]) if two == 0 else _scaled(two, sources[0])
                result = None if product is None else product + three
        return result if result is not None and abs(result) <= _STEP_MAX else None

    def spread(self, kernels: Iterable[Kernel]) -> None:
        """Raise all results to what their sources make of them."""
        instructions = [
            instruction for kernel in kernels for block in kernel.blocks for instruction in block.instructions
        ]
        changed = True
        while changed:
            changed = False
            for instruction in instructions:
                shape = self.result(instruction)
                for register in defined(instruction):
                    changed |= self.raise_to(register, shape)

    def result(self, instruction: Instruction) -> Shape:
        """The shape of what an instruction gives, by its sources."""
        guard = self.guard(instruction)
        if guard is not Shape.UNIFORM:
            return Shape.VARYING
        sources = [self.operand(operand) for operand in instruction.sources]
        most = max(sources, default=Shape.UNIFORM)
        if instruction.root in ("ld", "ldu"):
            return Shape.UNIFORM if self.address(instruction) is Shape.UNIFORM else Shape.VARYING
        if instruction.root == "atom":
            return Shape.VARYING
        if most is not Shape.LINEAR:
            return most
        return Shape.LINEAR if _keeps_lines(instruction, sources) else Shape.VARYING


def _scaled(step: int, factor: Operand) -> int | None:
    """A step times a factor, where that is a constant; nothing times anything is nothing."""
    if step == 0:
        return 0
    if not isinstance(factor, Immediate):
        return None
    number = factor.bits - (1 << 32) if factor.bits >> 31 else factor.bits
    return step * number


def _variable_shape(target: object) -> Shape:
    """Each thread has its own local variables, a step apart."""
    return Shape.LINEAR if isinstance(target, Variable) and target.space is Space.LOCAL else Shape.UNIFORM


def _keeps_lines(instruction: Instruction, sources: list[Shape]) -> bool:
    """Whether linear sources give linear results; widening does where it does not wrap, which accesses look at."""
    root, modifiers = instruction.root, instruction.modifiers
    if root not in _LINEAR_INTEGERS or "sat" in modifiers or "hi" in modifiers:
        return False
    if len(instruction.destinations) != 1 or any(not _is_wide_integer(kind) for kind in instruction.types):
        return False
    if root == "mov":
        return len(sources) == 1
    if root in _PRODUCTS:
        return Shape.UNIFORM in sources[:2]
    if root == "shl":
        return sources[1] is Shape.UNIFORM
    return root == "cvta" or values.handles(instruction)


def _is_wide_integer(kind: ScalarType) -> bool:
    return kind.bits in (32, 64) and kind.kind in "bus"
