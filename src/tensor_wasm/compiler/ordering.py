"""The order in which other cores see what a thread reads and writes: fences, and loads and stores that are not weak.

Where there is one fence in front of such an access, nothing that Cranelift knows of memory from before it is used after
it, so a thread that waits for another block's flag sees it. Shared and local memory belong to one core and need none.
"""

from __future__ import annotations

from typing import Final

from tensor_wasm.ptx.program import Instruction, Space
from tensor_wasm.wasm import Body

_STRONG: Final = frozenset({"volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"})
_FENCES: Final = frozenset({"fence", "membar"})
_OF_ONE_CORE: Final = (Space.SHARED, Space.LOCAL, Space.PARAM, Space.CONST)


def is_ordered(instruction: Instruction) -> bool:
    """Whether an instruction orders what is before it and what comes after it, for other cores."""
    if instruction.root in _FENCES:
        return "cta" not in instruction.modifiers  # the threads of a block run on one core
    if instruction.root not in ("ld", "st") or instruction.space in _OF_ONE_CORE:
        return False
    return not _STRONG.isdisjoint(instruction.modifiers) and "cta" not in instruction.modifiers


def order(body: Body, instruction: Instruction) -> None:
    """Write what must stand in front of an instruction."""
    if is_ordered(instruction):
        body.op("atomic.fence")
