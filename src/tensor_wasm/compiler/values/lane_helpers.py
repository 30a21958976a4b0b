"""Helpers for four lanes of f32 at a time: the approximations, and rounding up or towards zero.

The formulas are those of :mod:`.approximations` and :mod:`.rounding`, in f64 on two lanes and two lanes; results are
the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from tensor_wasm.compiler.values import approximations as scalar
from tensor_wasm.compiler.values.formula import F64, Value, absolute, combine
from tensor_wasm.compiler.values.helper import Helper, Writer
from tensor_wasm.compiler.values.lanes import Lanes, fill, fixed, fused, pick, with_sign
from tensor_wasm.compiler.values.operation import canonical_nan
from tensor_wasm.wasm import Body, ValType

V128 = ValType.V128

#: Two lanes of f64 from the low two of f32 vectors, to two lanes of f32 or f64.
Half = Callable[..., Value]


def _words(first: Value, second: Value, words: tuple[int, int, int, int]) -> Callable[[Body], None]:
    def push(body: Body) -> None:
        first.push(body)
        second.push(body)
        body.shuffle([4 * word + byte for word in words for byte in range(4)])

    return push


def _high(value: Value) -> Lanes:
    """The upper two lanes, lowest."""
    return Lanes("f32x4", _words(value, value, (2, 3, 2, 3)))


def _narrowed(value: Value) -> Lanes:
    """Two f64 as the two low f32, rounded to nearest."""
    return Lanes("f32x4", combine("f32x4.demote_f64x2_zero", V128, value).push)


def _by_halves(half: Half) -> Callable[..., Value]:
    """A formula on four f32 lanes from ``half(writer, *doubles)``, which gives two low f32 lanes from f64 lanes."""

    def formula(writer: Writer, *parameters: Value) -> Value:
        lanes = [Lanes("f32x4", parameter.push) for parameter in parameters]
        low = writer.let(half(writer, *(writer.let(value.to(F64)) for value in lanes)))
        high = writer.let(half(writer, *(writer.let(_high(value).to(F64)) for value in lanes)))
        return Lanes("f32x4", _words(low, high, (0, 1, 4, 5)))

    return formula


# --- approximations -----------------------------------------------------------------------------------------


def _exponential(writer: Writer, x: Value) -> Value:
    return _narrowed(scalar.power_of_two(writer, x))


def _logarithm(writer: Writer, x: Value) -> Value:
    bits = writer.let(x.bits())
    exponent = writer.let((bits - scalar.ROOT_HALF_BITS).shr_s(52))
    mantissa = writer.let((bits - (exponent << 52)).as_float())
    s = writer.let((mantissa - 1.0) / (mantissa + 1.0))
    series = s * scalar.polynomial(writer, scalar.LOGARITHM, writer.let(s * s))
    words = Value(V128, _words(exponent, exponent, (0, 2, 0, 2)))
    whole = Lanes("f64x2", combine("f64x2.convert_low_i32x4_s", V128, words).push)
    return _narrowed(whole + series)


def _logarithms(writer: Writer, x: Value) -> Value:
    x = writer.let(Lanes("f32x4", x.push))
    ordinary = writer.let(_by_halves(_logarithm)(writer, x))
    is_ordinary = x.compare("gt", 0.0) & x.compare("lt", float("inf"))
    infinite_or_nan = pick(x.compare("gt", 0.0), x, canonical_nan(x))
    special = pick(x.compare("eq", 0.0), fixed(x, float("-inf")), infinite_or_nan)
    return pick(writer.let(is_ordinary), ordinary, special)


def _turns(writer: Writer, x: Value) -> Value:
    first = writer.let(x * scalar.TURNS[0])
    rest = fixed(x, 0.0)
    for part in scalar.TURNS:
        high = writer.let(x * part)
        low = writer.let(fused(x, fixed(x, part), -high))
        for piece in (high, low):
            rest = writer.let(rest + (piece - piece.unary("nearest")))
    long = writer.let(rest - rest.unary("nearest"))
    return writer.let(pick(absolute(x).compare("lt", scalar.SHORT_REDUCTION), first - first.unary("nearest"), long))


def _sine_of_quarter(writer: Writer, turns: Value) -> Value:
    return turns * scalar.polynomial(writer, scalar.SINE, writer.let(turns * turns))


def _sine(writer: Writer, x: Value) -> Value:
    turns = _turns(writer, x)
    size = writer.let(absolute(turns))
    quarter = writer.let(pick(size.compare("gt", 0.25), fixed(x, 0.5) - size, size))
    result = writer.let(_narrowed(_sine_of_quarter(writer, quarter)))
    signed = with_sign(result, _narrowed(turns))
    return pick(_narrow_truth(x.compare("eq", 0.0)), _narrowed(x), signed)


def _cosine(writer: Writer, x: Value) -> Value:
    quarter = writer.let(fixed(x, 0.25) - absolute(_turns(writer, x)))
    return _narrowed(_sine_of_quarter(writer, quarter))


def _tangent(writer: Writer, x: Value) -> Value:
    size = writer.let(absolute(x))
    small = writer.let(size * scalar.polynomial(writer, scalar.TANGENT, writer.let(size * size)))
    power = scalar.power_of_two(writer, writer.let(size * (2 * scalar.LOG2_E)))
    large = fixed(x, 1.0) - fixed(x, 2.0) / (power + 1.0)
    chosen = writer.let(pick(size.compare("lt", 0.5), small, writer.let(large)))
    return with_sign(_narrowed(chosen), _narrowed(x))


# --- rounding -----------------------------------------------------------------------------------------------


def _up(y: Value, e: Value) -> Value:
    bits = y.bits()
    step = pick(bits.compare("lt_s", 0), fill("i32x4", -1), 1)
    return (bits + (step & _narrow_truth(e.compare("gt", 0.0)))).as_float()


def _towards_zero(y: Value, e: Value) -> Value:
    below, above = _narrow_truth(e.compare("lt", 0.0)), _narrow_truth(e.compare("gt", 0.0))
    moves = (y.compare("gt", 0.0) & below) | (y.compare("lt", 0.0) & above)
    return (y.bits() + moves).as_float()


def _narrow_truth(truth: Value) -> Lanes:
    return Lanes("i32x4", _words(truth, truth, (0, 2, 0, 2)))


_STEPS: Final = {"rp": _up, "rz": _towards_zero}


def _two_sum(writer: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    total = writer.let(a + b)
    part = writer.let(total - a)
    return total, writer.let((a - (total - part)) + (b - part))


def _narrow(mode: str, writer: Writer, high: Value, low: Value | None) -> Value:
    y = writer.let(_narrowed(high))
    e = high - y.to(F64)
    return _STEPS[mode](y, writer.let(e if low is None else e + low))


def _add(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    return _narrow(mode, writer, *_two_sum(writer, a, b))


def _fma(mode: str, writer: Writer, a: Value, b: Value, c: Value) -> Value:
    return _narrow(mode, writer, *_two_sum(writer, writer.let(a * b), c))


def _mul(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    return _narrow(mode, writer, writer.let(a * b), None)


def _div(mode: str, writer: Writer, a: Value, b: Value) -> Value:
    return _narrow(mode, writer, writer.let(a / b), None)


def _sqrt(mode: str, writer: Writer, a: Value) -> Value:
    return _narrow(mode, writer, writer.let(a.unary("sqrt")), None)


_ROUNDED: Final[dict[str, tuple[int, Half]]] = {
    "add": (2, _add),
    "mul": (2, _mul),
    "fma": (3, _fma),
    "div": (2, _div),
    "sqrt": (1, _sqrt),
}

HELPERS: Final = {
    "ex2.f32x4": Helper((V128,), V128, _by_halves(_exponential)),
    "lg2.f32x4": Helper((V128,), V128, _logarithms),
    "sin.f32x4": Helper((V128,), V128, _by_halves(_sine)),
    "cos.f32x4": Helper((V128,), V128, _by_halves(_cosine)),
    "tanh.f32x4": Helper((V128,), V128, _by_halves(_tangent)),
    **{
        f"{name}.{mode}.f32x4": Helper((V128,) * count, V128, _by_halves(partial(half, mode)))
        for mode in _STEPS
        for name, (count, half) in _ROUNDED.items()
    },
}
