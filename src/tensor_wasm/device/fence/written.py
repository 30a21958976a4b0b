"""Which pointers among its parameters a kernel may write through.

That is told from where the addresses of its stores come from, see :mod:`.origins`. It is right for kernels that get at
memory only by pointers derived from their parameters, each inside of what the parameter points to, or else by
pointers that they load or put together: where one of those may be written through, so may everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from tensor_wasm.device.fence.origins import (
    CLEAN,
    EVERYTHING,
    LOADED,
    OF_VARIABLE,
    OWN,
    UNKNOWN,
    Origin,
    joined,
    loaded,
    made,
    of_parameter,
    part,
)
from tensor_wasm.ptx.calls import Call
from tensor_wasm.ptx.program import Address, Immediate, Instruction, Kernel, Operand, Parameter, Register, Space, Symbol

__all__ = ["EVERYTHING", "written"]

#: What has an address and does not write there. ``cp.async`` writes to shared memory.
_READS: Final = frozenset({"ld", "ldu", "ldmatrix", "cp", "prefetch", "prefetchu", "applypriority", "discard"})
#: What gives values of the type that it names; others put several of these into a register.
_PLAIN: Final = frozenset({"ld", "ldu", "atom"})
_REGISTER_BITS: Final = 64
#: What a thread or block has of its own.
_OWN_SPACES: Final = (Space.SHARED, Space.LOCAL)
#: Instructions that addresses are made of, beyond which it takes too long: compilers' kernels have hundreds of them.
_NEEDED_MAX: Final = 50_000
#: How often these are looked at, in the mean. It is once, and little more where there are loops.
_ROUNDS_MAX: Final = 4
_STEPS_LEAST: Final = 1_000


def written(kernel: Kernel) -> int:
    """A mask of the words of the parameter block: bit i where a pointer at byte offset 8 * i may be written through.

    :data:`EVERYTHING` where it cannot be told.
    """
    values = _Values()
    targets: dict[Register, None] = {}
    for block in kernel.blocks:
        for instruction in block.instructions:
            values.define(instruction)
            address = instruction.address
            if address is None:
                if type(instruction) is Call:
                    return EVERYTHING
                continue
            if instruction.root in _READS or instruction.space in _OWN_SPACES:
                continue
            base = address.base
            if isinstance(base, Register):
                targets[base] = None
            elif base is None or isinstance(base, Parameter):
                return EVERYTHING
    return values.words(targets)


class _Values:
    """The origins of the registers that addresses are made of."""

    def __init__(self) -> None:
        #: What writes to each register first in the text, and what else does. There are many of the former: a list
        #: for each of them would take longer than all else.
        self._first: dict[Register, Instruction] = {}
        self._others: dict[Register, list[Instruction]] = {}
        self._origins: dict[Register, Origin] = {}
        #: Where each register is used, as the register that is made there.
        self._users: dict[Register, list[Register]] = {}

    def define(self, instruction: Instruction) -> None:
        """Note what an instruction writes to."""
        for register in instruction.destinations:
            if register is not None and self._first.setdefault(register, instruction) is not instruction:
                self._others.setdefault(register, []).append(instruction)

    def _definitions(self, register: Register) -> tuple[Instruction, ...]:
        first = self._first.get(register)
        if first is None:
            return ()
        return (first, *self._others.get(register, ()))

    def words(self, targets: Iterable[Register]) -> int:
        """What these registers, as addresses, are derived from."""
        order, count = self._needed(targets)
        if count > _NEEDED_MAX or not self._settle(order, count * _ROUNDS_MAX + _STEPS_LEAST):
            return EVERYTHING
        words = 0
        for register in targets:
            high = self._origins.get(register, CLEAN).high
            # One that comes from no parameter is none that is known of.
            if high & LOADED or not high & (EVERYTHING | OWN):
                return EVERYTHING
            words |= high & EVERYTHING
        return words

    def _needed(self, targets: Iterable[Register]) -> tuple[list[Register], int]:
        """The registers that the targets are made of, most of them after those that they are made of themselves.

        How many instructions write to them is given too; when these are too many, not all registers are there.
        """
        order: list[Register] = []
        count = 0
        waiting = [(register, False) for register in targets]
        seen: set[Register] = set()
        while waiting and count <= _NEEDED_MAX:
            register, is_done = waiting.pop()
            if is_done:
                order.append(register)
                continue
            if register in seen:
                continue
            seen.add(register)
            waiting.append((register, True))
            definitions = self._definitions(register)
            count += len(definitions)
            for instruction in definitions:
                if instruction.address is not None:  # what is loaded says nothing of where it comes from
                    continue
                for source in instruction.sources:
                    if isinstance(source, Register):
                        self._users.setdefault(source, []).append(register)
                        waiting.append((source, False))
        return order, count

    def _settle(self, order: Sequence[Register], steps: int) -> bool:
        """Find the origins; whether that came to an end."""
        waiting = deque(order)
        queued = set(order)
        while waiting:
            register = waiting.popleft()
            queued.discard(register)
            before = now = self._origins.get(register, CLEAN)
            for instruction in self._definitions(register):
                steps -= 1
                now = joined((now, self._made(register, instruction)))
            if steps < 0:
                return False
            if now != before:
                self._origins[register] = now
                for user in self._users.get(register, ()):
                    if user not in queued:
                        queued.add(user)
                        waiting.append(user)
        return True

    def _made(self, register: Register, instruction: Instruction) -> Origin:
        """What an instruction leaves in a register."""
        bits = register.type.bits
        if instruction.address is not None:
            places = _places(register, instruction)
            return part(joined([_read(instruction, instruction.address, place) for place in places]), 0, bits)
        sources = [self._origin(source) for source in instruction.sources]
        if len(instruction.destinations) > 1 and instruction.root == "mov":
            return joined([part(sources[0], place * bits, bits) for place in _places(register, instruction)])
        return part(made(instruction, sources, self._number), 0, bits)

    def _origin(self, operand: Operand) -> Origin:
        match operand:
            case Register():
                return self._origins.get(operand, CLEAN)
            case Symbol(Parameter()):
                return UNKNOWN
            case Symbol():
                return OF_VARIABLE
        return CLEAN

    def _number(self, operand: Operand) -> int | None:
        """The constant that an operand is."""
        if isinstance(operand, Register):
            definitions = self._definitions(operand)
            if len(definitions) != 1:
                return None
            (instruction,) = definitions
            is_copy = instruction.root == "mov" and len(instruction.sources) == len(instruction.destinations) == 1
            if not is_copy or instruction.guard is not None:
                return None
            (operand,) = instruction.sources
        return operand.bits if isinstance(operand, Immediate) else None


def _places(register: Register, instruction: Instruction) -> list[int]:
    return [place for place, found in enumerate(instruction.destinations) if found is register]


def _read(instruction: Instruction, address: Address, place: int) -> Origin:
    """What a load, or an atomic operation, leaves in its destination ``place``."""
    size_bytes = instruction.type.size_bytes
    if instruction.space is Space.PARAM and isinstance(address.base, Parameter):
        return of_parameter(address.base, address.offset + place * size_bytes, size_bytes)
    return loaded(8 * size_bytes if instruction.root in _PLAIN else _REGISTER_BITS)
