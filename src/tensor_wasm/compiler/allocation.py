"""Which registers share a WebAssembly local.

Engines allow 50,000 locals a function, and a compiler's time grows with them: registers that are not live together
share one (linear scan over the order in which blocks are written; Poletto and Sarkar, 1999, without spilling).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from tensor_wasm.ptx.program import Branch, Instruction, Kernel, Register, Switch, Terminator

#: Liveness of a kernel takes blocks times registers bits, several times; beyond this many nothing is shared.
LIVENESS_BITS_MAX = 400_000_000

#: Sweeps over the blocks until liveness is known: the depth of nested loops and a few. Beyond, nothing is shared.
_SWEEPS_MAX = 64


#: Registers of one kind live in locals of the same types.
Kind = Hashable


@dataclass(frozen=True, slots=True)
class Allocation:
    """``slots`` maps a register that occurs to (its kind, number of its locals among those of that kind).

    ``undefined`` are registers that a thread may read before it writes them.
    """

    slots: Mapping[Register, tuple[Kind, int]]
    undefined: tuple[Register, ...]


def used(instruction: Instruction) -> Iterator[Register]:
    """Registers an instruction reads. One that a guard may leave as it was counts as read."""
    for operand in instruction.sources:
        if isinstance(operand, Register):
            yield operand
    if instruction.address is not None and isinstance(instruction.address.base, Register):
        yield instruction.address.base
    if instruction.guard is not None:
        yield instruction.guard.register
        yield from defined(instruction)


def defined(instruction: Instruction) -> Iterator[Register]:
    """Registers an instruction writes."""
    return (register for register in instruction.destinations if register is not None)


def writers_of(kernel: Kernel) -> dict[Register, list[Instruction]]:
    """The instructions that write each register, of those that any writes."""
    writers: dict[Register, list[Instruction]] = {}
    for block in kernel.blocks:
        for instruction in block.instructions:
            for register in defined(instruction):
                writers.setdefault(register, []).append(instruction)
    return writers


def used_at_end(terminator: Terminator) -> Iterable[Register]:
    """Registers the way out of a block reads."""
    match terminator:
        case Branch(guard):
            return (guard.register,)
        case Switch(Register() as register):
            return (register,)
        case _:
            return ()


def live_at_start(kernel: Kernel, successors: Sequence[Sequence[int]], order: Sequence[int]) -> Sequence[int] | None:
    """For each block the registers live at its start, as a bit set of register indices.

    ``order`` is any order of all blocks; one near the reverse postorder ends soonest. None when it would take too long.
    """
    if len(kernel.blocks) * len(kernel.registers) > LIVENESS_BITS_MAX:
        return None
    reads, writes = [0] * len(kernel.blocks), [0] * len(kernel.blocks)
    for block in kernel.blocks:
        read: set[int] = set()
        write: set[int] = set()
        for instruction in block.instructions:
            read.update(register.index for register in used(instruction) if register.index not in write)
            write.update(register.index for register in defined(instruction))
        read.update(register.index for register in used_at_end(block.terminator) if register.index not in write)
        reads[block.index], writes[block.index] = _packed(read), _packed(write)
    live = list(reads)
    for _ in range(_SWEEPS_MAX):
        changed = False
        for index in reversed(order):
            after = 0
            for successor in successors[index]:
                after |= live[successor]
            before = reads[index] | (after & ~writes[index])
            if before != live[index]:
                live[index] = before
                changed = True
        if not changed:
            return live
    return None


@dataclass(slots=True)
class _Interval:
    register: Register
    start: int
    end: int


def allocate(
    kernel: Kernel,
    successors: Sequence[Sequence[int]],
    order: Sequence[int],
    kind_of: Callable[[Register], Kind],
    *,
    live: Sequence[int] | None,
    kept: Mapping[int, int],
) -> Allocation:
    """Give every register that occurs a slot; those of different kinds share none.

    ``order`` lists the blocks as they will be written, ``live`` says for each block which registers its start needs
    (:func:`live_at_start`), ``kept`` which others must survive it, as bit sets.
    """
    if live is None:
        return _unshared(kernel, kind_of)
    intervals = sorted(_intervals(kernel, successors, order, live, kept), key=attrgetter("start"))
    slots: dict[Register, tuple[Kind, int]] = {}
    busy: dict[Kind, list[tuple[int, int]]] = {}
    free: dict[Kind, list[int]] = {}
    for interval in intervals:
        kind = kind_of(interval.register)
        held = busy.setdefault(kind, [])
        released = free.setdefault(kind, [])
        while held and held[0][0] < interval.start:
            released.append(heapq.heappop(held)[1])
        slot = released.pop() if released else len(held)
        heapq.heappush(held, (interval.end, slot))
        slots[interval.register] = (kind, slot)
    undefined = tuple(kernel.registers[index] for index in bits(live[0]))
    return Allocation(slots, undefined)


def _unshared(kernel: Kernel, kind_of: Callable[[Register], Kind]) -> Allocation:
    """A local for each register, all of them cleared for each thread."""
    counts: dict[Kind, int] = {}
    slots: dict[Register, tuple[Kind, int]] = {}
    for register in kernel.registers:
        kind = kind_of(register)
        counts[kind] = counts.get(kind, 0) + 1
        slots[register] = (kind, counts[kind] - 1)
    return Allocation(slots, kernel.registers)


def _intervals(
    kernel: Kernel,
    successors: Sequence[Sequence[int]],
    order: Sequence[int],
    live: Sequence[int],
    kept: Mapping[int, int],
) -> Iterable[_Interval]:
    """The hull of the places where each register is live: a place an instruction, and one at each block's ends.

    An instruction's sources and destinations share a place, so none of them share a local: a sequence of code may
    write one destination before it reads the last source.
    """
    intervals: dict[int, _Interval] = {}
    registers = kernel.registers

    def touch(register: Register, place: int) -> None:
        interval = intervals.get(register.index)
        if interval is None:
            intervals[register.index] = _Interval(register, place, place)
        else:
            interval.end = place

    starts, ends = {}, {}
    seen = place = 0
    for index in order:
        block = kernel.blocks[index]
        starts[index] = place
        needed = live[index] | kept.get(index, 0)
        for bit in bits(needed & ~seen):
            touch(registers[bit], place)
        seen |= needed
        for instruction in block.instructions:
            place += 1
            for register in (*used(instruction), *defined(instruction)):
                touch(register, place)
        place += 1
        for register in used_at_end(block.terminator):
            touch(register, place)
        ends[index] = place
        place += 1
    covered = 0
    for index in reversed(order):
        after = kept.get(index, 0)
        for successor in successors[index]:
            after |= live[successor]
        for bit in bits(after & ~covered):
            interval = intervals.get(bit)
            if interval is None:  # kept, but nowhere used
                continue
            interval.start = min(interval.start, ends[index])
            interval.end = max(interval.end, ends[index])
        covered |= after
    return intervals.values()


def _packed(bits: set[int]) -> int:
    """The number with these bits set."""
    data = bytearray(max(bits, default=0) // 8 + 1)
    for bit in bits:
        data[bit // 8] |= 1 << bit % 8
    return int.from_bytes(data, "little")


def bits(number: int) -> Iterator[int]:
    """The bits that are set in a number, ascending."""
    if number.bit_count() > 64:  # taking them off one by one copies the number each time
        data = number.to_bytes((number.bit_length() + 7) // 8, "little")
        for place, byte in enumerate(data):
            if byte:
                yield from (8 * place + bit for bit in bits(byte))
        return
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
