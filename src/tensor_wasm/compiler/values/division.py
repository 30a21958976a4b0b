"""Integer quotients and remainders (PTX ISA, ``div``, ``rem``).

The ISA leaves division by zero open. NVIDIA's code sequences end by replacing the result with all ones when the
divisor is zero, for quotient and remainder alike; so do these. MIN / -1 is MIN, its remainder 0.
"""

from __future__ import annotations

from tensor_wasm.compiler.values.formula import Value, choose, constant, select
from tensor_wasm.compiler.values.operation import Operation, all_ones


def quotient(operation: Operation) -> None:
    """``div`` of integers: the quotient towards zero."""
    _divide(operation, "div")


def remainder(operation: Operation) -> None:
    """``rem``: the sign is the dividend's."""
    _divide(operation, "rem")


def _divide(operation: Operation, name: str) -> None:
    a, b = operation.source(0), operation.source(1)
    is_signed = operation.type.is_signed
    instruction = f"{name}_s" if is_signed else f"{name}_u"
    known = operation.constant(1)
    minus_one = (1 << operation.type.bits) - 1
    if known == 0:
        result = all_ones(a.type)
    elif known is not None and not (is_signed and known == minus_one):
        result = a.binary(instruction, b)
    elif known is not None:
        result = _by_minus_one(a, name)
    elif is_signed:
        # Of all divisors only 0 and -1 can trap: one test for both keeps the common way short.
        is_special = (b + 1).compare("lt_u", 2)
        special = select(_is_not_zero(b), _by_minus_one(a, name), all_ones(a.type))
        result = choose(is_special, special, a.binary(instruction, b))
    else:
        result = choose(_is_not_zero(b), a.binary(instruction, b), all_ones(a.type))
    result.push(operation.body)


def _by_minus_one(a: Value, name: str) -> Value:
    return -a if name == "div" else constant(a.type, 0)


def _is_not_zero(value: Value) -> Value:
    return value.compare("ne", 0)
