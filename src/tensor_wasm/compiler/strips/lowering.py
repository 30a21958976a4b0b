"""Instructions of a strip, and its walk through the chunks of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import lowering, ordering
from tensor_wasm.compiler.allocation import bits, defined
from tensor_wasm.compiler.divergence import NOWHERE, Layout, Loop
from tensor_wasm.compiler.divergence import Part as LayoutPart
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips import memory, moves, values
from tensor_wasm.compiler.strips.control import Chunk, End, Leave, Part
from tensor_wasm.compiler.strips.groups import find_groups
from tensor_wasm.compiler.strips.operands import lanes_of
from tensor_wasm.compiler.strips.strip import Strip, push_bits
from tensor_wasm.compiler.structure import Run
from tensor_wasm.compiler.synchronisation import Suspend
from tensor_wasm.compiler.values.lanes import fill
from tensor_wasm.ptx.program import Guard, Instruction, Kernel, Operand, Register, ScalarType
from tensor_wasm.wasm import Label, Local, ValType

I32 = ValType.I32


def lower(strip: Strip, instruction: Instruction) -> None:
    """Write one instruction. Raises :class:`PtxError` for one that there is no code for."""
    strip.body.mark(instruction.line)
    ordering.order(strip.body, instruction)
    with lowering.located(instruction):
        _OWN.get(instruction.root, _compute)(strip, instruction)


def _compute(strip: Strip, instruction: Instruction) -> None:
    """Registers from registers: once where everything is uniform, and side by side for the others."""
    # What varies first: its sources may be among the uniform results.
    if any(strip.shape(register) is Shape.VARYING for register in defined(instruction)):
        with memory.uniform_guard(strip, instruction):
            _compute_vectors(strip, _only(instruction, strip, Shape.VARYING))
    compute_uniform(strip, instruction)


def compute_uniform(strip: Strip, instruction: Instruction) -> None:
    """The results of an instruction that are uniform or linear; a load must be one of the kernel's parameters."""
    if instruction.root in ("ld", "ldu"):
        memory.load(strip, instruction)
        return
    shapes = {strip.shape(register) for register in defined(instruction)}
    if Shape.UNIFORM in shapes:
        lowering.lower_instruction(strip.first, _only(instruction, strip, Shape.UNIFORM))
    if Shape.LINEAR in shapes:
        _compute_first(strip, _only(instruction, strip, Shape.LINEAR))


def _compute_first(strip: Strip, instruction: Instruction) -> None:
    """The first lane of a linear result, and where it was widened, its origin."""
    (register,) = (register for register in instruction.destinations if register is not None)
    line = strip.shapes.line(register)
    assert line is not None
    if line.is_wide:
        with memory.uniform_guard(strip, instruction):
            _set_origin(strip, instruction, strip.origin(register))
    lowering.lower_instruction(strip.first, instruction)


def _set_origin(strip: Strip, instruction: Instruction, origin: Local) -> None:
    """The source that is linear was widened before, or is now."""
    source, line = next(
        (source, line) for source in instruction.sources if (line := strip.shapes.line(source)) is not None
    )
    if line.is_wide:
        assert isinstance(source, Register)
        strip.body.get(strip.origin(source))
    else:
        strip.first.push(source, instruction.types[-1])
    strip.body.set(origin)


def _only(instruction: Instruction, strip: Strip, shape: Shape) -> Instruction:
    """The instruction with results of one shape alone."""
    kept = tuple(
        register if register is not None and strip.shape(register) is shape else None
        for register in instruction.destinations
    )
    return instruction if kept == instruction.destinations else replace(instruction, destinations=kept)


def _compute_vectors(strip: Strip, instruction: Instruction) -> None:
    if instruction.root in ("mov", "cvta"):
        write = moves.writer(strip, instruction)
        if write is not None:
            moves.emit(strip, instruction, write)
            return
    else:
        emit = values.emitter(strip, instruction)
        if emit is not None:
            values.emit_units(strip, instruction, emit)
            return
    memory.by_lanes(strip, instruction, lowering.lower_instruction)


def _by_lanes(strip: Strip, instruction: Instruction) -> None:
    with memory.uniform_guard(strip, instruction):
        memory.by_lanes(strip, instruction, lowering.lower_instruction)


def _nothing(_strip: Strip, _instruction: Instruction) -> None:
    """Moves data nearer, waits, or orders memory, which :mod:`tensor_wasm.compiler.ordering` has done."""


#: Instructions that do nothing here.
NOTHING: Final = frozenset(
    {"prefetch", "prefetchu", "discard", "applypriority", "fence", "membar", "nanosleep", "pragma"}
)

_OWN: Final[Mapping[str, Callable[[Strip, Instruction], None]]] = MappingProxyType(
    {
        "ld": memory.load,
        "ldu": memory.load,
        "st": memory.store,
        "atom": _by_lanes,
        "red": _by_lanes,
        "cp": _by_lanes,
        "emit": _by_lanes,
        **dict.fromkeys(NOTHING, _nothing),
    }
)


#: How often a loop that yields repeats before others get their turn: more than a strip has threads, so that threads
#: of which one leaves each time are together again behind it.
_TURNS: Final = 64


class Course:
    """Writes the code of a strip from its entry to where all its threads have ended or wait.

    ``masks`` hold, for each chunk, the lanes that wait to run it.
    """

    def __init__(self, strip: Strip, kernel: Kernel, layout: Layout, chunks: Mapping[int, Chunk]) -> None:
        self._strip = strip
        self._kernel = kernel
        self._layout = layout
        self._chunks = chunks
        self._first = layout.order[0]
        body = strip.body
        self._masks: dict[int, Local] = {}
        if len(layout.order) > 1 or isinstance(layout.parts[0], Loop):
            for head in layout.order:
                if not self._ends(head):
                    self._masks[head] = body.local(I32)

    def run(self, entry: tuple[Local, Sequence[int]] | None = None) -> None:
        """Write everything; the strip's mask says which lanes enter.

        ``entry`` is a local with the place, in a list of heads, of that where they do; by default it is the first.
        """
        body, strip = self._strip.body, self._strip
        for head, mask in self._masks.items():
            if entry is not None and head in entry[1]:
                body.get(strip.mask.bits)
                body.i32_const(0)
                body.get(entry[0])
                body.i32_const(entry[1].index(head))
                body.op("i32.eq", "select")
            elif entry is None and head == self._first and isinstance(self._layout.parts[0], Loop):
                body.get(strip.mask.bits)
            else:
                body.i32_const(0)
            body.set(mask)
        for part in self._layout.parts:
            self._part(part, is_entry=part == self._first and entry is None)

    def _ends(self, head: int) -> bool:
        """Whether threads that get to a chunk only end, and nobody has to be told."""
        return self._strip.context is None and self._chunks[head].is_empty

    def _part(self, part: LayoutPart, *, is_entry: bool = False) -> None:
        body = self._strip.body
        if isinstance(part, Loop):
            self._loop(part)
            return
        if self._ends(part) and part in self._chunks and part != self._first:
            return
        if is_entry or part not in self._masks:
            self._run_chunk(part)
            return
        waiting = self._masks[part]
        body.get(waiting)
        with body.if_():
            body.get(waiting)
            body.set(self._strip.mask.bits)
            body.i32_const(0)
            body.set(waiting)
            self._run_chunk(part)

    def _loop(self, loop: Loop) -> None:
        body = self._strip.body
        turns = body.local(I32) if loop.yields else None
        if turns is not None:
            body.i32_const(_TURNS)
            body.set(turns)
        with body.loop() as again:
            for inner in loop.parts:
                self._part(inner)
            heads = [head for head in loop.heads if head != NOWHERE]
            for head in heads:
                body.get(self._masks[head])
            body.op(*["i32.or"] * (len(heads) - 1))
            if turns is not None:
                body.i32_const(0)
                body.get(turns)
                body.i32_const(1)
                body.op("i32.sub")
                body.tee(turns)
                body.op("select")
            body.br_if(again)
        if turns is not None:
            body.release(turns)

    def _run_chunk(self, head: int) -> None:
        strip, chunk = self._strip, self._chunks[head]
        registers = self._kernel.registers
        strip.kept = frozenset(registers[index] for index in bits(self._layout.kept[head]))
        with strip.body.block() as end:
            _ChunkWalk(self, strip, chunk, end).run(chunk.steps)

    def send(self, target: int) -> None:
        """Let all lanes of the mask wait at a chunk."""
        self._add(target, lambda: self._strip.body.get(self._strip.mask.bits))

    def _add(self, target: int, push: Callable[[], None]) -> None:
        waiting = self._masks.get(target)
        if waiting is not None:
            body = self._strip.body
            body.get(waiting)
            push()
            body.op("i32.or")
            body.set(waiting)

    def part(self, part: Part) -> None:
        """Let each lane wait where it goes on."""
        if part.by is None:
            self._part_by_selector(part)
            return
        for target, negated in zip(part.targets, (part.by.negated, not part.by.negated), strict=True):
            guard = Guard(part.by.register, negated)
            self._add(target, lambda guard=guard: self._strip.push_guarded(guard))  # type: ignore[misc]

    def _part_by_selector(self, part: Part) -> None:
        """``brx.idx``: past the last target is as the last one."""
        strip, body = self._strip, self._strip.body
        assert part.selector is not None
        left, chosen = body.local(I32), body.local(I32)
        body.get(strip.mask.bits)
        body.set(left)
        for position, target in enumerate(part.targets[:-1]):
            push_bits(body, strip.quads, partial(self._push_is_selected, part.selector, position))
            body.get(left)
            body.op("i32.and")
            body.set(chosen)
            self._add(target, lambda: body.get(chosen))
            body.get(left)
            body.get(chosen)
            body.op("i32.xor")
            body.set(left)
        self._add(part.targets[-1], lambda: body.get(left))
        body.release(left, chosen)

    def _push_is_selected(self, selector: Operand, position: int, unit: int) -> None:
        body = self._strip.body
        lanes_of(self._strip, selector, ScalarType.U32, unit, is_wide=False).push(body)
        fill("i32x4", position).push(body)
        body.op("i32x4.eq")


class _ChunkWalk(lowering.Walk):
    """Writes the steps of a chunk; ``end`` is where its threads go that leave it."""

    def __init__(self, course: Course, strip: Strip, chunk: Chunk, end: Label) -> None:
        super().__init__(strip.first, end)
        self._course = course
        self._strip = strip
        self._chunk = chunk

    def run_block(self, step: Run) -> None:
        """The instructions of a block."""
        strip = self._strip
        instructions = self._chunk.kernel.blocks[step.block].instructions
        strip.groups = find_groups(strip, instructions)
        for instruction in instructions:
            match instruction:
                case Leave():
                    self._course.send(instruction.target)
                case Part():
                    self._course.part(instruction)
                case End():
                    if strip.context is not None:
                        strip.context.finish(strip)
                case Suspend():
                    assert strip.context is not None
                    strip.body.mark(instruction.line)
                    strip.context.suspend(strip, instruction)
                case _:
                    lower(strip, instruction)

    def fail(self) -> None:
        """Say who it was, before a fault that the kernel itself raises."""
        self._strip.say_thread()
