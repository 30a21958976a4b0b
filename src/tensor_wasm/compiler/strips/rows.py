"""Whole rows of a block without a test for each strip.

Much code is straight: a guard against the end of the data, loads, arithmetic, a store, perhaps in a loop over the grid.
What a strip tests there, that all threads go the same way and that accesses are contiguous and inside of memory, can be
tested for all strips of a row at once, at its first and last thread. Then the strips run without tests.

Such a kernel is a graph of *segments*, chunks of straight code at whose ends the first and the last thread decide for
all, with nothing varying alive from one to the next. A row takes one segment after another: the tests of all of it,
with what is uniform and the first thread's linear values; then the strips. Where a test fails the row goes on, from
that segment, in the slow way (:mod:`tensor_wasm.compiler.independent`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.allocation import bits, defined, used
from tensor_wasm.compiler.axes import increment
from tensor_wasm.compiler.faults import ROW_SIZE, SIZE_SHIFT, push_thread_place
from tensor_wasm.compiler.shapes import OWN_VALUES, Shape
from tensor_wasm.compiler.strips import memory as strip_memory
from tensor_wasm.compiler.strips import moves, values
from tensor_wasm.compiler.strips.control import End, Leave, Part
from tensor_wasm.compiler.strips.groups import moved_bytes
from tensor_wasm.compiler.strips.lowering import NOTHING, compute_uniform, lower
from tensor_wasm.compiler.strips.plan import RegionPlan
from tensor_wasm.compiler.strips.strip import Strip, scalar_types
from tensor_wasm.compiler.values.formula import constant, read
from tensor_wasm.ptx.program import Instruction, Parameter, Register, Special
from tensor_wasm.wasm import Local, ValType

I32, I64 = ValType.I32, ValType.I64

#: The most threads in a row of joined blocks.
ROW_MAX: Final = 2048
#: A row of a block has fewer: a step this small does not take a 32-bit value around more than once.
_STEP_MAX: Final = 1 << 20
#: Kernels of more are large enough for the tests of their strips not to matter.
_SEGMENTS_MAX: Final = 8
_INSTRUCTIONS_MAX: Final = 200
#: How many strips of a row are written one after another, of up to so many instructions: what a loop costs besides is
#: as much as a few of them.
_UNROLLED: Final = 2
_UNROLLED_INSTRUCTIONS_MAX: Final = 16

#: Special registers that are another value at each read, or that depend on the thread's number in the block.
_REFUSED: Final = frozenset(
    {"clock", "clock_hi", "clock64", "globaltimer", "globaltimer_lo", "globaltimer_hi"} | OWN_VALUES
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Straight code with every value in a register of its own.

    ``entries`` are linear registers that it reads from before, with their names in it; ``results`` registers that it
    changes, with the names of their last values. It ends at ``targets[0]`` where ``comparison`` holds for all, else at
    ``targets[1]``; without one at ``targets[0]``. A target is the head of another segment, None the threads' end.
    """

    head: int
    instructions: tuple[Instruction, ...]
    entries: Mapping[Register, Register]
    results: Mapping[Register, Register]
    comparison: Instruction | None
    targets: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments by their heads, the first one first; ``carried`` are registers alive between them."""

    by_head: Mapping[int, Segment]
    carried: tuple[Register, ...]


# --- which kernels have them --------------------------------------------------------------------------------


def find_segments(strip: Strip, region: RegionPlan) -> Segments | None:
    """The segments of a kernel, None where it is not made of them. Their registers are made known to ``strip``."""
    if region.live_at is None:
        return None
    heads = [head for head in region.layout.order if not region.chunks[head].is_empty]
    count = sum(len(region.chunks[head].kernel.blocks[0].instructions) for head in heads)
    if not heads or len(heads) > _SEGMENTS_MAX or count > _INSTRUCTIONS_MAX:
        return None
    registers = region.region.kernel.registers
    carried: dict[Register, None] = {}
    for head in heads:
        for index in bits(region.live_at[head]):
            if strip.shape(registers[index]) is Shape.VARYING:
                return None
            carried[registers[index]] = None
    segments: dict[int, Segment] = {}
    for head in heads:
        segment = _segment(strip, region, head)
        if segment is None:
            return None
        segments[head] = segment
    return Segments(segments, tuple(carried))


def _segment(strip: Strip, region: RegionPlan, head: int) -> Segment | None:
    chunk = region.chunks[head]
    if len(chunk.kernel.blocks) != 1:
        return None
    names = _Names(strip)
    instructions: list[Instruction] = []
    comparisons: dict[Register, Instruction] = {}
    comparison: Instruction | None = None
    targets: tuple[int | None, ...] = (None,)
    for instruction in chunk.kernel.blocks[0].instructions:
        match instruction:
            case End():
                targets = (None,)
            case Leave(target=target):
                targets = (_target(region, target),)
            case Part(by=None):
                return None
            case Part(by=guard, targets=ways) if guard is not None:
                comparison = comparisons.get(names.now(guard.register))
                if comparison is None:
                    return None
                targets = tuple(_target(region, way) for way in (reversed(ways) if guard.negated else ways))
            case _:
                if not _is_straight(strip, instruction):
                    return None
                named = names.rename(instruction)
                instructions.append(named)
                if named.root == "setp" and values.ends_of_comparison(strip, named, constant(I32, 0)) is not None:
                    (register,) = named.destinations
                    assert register is not None
                    comparisons[register] = named
    segment = Segment(head, tuple(instructions), names.entries, names.results, comparison, targets)
    return segment if _is_short_of_wrapping(strip, segment) else None


def _target(region: RegionPlan, head: int) -> int | None:
    return None if region.chunks[head].is_empty else head


class _Names:
    """Gives each value of a segment a register of its own, known to the strip."""

    def __init__(self, strip: Strip) -> None:
        self._strip = strip
        self._now: dict[Register, Register] = {}
        self.entries: dict[Register, Register] = {}
        self.results: dict[Register, Register] = {}

    def now(self, register: Register) -> Register:
        """The name of a register's present value."""
        found = self._now.get(register)
        if found is not None:
            return found
        if self._strip.shape(register) is not Shape.LINEAR:
            return register
        name = self._now[register] = self.entries[register] = self._strip.add_register(register)
        return name

    def rename(self, instruction: Instruction) -> Instruction:
        """The instruction with the names of its values."""
        sources = tuple(self.now(s) if isinstance(s, Register) else s for s in instruction.sources)
        address = instruction.address
        if address is not None and isinstance(address.base, Register):
            address = replace(address, base=self.now(address.base))
        destinations = tuple(None if d is None else self._strip.add_register(d) for d in instruction.destinations)
        for result, named in zip(instruction.destinations, destinations, strict=True):
            if result is not None and named is not None:
                self._now[result] = named
                if self._strip.shape(result) is not Shape.VARYING:
                    self.results[result] = named
        return replace(instruction, sources=sources, address=address, destinations=destinations)


def _is_straight(strip: Strip, instruction: Instruction) -> bool:
    """Whether an instruction needs no test and no lane of its own, once its access is known to be contiguous."""
    if instruction.root in NOTHING:
        return True
    if instruction.guard is not None:
        return False
    if instruction.root in ("ld", "ldu", "st"):
        if instruction.root != "st" and _is_parameter(instruction):
            return all(strip.shape(register) is not Shape.VARYING for register in defined(instruction))
        return strip_memory.may_be_contiguous(strip, instruction)
    if instruction.root == "atom" or not any(True for _ in defined(instruction)):
        return False
    if any(isinstance(source, Special) and source.name in _REFUSED for source in instruction.sources):
        return False
    shapes = {strip.shape(register) for register in defined(instruction)}
    if Shape.VARYING not in shapes:
        return True
    if instruction.root in ("mov", "cvta"):
        return moves.writer(strip, instruction) is not None
    return len(shapes) == 1 and values.emitter(strip, instruction) is not None


def _is_short_of_wrapping(strip: Strip, segment: Segment) -> bool:
    """Whether all steps are small enough for tests at a row's ends to say what is between."""
    operands: list[object] = [] if segment.comparison is None else list(segment.comparison.sources)
    operands += [i.address.base for i in segment.instructions if i.address is not None]
    lines = [strip.shapes.line(operand) for operand in operands if isinstance(operand, Register | Special)]
    return all(line is None or max(abs(line.step), abs(line.origin_step)) <= _STEP_MAX for line in lines)


def _is_parameter(instruction: Instruction) -> bool:
    return instruction.address is not None and isinstance(instruction.address.base, Parameter)


def _is_access(instruction: Instruction) -> bool:
    """Whether an instruction loads or stores in memory that a row must be tested for."""
    return instruction.root in ("ld", "ldu", "st") and not _is_parameter(instruction)


# --- a row of them --------------------------------------------------------------------------------------------


class Row:
    """Writes a row, segment by segment; ``bail`` writes how it goes on, from a segment's start, where a test fails.

    ``state`` is a local with the number of the segment that is next.
    """

    def __init__(self, strip: Strip, segments: Segments, bail: Callable[[], None]) -> None:
        body = strip.body
        self._strip = strip
        self._segments = segments
        self._bail = bail
        self.state = body.local(I32)
        self._reach, self._holds, self._truth = body.local(I32), body.local(I32), body.local(I32)
        self._numbers = {head: number for number, head in enumerate(segments.by_head)}
        self._next = {register: self._places(register) for register in segments.carried}

    def _places(self, register: Register) -> tuple[Local, ...]:
        """Locals like those that a register is kept in."""
        return tuple(self._strip.body.local(kind) for kind in scalar_types(self._strip.shapes, register))

    def write(self) -> None:
        """Write the row, its y, z and first thread being set."""
        strip, body = self._strip, self._strip.body
        count = len(self._numbers)
        body.get(strip.row)
        body.i32_const(1)
        body.op("i32.sub")
        body.set(self._reach)
        for register in self._segments.carried:
            strip.push_zero(register)
            strip.pop_scalars(register)
        body.i32_const(0)
        body.set(self.state)
        with body.block() as done, body.loop() as again:
            labels = [body.block() for _ in range(count + 1)]  # the outermost is where a test fails
            body.get(self.state)
            body.br_table(list(reversed(labels[1:])), labels[1])
            for number, segment in enumerate(self._segments.by_head.values()):
                body.end(labels[count - number])
                self._tests(segment)
                body.get(self._holds)
                body.op("i32.eqz")
                body.br_if(labels[0])
                self._strips(segment)
                self._commit(segment)
                if self._choose(segment):
                    body.get(self.state)
                    body.i32_const(0)
                    body.op("i32.lt_s")
                    body.br_if(done)
                    body.br(again)
                else:
                    body.br(done)
            body.end(labels[0])
            self._bail()

    # --- tests --------------------------------------------------------------------------------------------

    def _tests(self, segment: Segment) -> None:
        """Compute what is uniform or linear at the row's start, and whether all tests hold for all of it."""
        strip, body = self._strip, self._strip.body
        at = strip.first.coordinates
        body.i32_const(0)
        body.set(at.thread_index[0])
        for register, name in segment.entries.items():
            strip.push_scalars(register)
            strip.pop_scalars(name)
        body.get(strip.row)
        body.i32_const(strip.width - 1)
        body.op("i32.and", "i32.eqz")
        body.set(self._holds)
        body.get(at.thread)
        push_thread_place(body)
        body.i64_const(ROW_SIZE << SIZE_SHIFT)
        body.op("i64.or")
        body.global_set(strip.parts.place_global)
        for instruction in segment.instructions:
            if _is_access(instruction):
                self._push_is_contiguous(instruction)
                body.get(self._holds)
                body.op("i32.and")
                body.set(self._holds)
            elif instruction.root not in NOTHING:
                compute_uniform(strip, instruction)
        if segment.comparison is not None:
            self._push_ends_agree(segment.comparison)
            body.get(self._holds)
            body.op("i32.and")
            body.set(self._holds)
        for carried, places in self._next.items():
            result = segment.results.get(carried)
            if result is not None:
                strip.push_scalars(result)
                for place in reversed(places):
                    body.set(place)

    def _push_ends_agree(self, comparison: Instruction) -> None:
        """Push whether a comparison comes out the same for all threads of the row; ``_truth`` says how."""
        body = self._strip.body
        ends = values.ends_of_comparison(self._strip, comparison, read(self._reach))
        assert ends is not None
        ends.first.push(body)
        body.tee(self._truth)
        ends.last.push(body)
        body.op("i32.eq")
        ends.is_in_order.push(body)
        body.op("i32.and")

    def _push_is_contiguous(self, instruction: Instruction) -> None:
        """Push whether an access is contiguous and inside of its memory for all threads of the row."""
        strip, body = self._strip, self._strip.body
        size = moved_bytes(instruction)
        first, end = body.local(I64), body.local(I64)
        memory.push_address(strip.first, instruction)
        body.set(first)
        body.get(first)
        body.global_set(strip.parts.site(instruction.line, size))
        strip_memory.push_end(strip, instruction, size)
        body.set(end)
        body.get(first)
        body.get(end)
        body.op("i64.lt_u")
        body.get(first)
        body.get(self._reach)
        body.op("i64.extend_i32_u")
        body.i64_const(size)
        body.op("i64.mul", "i64.add")
        body.get(end)
        body.op("i64.lt_u", "i32.and")
        if size > 1:
            strip_memory.push_is_aligned(strip, first, size)
            body.op("i32.and")
        assert instruction.address is not None
        strip_memory.check_origin(strip, instruction.address.base, self._reach)
        body.release(first, end)

    # --- strips -------------------------------------------------------------------------------------------

    def _strips(self, segment: Segment) -> None:
        """All strips of the row, without tests; what is uniform is known by now."""
        strip, body = self._strip, self._strip.body
        needed, instructions = _for_strips(strip, segment)
        if not instructions:
            return
        x = strip.first.coordinates.thread_index[0]
        copies = _UNROLLED if len(instructions) <= _UNROLLED_INSTRUCTIONS_MAX else 1
        strip.kept = frozenset()
        strip.assumes = True
        with body.block() as done, body.loop() as again:
            for more in reversed(range(copies)):
                for register, name in segment.entries.items():
                    if name in needed:
                        strip.push_scalars_at(register, x)
                        strip.pop_scalars(name)
                for instruction in instructions:
                    lower(strip, instruction)
                increment(body, x, strip.width)
                body.get(x)
                body.get(strip.row)
                if more:
                    body.op("i32.ge_u")
                    body.br_if(done)
                else:
                    body.op("i32.lt_u")
                    body.br_if(again)
        strip.assumes = False

    # --- going on -----------------------------------------------------------------------------------------

    def _commit(self, segment: Segment) -> None:
        """Give registers that live on the values they have after a segment."""
        for register, places in self._next.items():
            if register in segment.results:
                for place in places:
                    self._strip.body.get(place)
                self._strip.pop_scalars(register)

    def _choose(self, segment: Segment) -> bool:
        """Set the state to the segment that is next, below 0 for none; False when there never is one."""
        body = self._strip.body
        numbers = [-1 if target is None else self._numbers[target] for target in segment.targets]
        if max(numbers) < 0:
            return False
        for number in numbers:
            body.i32_const(number)
        if segment.comparison is not None:
            body.get(self._truth)
            body.op("select")
        body.set(self.state)
        return True


def _for_strips(strip: Strip, segment: Segment) -> tuple[set[Register], Sequence[Instruction]]:
    """What strips do when a segment's tests are done: its stores, and what these are computed from.

    Also says which registers those read. All that is uniform has its value by then.
    """
    needed: set[Register] = set()
    instructions: list[Instruction] = []
    for instruction in reversed(segment.instructions):
        if instruction.root != "st" and not any(result in needed for result in defined(instruction)):
            continue
        instructions.append(instruction)
        needed.update(register for register in used(instruction) if strip.shape(register) is not Shape.UNIFORM)
    return needed, instructions[::-1]


class Carried:
    """Registers alive at a segment's start, as given to the slow way: for the row's first thread."""

    def __init__(self, strip: Strip, registers: Sequence[Register], given: Sequence[Local]) -> None:
        self._strip = strip
        self._names: list[tuple[Register, Register]] = []
        places = iter(given)
        for register in registers:
            self._names.append((register, strip.add_register(register)))
            for _ in scalar_types(strip.shapes, register):
                strip.body.get(next(places))
            strip.pop_scalars(self._names[-1][1])

    def set(self, x: Local) -> None:
        """Set them for the strip that starts at ``x``."""
        for register, name in self._names:
            if self._strip.shape(register) is Shape.LINEAR:
                self._strip.push_scalars_at(name, x)
            else:
                self._strip.push_scalars(name)
            self._strip.pop_scalars(register)
