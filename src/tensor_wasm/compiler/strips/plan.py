"""What has to be known of a kernel before its code is written for strips: shapes, chunks, locals, the width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.compiler.allocation import Allocation, allocate, bits, defined, live_at_start, used, used_at_end
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.divergence import Layout, lay_out_chunks
from tensor_wasm.compiler.shapes import Shape, Shapes
from tensor_wasm.compiler.strips.control import Chunk, chunk
from tensor_wasm.compiler.strips.strip import is_double
from tensor_wasm.compiler.structure import Run
from tensor_wasm.compiler.synchronisation import Region
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Branch, Kernel, Register, ScalarType, Switch

#: Widths that there are, the widest first, each with the vectors that a register of 32 bits takes.
_WIDTHS: Final = ((32, 8), (16, 4), (8, 2), (4, 1))
#: Vector registers of the processor that a strip's registers may fill; x86-64 has 16.
_VECTORS: Final = 14
#: Kernels of more instructions are compiled for narrower strips, so that compiling them takes no longer.
_INSTRUCTIONS_MAX: Final = {32: 300, 16: 1_500, 8: 5_000}


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
    """The plan of a kernel: the same shapes and width for all its regions."""

    shapes: Shapes
    width: int
    regions: tuple[RegionPlan, ...]


class _Draft:
    """A region while shapes are still rising."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.kernel = region.kernel
        self.graph = Graph(region.kernel)
        self.live = live_at_start(self.kernel, self.graph.successors, self.graph.reverse_postorder)
        self.parts_ways: set[int] | None = None
        self.layout: Layout | None = None

    def entering(self) -> Iterator[Register]:
        """Registers whose values a region's start reads."""
        registers = self.kernel.registers
        if self.live is None:
            yield from registers
        else:
            yield from (registers[index] for index in bits(self.live[0]))

    def raise_kept(self, shapes: Shapes) -> bool:
        """Lay the chunks out by what varies now; registers that threads elsewhere keep vary. Whether any is new."""
        parts_ways = {block.index for block in self.kernel.blocks if _parts_ways(block.terminator, shapes)}
        if parts_ways != self.parts_ways:
            self.parts_ways = parts_ways
            self.layout = lay_out_chunks(
                self.kernel, self.graph.successors, self.graph.reverse_postorder, self.live, parts_ways.__contains__
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


def plan(regions: Sequence[Region], local_bytes: int) -> KernelPlan:
    """The plan of a kernel, given the regions that it was cut into; each thread has ``local_bytes`` of its own."""
    drafts = [_Draft(region) for region in regions]
    entering = [register for draft in drafts if draft.region.arrival is None for register in draft.entering()]
    shapes = Shapes(regions[0].kernel.registers, entering, local_bytes)
    for region in regions:
        if region.arrival is not None:
            for register in defined(region.arrival.instruction):
                shapes.vary(register)
    kernels = [draft.kernel for draft in drafts]
    changed = True
    while changed:
        changed = False
        shapes.spread(kernels)
        for draft in drafts:
            changed = draft.raise_kept(shapes) or changed
    width = _width(drafts, shapes)
    return KernelPlan(shapes, width, tuple(_finish(draft, shapes) for draft in drafts))


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


def _width(drafts: Sequence[_Draft], shapes: Shapes) -> int:
    kernel = drafts[0].kernel
    count = sum(len(block.instructions) for draft in drafts for block in draft.kernel.blocks)
    most = max((_pressure(draft, shapes) for draft in drafts), default=0)
    for width, vectors in _WIDTHS:
        if width > 4 and (count > _INSTRUCTIONS_MAX[width] or most * vectors > _VECTORS or _is_too_wide(kernel, width)):
            continue
        return width
    return _WIDTHS[-1][0]


def _is_too_wide(kernel: Kernel, width: int) -> bool:
    """Whether rows of the kernel's blocks are known to fill less than half of a strip."""
    return any(shape is not None and shape[0] <= width // 2 for shape in (kernel.reqntid, kernel.maxntid) if shape)


def _pressure(draft: _Draft, shapes: Shapes) -> int:
    """The most registers of 32 bits that lanes hold at a time; one of 64 bits counts twice."""
    if draft.live is None:
        return _VECTORS
    weights = [
        (2 if is_double(register.type) else 1) if shapes.of(register) is Shape.VARYING else 0
        for register in draft.kernel.registers
    ]
    most = 0
    for block in draft.kernel.blocks:
        after = 0
        for successor in draft.graph.successors[block.index]:
            after |= draft.live[successor]
        live = {register.index for register in used_at_end(block.terminator)} | set(bits(after))
        held = sum(weights[index] for index in live)
        most = max(most, held)
        for instruction in reversed(block.instructions):
            for register in defined(instruction):
                if register.index in live:
                    live.discard(register.index)
                    held -= weights[register.index]
            for register in used(instruction):
                if register.index not in live:
                    live.add(register.index)
                    held += weights[register.index]
            most = max(most, held)
    return most
