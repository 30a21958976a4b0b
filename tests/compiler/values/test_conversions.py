"""``cvt`` between every pair of types, against exact fractions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from compiler.values import oracle
from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import F32, F64, NAN_BITS, Format
from compiler.values.test_integers import integer_rows, limited, number

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FORMATS = {"f32": F32, "f64": F64}
MODES = ("rn", "rz", "rm", "rp")
INTEGRAL = ("rni", "rzi", "rmi", "rpi")


def to_integer(value: Fraction, mode: str) -> int:
    """``value`` rounded to an integer."""
    floor = value.numerator // value.denominator
    match mode:
        case "rmi":
            return floor
        case "rpi":
            return -(-value.numerator // value.denominator)
        case "rzi":
            return floor if value >= 0 else -(-value.numerator // value.denominator)
        case _:
            rest = value - floor
            is_up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor & 1 == 1)
            return floor + is_up


def interesting_floats(chance: random.Random, form: Format, count: int) -> list[int]:
    """Edges, halves and the limits of the integer types with their neighbours, anything of a sensible size."""
    found = oracle.float_edges(form)
    for bits in (0, 7, 8, 15, 16, 31, 32, 63, 64):
        for step in (Fraction(0), Fraction(1, 2), Fraction(1), Fraction(-1, 2), Fraction(-1), Fraction(5, 2)):
            limit = form.round(abs((1 << bits) + step), "rn")
            found += [max(limit + delta, 0) | sign for delta in (-1, 0, 1) for sign in (0, form.sign)]
    one = form.round(Fraction(1), "rn")
    for _ in range(count):
        found.append(oracle.random_float(chance, form))
        found.append(oracle.random_float(chance, form, one + (32 << (form.precision - 1))))
        whole = form.round(Fraction(chance.getrandbits(chance.randint(1, 22))), "rn")
        found.append(whole | (form.sign if chance.random() < 0.5 else 0))
    return found


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", INTEGERS)
def test_integers_truncate_extend_or_saturate(
    machine: Machine, chance: random.Random, source: str, target: str
) -> None:
    have, want = TYPES[source], TYPES[target]
    rows = integer_rows(chance, [have.bits], 100)
    mask = (1 << want.bits) - 1
    for modifier in ("", ".sat"):
        found = machine.run(instruction(f"cvt{modifier}.{target}.{source}", [have]), rows)
        for (bits,), (got,) in zip(rows, found, strict=True):
            value = number(bits & ((1 << have.bits) - 1), have)
            expected = limited(value, target) if modifier else value
            assert got & mask == expected & mask, f"cvt{modifier}.{target}.{source} {value}"


@pytest.mark.parametrize("mode", INTEGRAL)
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", FORMATS)
def test_floats_to_integers_round_and_saturate(
    machine: Machine, chance: random.Random, source: str, target: str, mode: str
) -> None:
    form, want = FORMATS[source], TYPES[target]
    rows = [(bits,) for bits in interesting_floats(chance, form, 60)]
    mask = (1 << want.bits) - 1

    def expected(bits: int) -> int:
        if form.is_nan(bits):
            return 1 << want.bits - 1 if source == "f64" or want.bits == 64 else 0
        if form.is_infinite(bits):
            return limited(-(1 << 99) if form.is_negative(bits) else 1 << 99, target)
        return limited(to_integer(form.value(bits), mode), target)

    modifiers = ("", ".sat", ".ftz") if source == "f32" else ("", ".sat")
    for modifier in modifiers:
        found = machine.run(instruction(f"cvt.{mode}{modifier}.{target}.{source}", [TYPES[source]]), rows)
        for (bits,), (got,) in zip(rows, found, strict=True):
            operand = form.flush(bits) if modifier == ".ftz" else bits
            assert got & mask == expected(operand) & mask, f"cvt.{mode}{modifier}.{target}.{source} {bits:#x}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", FORMATS)
def test_integers_to_floats_are_correctly_rounded(
    machine: Machine, chance: random.Random, source: str, target: str, mode: str
) -> None:
    form, have = FORMATS[target], TYPES[source]
    rows = integer_rows(chance, [have.bits])
    for shift in range(have.bits - 8):  # one bit beyond a long run of ones, or beside the middle
        for low in (0, 1, 3):
            rows.append(((((1 << have.bits) - 1) << shift | low) & ((1 << have.bits) - 1),))
            rows.append((((1 << have.bits - 1) - 1 >> shift) - low & ((1 << have.bits) - 1),))
    for modifier in ("", ".sat"):
        found = machine.run(instruction(f"cvt.{mode}{modifier}.{target}.{source}", [have]), rows)
        for (bits,), (got,) in zip(rows, found, strict=True):
            value = number(bits & ((1 << have.bits) - 1), have)
            want = form.round(Fraction(value), mode)
            want = form.saturate(want) if modifier else want
            assert got == want, f"cvt.{mode}{modifier}.{target}.{source} {value}: {got:#x}, exactly {want:#x}"


def check_floats(
    machine: Machine, text: str, source: str, target: str, rows: Sequence[tuple[int]], expected: Sequence[int]
) -> None:
    form = FORMATS[target]
    found = machine.run(instruction(text, [TYPES[source]]), rows)
    for (bits,), (got,), want in zip(rows, found, expected, strict=True):
        assert oracle.same_float(form, got, want), f"{text} {bits:#x}: {got:#x}, exactly {want:#x}"


def narrowed(bits: int, mode: str) -> int:
    if F64.is_nan(bits):
        return NAN_BITS[32]
    sign = F32.sign if F64.is_negative(bits) else 0
    if F64.is_infinite(bits):
        return sign | F32.infinity
    return F32.round(F64.value(bits), mode, sign)


@pytest.mark.parametrize("mode", MODES)
def test_doubles_are_narrowed_correctly_in_every_mode(machine: Machine, chance: random.Random, mode: str) -> None:
    values = interesting_floats(chance, F64, 100)
    for _ in range(300):  # around the f32 numbers, their middles, and the limits of f32
        near = F64.round(F32.value(oracle.random_float(chance, F32)), "rn")
        near += chance.choice((0, 0, 1 << 28)) + chance.randint(-1, 1)
        values.append(near & (2 * F64.sign - 1))
    rows = [(bits,) for bits in values]
    check_floats(machine, f"cvt.{mode}.f32.f64", "f64", "f32", rows, [narrowed(bits, mode) for bits in values])
    flushed = [F32.flush(narrowed(bits, mode)) for bits in values]
    check_floats(machine, f"cvt.{mode}.ftz.f32.f64", "f64", "f32", rows, flushed)
    saturated = [F32.saturate(narrowed(bits, mode)) for bits in values]
    check_floats(machine, f"cvt.{mode}.sat.f32.f64", "f64", "f32", rows, saturated)


def test_floats_are_widened_exactly(machine: Machine, chance: random.Random) -> None:
    def widened(bits: int) -> int:
        if F32.is_nan(bits):
            return NAN_BITS[64]
        sign = F64.sign if F32.is_negative(bits) else 0
        return sign | F64.infinity if F32.is_infinite(bits) else F64.round(F32.value(bits), "rn", sign)

    values = interesting_floats(chance, F32, 200)
    rows = [(bits,) for bits in values]
    check_floats(machine, "cvt.f64.f32", "f32", "f64", rows, [widened(bits) for bits in values])
    flushed = [widened(F32.flush(bits)) for bits in values]
    check_floats(machine, "cvt.ftz.f64.f32", "f32", "f64", rows, flushed)
    saturated = [F64.saturate(widened(bits)) for bits in values]
    check_floats(machine, "cvt.sat.f64.f32", "f32", "f64", rows, saturated)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", INTEGRAL)
def test_floats_round_to_integral_floats_keeping_the_sign_of_zero(
    machine: Machine, chance: random.Random, kind: str, mode: str
) -> None:
    form = FORMATS[kind]

    def rounded(bits: int) -> int:
        if form.is_nan(bits) or form.is_infinite(bits):
            return bits
        return form.round(Fraction(to_integer(form.value(bits), mode)), "rn", bits & form.sign)

    values = interesting_floats(chance, form, 100)
    rows = [(bits,) for bits in values]
    check_floats(machine, f"cvt.{mode}.{kind}.{kind}", kind, kind, rows, [rounded(bits) for bits in values])
    saturated = [form.saturate(rounded(bits)) for bits in values]
    check_floats(machine, f"cvt.{mode}.sat.{kind}.{kind}", kind, kind, rows, saturated)
    if form is F32:
        flushed = [rounded(form.flush(bits)) for bits in values]
        check_floats(machine, f"cvt.{mode}.ftz.{kind}.{kind}", kind, kind, rows, flushed)


@pytest.mark.parametrize("kind", FORMATS)
def test_saturation_and_flushing_without_a_change_of_type(machine: Machine, chance: random.Random, kind: str) -> None:
    form = FORMATS[kind]
    values = interesting_floats(chance, form, 100)
    rows = [(bits,) for bits in values]
    check_floats(machine, f"cvt.sat.{kind}.{kind}", kind, kind, rows, [form.saturate(bits) for bits in values])
    if form is F32:
        check_floats(machine, "cvt.ftz.f32.f32", kind, kind, rows, [form.flush(bits) for bits in values])
