"""Builds typed kernels by hand, without PTX text. For tests only."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.ptx.program import (
    Address,
    Block,
    Branch,
    Exit,
    Guard,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Operand,
    Parameter,
    Program,
    Register,
    ScalarType,
    Space,
    Switch,
    Terminator,
    Trap,
    Variable,
)


class Builder:
    """A kernel under construction: registers, blocks, and instructions appended to the current block.

    Each instruction gets a line of its own, from 1 on. Blocks that cannot be reached are dropped at the end.
    """

    def __init__(self) -> None:
        self.registers: list[Register] = []
        self.parameters: list[Parameter] = []
        self.line = 0
        self._blocks: list[list[Instruction]] = []
        self._ends: dict[int, Terminator] = {}
        self.current = self.block()

    def register(self, kind: ScalarType) -> Register:
        """A new register."""
        register = Register(f"%{kind.ptx_name}_{len(self.registers)}", kind, len(self.registers))
        self.registers.append(register)
        return register

    def parameter(self, kind: ScalarType) -> Parameter:
        """A new parameter, after the others."""
        size = kind.size_bytes
        offset = -(-self.parameter_bytes // size) * size
        parameter = Parameter(f"param_{len(self.parameters)}", kind, size, size, offset)
        self.parameters.append(parameter)
        return parameter

    @property
    def parameter_bytes(self) -> int:
        """Size of the parameter block so far."""
        return max((p.offset + p.size_bytes for p in self.parameters), default=0)

    def block(self) -> int:
        """A new block; :meth:`start` makes it the current one."""
        self._blocks.append([])
        return len(self._blocks) - 1

    def start(self, block: int) -> None:
        """Append to ``block`` from now on."""
        self.current = block

    def end(self, terminator: Terminator) -> None:
        """How the current block ends, unless that was said before."""
        self._ends.setdefault(self.current, terminator)

    @property
    def is_ended(self) -> bool:
        """Whether the current block has its end."""
        return self.current in self._ends

    def add(
        self,
        opcode: str,
        types: Sequence[ScalarType],
        destinations: Sequence[Register | None],
        sources: Sequence[Operand],
        *,
        guard: Guard | None = None,
        address: Address | None = None,
        space: Space | None = None,
        negated: frozenset[int] = frozenset(),
    ) -> int:
        """Append an instruction, ``opcode`` with its modifiers: ``"mul.lo"``. Returns its line."""
        self.line += 1
        root, *modifiers = opcode.split(".")
        instruction = Instruction(
            root,
            tuple(modifiers),
            tuple(types),
            tuple(destinations),
            tuple(sources),
            guard,
            self.line,
            1,
            address,
            space,
            negated,
        )
        if not self.is_ended:
            self._blocks[self.current].append(instruction)
        return self.line

    def kernel(self, name: str = "built", variables: Sequence[Variable] = ()) -> tuple[Kernel, Program]:
        """The finished kernel and the program around it."""
        number = {old: new for new, old in enumerate(self._reachable())}
        blocks = tuple(
            Block(number[old], tuple(self._blocks[old]), _renumbered(self._ends[old], number), 1) for old in number
        )
        kernel = Kernel(
            name, tuple(self.parameters), self.parameter_bytes, tuple(self.registers), tuple(variables), blocks, 1
        )
        return kernel, Program("8.0", "sm_80", (), (kernel,))

    def _reachable(self) -> list[int]:
        found = [0]
        for block in found:
            found.extend(target for target in _targets(self._ends[block]) if target not in found)
        return sorted(set(found))


def immediate(value: int, kind: ScalarType) -> Immediate:
    """A constant of ``kind``."""
    return Immediate(value & ((1 << kind.bits) - 1), kind)


def graph_kernel(*ends: Terminator | Sequence[int] | None) -> tuple[Kernel, Program, Register]:
    """A kernel of empty blocks: each end is a terminator, or one or two targets, or None for the thread's end.

    The predicate of two targets is the register that is returned.
    """
    predicate = Register("%p", ScalarType.PRED, 0)
    blocks = []
    for index, given in enumerate(ends):
        match given:
            case None:
                end: Terminator = Exit()
            case (target,):
                end = Jump(target)
            case (taken, otherwise):
                end = Branch(Guard(predicate, False), taken, otherwise)
            case Jump() | Branch() | Switch() | Exit() | Trap():
                end = given
            case _:
                raise ValueError(given)
        blocks.append(Block(index, (), end, index + 1))
    kernel = Kernel("graph", (), 0, (predicate,), (), tuple(blocks), 1)
    return kernel, Program("8.0", "sm_80", (), (kernel,)), predicate


def _targets(end: Terminator) -> tuple[int, ...]:
    match end:
        case Jump(target):
            return (target,)
        case Branch(_, taken, otherwise):
            return (taken, otherwise)
        case Switch(_, targets):
            return targets
        case _:
            return ()


def _renumbered(end: Terminator, number: dict[int, int]) -> Terminator:
    match end:
        case Jump(target):
            return Jump(number[target])
        case Branch(guard, taken, otherwise):
            return Branch(guard, number[taken], number[otherwise])
        case Switch(selector, targets):
            return Switch(selector, tuple(number[target] for target in targets))
        case other:
            return other
