"""Rounding that WebAssembly does not have: up (``rp``) and towards zero (``rz``), correct for every input.

One scheme for all: ``y`` is the result rounded to nearest, ``e`` a number with the sign of (exact result - ``y``);
``y`` then moves to its neighbour or stays. It holds where ``y`` overflowed to infinity too, because there ``e`` comes
out as the opposite infinity; where ``y`` is exact or NaN, ``e`` is 0 or NaN, and nothing moves.

- f32: sums, products and fused sums of f32 are exact as one f64 or the sum of two; quotients and roots rounded to f64
  are never on an f32 unless exact (a quotient of 24-bit numbers is further than 2**-49 from any other).
- f64: error-free transformations (Dekker, Knuth; fma for products), scaled where the error would underflow.

Rounding down is rounding the negated result up. For zeros too: x + -x is -0 that way.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from tensor_wasm.compiler.values.formula import (
    F32,
    F64,
    I64,
    Value,
    absolute,
    apply,
    constant,
    fused,
    select,
)
from tensor_wasm.compiler.values.helper import Formula, Helper, Writer
from tensor_wasm.compiler.values.lanes import with_sign
from tensor_wasm.wasm import ValType

_UP: Final = 2.0**600
_TINY: Final = 2.0**-800


def up(y: Value, e: Value) -> Value:
    """The neighbour of ``y`` above, if ``e`` is positive."""
    bits = y.bits()
    step = select(bits.compare("lt_s", 0), constant(bits.type, -1), 1)
    return (bits + select(e.compare("gt", 0.0), step, 0)).as_float()


def towards_zero(y: Value, e: Value) -> Value:
    """The neighbour of ``y`` nearer to zero, if the sign of ``e`` points there."""
    is_too_high = y.compare("gt", 0.0) & e.compare("lt", 0.0)
    is_too_low = y.compare("lt", 0.0) & e.compare("gt", 0.0)
    bits = y.bits()
    return (bits - (is_too_high | is_too_low).to(bits.type)).as_float()


_STEPS: Final = {"rp": up, "rz": towards_zero}


def _two_sum(writer: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    """``a + b`` rounded, and what rounding left (Knuth): exact where nothing overflows."""
    total = writer.let(a + b)
    part = writer.let(total - a)
    return total, writer.let((a - (total - part)) + (b - part))


def _ordered_sum(writer: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    """As :func:`_two_sum` by Dekker's way, larger operand first: its steps overflow only when the sum does."""
    is_ordered = absolute(a).compare("ge", absolute(b))
    large, small = writer.let(select(is_ordered, a, b)), writer.let(select(is_ordered, b, a))
    total = writer.let(large + small)
    return total, writer.let(small - (total - large))


# --- f32, by f64 --------------------------------------------------------------------------------------------


def _narrow(mode: str, writer: Writer, high: Value, low: Value | None) -> Value:
    """``high + low``, exact as f64 values, as an f32."""
    y = writer.let(high.to(F32))
    e = high - y.to(F64)
    return _STEPS[mode](y, writer.let(e if low is None else e + low))


def _add_f32(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    high, low = _two_sum(writer, writer.let(a.to(F64)), writer.let(b.to(F64)))
    return _narrow(mode, writer, high, low)


def _fma_f32(mode: str, writer: Writer, a: Value, b: Value, c: Value) -> Value:
    high, low = _two_sum(writer, writer.let(a.to(F64) * b.to(F64)), writer.let(c.to(F64)))
    return _narrow(mode, writer, high, low)


def _mul_f32(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    return _narrow(mode, writer, writer.let(a.to(F64) * b.to(F64)), None)


def _div_f32(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    return _narrow(mode, writer, writer.let(a.to(F64) / b.to(F64)), None)


def _sqrt_f32(mode: str, writer: Writer, a: Value) -> Value:
    return _narrow(mode, writer, writer.let(a.to(F64).unary("sqrt")), None)


def _demote(mode: str, writer: Writer, a: Value) -> Value:
    return _narrow(mode, writer, a, None)


# --- f64 ----------------------------------------------------------------------------------------------------


def _add_f64(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    total, error = _ordered_sum(writer, a, b)
    return _STEPS[mode](total, error)


def _mul_f64(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    y = writer.let(a * b)
    # Below 2**-800 both factors are under 2**274, so scaling them by 2**600 neither overflows nor loses bits.
    scaled = fused(a * _UP, b * _UP, -(y * _UP * _UP))
    error = select(absolute(y).compare("lt", _TINY), scaled, fused(a, b, -y))
    return _STEPS[mode](y, writer.let(error))


def _div_f64(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    y = writer.let(a / b)
    # a - y * b, with a and the smaller of y and b scaled where the difference could underflow.
    is_tiny = writer.let(absolute(a).compare("lt", _TINY))
    is_b_small = absolute(b).compare("lt", 1.0)
    a_up = select(is_tiny, a * _UP, a)
    b_up = select(is_tiny & is_b_small, b * _UP, b)
    y_up = select(is_tiny & is_b_small.is_zero(), y * _UP, y)
    rest = fused(-y_up, b_up, a_up)
    return _STEPS[mode](y, writer.let(rest * with_sign(1.0, b)))


def _sqrt_f64(mode: str, writer: Writer, a: Value) -> Value:
    y = writer.let(a.unary("sqrt"))
    is_tiny = writer.let(a.compare("lt", _TINY))
    y_up = writer.let(select(is_tiny, y * 2.0**300, y))
    rest = fused(-y_up, y_up, select(is_tiny, a * _UP, a))
    return _STEPS[mode](y, writer.let(rest))


def _fma_f64(mode: str, writer: Writer, a: Value, b: Value, c: Value) -> Value:
    """The sign of ``a * b + c - y`` from an exact expansion, scaled so that no part of it is lost."""
    step = _STEPS[mode]
    y = writer.let(fused(a, b, c))
    is_exact = _is_zero(a) | _is_zero(b) | _is_not_finite(a) | _is_not_finite(b) | _is_not_finite(c)
    writer.give(is_exact, y)
    writer.give(_is_zero(c), writer.call(f"mul.{mode}.f64", a, b))
    # From here on all are finite and not 0. What overflowed was finite: it lies on the near side of infinity.
    writer.give(_is_not_finite(y), step(y, -y))
    sign = writer.let(with_sign(1.0, a) * with_sign(1.0, b))
    is_small = writer.let(absolute(a * b).compare("lt", 2.0**-500))
    # Such a product moves a c from 2**-300 on nowhere: y is c, and only the product's sign counts.
    writer.give(is_small & absolute(c).compare("ge", 2.0**-300), step(y, sign))
    a_scaled, b_scaled, c_scaled, y_scaled = _scaled(writer, is_small, (a, b, c, y))
    high = writer.let(a_scaled * b_scaled)
    # Scaled back it is below 2**-1200, where no c lies between it and 0: again y is c.
    writer.give(is_small & absolute(high).compare("lt", 2.0**-400), step(y, sign))
    terms = [writer.let(fused(a_scaled, b_scaled, -high)), high]
    for part in (c_scaled, -y_scaled):
        terms = _grow(writer, terms, part)
    error = terms[0]
    for term in terms[1:]:
        error = error + term
    return step(y, writer.let(error))


def _scaled(
    writer: Writer, is_small: Value, numbers: tuple[Value, Value, Value, Value]
) -> tuple[Value, Value, Value, Value]:
    """``a b c y`` with ``a * b``, ``c``, ``y`` times one power of two.

    Small ones (``|a * b| < 2**-500``, ``|c| < 2**-300``) times 2**800. Others times 2**-200, the larger factor taking
    all of it; a c below 2**-800 is then less than any bit of the product, and any number so small stands for it.
    """
    a, b, c, y = numbers
    up_half, down = 2.0**400, 2.0**-200
    a_is_larger = writer.let(absolute(a).compare("ge", absolute(b)))
    a_down, b_down = select(a_is_larger, a * down, a), select(a_is_larger, b, b * down)
    c_down = select(absolute(c).compare("lt", _TINY), with_sign(2.0**-1000, c), c * down)
    return (
        writer.let(select(is_small, a * up_half, a_down)),
        writer.let(select(is_small, b * up_half, b_down)),
        writer.let(select(is_small, c * up_half * up_half, c_down)),
        writer.let(select(is_small, y * up_half * up_half, y * down)),
    )


def _grow(writer: Writer, terms: list[Value], value: Value) -> list[Value]:
    """An expansion (terms of ascending size, none overlapping) plus a number (Shewchuk's grow-expansion)."""
    grown = []
    total = value
    for term in terms:
        total, rest = _two_sum(writer, total, term)
        grown.append(rest)
    return [*grown, total]


def _is_not_finite(value: Value) -> Value:
    return absolute(value).compare("lt", float("inf")).is_zero()


def _is_zero(value: Value) -> Value:
    return value.compare("eq", 0.0)


# --- integers to floats -------------------------------------------------------------------------------------


def _from_unsigned(mode: str, target: ValType, writer: Writer, value: Value) -> Value:
    """An unsigned i64: the bits beyond the precision are cut before converting, then maybe one step up."""
    name, unused = ("f32.convert_i64_u", 40) if target is F32 else ("f64.convert_i64_u", 11)
    zeros = writer.let(value.unary("clz"))
    beyond = select(zeros.compare("lt_u", unused), constant(I64, unused) - zeros, 0)
    cut = writer.let(value & (constant(I64, -1) << beyond))
    below = apply(name, cut)
    if mode == "rz":
        return below
    bits = below.bits()
    return (bits + cut.compare("ne", value).to(bits.type)).as_float()


def _from_signed(mode: str, target: ValType, writer: Writer, value: Value) -> Value:
    """By magnitude: up is away from zero only for what is not negative."""
    kind = _NAMES[target]
    is_negative = writer.let(value.compare("lt_s", 0))
    size = writer.let(select(is_negative, -value, value))
    below = -writer.call(f"convert.u64.rz.{kind}", size)
    return select(is_negative, below, writer.call(f"convert.u64.{mode}.{kind}", size))


def _from_signed_down(target: ValType, writer: Writer, value: Value) -> Value:
    """The mirror image of rounding up: away from zero only for what is negative."""
    kind = _NAMES[target]
    is_negative = writer.let(value.compare("lt_s", 0))
    size = writer.let(select(is_negative, -value, value))
    below = -writer.call(f"convert.u64.rp.{kind}", size)
    return select(is_negative, below, writer.call(f"convert.u64.rz.{kind}", size))


_NAMES: Final = {F32: "f32", F64: "f64"}


def _helpers() -> dict[str, Helper]:
    helpers = {}
    for mode in _STEPS:
        for target, kind in _NAMES.items():
            for name, (count, formulas) in _FORMULAS.items():
                formula = partial(formulas[target], mode)
                helpers[f"{name}.{mode}.{kind}"] = Helper((target,) * count, target, formula)
            helpers[f"convert.u64.{mode}.{kind}"] = Helper((I64,), target, partial(_from_unsigned, mode, target))
            helpers[f"convert.s64.{mode}.{kind}"] = Helper((I64,), target, partial(_from_signed, mode, target))
        helpers[f"demote.{mode}.f32"] = Helper((F64,), F32, partial(_demote, mode))
    for target, kind in _NAMES.items():
        helpers[f"convert.s64.rm.{kind}"] = Helper((I64,), target, partial(_from_signed_down, target))
    return helpers


_FORMULAS: Final[dict[str, tuple[int, dict[ValType, Formula]]]] = {
    "add": (2, {F32: _add_f32, F64: _add_f64}),
    "mul": (2, {F32: _mul_f32, F64: _mul_f64}),
    "fma": (3, {F32: _fma_f32, F64: _fma_f64}),
    "div": (2, {F32: _div_f32, F64: _div_f64}),
    "sqrt": (1, {F32: _sqrt_f32, F64: _sqrt_f64}),
}

HELPERS: Final = _helpers()
