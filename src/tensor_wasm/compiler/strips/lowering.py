"""Instructions of a strip, and its walk through the chunks of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import lowering
from tensor_wasm.compiler.allocation import bits, defined, used
from tensor_wasm.compiler.divergence import Layout, Loop
from tensor_wasm.compiler.divergence import Part as LayoutPart
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips import memory, moves, values
from tensor_wasm.compiler.strips.control import Chunk, End, Leave, Part
from tensor_wasm.compiler.strips.strip import Mask, Strip
from tensor_wasm.compiler.structure import Run
from tensor_wasm.compiler.synchronisation import Suspend
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, Kernel, Register, ScalarType
from tensor_wasm.wasm import Label, Local, ValType

I32, V128 = ValType.I32, ValType.V128


def lower(strip: Strip, instruction: Instruction) -> None:
    """Write one instruction. Raises :class:`PtxError` for one that there is no code for."""
    strip.body.mark(instruction.line)
    try:
        own = _OWN.get(instruction.root)
        if own is not None:
            own(strip, instruction)
        else:
            _compute(strip, instruction)
    except PtxError as error:
        if error.line:
            raise
        raise PtxError(error.text, instruction.line, instruction.column) from None


def _compute(strip: Strip, instruction: Instruction) -> None:
    """Registers from registers: once where everything is uniform, and side by side for the others."""
    shapes = {register: strip.shape(register) for register in defined(instruction)}
    if not shapes:
        lowering.lower_instruction(strip.first, instruction)
        return
    if Shape.UNIFORM in shapes.values():
        lowering.lower_instruction(strip.first, _only(instruction, strip, Shape.UNIFORM))
    if Shape.LINEAR in shapes.values():
        ends = _only(instruction, strip, Shape.LINEAR)
        for frame in (strip.first, strip.last):
            lowering.lower_instruction(frame, ends)
    if max(shapes.values()) is Shape.UNIFORM:
        return
    with memory.uniform_guard(strip, instruction):
        _compute_vectors(strip, _without(instruction, strip, Shape.UNIFORM))


def _only(instruction: Instruction, strip: Strip, shape: Shape) -> Instruction:
    """The instruction with results of one shape alone."""
    kept = tuple(
        register if register is not None and strip.shape(register) is shape else None
        for register in instruction.destinations
    )
    return instruction if kept == instruction.destinations else replace(instruction, destinations=kept)


def _without(instruction: Instruction, strip: Strip, shape: Shape) -> Instruction:
    kept = tuple(
        None if register is not None and strip.shape(register) is shape else register
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
    """Orders memory between threads, or moves data nearer: lanes see each other's memory at once."""


_OWN: Final[Mapping[str, Callable[[Strip, Instruction], None]]] = MappingProxyType(
    {
        "ld": memory.load,
        "ldu": memory.load,
        "st": memory.store,
        "atom": _by_lanes,
        "red": _by_lanes,
        "cp": _by_lanes,
        **dict.fromkeys(
            ("prefetch", "prefetchu", "discard", "applypriority", "fence", "membar", "nanosleep", "pragma"), _nothing
        ),
    }
)


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
        self._masks: dict[int, tuple[Local, ...]] = {}
        if len(layout.order) > 1 or isinstance(layout.parts[0], Loop):
            for head in layout.order:
                if not self._ends(head):
                    self._masks[head] = tuple(body.local(V128) for _ in range(strip.quads))

    def run(self) -> None:
        """Write everything; the strip's mask says which lanes enter."""
        body, strip = self._strip.body, self._strip
        entry = self._masks.get(self._first)
        for head, masks in self._masks.items():
            for number, mask in enumerate(masks):
                if head == self._first and isinstance(self._layout.parts[0], Loop):
                    body.get(strip.mask.quads[number])
                else:
                    body.v128_const(bytes(16))
                body.set(mask)
        for part in self._layout.parts:
            self._part(part, is_entry=part == self._first and entry is not None)

    def _ends(self, head: int) -> bool:
        """Whether threads that get to a chunk only end, and nobody has to be told."""
        return self._strip.context is None and self._chunks[head].is_empty

    def _part(self, part: LayoutPart, *, is_entry: bool = False) -> None:
        body = self._strip.body
        if isinstance(part, Loop):
            with body.loop() as again:
                for inner in part.parts:
                    self._part(inner)
                self._push_any(part.head)
                body.br_if(again)
            return
        if self._ends(part) and part in self._chunks and part != self._first:
            return
        if is_entry or part not in self._masks:
            self._run_chunk(part)
            return
        with body.block() as skip:
            self._push_any(part)
            body.op("i32.eqz")
            body.br_if(skip)
            for mine, waiting in zip(self._strip.mask.quads, self._masks[part], strict=True):
                body.get(waiting)
                body.set(mine)
                body.v128_const(bytes(16))
                body.set(waiting)
            self._strip.measure(self._strip.mask)
            self._run_chunk(part)

    def _push_any(self, head: int) -> None:
        body = self._strip.body
        for number, mask in enumerate(self._masks[head]):
            body.get(mask)
            if number:
                body.op("v128.or")
        body.op("v128.any_true")

    def _run_chunk(self, head: int) -> None:
        strip, chunk = self._strip, self._chunks[head]
        registers = self._kernel.registers
        strip.kept = frozenset(registers[index] for index in bits(self._layout.kept[head]))
        with strip.body.block() as end:
            _ChunkWalk(self, strip, chunk, end).run(chunk.steps)

    def send(self, target: int, mask: Sequence[Local]) -> None:
        """Let lanes wait at a chunk."""
        body = self._strip.body
        for waiting, lanes in zip(self._masks.get(target, ()), mask, strict=bool(self._masks.get(target))):
            body.get(waiting)
            body.get(lanes)
            body.op("v128.or")
            body.set(waiting)

    def part(self, part: Part) -> None:
        """Let each lane wait where it goes on."""
        strip, body = self._strip, self._strip.body
        if part.by is not None:
            guard = part.by
            quads = strip.vectors(guard.register)
            for target, inverted in zip(part.targets, (guard.negated, not guard.negated), strict=True):
                for number, waiting in enumerate(self._masks.get(target, ())):
                    body.get(waiting)
                    body.get(strip.mask.quads[number])
                    body.get(quads[number])
                    body.op("v128.andnot" if inverted else "v128.and", "v128.or")
                    body.set(waiting)
            return
        self._part_by_selector(part)

    def _part_by_selector(self, part: Part) -> None:
        """``brx.idx``: past the last target is as the last one."""
        strip, body = self._strip, self._strip.body
        assert part.selector is not None
        left = [body.local(V128) for _ in range(strip.quads)]
        for mine, lanes in zip(left, strip.mask.quads, strict=True):
            body.get(lanes)
            body.set(mine)
        for position, target in enumerate(part.targets):
            is_last = position == len(part.targets) - 1
            for number, mine in enumerate(left):
                waiting = self._masks.get(target)
                chosen = body.local(V128)
                body.get(mine)
                if not is_last:
                    values.lanes_of(strip, part.selector, ScalarType.U32, number, is_wide=False).push(body)
                    body.v128_const(position.to_bytes(4, "little") * 4)
                    body.op("i32x4.eq", "v128.and")
                body.set(chosen)
                if waiting is not None:
                    body.get(waiting[number])
                    body.get(chosen)
                    body.op("v128.or")
                    body.set(waiting[number])
                body.get(mine)
                body.get(chosen)
                body.op("v128.andnot")
                body.set(mine)
                body.release(chosen)
        body.release(*left)


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
        for instruction in self._chunk.kernel.blocks[step.block].instructions:
            match instruction:
                case Leave():
                    self._course.send(instruction.target, strip.mask.quads)
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


__all__ = ["Course", "Mask", "Register", "lower", "used"]
