"""``ex2 lg2 sin cos tanh`` and the coarse f64 reciprocals (PTX ISA, ``.approx``), as helpers.

All compute in f64 and round once to f32, well inside the ISA's bounds. The coefficients are Chebyshev interpolations
of the function over the reduced range, lowest degree first; the error named beside each is relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tensor_wasm.compiler.values.formula import (
    F32,
    F64,
    I32,
    Value,
    absolute,
    apply,
    constant,
    fused,
    select,
)
from tensor_wasm.compiler.values.helper import Helper, Writer
from tensor_wasm.compiler.values.lanes import fixed, pick, with_sign
from tensor_wasm.compiler.values.operation import canonical_nan

#: 2**r for |r| <= 1/2; 2**-28.5. Exact at 0, so powers of two come out exact.
_EXPONENTIAL: Final = (
    1.0,
    0.6931472067028329,
    0.24022650922289554,
    0.05550327226669895,
    0.00961805667843204,
    0.0013400428177711937,
    0.00015461444724808513,
)
#: log2(m) / s by s**2, with s = (m - 1) / (m + 1) and m within a factor of sqrt(2) of 1; 2**-30.4.
LOGARITHM: Final = (2.8853900798033365, 0.9617988388019549, 0.5767151860316833, 0.4317176971850774)
#: sin(2 pi u) / u by u**2, for u up to 1/4; 2**-35.
SINE: Final = (
    6.283185307072258,
    -41.341702116741764,
    81.6052261738358,
    -76.70427986968328,
    42.00977921610078,
    -14.39396588007609,
)
#: tanh(x) / x by x**2, for |x| < 1/2; 2**-26.
TANGENT: Final = (
    0.9999999867573891,
    -0.33333067944418876,
    0.13324750504729285,
    -0.05298423882487847,
    0.017131344424267444,
)

#: 1 / (2 pi) to 159 bits, as a sum: a product with the first alone has an error of one part in 2**53.
TURNS: Final = tuple(
    float.fromhex(text) for text in ("0x1.45f306dc9c883p-3", "-0x1.6b01ec5417056p-57", "-0x1.6447e493ad4cep-111")
)
#: Up to here that error stays below 2**-33 of a turn.
SHORT_REDUCTION: Final = 2.0**20

LOG2_E: Final = 1.4426950408889634
_ROUNDER: Final = 1.5 * 2.0**52
ROOT_HALF_BITS: Final = 0x3FE6_A09E_667F_3BCD
_CUT_LOW_WORD: Final = -(2**32)


def polynomial(writer: Writer, coefficients: Sequence[float], x: Value) -> Value:
    """By Horner's rule."""
    total = fixed(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return writer.let(total)


def power_of_two(writer: Writer, x: Value) -> Value:
    """2**x of f64 or lanes of it, for f32 results: x beyond +-300 counts as that."""
    not_above = writer.let(pick(x.compare("gt", 300.0), fixed(x, 300.0), x))
    limited = writer.let(pick(not_above.compare("lt", -300.0), fixed(x, -300.0), not_above))
    # Adding this constant rounds to an integer, which then stands in the low bits of the pattern.
    shifted = writer.let(limited + _ROUNDER)
    rest = writer.let(limited - (shifted - _ROUNDER))
    scale = ((shifted.bits() + 1023) << 52).as_float()
    return polynomial(writer, _EXPONENTIAL, rest) * scale


def _exponential(writer: Writer, x: Value) -> Value:
    return writer.call("power_of_two", x.to(F64)).to(F32)


def _logarithm(writer: Writer, x: Value) -> Value:
    is_ordinary = x.compare("gt", 0.0) & x.compare("lt", float("inf"))
    infinite_or_nan = select(x.compare("gt", 0.0), x, canonical_nan(x))
    special = select(x.compare("eq", 0.0), constant(F32, float("-inf")), infinite_or_nan)
    writer.give(is_ordinary.is_zero(), special)
    bits = writer.let(x.to(F64).bits())  # no f32 is subnormal as an f64
    exponent = writer.let((bits - ROOT_HALF_BITS).shr_s(52))
    mantissa = writer.let((bits - (exponent << 52)).as_float())
    s = writer.let((mantissa - 1.0) / (mantissa + 1.0))
    series = s * polynomial(writer, LOGARITHM, writer.let(s * s))
    return (apply("f64.convert_i32_s", exponent.to(I32)) + series).to(F32)


def _turns(writer: Writer, x: Value) -> Value:
    """``x`` radians in turns, less whole ones: within +-1/2; infinities give NaN."""
    first = writer.let(x * TURNS[0])
    writer.give(absolute(x).compare("lt", SHORT_REDUCTION), first - first.unary("nearest"))
    # Each product is exact as two numbers, and each loses its whole turns before they are added.
    rest = constant(F64, 0.0)
    for part in TURNS:
        high = writer.let(x * part)
        low = writer.let(fused(x, constant(F64, part), -high))
        for piece in (high, low):
            rest = writer.let(rest + (piece - piece.unary("nearest")))
    return rest - rest.unary("nearest")


def _sine(writer: Writer, x: Value) -> Value:
    turns = writer.let(writer.call("turns", x.to(F64)))
    size = writer.let(absolute(turns))
    quarter = writer.let(select(size.compare("gt", 0.25), constant(F64, 0.5) - size, size))
    result = writer.let(_sine_of_quarter(writer, quarter).to(F32))
    # No f32 but 0 is a whole number of turns, and the sign of a zero was lost on the way.
    return select(x.compare("eq", 0.0), x, with_sign(result, turns.to(F32)))


def _cosine(writer: Writer, x: Value) -> Value:
    turns = writer.call("turns", x.to(F64))
    quarter = writer.let(constant(F64, 0.25) - absolute(turns))
    return _sine_of_quarter(writer, quarter).to(F32)


def _sine_of_quarter(writer: Writer, turns: Value) -> Value:
    """The sine of up to 1/4 turn either way."""
    return turns * polynomial(writer, SINE, writer.let(turns * turns))


def _hyperbolic_tangent(writer: Writer, x: Value) -> Value:
    size = writer.let(absolute(x).to(F64))
    small = size * polynomial(writer, TANGENT, writer.let(size * size))
    writer.give(size.compare("lt", 0.5), with_sign(small.to(F32), x))
    power = writer.call("power_of_two", size * (2 * LOG2_E))
    return with_sign((constant(F64, 1.0) - constant(F64, 2.0) / (power + 1.0)).to(F32), x)


def _flushed(writer: Writer, value: Value) -> Value:
    is_subnormal = absolute(value).compare("lt", 2.0**-1022)
    return writer.let(select(is_subnormal, with_sign(0.0, value), value))


def _coarse(writer: Writer, value: Value) -> Value:
    """Flushed, and without the low 32 bits, as the hardware gives it."""
    return (_flushed(writer, writer.let(value)).bits() & _CUT_LOW_WORD).as_float()


def _coarse_reciprocal(writer: Writer, a: Value) -> Value:
    return _coarse(writer, constant(F64, 1.0) / _flushed(writer, a))


def _coarse_reciprocal_root(writer: Writer, a: Value) -> Value:
    return _coarse(writer, constant(F64, 1.0) / _flushed(writer, a).unary("sqrt"))


HELPERS: Final = {
    "power_of_two": Helper((F64,), F64, power_of_two),
    "turns": Helper((F64,), F64, _turns),
    "ex2.f32": Helper((F32,), F32, _exponential),
    "lg2.f32": Helper((F32,), F32, _logarithm),
    "sin.f32": Helper((F32,), F32, _sine),
    "cos.f32": Helper((F32,), F32, _cosine),
    "tanh.f32": Helper((F32,), F32, _hyperbolic_tangent),
    "reciprocal.approx.f64": Helper((F64,), F64, _coarse_reciprocal),
    "reciprocal_root.approx.f64": Helper((F64,), F64, _coarse_reciprocal_root),
}
