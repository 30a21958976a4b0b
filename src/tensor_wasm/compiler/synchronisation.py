"""Where threads of a block wait for each other: the kernel cut into regions at every such place.

A *suspension* is a barrier or a warp operation: a thread writes its operands to its mailbox, saves the registers it
still needs, and stops. What follows is an *entry*, where it goes on with the results. A *region* is the code from one
entry up to the next suspensions and ends: a small kernel of its own, without synchronisation, that the stages for
ordinary kernels compile. Code that can be reached from several entries is in several regions.

The method is that of work-group functions made of loops over work-items between barriers (as in PoCL), with regions
found by reachability instead of by the shape of the control flow: loops, branches and several barriers need no care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tensor_wasm.compiler import warp
from tensor_wasm.compiler.allocation import bits, defined, live_at_start
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.graph import renumbered, targets
from tensor_wasm.ptx.program import (
    Block,
    Branch,
    Exit,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Register,
    Terminator,
)

#: Regions share code, each its own copy. A kernel whose copies have more instructions than this is refused.
INSTRUCTIONS_MAX = 400_000


@dataclass(frozen=True, slots=True)
class Suspension:
    """A place where threads wait: ``number`` counts them from 0, ``instruction`` is what they wait at.

    ``saved`` are the registers that a thread needs afterwards, but for the results.
    """

    number: int
    instruction: Instruction
    saved: tuple[Register, ...]

    @property
    def entry(self) -> int:
        """The number of the region where threads go on: regions are the start's, then one a suspension."""
        return self.number + 1


@dataclass(frozen=True, slots=True)
class Suspend(Instruction):
    """The end of a region: the thread stops at ``suspension``.

    ``sources`` are the instruction's own, then the registers that this region changed and that are saved.
    """

    suspension: Suspension | None = None

    @property
    def stored(self) -> tuple[Register, ...]:
        """Registers to be saved here."""
        assert self.suspension is not None
        first = len(self.suspension.instruction.sources)
        return tuple(operand for operand in self.sources[first:] if isinstance(operand, Register))


@dataclass(frozen=True, slots=True)
class Region:
    """The code from one entry on, as a kernel whose block 0 it is.

    ``arrival`` is the suspension that leads here, None for the start of a thread. Blocks that end in a suspension have
    :class:`Suspend` as their last instruction and ``Exit`` as their terminator.
    """

    kernel: Kernel
    arrival: Suspension | None


def synchronises(instruction: Instruction) -> bool:
    """Whether threads wait for each other at an instruction."""
    return is_barrier(instruction) or warp.handles(instruction)


def is_barrier(instruction: Instruction) -> bool:
    """Whether it is a barrier of the block (``bar``, ``barrier``; not ``bar.warp.sync``)."""
    return instruction.root in ("bar", "barrier") and "warp" not in instruction.modifiers


def is_plain(instruction: Instruction) -> bool:
    """Whether it is a barrier for all threads of the block, with a constant number: it has no operands to be left."""
    return (
        is_barrier(instruction)
        and len(instruction.sources) == 1
        and isinstance(instruction.sources[0], Immediate)
        and not {"arrive", "red"} & set(instruction.modifiers)
    )


def has_synchronisation(kernel: Kernel) -> bool:
    """Whether threads of a block ever wait for each other."""
    return any(synchronises(instruction) for block in kernel.blocks for instruction in block.instructions)


def cut(kernel: Kernel) -> tuple[Region, ...]:
    """The regions of a kernel, that of a thread's start first, then one a suspension, in their order.

    Raises :class:`PtxError` for a kernel of which too much would have to be copied.
    """
    blocks, waits = _split(kernel)
    ways = [targets(block.terminator) for block in blocks]
    whole = replace(kernel, blocks=tuple(blocks))
    live = live_at_start(whole, ways, list(range(len(blocks))))
    suspensions: dict[int, Suspension] = {}
    for block, after in waits.items():
        instruction = blocks[block].instructions[-1]
        kept = range(len(kernel.registers)) if live is None else bits(live[after])
        results = set(defined(instruction))
        saved = tuple(r for r in (kernel.registers[index] for index in kept) if r not in results)
        suspensions[block] = Suspension(len(suspensions), instruction, saved)
    starts = [(0, None), *((waits[block], suspension) for block, suspension in suspensions.items())]
    regions = []
    left = INSTRUCTIONS_MAX
    for start, arrival in starts:
        # What a thread may read before it writes it is zero: the first region writes that down.
        unwritten = [] if arrival is not None or live is None else [kernel.registers[index] for index in bits(live[0])]
        region = _region(whole, start, arrival, suspensions, unwritten)
        left -= sum(len(block.instructions) + 1 for block in region.kernel.blocks)
        if left < 0:
            text = f"kernel {kernel.name} is too large: it synchronises in {len(suspensions)} places"
            raise PtxError(text, kernel.line, 1)
        regions.append(region)
    return tuple(regions)


def _split(kernel: Kernel) -> tuple[list[Block], dict[int, int]]:
    """The kernel's blocks cut after each synchronising instruction; and for each block cut, where it goes on.

    A guarded one becomes a branch around a block that holds it alone.
    """
    blocks: list[Block | None] = [None] * len(kernel.blocks)
    waits: dict[int, int] = {}

    def end(index: int, instructions: Sequence[Instruction], terminator: Terminator, line: int) -> None:
        blocks[index] = Block(index, tuple(instructions), terminator, line)

    def new() -> int:
        blocks.append(None)
        return len(blocks) - 1

    for block in kernel.blocks:
        index, line, pending = block.index, block.line, list[Instruction]()
        for instruction in block.instructions:
            if not synchronises(instruction):
                pending.append(instruction)
                continue
            if instruction.guard is not None:
                alone, after = new(), new()
                end(index, pending, Branch(instruction.guard, alone, after), line)
                index, pending = alone, []
            else:
                after = new()
            end(index, [*pending, replace(instruction, guard=None)], Jump(after), line)
            waits[index] = after
            index, line, pending = after, instruction.line, []
        end(index, pending, block.terminator, line)
    return [block for block in blocks if block is not None], waits


def _region(
    whole: Kernel,
    start: int,
    arrival: Suspension | None,
    suspensions: dict[int, Suspension],
    unwritten: Sequence[Register],
) -> Region:
    order: dict[int, int] = {}
    waiting = [start]
    while waiting:
        index = waiting.pop()
        if index in order:
            continue
        order[index] = len(order)
        if index not in suspensions:
            waiting.extend(reversed(targets(whole.blocks[index].terminator)))
    changed = set(unwritten) if arrival is None else set(defined(arrival.instruction))
    for index in order:
        own = whole.blocks[index].instructions[: -1 if index in suspensions else None]
        changed.update(register for instruction in own for register in defined(instruction))
    blocks = []
    for index, place in order.items():
        block = whole.blocks[index]
        suspension = suspensions.get(index)
        if suspension is None:
            blocks.append(replace(block, index=place, terminator=renumbered(block.terminator, order)))
        else:
            last = _suspend(suspension, [register for register in suspension.saved if register in changed])
            blocks.append(replace(block, index=place, instructions=(*block.instructions[:-1], last), terminator=Exit()))
    return Region(replace(whole, blocks=tuple(blocks)), arrival)


def _suspend(suspension: Suspension, stored: Sequence[Register]) -> Suspend:
    at = suspension.instruction
    return Suspend(
        root="suspend",
        modifiers=(),
        types=at.types,
        destinations=(),
        sources=(*at.sources, *stored),
        guard=None,
        line=at.line,
        column=at.column,
        address=at.address,
        space=at.space,
        negated=at.negated,
        suspension=suspension,
    )
