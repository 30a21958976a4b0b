"""``cvt`` of a strip."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import values
from tensor_wasm.compiler.strips.operands import DIRECTED, Emit, LaneOperation, cut, lanes_of, matches, narrow_source
from tensor_wasm.compiler.strips.strip import Strip, is_double, shuffle
from tensor_wasm.compiler.values.formula import Value, combine
from tensor_wasm.compiler.values.lanes import Lanes
from tensor_wasm.ptx.program import Instruction, Register, ScalarType, Special, Symbol
from tensor_wasm.wasm import Body, ValType

V128 = ValType.V128
_EVEN, _HIGH_TWICE = (0, 2, 4, 6), (2, 3, 2, 3)


def converter(_strip: Strip, instruction: Instruction) -> Emit | None:
    """``cvt`` between f32, f64 and integers, where a vector instruction rounds as the text says."""
    target, source = instruction.types
    operand, *more = instruction.sources
    modifiers = set(instruction.modifiers)
    if more or isinstance(operand, Special | Symbol) or not values.handles(instruction):
        return None
    if any(kind.kind == "x" or kind is ScalarType.F16 for kind in instruction.types):
        return None
    if target.is_float or source.is_float:
        if not matches(instruction) or DIRECTED & modifiers:
            return None
        return _CONVERSIONS.get((_letter(target), _letter(source)))
    return _between_integers(instruction, target, source) if "sat" not in modifiers else None


def _letter(kind: ScalarType) -> str:
    return f"{kind.kind if kind.kind != 'b' else 'u'}{kind.bits}"


def _between_integers(instruction: Instruction, target: ScalarType, source: ScalarType) -> Emit | None:
    (operand,) = instruction.sources
    if isinstance(operand, Register) and is_double(operand.type) != is_double(source):
        return None
    (destination,) = instruction.destinations
    if destination is None or is_double(destination.type) != is_double(target):
        return None

    def emit(operation: LaneOperation) -> None:
        body = operation.body
        if is_double(source):
            if is_double(target):
                operation.source(0, source).push(body)
                return
            for half in (0, 1):
                lanes_of(operation.strip, operand, source, 2 * operation.unit + half, is_wide=True).push(body)
            shuffle(body, _EVEN)
            _clean(body, target)
        else:
            unit = operation.unit // 2 if is_double(target) else operation.unit
            lanes_of(operation.strip, operand, source, unit, is_wide=False).push(body)
            _clean(body, source)
            if is_double(target):
                sign = "s" if source.is_signed else "u"
                body.op(f"i64x2.extend_{'high' if operation.unit % 2 else 'low'}_i32x4_{sign}")
                return
            _clean(body, target)
        if destination.type.bits < 32:
            cut(body, destination.type.bits)

    return emit


def _clean(body: Body, kind: ScalarType) -> None:
    """Make lanes canonical values of a type."""
    if kind.bits >= 32:
        return
    if kind.is_signed:
        body.i32_const(32 - kind.bits)
        body.op("i32x4.shl")
        body.i32_const(32 - kind.bits)
        body.op("i32x4.shr_s")
    else:
        cut(body, kind.bits)


def _rounded(operation: LaneOperation, number: Value) -> Value:
    mode = next((m for m in operation.instruction.modifiers if m in values.INTEGRAL), None)
    return number if mode is None else number.unary(values.INTEGRAL[mode])


def _single_to_integer(sign: str) -> Emit:
    def emit(operation: LaneOperation) -> None:
        number = operation.real(0)
        mode = next((m for m in operation.instruction.modifiers if m in values.INTEGRAL), "rzi")
        rounded = number if mode == "rzi" else number.unary(values.INTEGRAL[mode])
        combine(f"i32x4.trunc_sat_f32x4_{sign}", V128, rounded).push(operation.body)

    return emit


def _integer_to_single(sign: str) -> Emit:
    def emit(operation: LaneOperation) -> None:
        value = combine(f"f32x4.convert_i32x4_{sign}", V128, operation.source(0))
        operation.finish(Lanes("f32x4", value.push))

    return emit


def _integer_to_double(sign: str) -> Emit:
    def emit(operation: LaneOperation) -> None:
        value = combine(f"f64x2.convert_low_i32x4_{sign}", V128, _half(operation, narrow_source(operation, 0)))
        operation.finish(Lanes("f64x2", value.push))

    return emit


def _half(operation: LaneOperation, value: Lanes) -> Lanes:
    """The two lanes of a wide unit, lowest, of four narrow ones."""
    if operation.unit % 2 == 0:
        return value

    def push(body: Body) -> None:
        value.push(body)
        value.push(body)
        shuffle(body, _HIGH_TWICE)

    return Lanes(value.shape, push)


def _round(operation: LaneOperation) -> None:
    """From a type to itself."""
    operation.finish(_rounded(operation, operation.real(0)))


def _single_to_double(operation: LaneOperation) -> None:
    value = operation.let(_half(operation, narrow_source(operation, 0)))
    if operation.is_flushing:
        value = operation.flush(value)
    operation.finish(value.to(ValType.F64))


def _double_to_single(operation: LaneOperation) -> None:
    strip, (operand,) = operation.strip, operation.instruction.sources

    def push(body: Body) -> None:
        for half in (0, 1):
            lanes_of(strip, operand, ScalarType.F64, 2 * operation.unit + half, is_wide=True).push(body)
            body.op("f32x4.demote_f64x2_zero")
        shuffle(body, (0, 1, 4, 5))

    operation.finish(Lanes("f32x4", push))


_CONVERSIONS: Final[Mapping[tuple[str, str], Emit]] = MappingProxyType(
    {
        ("s32", "f32"): _single_to_integer("s"),
        ("u32", "f32"): _single_to_integer("u"),
        ("f32", "s32"): _integer_to_single("s"),
        ("f32", "u32"): _integer_to_single("u"),
        ("f64", "s32"): _integer_to_double("s"),
        ("f64", "u32"): _integer_to_double("u"),
        ("f32", "f32"): _round,
        ("f64", "f64"): _round,
        ("f64", "f32"): _single_to_double,
        ("f32", "f64"): _double_to_single,
    }
)
