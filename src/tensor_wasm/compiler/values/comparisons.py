"""Comparisons and selections (PTX ISA, "Comparison and Selection Instructions", and ``testp``)."""

from __future__ import annotations

from typing import Final

from tensor_wasm.compiler.values.formula import F32, F64, Value, absolute, apply
from tensor_wasm.compiler.values.lanes import pick
from tensor_wasm.compiler.values.operation import Operation
from tensor_wasm.ptx.program import ScalarType

#: Ordered relations, and those that also hold for NaN by the relation that is then their contrary.
_ORDERED: Final = ("eq", "lt", "le", "gt", "ge")
_UNORDERED: Final = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}
#: Unsigned relations of their own name.
_UNSIGNED: Final = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}

RELATIONS: Final = frozenset({*_ORDERED, "ne", *_UNORDERED, *_UNSIGNED, "num", "nan"})
COMBINATIONS: Final = frozenset({"and", "or", "xor"})


def set_predicate(operation: Operation) -> None:
    """``setp``: the comparison, and as second destination its contrary, each combined with the third source."""
    truth = _compare(operation)
    if len(operation.instruction.destinations) == 1:
        combination(operation, truth).push(operation.body)
        return
    truth = operation.let(truth)
    for value in (truth, truth.is_zero()):
        combination(operation, value).push(operation.body)


def set_value(operation: Operation) -> None:
    """``set``: as ``setp``, into all ones or 0; into 1.0 or 0.0 of an ``.f32`` destination."""
    truth = combination(operation, _compare(operation))
    kind = operation.instruction.types[0]
    result = apply("f32.convert_i32_u", truth) if kind is ScalarType.F32 else -truth
    result.push(operation.body)


def combination(operation: Operation, truth: Value, *, of_masks: bool = False) -> Value:
    """A comparison combined with the third source, if there is one; as 0 or 1, or as all ones or 0."""
    if len(operation.instruction.sources) < 3:
        return truth
    other = operation.source(2, ScalarType.PRED)
    other = -other if of_masks else other
    name = next(modifier for modifier in operation.instruction.modifiers if modifier in COMBINATIONS)
    return truth.binary(name, other)


def relation_of(operation: Operation) -> str:
    """The comparison that the instruction names."""
    found = next((m for m in operation.instruction.modifiers if m in RELATIONS), None)
    if found is None:
        raise operation.refuse("no comparison is named")
    return found


def _compare(operation: Operation) -> Value:
    name = relation_of(operation)
    if operation.type.is_float:
        return compare_floats(name, operation.real(0), operation.real(1))
    a, b = operation.source(0), operation.source(1)
    if name in ("eq", "ne"):
        return a.compare(name, b)
    if name in _UNSIGNED:  # sign-extended operands keep the order of their unsigned bits
        return a.compare(f"{_UNSIGNED[name]}_u", b)
    if name not in _ORDERED:
        raise operation.refuse(f".{name} compares floats only")
    return a.compare(f"{name}_s" if operation.type.is_signed else f"{name}_u", b)


def compare_floats(relation: str, a: Value, b: Value) -> Value:
    """Whether ``a`` and ``b``, floats or lanes of them, stand in a relation."""
    if relation in _ORDERED:
        return a.compare(relation, b)
    if relation in _UNORDERED:
        contrary = _UNORDERED[relation]
        if contrary == "eq":
            return a.compare("ne", b)
        if contrary == "ne":
            return (a.compare("lt", b) | a.compare("gt", b)).is_zero()
        return a.compare(contrary, b).is_zero()
    match relation:
        case "ne":
            return a.compare("lt", b) | a.compare("gt", b)
        case "num":
            return a.compare("eq", a) & b.compare("eq", b)
        case "nan":
            return a.is_nan() | b.is_nan()
        case _:
            raise ValueError(f"no comparison of floats: {relation}")


def choose_by_predicate(operation: Operation) -> None:
    """``selp``: ``a`` where the predicate holds, else ``b``."""
    pick(operation.source(2, ScalarType.PRED), operation.source(0), operation.source(1)).push(operation.body)


def choose_by_sign(operation: Operation) -> None:
    """``slct``: ``a`` where ``c >= 0``, else ``b``, also for a NaN ``c``. -0 counts as 0."""
    result, test = operation.instruction.types
    if test is ScalarType.F32:
        is_positive = operation.real(2).compare("ge", 0.0)
    else:
        is_positive = operation.source(2).compare("ge_s", 0)
    pick(is_positive, operation.source(0, result), operation.source(1, result)).push(operation.body)


_INFINITY: Final = float("inf")
_SMALLEST_NORMAL: Final = {F32: 2.0**-126, F64: 2.0**-1022}


def test_property(operation: Operation) -> None:
    """``testp``; zeros are normal."""
    a = operation.source(0)
    magnitude = absolute(a)
    is_tiny = magnitude.compare("lt", _SMALLEST_NORMAL[a.type])
    is_not_zero = a.compare("ne", 0.0)
    is_finite = magnitude.compare("lt", _INFINITY)
    tests = {
        "finite": is_finite,
        "infinite": magnitude.compare("eq", _INFINITY),
        "number": a.compare("eq", a),
        "notanumber": a.is_nan(),
        "normal": is_finite & (is_tiny & is_not_zero).is_zero(),
        "subnormal": is_tiny & is_not_zero,
    }
    if len(operation.instruction.modifiers) != 1:
        raise operation.refuse("one property is tested")
    tests[operation.instruction.modifiers[0]].push(operation.body)


PROPERTIES: Final = frozenset({"finite", "infinite", "number", "notanumber", "normal", "subnormal"})
