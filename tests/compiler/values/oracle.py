"""What instructions should give, by exact arithmetic on Python's integers and fractions.

Floats are bit patterns. ``Format`` knows their layout; :meth:`Format.round` rounds an exact number in any mode.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from tensor_wasm.ptx.program import ScalarType

#: PTX ISA, table of the permute modes: bytes for d.b3 d.b2 d.b1 d.b0, for selectors 0 to 3.
PERMUTES = {
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}


@dataclass(frozen=True)
class Format:
    """An IEEE binary format: bits of the whole, of the significand with its hidden bit, and the largest exponent."""

    bits: int
    precision: int
    exponent_max: int

    @property
    def exponent_min(self) -> int:
        return 1 - self.exponent_max

    @property
    def infinity(self) -> int:
        return (2 * self.exponent_max + 1) << (self.precision - 1)

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    def is_nan(self, bits: int) -> bool:
        return bits & (self.sign - 1) > self.infinity

    def is_infinite(self, bits: int) -> bool:
        return bits & (self.sign - 1) == self.infinity

    def is_negative(self, bits: int) -> bool:
        return bool(bits & self.sign)

    def is_zero(self, bits: int) -> bool:
        return bits & (self.sign - 1) == 0

    def is_subnormal(self, bits: int) -> bool:
        return 0 < bits & (self.sign - 1) < 1 << (self.precision - 1)

    def flush(self, bits: int) -> int:
        return bits & self.sign if self.is_subnormal(bits) else bits

    def value(self, bits: int) -> Fraction:
        """The number a finite pattern stands for."""
        field = (bits & (self.sign - 1)) >> (self.precision - 1)
        fraction = bits & ((1 << (self.precision - 1)) - 1)
        if field:
            fraction |= 1 << (self.precision - 1)
        scale = max(field, 1) - self.exponent_max - (self.precision - 1)
        number = Fraction(fraction << scale) if scale >= 0 else Fraction(fraction, 1 << -scale)
        return -number if self.is_negative(bits) else number

    def value_or_infinity(self, bits: int) -> Fraction:
        """The size of a number; for an infinity one beyond all."""
        return Fraction(1 << 5000) if self.is_infinite(bits) else abs(self.value(bits))

    def round(self, number: Fraction, mode: str, zero_sign: int = 0) -> int:
        """The pattern of ``number`` rounded in ``mode`` (rn rz rm rp); an exact zero gets the sign given."""
        if number == 0:
            return self.sign if zero_sign else 0
        sign = self.sign if number < 0 else 0
        size = abs(number)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        if size < _power(exponent):
            exponent -= 1
        unit = max(exponent, self.exponent_min) - (self.precision - 1)
        scaled = size / _power(unit)
        whole = scaled.numerator // scaled.denominator
        rest = scaled - whole
        away = mode == "rp" if not sign else mode == "rm"
        if mode == "rn":
            away = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1 == 1)
        if rest and away:
            whole += 1
        if whole >= 1 << self.precision:
            whole, unit = whole >> 1, unit + 1
        if whole < 1 << (self.precision - 1):
            return sign | whole
        exponent = unit + self.precision - 1
        if exponent > self.exponent_max:
            goes_out = mode == "rn" or (mode == "rp" and not sign) or (mode == "rm" and bool(sign))
            return sign | (self.infinity if goes_out else self.infinity - 1)
        field = exponent + self.exponent_max
        return sign | field << (self.precision - 1) | whole & ((1 << (self.precision - 1)) - 1)

    def saturate(self, bits: int) -> int:
        one = self.round(Fraction(1), "rn")
        if self.is_nan(bits) or self.is_negative(bits):
            return 0
        return min(bits, one)


F32 = Format(32, 24, 127)
F64 = Format(64, 53, 1023)
F16 = Format(16, 11, 15)
BF16 = Format(16, 8, 127)
FORMATS = {ScalarType.F32: F32, ScalarType.F64: F64}
NAN_BITS = {16: 0x7FFF, 32: 0x7FFF_FFFF, 64: 0x7FFF_FFFF_FFFF_FFFF}


def _power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


# --- float arithmetic ---------------------------------------------------------------------------------------


def fused(form: Format, a: int, b: int, c: int, mode: str) -> int:
    """``a * b + c`` rounded once."""
    if any(map(form.is_nan, (a, b, c))):
        return NAN_BITS[form.bits]
    product_sign = (a ^ b) & form.sign
    if form.is_infinite(a) or form.is_infinite(b):
        if form.is_zero(a) or form.is_zero(b) or (form.is_infinite(c) and (c & form.sign) != product_sign):
            return NAN_BITS[form.bits]
        return product_sign | form.infinity
    if form.is_infinite(c):
        return c
    product = form.value(a) * form.value(b)
    if product == 0 and form.is_zero(c) and product_sign == c & form.sign:
        return product_sign
    return form.round(product + form.value(c), mode, mode == "rm")


def add(form: Format, a: int, b: int, mode: str) -> int:
    one = form.round(Fraction(1), "rn")
    return fused(form, a, one, b, mode)


def multiply(form: Format, a: int, b: int, mode: str) -> int:
    if form.is_nan(a) or form.is_nan(b):
        return NAN_BITS[form.bits]
    sign = (a ^ b) & form.sign
    if form.is_infinite(a) or form.is_infinite(b):
        return NAN_BITS[form.bits] if form.is_zero(a) or form.is_zero(b) else sign | form.infinity
    return form.round(form.value(a) * form.value(b), mode, sign)


def divide(form: Format, a: int, b: int, mode: str) -> int:
    if form.is_nan(a) or form.is_nan(b):
        return NAN_BITS[form.bits]
    sign = (a ^ b) & form.sign
    if form.is_infinite(a):
        return NAN_BITS[form.bits] if form.is_infinite(b) else sign | form.infinity
    if form.is_infinite(b):
        return sign
    if form.is_zero(b):
        return NAN_BITS[form.bits] if form.is_zero(a) else sign | form.infinity
    return form.round(form.value(a) / form.value(b), mode, sign)


def square_root(form: Format, a: int, mode: str) -> int:
    if form.is_nan(a) or (form.is_negative(a) and not form.is_zero(a)):
        return NAN_BITS[form.bits]
    if form.is_zero(a) or form.is_infinite(a):
        return a
    value = form.value(a)
    scale = 1 << 2400  # far more bits than a result has, also of the smallest
    radicand = value * scale
    assert radicand.denominator == 1
    whole = isqrt(radicand.numerator)
    is_exact = whole * whole == radicand.numerator
    root = Fraction(whole) if is_exact else whole + Fraction(1, 2)
    return form.round(root / (1 << 1200), mode)


# --- inputs -------------------------------------------------------------------------------------------------


def signed(bits: int, width: int) -> int:
    """The number a two's complement pattern stands for."""
    return bits - (1 << width) if bits >> (width - 1) & 1 else bits


def integer_edges(width: int) -> list[int]:
    top = 1 << (width - 1)
    full = (1 << width) - 1
    edges = {0, 1, 2, 3, 5, 31, 32, 33, 63, 64, 255, full, full - 1, top, top - 1, top + 1, 1 << width // 2}
    return sorted(edge & full for edge in edges)


def random_integer(chance: random.Random, width: int) -> int:
    """All sizes are as likely, positive and negative."""
    value = chance.getrandbits(chance.randint(0, width))
    return (value if chance.random() < 0.5 else -value) & ((1 << width) - 1)


def float_edges(form: Format) -> list[int]:
    one = form.round(Fraction(1), "rn")
    least_normal = 1 << (form.precision - 1)
    sizes = [0, 1, 2, least_normal - 1, least_normal, least_normal + 1, one - 1, one, one + 1]
    sizes += [form.infinity - 1, form.infinity, form.infinity + 1, form.sign - 1, one + least_normal]
    sizes += [form.round(number, "rn") for number in (Fraction(1, 2), Fraction(3, 2), Fraction(1, 3), Fraction(10))]
    return [size | sign for size in sizes for sign in (0, form.sign)]


def random_float(chance: random.Random, form: Format, near: int | None = None) -> int:
    """Any pattern, or one whose exponent is close to that of ``near``."""
    fraction = chance.getrandbits(form.precision - 1)
    if chance.random() < 0.3:  # few bits set: ties and exact results
        fraction &= ~((1 << chance.randint(0, form.precision - 1)) - 1)
    field = chance.randint(0, 2 * form.exponent_max)
    if near is not None:
        center = (near & (form.sign - 1)) >> (form.precision - 1)
        field = min(max(center + chance.randint(-form.precision - 2, form.precision + 2), 0), 2 * form.exponent_max)
    return (form.sign if chance.random() < 0.5 else 0) | field << (form.precision - 1) | fraction


def float_rows(chance: random.Random, form: Format, count: int, rows: int) -> list[tuple[int, ...]]:
    """Operands: edges with edges, edges with anything, numbers of close exponents, and any."""
    edges = float_edges(form)
    one = form.round(Fraction(1), "rn")
    found = []
    for index in range(rows):
        first = chance.choice(edges) if index % 4 == 0 else random_float(chance, form, None if index % 4 == 1 else one)
        row = [first]
        while len(row) < count:
            if index % 3 == 0:
                row.append(chance.choice(edges))
            elif index % 3 == 1:
                row.append(random_float(chance, form, row[-1]))
            else:
                row.append(random_float(chance, form))
        found.append(tuple(row))
    return found


def same_float(form: Format, left: int, right: int) -> bool:
    """Equal patterns, or both NaN: payloads are not compared."""
    return left == right or (form.is_nan(left) and form.is_nan(right))
