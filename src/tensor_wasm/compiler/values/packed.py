"""Arithmetic of f16, bf16 and pairs of them (PTX ISA, "Half Precision Floating Point Instructions").

One formula for both: a number is an i32 or f32, a pair the two low lanes of a vector. Sums and products of halves in
f32, rounded again, are what one rounding gives (f32 has more than twice the digits); fused ones are formed in f64.
"""

from __future__ import annotations

from collections.abc import Callable

from tensor_wasm.compiler.values import halves
from tensor_wasm.compiler.values.comparisons import combination, compare_floats, relation_of
from tensor_wasm.compiler.values.formula import I32, Scope, Value, combine, constant
from tensor_wasm.compiler.values.halves import LAYOUTS, NAN, SIGN, Layout
from tensor_wasm.compiler.values.lanes import Lanes, fixed, pick
from tensor_wasm.compiler.values.operation import Operation
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.wasm import Body, ValType

Formula = Callable[..., Value]

_MAGNITUDE = 0x7FFF
_BOTH = 0x0001_0001


def spread(word: Value) -> Lanes:
    """The halves of an i32 as the two low lanes of an i32x4, which the two high ones repeat; by their top bit."""
    lanes = combine("i32x4.splat", ValType.V128, word)
    return Lanes("i32x4", combine("i32x4.extend_low_i16x8_s", ValType.V128, lanes).push)


def gather(lanes: Lanes) -> Value:
    """The i32 of the two low lanes of an i32x4 or i64x2, which are from 0 to 0xFFFF."""

    def push(body: Body) -> None:
        lanes.push(body)
        # Narrowed once, a pair of 64 bits is a pair of 32.
        for _ in range(2 if lanes.shape == "i64x2" else 1):
            body.v128_const(bytes(16))
            body.op("i16x8.narrow_i32x4_u")
        body.lane("i32x4.extract_lane", 0)

    return Value(I32, push)


def add(operation: Operation) -> None:
    """``add``."""
    _compute(operation, lambda a, b: a + b)


def subtract(operation: Operation) -> None:
    """``sub``."""
    _compute(operation, lambda a, b: a - b)


def multiply(operation: Operation) -> None:
    """``mul``."""
    _compute(operation, lambda a, b: a * b)


def multiply_add(operation: Operation) -> None:
    """``fma``, rounded once."""
    layout = LAYOUTS[operation.type]
    _compute(operation, lambda a, b, c: halves.fused(operation, layout, a, b, c))


def total(scope: Scope, kind: ScalarType, a: Value, b: Value) -> Value:
    """The sum of two values of a 16-bit or packed float type, in their carrier; subnormal numbers are kept."""
    layout = LAYOUTS[kind]
    left, right = (scope.let(halves.widen(scope, layout, _taken(scope, kind, word))) for word in (a, b))
    return _given(halves.narrow(scope, layout, left + right))


def negate(operation: Operation) -> None:
    """``neg``."""
    _change_sign(operation, lambda value, mask: value ^ mask, SIGN)


def magnitude(operation: Operation) -> None:
    """``abs``."""
    _change_sign(operation, lambda value, mask: value & mask, _MAGNITUDE)


def minimum(operation: Operation) -> None:
    """``min{.NaN}{.xorsign.abs}``; -0 is below +0."""
    _extreme(operation, "min")


def maximum(operation: Operation) -> None:
    """``max{.NaN}{.xorsign.abs}``; -0 is below +0."""
    _extreme(operation, "max")


def exponential(operation: Operation) -> None:
    """``ex2.approx``."""
    _approximate(operation, "ex2.f32")


def hyperbolic_tangent(operation: Operation) -> None:
    """``tanh.approx``."""
    _approximate(operation, "tanh.f32")


def set_predicate(operation: Operation) -> None:
    """``setp``: the comparison and its contrary; of pairs the low halves' and the high halves'.

    Each is combined with the third source.
    """
    is_pair = operation.type.bits == 32
    destinations = len(operation.instruction.destinations)
    truths = [operation.let(_scalar_truth(operation, place * 16)) for place in range(destinations if is_pair else 1)]
    if destinations > len(truths):
        truths.append(truths[0].is_zero())
    for truth in truths:
        combination(operation, truth).push(operation.body)


def set_value(operation: Operation) -> None:
    """``set``: as ``setp``, into all ones or 0, for floats 1.0 or 0.0; of pairs into each half."""
    kind = operation.instruction.types[0]
    if operation.type.bits == 16:
        truth = combination(operation, _scalar_truth(operation, 0))
        one = LAYOUTS[kind].one if kind in LAYOUTS else 0
        if kind is ScalarType.F32:
            result = combine("f32.convert_i32_u", ValType.F32, truth)
        else:
            result = -truth & one if one else -truth
        result.push(operation.body)
        return
    layout = LAYOUTS[operation.type]
    a, b = (operation.let(halves.ordered(operation, layout, half)) for half in _halves(operation, 2))
    mask = combination(operation, gather_mask(compare_floats(relation_of(operation), a, b)), of_masks=True)
    (mask & layout.one * _BOTH if kind in LAYOUTS else mask).push(operation.body)


def gather_mask(lanes: Value) -> Value:
    """An i32 of the low halves of the two low lanes, each all ones or 0."""
    assert isinstance(lanes, Lanes)

    def push(body: Body) -> None:
        lanes.push(body)
        body.v128_const(bytes(16))
        body.op("i16x8.narrow_i32x4_s")
        body.lane("i32x4.extract_lane", 0)

    return Value(I32, push)


# --- parts --------------------------------------------------------------------------------------------------


def _compute(operation: Operation, formula: Formula) -> None:
    """A formula of operands widened to f32, which gives f32 or f64; then what the modifiers do, and rounding."""
    layout = LAYOUTS[operation.type]
    count = len(operation.instruction.sources)
    operands = [operation.let(halves.widen(operation, layout, half)) for half in _halves(operation, count)]
    _finish(operation, layout, formula(*operands))


def _finish(operation: Operation, layout: Layout, number: Value) -> None:
    half = halves.narrow(operation, layout, limited(operation, number))
    if operation.is_flushing:
        half = halves.flush(operation, layout, half)
    _given(half).push(operation.body)


def limited(operation: Operation, number: Value) -> Value:
    """A float after ``.sat`` (to [0, 1], NaN to 0) or ``.relu`` (at least 0, NaN stays)."""
    if operation.has("sat"):
        kept = operation.let(number)
        below_one = pick(kept.compare("lt", 1.0), kept, 1.0)
        return pick(kept.compare("gt", 0.0), below_one, 0.0)
    if operation.has("relu"):
        kept = operation.let(number)
        return pick(kept.compare("le", 0.0), fixed(kept, 0.0), kept)
    return number


def _halves(operation: Operation, count: int) -> list[Value]:
    """The first sources as halves, flushed under ``.ftz``."""
    layout = LAYOUTS[operation.type]
    found = []
    for position in range(count):
        half = _taken(operation, operation.type, operation.source(position))
        found.append(halves.flush(operation, layout, half) if operation.is_flushing else half)
    return found


def _taken(scope: Scope, kind: ScalarType, word: Value) -> Value:
    return scope.let(spread(word)) if kind.bits == 32 else word


def _given(half: Value) -> Value:
    return gather(half) if isinstance(half, Lanes) else half


def _change_sign(operation: Operation, formula: Formula, mask: int) -> None:
    if operation.is_flushing:
        _given(formula(_halves(operation, 1)[0], mask) & 0xFFFF).push(operation.body)
        return
    both = mask * _BOTH if operation.type.bits == 32 else mask
    formula(operation.source(0), both).push(operation.body)


def _extreme(operation: Operation, name: str) -> None:
    """By integers that are ordered as the halves are; NaN is put where it wins or loses, as the form asks."""
    layout = LAYOUTS[operation.type]
    a, b = operands = _halves(operation, 2)
    is_minimum = name == "min"
    # Both turn into NAN on the way back.
    nan_key = NAN if is_minimum != operation.has("NaN") else -0x1_0000
    keys = []
    for half in operands:
        size = operation.let(half & _MAGNITUDE)
        number = size if operation.has("abs") else _reordered(operation, (half << 16).shr_s(16))
        keys.append(operation.let(pick(size.compare("gt_s", layout.infinity), fixed(size, nan_key), number)))
    chosen = pick(keys[0].compare("lt_s" if is_minimum else "gt_s", keys[1]), keys[0], keys[1])
    result = _reordered(operation, chosen) & 0xFFFF
    if operation.has("xorsign"):
        result = operation.let(result)
        result = pick(result.compare("eq", NAN), result, result | (a ^ b) & SIGN)
    _given(result).push(operation.body)


def _reordered(scope: Scope, key: Value) -> Value:
    """Sign and size to an integer that is ordered as the numbers are, and back."""
    key = scope.let(key)
    return key ^ key.shr_s(31) & _MAGNITUDE


def _scalar_truth(operation: Operation, place: int) -> Value:
    """The comparison of the halves that start at bit ``place``."""
    layout = LAYOUTS[operation.type]
    operands = []
    for position in (0, 1):
        half = operation.source(position)
        half = half.shr_u(place) if place else half
        half = halves.flush(operation, layout, half) if operation.is_flushing else half
        operands.append(operation.let(halves.ordered(operation, layout, half)))
    return compare_floats(relation_of(operation), *operands)


def _approximate(operation: Operation, helper: str) -> None:
    """By the helper for f32, one half at a time."""
    layout = LAYOUTS[operation.type]
    result = constant(I32, 0)
    for place in range(0, operation.type.bits, 16):
        half = operation.source(0)
        half = half.shr_u(place) if place else half
        half = halves.flush(operation, layout, half) if operation.is_flushing else half
        number = operation.call(helper, halves.widen(operation, layout, half))
        half = halves.narrow(operation, layout, number)
        half = operation.let(halves.flush(operation, layout, half) if operation.is_flushing else half)
        result = result | half << place if place else half
    result.push(operation.body)
