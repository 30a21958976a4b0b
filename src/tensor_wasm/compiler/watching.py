"""Where threads see what others do in memory, and may wait for it: locks, flags, tickets.

Those are atomic operations, and loads that must look again each time, on whose results depends what runs. A
compare-and-swap that is tried again with what it found waits for nobody: of those that try it, one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tensor_wasm.compiler.allocation import writers_of
from tensor_wasm.compiler.divergence import components
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Branch, Instruction, Kernel, Operand, Register, Space, Switch

#: Instructions that are looked at for where a value is from. What a loop waits for is near its end.
_SOURCES_MAX: Final = 100

_AGAIN: Final = frozenset({"volatile", "relaxed", "acquire", "mmio"})


def watching(kernel: Kernel) -> frozenset[int]:
    """The blocks in which threads see what others do, by their indices."""
    writers = writers_of(kernel)
    seen = [block for block in kernel.blocks if any(_watches(each, writers) for each in block.instructions)]
    deciding = _deciding(kernel, writers) if seen else frozenset()
    return frozenset(
        block.index
        for block in seen
        if any(_watches(each, writers) and not deciding.isdisjoint(each.destinations) for each in block.instructions)
    )


def _deciding(kernel: Kernel, writers: dict[Register, list[Instruction]]) -> frozenset[Register | None]:
    """Registers that what runs may depend on: guards, and all that they are made of.

    Among them what is kept in local memory, where code that is not optimised has its variables.
    """
    waiting: list[object] = []
    for block in kernel.blocks:
        match block.terminator:
            case Branch(guard, _, _):
                waiting.append(guard.register)
            case Switch(selector, _):
                waiting.append(selector)
        for instruction in block.instructions:
            if instruction.guard is not None:
                waiting.append(instruction.guard.register)
            if instruction.root == "st" and instruction.space in (Space.LOCAL, Space.GENERIC):
                waiting += instruction.sources
    found: set[Register | None] = set()
    while waiting:
        current = waiting.pop()
        if isinstance(current, Register) and current not in found:
            found.add(current)
            for writer in writers.get(current, ()):
                waiting += writer.sources
    return frozenset(found)


def waiting_guards(kernel: Kernel, graph: Graph) -> Iterator[Register]:
    """The guards of branches in loops that depend on what others do."""
    writers = writers_of(kernel)
    order = graph.reverse_postorder
    edges = {block: list(graph.successors[block]) for block in order}
    for component in components(order, edges):
        for index in component:
            match kernel.blocks[index].terminator:
                case Branch(guard, _, _) if len(component) > 1 or index in edges[index]:
                    found = _sources(guard.register, writers, lambda _: True)
                    if any(_watches(instruction, writers) for instruction in found or ()):
                        yield guard.register


def _watches(instruction: Instruction, writers: dict[Register, list[Instruction]]) -> bool:
    if instruction.root == "ld":
        return not _AGAIN.isdisjoint(instruction.modifiers)
    if instruction.root != "atom" or not any(instruction.destinations):
        return False
    if "cas" not in instruction.modifiers:
        return True
    found = _sources(instruction.sources[0], writers, lambda writer: writer.root == "mov")
    return found is None or not any(writer is instruction for writer in found)


def _sources(
    operand: Operand, writers: dict[Register, list[Instruction]], follows: Callable[[Instruction], bool]
) -> list[Instruction] | None:
    """The instructions that an operand's value may be of, also through those that ``follows`` holds for.

    None when there are too many.
    """
    waiting: list[Operand] = [operand]
    seen: set[Operand] = set()
    found: list[Instruction] = []
    while waiting:
        current = waiting.pop()
        if current in seen or not isinstance(current, Register):
            continue
        seen.add(current)
        for writer in writers.get(current, ()):
            found.append(writer)
            if len(found) > _SOURCES_MAX:
                return None
            if follows(writer):
                waiting += writer.sources
                if writer.guard is not None:
                    waiting.append(writer.guard.register)
    return found
