"""``cvt`` between integers, f32 and f64 (PTX ISA, ``cvt``)."""

from __future__ import annotations

from typing import Final

from tensor_wasm.compiler.values.formula import F32, F64, I32, I64, Value, apply, constant, select
from tensor_wasm.compiler.values.operation import DIRECTED, Operation
from tensor_wasm.ptx.program import ScalarType

#: Rounding to integers, as WebAssembly's float instructions.
INTEGRAL: Final = {"rni": "nearest", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


def convert(operation: Operation) -> None:
    """``cvt``."""
    target, source = operation.instruction.types
    if not target.is_float:
        value = integral(operation, operation.real(0)) if source.is_float else _integer_to_integer(operation)
        value.push(operation.body)
    elif source.is_float:
        operation.finish(_float_to_float(operation))
    else:
        operation.finish(_integer_to_float(operation))


def _integer_to_integer(operation: Operation) -> Value:
    target, source = operation.instruction.types
    value = operation.source(0)
    if operation.has("sat"):
        value = _limited(operation, value, source, target)
    if target.bits == 64:
        return value.to(I64, signed=source.is_signed)
    return value.to(I32)


def _limited(operation: Operation, value: Value, have: ScalarType, want: ScalarType) -> Value:
    """An integer of type ``have`` limited to the range of ``want``, in the carrier of ``have``."""
    low, high = _range(want)
    least, most = _range(have)
    if low > least:
        value = operation.let(value)
        value = select(value.compare("gt_s", low), value, low)
    if high < most:
        value = operation.let(value)
        value = select(value.compare("lt_s" if have.is_signed else "lt_u", high), value, high)
    return value


def _range(kind: ScalarType) -> tuple[int, int]:
    if kind.is_signed:
        return -(1 << kind.bits - 1), (1 << kind.bits - 1) - 1
    return 0, (1 << kind.bits) - 1


def integral(operation: Operation, number: Value) -> Value:
    """An f32 or f64 as the instruction's first type, an integer; always limited to its range.

    NaN gives 0 from f32 to at most 32 bits, else the top bit alone.
    """
    target = operation.instruction.types[0]
    mode = next((m for m in operation.instruction.modifiers if m in INTEGRAL), "rzi")
    rounded = number if mode == "rzi" else number.unary(INTEGRAL[mode])
    sign = "s" if target.is_signed else "u"
    width = "i64" if target.bits == 64 else "i32"
    value = apply(f"{width}.trunc_sat_{'f32' if number.type is F32 else 'f64'}_{sign}", rounded)
    if target.bits < 32:
        word = ScalarType.S32 if target.is_signed else ScalarType.U32
        value = _limited(operation, value, word, target)
    if number.type is F64 or target.bits == 64:
        value = select(number.is_nan(), constant(value.type, 1 << target.bits - 1), value)
    return value


def _integer_to_float(operation: Operation) -> Value:
    target, source = operation.instruction.types
    value = operation.source(0)
    sign = "s" if source.is_signed else "u"
    mode = operation.rounding
    is_exact = target is ScalarType.F64 and source.bits <= 32
    if mode == "rn" or is_exact:
        width = "i64" if source.bits == 64 else "i32"
        return apply(f"{target.ptx_name}.convert_{width}_{sign}", value)
    if source.bits <= 32:
        return _demoted(operation, apply(f"f64.convert_i32_{sign}", value))
    if mode == "rm" and not source.is_signed:
        mode = "rz"
    return operation.call(f"convert.{source.ptx_name}.{mode}.{target.ptx_name}", value)


def _float_to_float(operation: Operation) -> Value:
    target, source = operation.instruction.types
    value = operation.real(0)
    if target is source:
        mode = next((m for m in operation.instruction.modifiers if m in INTEGRAL), None)
        return value if mode is None else value.unary(INTEGRAL[mode])
    return value.to(F64) if target is ScalarType.F64 else _demoted(operation, value)


def _demoted(operation: Operation, value: Value) -> Value:
    """An f64 as an f32, in the instruction's rounding mode."""
    match operation.rounding:
        case "rn":
            return value.to(F32)
        case "rm":
            return -operation.call("demote.rp.f32", -value)
        case mode:
            return operation.call(f"demote.{mode}.f32", value)


MODIFIERS: Final = frozenset({*INTEGRAL, "rn", *DIRECTED, "ftz", "sat"})
