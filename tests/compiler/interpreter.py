"""Runs the typed program one instruction at a time: small, slow and obvious, to compare compiled kernels with.

Integers only; guest memory, shared memory and parameters only. A register holds its bits, zero-extended. What several
threads do together is in :mod:`.block_interpreter`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from tensor_wasm.ptx.program import (
    Branch,
    Exit,
    Guard,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Switch,
    Symbol,
    Variable,
)

STEPS_MAX = 100_000


def signed(value: int, bits: int) -> int:
    """The low ``bits`` of a value as a two's complement number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _shift_right(kind: ScalarType, a: int, b: int) -> int:
    return a >> min(b, kind.bits)


_ARITHMETIC: Mapping[str, Callable[[ScalarType, int, int], int]] = {
    "add": lambda _, a, b: a + b,
    "sub": lambda _, a, b: a - b,
    "and": lambda _, a, b: a & b,
    "or": lambda _, a, b: a | b,
    "xor": lambda _, a, b: a ^ b,
    "min": lambda _, a, b: min(a, b),
    "max": lambda _, a, b: max(a, b),
    "shl": lambda kind, a, b: a << b if b < kind.bits else 0,
    "shr": _shift_right,
    "rem": lambda _, a, b: a % b,
}

_ALONE = "a variable must be the only one: then it is at the start of its space"
_TOGETHER = ("bar", "barrier", "shfl", "vote", "match", "redux")

_RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Wait:
    """A thread waits at an instruction for others; ``values`` are the operands it came with."""

    instruction: Instruction
    values: tuple[int, ...]


#: A thread that runs: it gives what it waits at, and is sent the values of the destinations.
Running = Generator[Wait, Sequence[int], None]


class Thread:
    """One thread of a kernel over a guest memory, a shared memory and a parameter block, all used in place."""

    def __init__(
        self,
        kernel: Kernel,
        memory: bytearray,
        parameters: bytes,
        special: Mapping[str, int],
        shared: bytearray | None = None,
    ) -> None:
        self._kernel = kernel
        self._memory = memory
        self._shared = bytearray() if shared is None else shared
        self._parameters = parameters
        self._special = special
        self._registers = dict.fromkeys(kernel.registers, 0)
        self._carry = 0

    def run(self) -> None:
        """From block 0 to an exit, alone."""
        for wait in self.steps():
            raise NotImplementedError(wait)

    def steps(self) -> Running:
        """From block 0 to an exit, with a stop wherever it waits for others."""
        index = steps = 0
        while True:
            block = self._kernel.blocks[index]
            for instruction in block.instructions:
                if instruction.guard is not None and not self._holds(instruction.guard):
                    continue
                if instruction.root in _TOGETHER:
                    yield from self._wait(instruction)
                else:
                    self._execute(instruction)
            match block.terminator:
                case Jump(target):
                    index = target
                case Branch(guard, taken, otherwise):
                    index = taken if self._holds(guard) else otherwise
                case Switch(selector, targets):
                    index = targets[self._value(selector, ScalarType.U32)]
                case Exit():
                    return
                case other:
                    raise NotImplementedError(other)
            steps += 1 + len(block.instructions)
            if steps > STEPS_MAX:
                raise RuntimeError("the thread does not end")

    def _wait(self, instruction: Instruction) -> Running:
        kinds = _operand_types(instruction)
        values = tuple(self._source(instruction, position, kind) for position, kind in enumerate(kinds))
        results = yield Wait(instruction, values)
        for register, result in zip(instruction.destinations, results, strict=False):
            self._set(register, result)

    def _holds(self, guard: Guard) -> bool:
        return bool(self._registers[guard.register]) != guard.negated

    def _value(self, operand: Operand, kind: ScalarType) -> int:
        """An operand as a number of ``kind``."""
        match operand:
            case Register():
                bits = self._registers[operand]
            case Immediate():
                bits = operand.bits
            case Special():
                bits = self._special[f"{operand.name}.{operand.axis}"]
            case Symbol(target, offset):
                assert self._kernel.variables == (target,), _ALONE
                bits = offset
            case _:
                raise NotImplementedError(operand)
        bits &= (1 << kind.bits) - 1
        return signed(bits, kind.bits) if kind.is_signed else bits

    def _source(self, instruction: Instruction, position: int, kind: ScalarType) -> int:
        value = self._value(instruction.sources[position], kind)
        return 1 - value if position in instruction.negated else value

    def _set(self, register: Register | None, value: int) -> None:
        if register is not None:
            self._registers[register] = value & ((1 << register.type.bits) - 1)

    def _execute(self, instruction: Instruction) -> None:
        kind = instruction.type
        root = instruction.root
        if instruction.address is not None:
            self._access(instruction)
        elif root in ("add", "addc", "sub", "subc") and (root.endswith("c") or "cc" in instruction.modifiers):
            self._extended(instruction)
        elif root == "mov":
            self._move(instruction)
        elif root == "setp":
            a, b = self._source(instruction, 0, kind), self._source(instruction, 1, kind)
            self._set(instruction.destinations[0], int(_RELATIONS[instruction.modifiers[0]](a, b)))
        elif root == "selp":
            chosen = 0 if self._source(instruction, 2, ScalarType.PRED) else 1
            self._set(instruction.destinations[0], self._source(instruction, chosen, kind))
        elif root == "cvt":
            self._set(instruction.destinations[0], self._converted(instruction))
        elif root == "mul":
            product = self._source(instruction, 0, kind) * self._source(instruction, 1, kind)
            self._set(instruction.destinations[0], product)
        else:
            second = ScalarType.U32 if root in ("shl", "shr") else kind
            a, b = self._source(instruction, 0, kind), self._source(instruction, 1, second)
            value = _ARITHMETIC[root](kind, a, b) & ((1 << kind.bits) - 1)
            self._set(instruction.destinations[0], signed(value, kind.bits) if kind.is_signed else value)

    def _converted(self, instruction: Instruction) -> int:
        to, from_ = instruction.types
        value = self._source(instruction, 0, from_) & ((1 << to.bits) - 1)
        return signed(value, to.bits) if to.is_signed else value

    def _move(self, instruction: Instruction) -> None:
        bits = instruction.type.bits // max(len(instruction.sources), len(instruction.destinations))
        mask = (1 << bits) - 1
        whole = 0
        for position in range(len(instruction.sources)):
            value = self._source(instruction, position, instruction.type)
            whole |= (value & mask if len(instruction.sources) > 1 else value) << position * bits
        for position, register in enumerate(instruction.destinations):
            self._set(register, whole >> position * bits & mask if len(instruction.destinations) > 1 else whole)

    def _extended(self, instruction: Instruction) -> None:
        kind = {32: ScalarType.U32, 64: ScalarType.U64}[instruction.type.bits]
        a, b = self._source(instruction, 0, kind), self._source(instruction, 1, kind)
        b += self._carry if instruction.root.endswith("c") else 0
        value = a - b if instruction.root.startswith("sub") else a + b
        if "cc" in instruction.modifiers:
            self._carry = int(value < 0 or value >> kind.bits != 0)
        self._set(instruction.destinations[0], value)

    def _access(self, instruction: Instruction) -> None:
        assert instruction.address is not None
        kind = instruction.type
        size = kind.size_bytes
        base, place = instruction.address.base, instruction.address.offset
        space: bytes | bytearray = self._memory
        if instruction.space is Space.SHARED:
            space = self._shared
        if isinstance(base, Variable):
            assert self._kernel.variables == (base,), _ALONE
        elif isinstance(base, Parameter):
            space, place = self._parameters, place + base.offset
        elif isinstance(base, Register):
            place += self._registers[base]
        count = max(len(instruction.sources), len(instruction.destinations))
        assert 0 <= place <= len(space) - count * size, "outside memory"
        if instruction.root == "st":
            assert isinstance(space, bytearray)
            for position in range(len(instruction.sources)):
                value = self._source(instruction, position, kind) & ((1 << kind.bits) - 1)
                at = place + position * size
                space[at : at + size] = value.to_bytes(size, "little")
            return
        parts = [space[place + i * size : place + (i + 1) * size] for i in range(len(instruction.destinations))]
        for register, part in zip(instruction.destinations, parts, strict=True):
            self._set(register, int.from_bytes(part, "little", signed=kind.is_signed))


def _operand_types(instruction: Instruction) -> list[ScalarType]:
    """As what the sources of an instruction at which threads wait are read."""
    kinds = [ScalarType.U32] * len(instruction.sources)
    if instruction.root in ("vote", "match", "redux"):
        kinds[0] = ScalarType.PRED if instruction.root == "vote" else instruction.type
    elif "red" in instruction.modifiers:
        kinds[-1] = ScalarType.PRED
    return kinds
