"""The arithmetic of ``atom`` and ``red`` (PTX ISA, "Atomic"): the new value of a place from its old one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.values import packed
from tensor_wasm.compiler.values.formula import Value, constant, select
from tensor_wasm.compiler.values.halves import LAYOUTS
from tensor_wasm.compiler.values.operation import Operation, Push
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, ScalarType
from tensor_wasm.wasm import Body

if TYPE_CHECKING:
    from tensor_wasm.compiler.library import Library

Formula = Callable[[Operation, Value], Value]


@dataclass(frozen=True, slots=True)
class Update:
    """An update of places of some ``types``, with so many ``operands`` after the address."""

    types: frozenset[ScalarType]
    operands: int
    formula: Formula


def handles(instruction: Instruction) -> bool:
    """Whether :func:`update` can write ``instruction``."""
    return _named(instruction) is not None


def update(body: Body, instruction: Instruction, push_old: Callable[[], None], push: Push, library: Library) -> None:
    """Write what an ``atom`` or ``red`` computes: afterwards the place's new value is on the stack.

    ``push_old()`` pushes the old value, canonical, in the carrier of the instruction's type; ``push(position, kind)``
    the operand ``position`` after the address. Both may be called many times, and must push the same then. Above the
    bits of a 16-bit result there may be anything. Sums of floats round to nearest and keep subnormal numbers. Raises
    :class:`PtxError` for an instruction that :func:`handles` does not accept.
    """
    name = _named(instruction)
    if name is None:
        raise PtxError(f"{instruction.text} is not supported", instruction.line, instruction.column)
    with Operation(body, instruction, push, library) as operation:
        old = Value(carrier(operation.type), lambda _body: push_old())
        _UPDATES[name].formula(operation, old).push(body)


def _named(instruction: Instruction) -> str | None:
    """The modifier that names the instruction's update, if that works on its type and has its operands."""
    if instruction.root not in ("atom", "red") or len(instruction.types) != 1:
        return None
    name = next((modifier for modifier in instruction.modifiers if modifier in _UPDATES), None)
    if name is None:
        return None
    row = _UPDATES[name]
    is_fitting = instruction.type in row.types and len(instruction.sources) >= row.operands
    return name if is_fitting else None


def _sum(operation: Operation, old: Value) -> Value:
    if operation.type in LAYOUTS:
        return packed.total(operation, operation.type, old, operation.source(0))
    return old + operation.source(0)


def _minimum(operation: Operation, old: Value) -> Value:
    return _lesser(operation, "lt", old)


def _maximum(operation: Operation, old: Value) -> Value:
    return _lesser(operation, "gt", old)


def _lesser(operation: Operation, relation: str, old: Value) -> Value:
    operand = operation.source(0)
    sign = "s" if operation.type.is_signed else "u"
    return select(old.compare(f"{relation}_{sign}", operand), old, operand)


def _increment(operation: Operation, old: Value) -> Value:
    """One more, and 0 after the operand or anything beyond it."""
    return select(old.compare("ge_u", operation.source(0)), constant(old.type, 0), old + 1)


def _decrement(operation: Operation, old: Value) -> Value:
    """One less, and the operand after 0 or anything beyond the operand: 0 less 1 is beyond all others."""
    limit = operation.source(0)
    less = operation.let(old - 1)
    return select(less.compare("ge_u", limit), limit, less)


def _conjunction(operation: Operation, old: Value) -> Value:
    return old & operation.source(0)


def _disjunction(operation: Operation, old: Value) -> Value:
    return old | operation.source(0)


def _exclusive(operation: Operation, old: Value) -> Value:
    return old ^ operation.source(0)


def _exchange(operation: Operation, _old: Value) -> Value:
    return operation.source(0)


def _compare_and_swap(operation: Operation, old: Value) -> Value:
    """The second operand if the place holds the first."""
    return select(old.compare("eq", operation.source(0)), operation.source(1), old)


def _types(names: str) -> frozenset[ScalarType]:
    return frozenset(kind for kind in ScalarType if kind.ptx_name in names.split())


_UPDATES: Final[Mapping[str, Update]] = MappingProxyType(
    {
        "add": Update(_types("u32 s32 u64 s64 f32 f64 f16 f16x2 bf16 bf16x2"), 1, _sum),
        "min": Update(_types("u32 s32 u64 s64"), 1, _minimum),
        "max": Update(_types("u32 s32 u64 s64"), 1, _maximum),
        "inc": Update(_types("u32"), 1, _increment),
        "dec": Update(_types("u32"), 1, _decrement),
        "and": Update(_types("b32 b64"), 1, _conjunction),
        "or": Update(_types("b32 b64"), 1, _disjunction),
        "xor": Update(_types("b32 b64"), 1, _exclusive),
        "exch": Update(_types("b32 b64"), 1, _exchange),
        "cas": Update(_types("b16 b32 b64"), 2, _compare_and_swap),
    }
)
