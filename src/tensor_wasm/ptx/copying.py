"""One copy of a routine's code in a kernel: its instructions with the kernel's registers and variables."""

from __future__ import annotations

from dataclasses import replace

from tensor_wasm.ptx.addresses import FunctionAddresses
from tensor_wasm.ptx.calls import Return
from tensor_wasm.ptx.program import (
    Address,
    Branch,
    Guard,
    Instruction,
    Jump,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Switch,
    Symbol,
    Terminator,
    Variable,
)


class Copy:
    """What a routine's registers and variables are in the kernel.

    ``entities`` are what its parameters and results stand for; ``after`` is the draft where its caller goes on.
    ``registers`` are the kernel's, to which those of copies are added. ``is_root``: this is the kernel itself, whose
    registers are what they were.
    """

    __slots__ = ("_addresses", "_is_root", "_own", "_registers", "after", "entities")

    def __init__(self, registers: list[Register], addresses: FunctionAddresses, *, is_root: bool = False) -> None:
        self._registers = registers
        self._addresses = addresses
        self._is_root = is_root
        self._own: dict[Register, Register] = {}
        self.entities: dict[Variable | Parameter, Variable | Parameter] = {}
        self.after = 0

    def inner(self) -> Copy:
        """A copy of another routine in the same kernel."""
        return Copy(self._registers, self._addresses)

    def instruction(self, instruction: Instruction) -> Instruction:
        """An instruction of the routine's, of the kernel's."""
        if self._is_root and not self._addresses.taken:
            return instruction
        space, address = instruction.space, instruction.address
        if address is not None:
            base = address.base
            if isinstance(base, Register):
                if space is Space.PARAM and not self._is_root:
                    space = Space.GENERIC  # the address of a parameter that is a local variable now
                base = self.register(base)
            elif base is not None:
                base = self.entity(base)
            address = Address(base, address.offset)
        return Instruction(
            instruction.root,
            instruction.modifiers,
            instruction.types,
            tuple(None if register is None else self.register(register) for register in instruction.destinations),
            tuple(self.operand(operand) for operand in instruction.sources),
            None if instruction.guard is None else self.guard(instruction.guard),
            instruction.line,
            instruction.column,
            address,
            space,
            instruction.negated,
        )

    def terminator(self, terminator: Terminator, start: int) -> Terminator:
        """A terminator of the routine's, whose block 0 is the draft ``start``."""
        match terminator:
            case Return():
                return Jump(self.after)
            case Jump(target):
                return Jump(start + target)
            case Branch(guard, taken, otherwise, is_uniform):
                return Branch(self.guard(guard), start + taken, start + otherwise, is_uniform)
            case Switch(selector, targets):
                return Switch(self.operand(selector), tuple(start + target for target in targets))
        return terminator

    def guard(self, guard: Guard) -> Guard:
        """A guard."""
        return Guard(self.register(guard.register), guard.negated)

    def operand(self, operand: Operand) -> Operand:
        """A value; the address of a function is a number."""
        if isinstance(operand, Register):
            return self.register(operand)
        if isinstance(operand, Symbol):
            return self._addresses.operand(Symbol(self.entity(operand.target), operand.offset))
        return operand

    def register(self, register: Register) -> Register:
        """A register."""
        if self._is_root:
            return register
        found = self._own.get(register)
        if found is None:
            found = self._own[register] = self.new(register.name, register.type)
        return found

    def entity(self, entity: Variable | Parameter) -> Variable | Parameter:
        """A variable or parameter. Those for the arguments of calls are each copy's own, all others the kernel's."""
        found = self.entities.get(entity)
        if found is not None or isinstance(entity, Parameter):
            return found or entity
        if entity.space is Space.PARAM and not self._is_root:
            found = self.entities[entity] = replace(entity)
            return found
        return self._addresses.replaced.get(entity, entity)

    def new(self, name: str, kind: ScalarType) -> Register:
        """A further register of the kernel."""
        register = Register(name, kind, len(self._registers))
        self._registers.append(register)
        return register
