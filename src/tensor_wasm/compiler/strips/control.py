"""The way of a strip through a kernel: chunk after chunk, as :mod:`tensor_wasm.compiler.divergence` laid them out.

Each chunk is a small kernel of its own, whose control flow is structured as that of a thread would be. Where it goes on
to another chunk it ends: with :class:`Leave`, all its threads to one, or with :class:`Part`, each to one of several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensor_wasm.compiler.divergence import Layout
from tensor_wasm.compiler.structure import Step, structure
from tensor_wasm.compiler.synchronisation import Suspend
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import (
    Block,
    Branch,
    Exit,
    Guard,
    Instruction,
    Jump,
    Kernel,
    Operand,
    Switch,
    Terminator,
)


@dataclass(frozen=True, slots=True)
class Leave(Instruction):
    """All threads of the chunk go on at the chunk whose head is ``target``."""

    target: int = 0


@dataclass(frozen=True, slots=True)
class Part(Instruction):
    """Threads go on at ``targets``: by ``guard`` at the first or the second, or by ``selector`` as ``brx.idx`` does."""

    targets: tuple[int, ...] = ()
    by: Guard | None = None
    selector: Operand | None = None


@dataclass(frozen=True, slots=True)
class End(Instruction):
    """The threads of the chunk end."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's code: ``kernel`` holds its blocks, the head first; ``blocks`` are their indices in the whole."""

    head: int
    kernel: Kernel
    steps: tuple[Step, ...]
    blocks: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether its threads only end."""
        return (
            len(self.kernel.blocks) == 1
            and all(isinstance(instruction, End) for instruction in self.kernel.blocks[0].instructions)
            and isinstance(self.kernel.blocks[0].terminator, Exit)
        )


def chunk(kernel: Kernel, layout: Layout, head: int, *, parts_ways: set[int]) -> Chunk:
    """The code of the chunk at ``head``; ``parts_ways`` are blocks at whose ends threads part."""
    members = layout.members[head]
    place = {block: number for number, block in enumerate(members)}
    blocks: list[Block] = []
    extra: list[Block] = []

    def leave(target: int, line: int) -> Leave:
        return Leave("leave", (), (), (), (), None, line, 1, target=target)

    def way(target: int, line: int) -> int:
        """Where to go for a target: a block of the chunk, or a new one that leaves it."""
        if target in place:
            return place[target]
        extra.append(Block(len(members) + len(extra), (leave(target, line),), Exit(), line))
        return extra[-1].index

    for number, index in enumerate(members):
        block = kernel.blocks[index]
        instructions: tuple[Instruction, ...] = block.instructions
        terminator = _simplified(block.terminator)
        line = instructions[-1].line if instructions else block.line
        match terminator:
            case Branch(guard, taken, otherwise) if index in parts_ways:
                part = Part("part", (), (), (), (), None, line, 1, targets=(taken, otherwise), by=guard)
                instructions, terminator = (*instructions, part), Exit()
            case Switch(selector, targets) if index in parts_ways:
                part = Part("part", (), (), (), (), None, line, 1, targets=targets, selector=selector)
                instructions, terminator = (*instructions, part), Exit()
            case Jump(target) if target not in place:
                instructions, terminator = (*instructions, leave(target, line)), Exit()
            case Jump(target):
                terminator = Jump(place[target])
            case Branch(_, taken, otherwise):
                terminator = replace(terminator, taken=way(taken, line), otherwise=way(otherwise, line))
            case Switch(selector, targets):
                terminator = Switch(selector, tuple(way(target, line) for target in targets))
            case Exit() if not (instructions and isinstance(instructions[-1], Suspend)):
                instructions = (*instructions, End("end", (), (), (), (), None, line, 1))
        blocks.append(Block(number, instructions, terminator, block.line))
    small = replace(kernel, blocks=(*blocks, *extra))
    return Chunk(head, small, structure(small, Graph(small)), members)


def _simplified(terminator: Terminator) -> Terminator:
    """A way on without a choice, where all choices are the same."""
    match terminator:
        case Branch(_, taken, otherwise) if taken == otherwise:
            return Jump(taken)
        case Switch(_, targets) if len(set(targets)) == 1:
            return Jump(targets[0])
        case _:
            return terminator
