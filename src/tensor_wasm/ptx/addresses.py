"""Addresses of functions, for calls through them: numbers that lead nowhere, one for each function of a program.

Where one is taken, by an instruction or in the initial value of a variable, the number is put in its place.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from tensor_wasm.ptx.calls import Linkage
from tensor_wasm.ptx.program import Immediate, Operand, Program, ScalarType, Symbol, Variable

#: No memory has addresses from here on.
_FUNCTIONS_AT = 0xFFFF_0000_0000_0000
_FUNCTION_STEP = 16


class FunctionAddresses:
    """Functions whose addresses are taken: ``taken`` are their names, ``replaced`` the variables that held some."""

    def __init__(self, program: Program, linkage: Linkage) -> None:
        self._symbols = linkage.symbols
        self._numbers = {name: number for number, name in enumerate(linkage.symbols.values(), 1)}
        self.replaced: dict[Variable, Variable] = {}
        found: dict[str, None] = {}
        for variable in (*program.variables, *linkage.variables):
            self._replace(variable, found)
        bodies = [kernel.blocks for kernel in program.kernels]
        bodies += [function.blocks for function in linkage.functions.values()]
        for block in chain.from_iterable(bodies):
            for instruction in block.instructions:
                for operand in instruction.sources:
                    if type(operand) is Symbol and operand.target in self._symbols:
                        found[operand.target.name] = None
        self.taken = tuple(found)

    def of(self, name: str) -> int:
        """The address of a function."""
        return _FUNCTIONS_AT + self._numbers[name] * _FUNCTION_STEP

    def operand(self, symbol: Symbol) -> Operand:
        """An address as a value: a number where it is a function's."""
        target = symbol.target
        if isinstance(target, Variable):
            if target in self._symbols:
                return Immediate(self.of(target.name) + symbol.offset & (1 << 64) - 1, ScalarType.U64)
            target = self.replaced.get(target, target)
        return Symbol(target, symbol.offset)

    def _replace(self, variable: Variable, found: dict[str, None]) -> None:
        """Write the numbers of functions into a variable's initial values; those it points to come before it."""
        if not any(target in self._symbols or target in self.replaced for _, target, _ in variable.pointers):
            return
        assert variable.initial is not None
        initial = bytearray(variable.initial)
        pointers = []
        for place, target, addend in variable.pointers:
            if target in self._symbols:
                found[target.name] = None
                number = self.of(target.name) + addend & (1 << 64) - 1
                initial[place : place + 8] = number.to_bytes(8, "little")
            else:
                pointers.append((place, self.replaced.get(target, target), addend))
        self.replaced[variable] = replace(variable, initial=bytes(initial), pointers=tuple(pointers))
