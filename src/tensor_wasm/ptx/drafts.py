"""A kernel's blocks while they are changed, and the blocks that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tensor_wasm.ptx.graph import renumbered, targets
from tensor_wasm.ptx.program import Block, Exit, Instruction, Jump, Terminator


@dataclass(slots=True)
class Draft:
    """A block that may still change; targets are indices of drafts."""

    line: int
    instructions: list[Instruction] = field(default_factory=list)
    terminator: Terminator = field(default_factory=Exit)


def finish(drafts: Sequence[Draft]) -> tuple[Block, ...]:
    """The blocks that can be reached from the first, each as long as it can be, in the order of a thread's way."""
    ways = [0] * len(drafts)
    ways[0] = 2  # nothing may be put in front of it
    seen = {0}
    waiting = [0]
    while waiting:
        for target in targets(drafts[waiting.pop()].terminator):
            ways[target] += 1
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    order: dict[int, int] = {}
    waiting = [0]
    while waiting:
        index = waiting.pop()
        if index in order:
            continue
        order[index] = len(order)
        draft = drafts[index]
        while isinstance(draft.terminator, Jump) and ways[draft.terminator.target] == 1:
            following = drafts[draft.terminator.target]
            draft.instructions += following.instructions
            draft.terminator = following.terminator
        waiting.extend(reversed(targets(draft.terminator)))
    return tuple(_block(drafts[index], place, order) for index, place in order.items())


def _block(draft: Draft, index: int, order: dict[int, int]) -> Block:
    line = draft.instructions[0].line if draft.instructions else draft.line
    return Block(index, tuple(draft.instructions), renumbered(draft.terminator, order), line)
