"""A block's shared memory, and addresses in it that stay inside.

An access outside would end the whole context. The block's variables are one here, at the places that they had; an open
array follows it, of the size that a launch gave. Addresses are distances from the start, at most so large that the
access ends where the memory does, and multiples of its width.

Accesses of one block of code at constant distances from one register share that work: all of them happen or none, so a
kernel that is right has the lowest and the highest inside. Where a launch may have given less memory than they span,
the block of code is not entered: the thread ends, as by a trap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tensor_wasm.device.fence.code import B32, PRED, U32, U64, Code
from tensor_wasm.device.partition import WIDEST_BYTES
from tensor_wasm.ptx.program import (
    Address,
    Guard,
    Instruction,
    Operand,
    Register,
    ScalarType,
    Space,
    Symbol,
    Variable,
)

_WORD_BYTES: Final = 8
_ALIGNMENT: Final = 16
_LOW: Final = 0xFFFF_FFFF
#: No block has as much.
_SHARED_BYTES_MAX: Final = 1 << 20


@dataclass(slots=True, eq=False)
class Group:
    """Accesses at constant distances from one register: the lowest, the bytes from its first to the highest's last.

    ``anchor`` is the address of the lowest, once it is confined.
    """

    lowest: int
    span: int
    alignment: int
    anchor: Register | None = None


class BlockMemory:
    """``variables`` are the kernel's shared ones; without any there is a small one, for addresses from nowhere."""

    def __init__(self, variables: Iterable[Variable], code: Code) -> None:
        self._code = code
        #: Where variables of a fixed size are in the one.
        self.places: dict[Variable, int] = {}
        #: Open arrays, which all start at the same place.
        self.open: dict[Variable, Variable] = {}
        end = 0
        alignment = _ALIGNMENT
        for variable in variables:
            alignment = max(alignment, variable.alignment)
            if variable.is_extern:
                self.open[variable] = variable
            else:
                end = -(-end // variable.alignment) * variable.alignment
                self.places[variable] = end
                end += variable.size_bytes
        #: Bytes that there are at least.
        self.least = 0
        self.fixed: Variable | None = None
        if self.places or not self.open:
            self.least = max(-(-end // _WORD_BYTES) * _WORD_BYTES, WIDEST_BYTES)
            self.fixed = Variable("shared", Space.SHARED, ScalarType.B8, self.least, alignment)
        first = _WORD_BYTES if self.fixed else _ALIGNMENT
        self.open = {
            each: replace(each, type=ScalarType.B8, alignment=max(each.alignment, first)) for each in self.open
        }
        self.start = code.register(U32)
        #: How many bytes there are, where a launch says it; as 64 bits too.
        self.size, self.wide_size = code.register(U32), code.register(U64)
        #: The start as a generic address.
        self.generic = code.register(U64)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What is declared."""
        return (*((self.fixed,) if self.fixed else ()), *self.open.values())

    def symbol(self, variable: Variable, offset: int) -> Symbol:
        """The address of a variable."""
        if variable in self.places:
            assert self.fixed is not None
            return Symbol(self.fixed, self.places[variable] + offset)
        return Symbol(self.open[variable], offset)

    # --- accesses -------------------------------------------------------------------------------------------------

    def groups(self, accesses: Sequence[tuple[int, int]]) -> list[Group]:
        """A group for each access, an offset and its bytes, all from one register's value."""
        found: list[Group | None] = [None] * len(accesses)
        while None in found:
            left = [number for number, group in enumerate(found) if group is None]
            lowest = min(accesses[number][0] for number in left)
            # One that is no multiple of its width away may be right where the others are not.
            members = [number for number in left if (accesses[number][0] - lowest) % accesses[number][1] == 0]
            span = max(sum(accesses[number]) for number in members) - lowest
            if span > (_SHARED_BYTES_MAX if self.open else self.least):  # never all inside: each on its own
                for number in members:
                    found[number] = Group(accesses[number][0], accesses[number][1], accesses[number][1])
                continue
            group = Group(lowest, span, max(accesses[number][1] for number in members))
            for number in members:
                found[number] = group
        return [group for group in found if group is not None]

    def is_sure(self, group: Group) -> bool:
        """Whether there is memory for a group in every launch."""
        return group.span <= self.least

    def fixed_address(self, variable: Variable, offset: int, width: int) -> tuple[Address, bool]:
        """An address that the text has, in a variable of a fixed size; whether it was inside."""
        assert self.fixed is not None
        place = self.places[variable] + offset
        inside = min(max(place, 0), self.least - width) & -width
        return Address(self.fixed, inside), inside == place

    def confine(self, base: Operand, group: Group) -> tuple[Register, Register, Register]:
        """Confine a group's lowest address: what it is, as a distance, before and after that, and as an address."""
        code = self._code
        if isinstance(base, Register) and base.type.bits == 64:
            base = code.convert(code.register(U32), U64, base)
        distance = code.put("sub", U32, base, self.start)
        if group.lowest:
            distance = code.put("add", U32, distance, group.lowest & _LOW)
        inside = code.put("min", U32, distance, self._limit(group.span))
        if group.alignment > 1:
            inside = code.put("and", B32, inside, -group.alignment & _LOW, to=U32)
        return distance, inside, code.put("add", U32, self.start, inside)

    def _limit(self, span: int) -> Register | int:
        return self._code.put("sub", U32, self.size, span) if self.open else self.least - span

    def is_there(self, group: Group, guard: Guard) -> Guard:
        """``guard``, and that a launch gave memory for the group."""
        code = self._code
        found = code.put("setp.ge.and", U32, self.size, group.span, guard.register, to=PRED)
        if guard.negated:
            code.negate_last(2)
        return Guard(found, negated=False)

    def is_missing(self, span: int) -> Guard:
        """Whether a launch gave less memory."""
        return Guard(self._code.put("setp.lt", U32, self.size, span, to=PRED), negated=False)

    def is_of_block(self, address: Register, width: int) -> Register:
        """Whether a generic address, a multiple of ``width``, is inside."""
        code = self._code
        distance = code.put("sub", U64, address, self.generic)
        end: Register | int = self.least - width + 1
        if self.open:
            size = self.wide_size if self.least >= width else code.put("max", U64, self.wide_size, width - 1)
            end = code.put("sub", U64, size, width - 1)
        return code.put("setp.lt", U64, distance, end, to=PRED)


def block_groups(memory: BlockMemory, instructions: Sequence[Instruction], widths: Sequence[int]) -> dict[int, Group]:
    """Groups of a block's accesses that always happen, by the instruction's number. ``widths`` are 0 for others."""
    versions: dict[Register, int] = {}
    found: dict[tuple[Register, int], list[int]] = {}
    for number, instruction in enumerate(instructions):
        address = instruction.address
        if widths[number] and instruction.guard is None and address is not None and isinstance(address.base, Register):
            found.setdefault((address.base, versions.get(address.base, 0)), []).append(number)
        for register in instruction.destinations:
            if register is not None:
                versions[register] = versions.get(register, 0) + 1
    groups: dict[int, Group] = {}
    for numbers in found.values():
        accesses = []
        for number in numbers:
            address = instructions[number].address
            assert address is not None
            accesses.append((address.offset, widths[number]))
        groups |= dict(zip(numbers, memory.groups(accesses), strict=True))
    return groups
