"""``cvt`` to and from f16, bf16, pairs of them, and tf32 (PTX ISA, ``cvt``).

Every source but a 64-bit integer is exact as f32 or f64, from which the target is rounded once. ``.ftz`` concerns f32
alone, so it does not touch the halves.
"""

from __future__ import annotations

from typing import Final

from tensor_wasm.compiler.values import halves
from tensor_wasm.compiler.values.conversions import INTEGRAL, integral
from tensor_wasm.compiler.values.formula import F32, I32, I64, Value, absolute, apply, combine, constant, select
from tensor_wasm.compiler.values.halves import LAYOUTS, Layout
from tensor_wasm.compiler.values.lanes import Lanes, fixed, pick
from tensor_wasm.compiler.values.operation import DIRECTED, Operation
from tensor_wasm.compiler.values.packed import gather, limited
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.wasm import Body, ValType

MODIFIERS: Final = frozenset({"rn", *DIRECTED, *INTEGRAL, "relu", "satfinite", "ftz", "sat"})
TF32_MODES: Final = frozenset({"rn", "rz", "rna", "relu", "satfinite"})

#: Bits of an f32 that tf32 lacks, and its largest number.
_TF32_DROPPED: Final = 13
_TF32_LARGEST: Final = (2 - 2.0**-10) * 2.0**127


def convert(operation: Operation) -> None:
    """``cvt`` where one type is f16 or bf16."""
    target, source = operation.instruction.types
    number = _number(operation, source)
    if target in LAYOUTS:
        mode = next((m for m in operation.instruction.modifiers if m in INTEGRAL), None)
        number = number if mode is None else number.unary(INTEGRAL[mode])
        _narrowed(operation, LAYOUTS[target], _within(operation, number, LAYOUTS[target].largest)).push(operation.body)
    elif target.is_float:
        operation.finish(number.to(F32 if target is ScalarType.F32 else ValType.F64))
    else:
        integral(operation, operation.let(number)).push(operation.body)


def convert_pair(operation: Operation) -> None:
    """``cvt`` of two f32 into an f16x2 or bf16x2; the first source goes to the upper half."""
    layout = LAYOUTS[operation.instruction.types[0]]
    upper, lower = operation.source(0), operation.source(1)
    if operation.rounding == "rn":
        number = _within(operation, _pair(upper, lower), layout.largest)
        half = halves.narrow(operation, layout, number)
        assert isinstance(half, Lanes)
        gather(half).push(operation.body)
        return
    low, high = (
        operation.let(_narrowed(operation, layout, _within(operation, source, layout.largest)))
        for source in (lower, upper)
    )
    (low | high << 16).push(operation.body)


def convert_tf32(operation: Operation) -> None:
    """``cvt`` of an f32 into a tf32, which is an f32 with 13 bits less."""
    number = operation.let(_within(operation, operation.source(0), _TF32_LARGEST))
    bits = operation.let(number.bits())
    half = 1 << _TF32_DROPPED - 1
    if operation.has("rna"):
        raised = bits + half
    elif operation.has("rz"):
        raised = bits
    else:
        raised = bits + ((bits.shr_u(_TF32_DROPPED) & 1) + (half - 1))
    select(number.is_nan(), constant(I32, 0x7FFF_FFFF), raised & -2 * half).push(operation.body)


def _number(operation: Operation, source: ScalarType) -> Value:
    """The source as an f32 or f64 that is rounded as it would be itself."""
    if source in LAYOUTS:
        return operation.let(halves.widen(operation, LAYOUTS[source], operation.source(0)))
    if source in (ScalarType.F32, ScalarType.F64):
        return operation.let(operation.real(0))
    sign = "s" if source.is_signed else "u"
    value = operation.source(0)
    if source.bits < 64:
        return operation.let(apply(f"f{32 if source.bits < 32 else 64}.convert_i32_{sign}", value))
    return operation.let(apply(f"f64.convert_i64_{sign}", _shortened(operation, value, sign)))


def _shortened(operation: Operation, value: Value, sign: str) -> Value:
    """A 64-bit integer that an f64 holds: of a large one the low bits only say that they are not all zero."""
    value = operation.let(value)
    low = (1 << 24) - 1
    cut = (value | (value & low) + low) & ~low
    is_short = (value + (1 << 40)).compare("lt_u", 1 << 41) if sign == "s" else value.compare("lt_u", 1 << 40)
    assert value.type is I64
    return select(is_short, value, cut)


def _within(operation: Operation, number: Value, largest: float) -> Value:
    """A float after ``.sat``, ``.relu`` and ``.satfinite``, which turns what is too large into the largest number."""
    number = limited(operation, number)
    if not operation.has("satfinite"):
        return number
    number = operation.let(number)
    is_beyond = absolute(number).compare("gt", largest)
    return pick(is_beyond, halves.signed_as(fixed(number, largest), number), number)


def _narrowed(operation: Operation, layout: Layout, number: Value) -> Value:
    if operation.rounding == "rn":
        return halves.narrow(operation, layout, number)
    return operation.call(f"{layout.name}.from_{number.type.name.lower()}.{operation.rounding}", number)


def _pair(upper: Value, lower: Value) -> Lanes:
    """Two f32 as the low lanes of an f32x4."""
    low = combine("f32x4.splat", ValType.V128, lower)

    def push(body: Body) -> None:
        low.push(body)
        upper.push(body)
        body.lane("f32x4.replace_lane", 1)

    return Lanes("f32x4", push)
