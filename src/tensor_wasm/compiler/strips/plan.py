"""What has to be known of a kernel before its code is written for strips: shapes, chunks, locals, the width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.compiler import warp
from tensor_wasm.compiler.allocation import Allocation, allocate, bits, defined, live_at_start
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.divergence import Layout, Loop, Part, lay_out_chunks
from tensor_wasm.compiler.shapes import Shape, Shapes
from tensor_wasm.compiler.strips.control import Chunk, chunk
from tensor_wasm.compiler.strips.strip import is_double
from tensor_wasm.compiler.structure import Run
from tensor_wasm.compiler.synchronisation import Region, Suspend, is_barrier
from tensor_wasm.compiler.watching import waiting_guards, watching
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Branch, Instruction, Kernel, Register, ScalarType, Switch

#: Widths that there are, and up to how many instructions of a kernel they are taken: the widest is the fastest, and
#: compiling it takes the longest.
_LIMITS: Final = ((16, 4_000), (8, 30_000), (4, None))
WIDTHS: Final = tuple(width for width, _ in _LIMITS)


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """A region's chunks, and where its registers live.

    ``live_at`` are those that each block's start reads, as bit sets of indices, None where that is not known.
    """

    region: Region
    layout: Layout
    chunks: Mapping[int, Chunk]
    allocation: Allocation
    live_at: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """The plan of a kernel: the same shapes and width for all its regions.

    ``is_in_step``: all threads of a strip that live always wait at the same suspension.
    """

    shapes: Shapes
    width: int
    is_in_step: bool
    regions: tuple[RegionPlan, ...]


class _Draft:
    """A region while shapes are still rising."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.kernel = region.kernel
        self.graph = Graph(region.kernel)
        self.live = live_at_start(self.kernel, self.graph.successors, self.graph.reverse_postorder)
        self.watches = watching(region.kernel)
        self.parts_ways: set[int] | None = None
        self.layout: Layout | None = None

    def entering(self) -> Iterator[Register]:
        """Registers whose values a region's start reads."""
        registers = self.kernel.registers
        if self.live is None:
            yield from registers
        else:
            yield from (registers[index] for index in bits(self.live[0]))

    def is_in_step(self) -> bool:
        """Whether threads that part cannot come to different suspensions in this region, nor to one at other times."""
        waits = [
            bool(block.instructions) and isinstance(block.instructions[-1], Suspend) for block in self.kernel.blocks
        ]
        suspensions = [1 << block.index if wait else 0 for block, wait in zip(self.kernel.blocks, waits, strict=True)]
        changed = True
        while changed:
            changed = False
            for block in reversed(self.graph.reverse_postorder):
                found = suspensions[block]
                for target in self.graph.successors[block]:
                    found |= suspensions[target]
                changed |= found != suspensions[block]
                suspensions[block] = found
        assert self.parts_ways is not None
        assert self.layout is not None
        if self.layout.yields:
            return False
        repeated = set(_repeated(self.layout.parts))
        if any(wait and self.layout.chunk_of[block] in repeated for block, wait in enumerate(waits)):
            return False
        return all(suspensions[block].bit_count() <= 1 for block in self.parts_ways)

    def raise_kept(self, shapes: Shapes) -> bool:
        """Lay the chunks out by what varies now; registers that threads elsewhere keep vary. Whether any is new."""
        parts_ways = {block.index for block in self.kernel.blocks if _parts_ways(block.terminator, shapes)}
        if parts_ways != self.parts_ways:
            self.parts_ways = parts_ways
            self.layout = lay_out_chunks(
                self.kernel,
                self.graph.successors,
                self.graph.reverse_postorder,
                self.live,
                parts_ways.__contains__,
                self.watches.__contains__,
            )
        layout = self.layout
        assert layout is not None
        changed = False
        for head, members in layout.members.items():
            kept = layout.kept[head]
            if not kept:
                continue
            for block in members:
                for instruction in self.kernel.blocks[block].instructions:
                    for register in defined(instruction):
                        if kept >> register.index & 1:
                            changed |= shapes.vary(register)
        return changed


def plan(
    regions: Sequence[Region], local_bytes: int, width: int | None = None, *, is_joined: bool = False
) -> KernelPlan:
    """The plan of a kernel, given the regions that it was cut into; each thread has ``local_bytes`` of its own.

    ``width`` is that of its strips, by default one that suits it. ``is_joined``: rows do not end where blocks do.
    """
    drafts = [_Draft(region) for region in regions]
    entering = [register for draft in drafts if draft.region.arrival is None for register in draft.entering()]
    shapes = Shapes(regions[0].kernel.registers, entering, local_bytes)
    for region in regions:
        if region.arrival is not None:
            for register in defined(region.arrival.instruction):
                shapes.vary(register)
    for draft in drafts:
        if draft.watches:  # each thread goes its own way as soon as it may, also where all wait for the same
            for register in waiting_guards(draft.kernel, draft.graph):
                shapes.vary(register)
    kernels = [draft.kernel for draft in drafts]
    changed = True
    while changed:
        changed = False
        shapes.spread(kernels)
        for draft in drafts:
            changed = draft.raise_kept(shapes) or changed
    width = width or _width(kernels, is_joined=is_joined)
    arrivals = [region.arrival.instruction for region in regions if region.arrival is not None]
    is_in_step = all(draft.is_in_step() for draft in drafts) and all(_is_for_all(at, shapes) for at in arrivals)
    return KernelPlan(shapes, width, is_in_step, tuple(_finish(draft, shapes) for draft in drafts))


def _is_for_all(instruction: Instruction, shapes: Shapes) -> bool:
    """Whether threads of a strip that wait at a barrier or warp operation go on together: for the same others."""
    if is_barrier(instruction):
        groups = instruction.sources[: len(instruction.sources) - ("red" in instruction.modifiers)]
    else:
        mask = warp.plan(instruction).mask
        groups = () if mask is None else (instruction.sources[mask],)
    return all(shapes.operand(operand) is Shape.UNIFORM for operand in groups)


def _repeated(parts: Sequence[Part], *, is_inside: bool = False) -> Iterator[int]:
    """The chunks that are in loops: those run several times, each time for some of a strip's threads."""
    for part in parts:
        if isinstance(part, Loop):
            yield from _repeated(part.parts, is_inside=True)
        elif is_inside:
            yield part


def _parts_ways(terminator: object, shapes: Shapes) -> bool:
    match terminator:
        case Branch(guard, taken, otherwise):
            return taken != otherwise and shapes.of(guard.register) is not Shape.UNIFORM
        case Switch(selector, targets):
            return len(set(targets)) > 1 and shapes.operand(selector) is not Shape.UNIFORM
        case _:
            return False


def _finish(draft: _Draft, shapes: Shapes) -> RegionPlan:
    layout, parts_ways = draft.layout, draft.parts_ways
    assert layout is not None
    assert parts_ways is not None
    chunks = {head: chunk(draft.kernel, layout, head, parts_ways=parts_ways) for head in layout.order}
    order = [
        chunks[head].blocks[step.block]
        for head in layout.order
        for step in chunks[head].steps
        if isinstance(step, Run) and step.block < len(chunks[head].blocks)
    ]
    kept = {block: layout.kept[layout.chunk_of[block]] for block in order}

    def kind(register: Register) -> tuple[object, object]:
        shape = shapes.of(register)
        if shape is Shape.VARYING:
            return (register.type is ScalarType.PRED, is_double(register.type))
        return (shape, carrier(register.type))

    allocation = allocate(draft.kernel, draft.graph.successors, order, kind, live=draft.live, kept=kept)
    return RegionPlan(draft.region, layout, chunks, allocation, draft.live)


def _width(kernels: Sequence[Kernel], *, is_joined: bool) -> int:
    count = sum(len(block.instructions) for kernel in kernels for block in kernel.blocks)
    for width, most in _LIMITS:
        is_too_wide = width > WIDTHS[-1] and not is_joined and _has_short_rows(kernels[0], width)
        if (most is None or count <= most) and not is_too_wide:
            return width
    raise AssertionError("the last width takes all kernels")


def _has_short_rows(kernel: Kernel, width: int) -> bool:
    """Whether rows of the kernel's blocks are known to fill no more than half of a strip."""
    return any(shape is not None and shape[0] <= width // 2 for shape in (kernel.reqntid, kernel.maxntid))
