"""Where threads see what others do in memory, and may wait for it: locks, flags, tickets.

Those are atomic operations with results, and loads that must look again each time. A compare-and-swap that is tried
again with what it found waits for nobody: of those that try it, one succeeds.
"""

from __future__ import annotations

from typing import Final

from tensor_wasm.ptx.program import Instruction, Kernel, Operand, Register

_AGAIN: Final = frozenset({"volatile", "relaxed", "acquire", "mmio"})


def watching(kernel: Kernel) -> frozenset[int]:
    """The blocks in which threads see what others do, by their indices."""
    writers: dict[Register, list[Instruction]] = {}
    for block in kernel.blocks:
        for instruction in block.instructions:
            for register in instruction.destinations:
                if register is not None:
                    writers.setdefault(register, []).append(instruction)
    return frozenset(
        block.index
        for block in kernel.blocks
        if any(_watches(instruction, writers) for instruction in block.instructions)
    )


def _watches(instruction: Instruction, writers: dict[Register, list[Instruction]]) -> bool:
    if instruction.root == "ld":
        return not _AGAIN.isdisjoint(instruction.modifiers)
    if instruction.root != "atom" or not any(instruction.destinations):
        return False
    return "cas" not in instruction.modifiers or not _may_hold(instruction.sources[0], instruction, writers)


def _may_hold(operand: Operand, of: Instruction, writers: dict[Register, list[Instruction]]) -> bool:
    """Whether an operand may be the result of an instruction, by moves."""
    waiting: list[Operand] = [operand]
    seen: set[Operand] = set()
    while waiting:
        current = waiting.pop()
        if current in seen or not isinstance(current, Register):
            continue
        seen.add(current)
        for writer in writers.get(current, ()):
            if writer is of:
                return True
            if writer.root == "mov":
                waiting += writer.sources
    return False
