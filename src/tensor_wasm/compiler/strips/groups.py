"""Accesses of a block that are near each other: one test for all of them.

Unrolled code reads and writes at constant distances from one address. Where the lowest and the highest of them are
inside of memory, and one is aligned, all are. That is tested at the first; where it does not hold, each goes the slow
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.compiler.allocation import defined
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips.strip import Strip
from tensor_wasm.ptx.program import Instruction, Register, Space
from tensor_wasm.wasm import Local

#: Accesses further apart than this are not near each other: what is tested must be likely to hold.
_DISTANCE_MAX: Final = 64 << 10


@dataclass(slots=True)
class Group:
    """Accesses at ``base`` plus ``lowest`` to ``highest`` bytes, each of ``size_bytes`` for a thread.

    ``holds`` is a local with whether the test of all of them held; None before it was made.
    """

    base: Register
    size_bytes: int
    is_shared: bool
    lowest: int
    highest: int
    count: int = 1
    holds: Local | None = None


def moved_bytes(instruction: Instruction) -> int:
    """How many bytes a load or store moves for a thread: an element, or several that are adjacent."""
    return instruction.type.size_bytes * len(instruction.destinations or instruction.sources)


def find_groups(strip: Strip, instructions: Sequence[Instruction]) -> dict[int, Group]:
    """The group of each instruction that shares one, by its identity."""
    open_: dict[tuple[Register, int, bool], Group] = {}
    found: list[tuple[Instruction, Group]] = []
    for instruction in instructions:
        key = _key(strip, instruction)
        if key is not None:
            address = instruction.address
            assert address is not None
            group = open_.get(key)
            if group is not None and _fits(group, address.offset):
                group.lowest, group.highest = min(group.lowest, address.offset), max(group.highest, address.offset)
                group.count += 1
            else:
                group = open_[key] = Group(*key, address.offset, address.offset)
            found.append((instruction, group))
        for register in defined(instruction):
            for other in [other for other in open_ if other[0] is register]:
                del open_[other]
    return {id(instruction): group for instruction, group in found if group.count > 1}


def _fits(group: Group, offset: int) -> bool:
    span = max(group.highest, offset) - min(group.lowest, offset)
    return span <= _DISTANCE_MAX and (offset - group.lowest) % group.size_bytes == 0


def _key(strip: Strip, instruction: Instruction) -> tuple[Register, int, bool] | None:
    """What accesses of one group have in common; None for one that is in none."""
    address = instruction.address
    if instruction.root not in ("ld", "ldu", "st") or address is None or not isinstance(address.base, Register):
        return None
    if instruction.space not in (Space.GLOBAL, Space.GENERIC, Space.SHARED):
        return None
    shape = strip.shapes.address(instruction)
    if shape is Shape.VARYING or (shape is Shape.UNIFORM and instruction.root == "st"):
        return None
    if instruction.guard is not None:  # the test is made at the first of them, which must run
        return None
    size = moved_bytes(instruction)
    if size & (size - 1):
        return None
    return address.base, size, instruction.space is Space.SHARED
