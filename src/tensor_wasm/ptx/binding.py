"""Parameters of a function bound to the arguments of a call, results to what gets them.

Variables are aliases: the one that the caller names is the one that the function's body works on. Only where one side
has a register a value is moved.
"""

from __future__ import annotations

from tensor_wasm.ptx.calls import Call, Function, memory_type, size_bytes, value_type
from tensor_wasm.ptx.constants import bits_in
from tensor_wasm.ptx.copying import Copy
from tensor_wasm.ptx.program import (
    Address,
    Immediate,
    Instruction,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Variable,
)
from tensor_wasm.ptx.syntax import Constant


def misfit(call: Call, function: Function) -> str | None:
    """How a call differs from what the function takes and gives, or None."""
    name, formals = function.name[:64], function.formals
    for what, count, wanted in (
        ("arguments", len(call.arguments), len(formals.parameters)),
        ("results", len(call.results), len(formals.results)),
    ):
        if count != wanted:
            return f"{name} has {wanted} {what}, not {count}"
    for place, (argument, parameter) in enumerate(zip(call.arguments, formals.parameters, strict=True), 1):
        size = size_bytes(parameter)
        if not size:
            return f"{name} takes a variable number of arguments, which is not supported in this release"
        if isinstance(argument, Variable | Parameter):
            if argument.size_bytes < size:
                return f"argument {place} of {name} has {size} bytes, not {argument.size_bytes}"
        elif isinstance(parameter, Parameter) and parameter.is_array and argument is not None:
            return f"argument {place} of {name} is a struct"
        elif isinstance(argument, Constant) and bits_in(argument, parameter.type) is None:
            return f"argument {place} of {name} is no such constant"
    for given, result in zip(call.results, formals.results, strict=True):
        size = size_bytes(result)
        if given is not None and size_bytes(given) < size:
            return f"the result of {name} has {size} bytes, not {size_bytes(given)}"
    if any(isinstance(given, Variable) and given in call.arguments for given in call.results):
        return f"a variable is both an argument and the result of {name}"
    return None


def bind(call: Call, function: Function, caller: Copy, inner: Copy) -> tuple[list[Instruction], list[Instruction]]:
    """Bind what a call names to what a copy of the function's body does.

    What is given are the instructions that move values into that body, and those that move them out of it.
    """
    before: list[Instruction] = []
    after: list[Instruction] = []
    for formal, argument in zip(function.formals.parameters, call.arguments, strict=True):
        if isinstance(argument, Variable | Parameter):
            actual = caller.entity(argument)
            if isinstance(formal, Parameter):
                inner.entities[formal] = actual
            else:
                before.append(load(call, inner.register(formal), actual))
            continue
        value = None if argument is None else constant(argument, formal.type, caller)
        if isinstance(formal, Register):
            if value is not None:
                before.append(move(call, inner.register(formal), value, formal.type))
            continue
        variable = Variable(formal.name, Space.PARAM, formal.type, formal.size_bytes, formal.alignment)
        inner.entities[formal] = variable
        if value is not None:
            before.append(store(call, variable, value))
    for result, target in zip(function.formals.results, call.results, strict=True):
        if isinstance(target, Variable) and isinstance(result, Variable):
            inner.entities[result] = caller.entity(target)
        elif isinstance(target, Variable) and isinstance(result, Register):
            after.append(store(call, caller.entity(target), inner.register(result)))
        elif isinstance(target, Register) and isinstance(result, Variable):
            after.append(load(call, caller.register(target), inner.entity(result)))
        elif isinstance(target, Register) and isinstance(result, Register):
            after.append(move(call, caller.register(target), inner.register(result), result.type))
    return before, after


def constant(argument: Operand | Constant, kind: ScalarType, caller: Copy) -> Operand:
    """A value that a call names, of a type."""
    if isinstance(argument, Constant):
        return Immediate(bits_in(argument, kind) or 0, kind)
    return caller.operand(argument)


def move(call: Call, target: Register, source: Operand, kind: ScalarType) -> Instruction:
    """``mov`` at the place of a call."""
    return Instruction("mov", (), (value_type(kind),), (target,), (source,), None, call.line, call.column)


def load(call: Call, register: Register, base: Variable | Parameter) -> Instruction:
    """``ld.param`` of a whole variable at the place of a call."""
    kind = memory_type(register.type if isinstance(base, Parameter) and base.is_array else base.type)
    at = Address(base, 0)
    return Instruction("ld", (), (kind,), (register,), (), None, call.line, call.column, at, Space.PARAM)


def store(call: Call, variable: Variable | Parameter, value: Operand) -> Instruction:
    """``st.param`` of a whole variable at the place of a call."""
    at = Address(variable, 0)
    kind = memory_type(variable.type)
    return Instruction("st", (), (kind,), (), (value,), None, call.line, call.column, at, Space.PARAM)
