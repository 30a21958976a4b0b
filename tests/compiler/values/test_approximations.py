"""The ``.approx`` functions: within the ISA's error bounds of f64 mathematics, and its tables of special values."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest

from compiler.values import oracle
from compiler.values.harness import Machine, instruction
from compiler.values.oracle import F32, F64, NAN_BITS
from tensor_wasm.ptx.program import ScalarType

ROWS = 3000
NAN, INFINITY, ZERO, ONE = 0x7FFF_FFFF, 0x7F80_0000, 0, 0x3F80_0000
MINUS = 0x8000_0000


def as_float(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def as_double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def pattern(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def evaluate(machine: Machine, text: str, inputs: list[int]) -> list[int]:
    form = instruction(text, [ScalarType.F32])
    return [got for (got,) in machine.run(form, [(bits,) for bits in inputs])]


def uniform(chance: random.Random, low: float, high: float) -> list[int]:
    return [pattern(chance.uniform(low, high)) for _ in range(ROWS)]


def by_exponent(chance: random.Random, *, negative: bool) -> list[int]:
    signs = (0, MINUS) if negative else (0,)
    return [chance.getrandbits(31) % INFINITY | chance.choice(signs) for _ in range(ROWS)]


SPECIAL: dict[str, dict[int, int]] = {
    "ex2.approx.f32": {MINUS | INFINITY: ZERO, MINUS: ONE, ZERO: ONE, INFINITY: INFINITY, NAN: NAN, 1: ONE,
                       MINUS | 1: ONE},
    "ex2.approx.ftz.f32": {MINUS | INFINITY: ZERO, MINUS | 1: ONE, pattern(-126.5): ZERO, pattern(-126.0): 0x0080_0000},
    "lg2.approx.f32": {MINUS | INFINITY: NAN, MINUS: MINUS | INFINITY, ZERO: MINUS | INFINITY, INFINITY: INFINITY,
                       NAN: NAN, MINUS | ONE: NAN, MINUS | 1: NAN, ONE: ZERO, 1: pattern(-149.0)},
    "lg2.approx.ftz.f32": {1: MINUS | INFINITY, MINUS | 1: MINUS | INFINITY, MINUS | 0x0080_0000: NAN},
    "sin.approx.f32": {MINUS | INFINITY: NAN, MINUS: MINUS, ZERO: ZERO, INFINITY: NAN, NAN: NAN, 1: 1},
    "sin.approx.ftz.f32": {1: ZERO, MINUS | 1: MINUS},
    "cos.approx.f32": {MINUS | INFINITY: NAN, MINUS: ONE, ZERO: ONE, INFINITY: NAN, NAN: NAN, 1: ONE},
    "cos.approx.ftz.f32": {1: ONE, MINUS | 1: ONE},
    "tanh.approx.f32": {MINUS | INFINITY: MINUS | ONE, MINUS: MINUS, ZERO: ZERO, INFINITY: ONE, NAN: NAN, 1: 1,
                        MINUS | 0x007F_FFFF: MINUS | 0x007F_FFFF},
    "rcp.approx.f32": {MINUS | INFINITY: MINUS, MINUS: MINUS | INFINITY, ZERO: INFINITY, INFINITY: ZERO, NAN: NAN},
    "rcp.approx.ftz.f32": {1: INFINITY, MINUS | 1: MINUS | INFINITY, 0x7F00_0001: ZERO},
    "sqrt.approx.f32": {MINUS | INFINITY: NAN, MINUS | ONE: NAN, MINUS: MINUS, ZERO: ZERO, INFINITY: INFINITY,
                        NAN: NAN},
    "sqrt.approx.ftz.f32": {1: ZERO, MINUS | 1: MINUS},
    "rsqrt.approx.f32": {MINUS | INFINITY: NAN, MINUS | ONE: NAN, MINUS: MINUS | INFINITY, ZERO: INFINITY,
                         INFINITY: ZERO, NAN: NAN},
    "rsqrt.approx.ftz.f32": {1: INFINITY, MINUS | 1: MINUS | INFINITY},
}  # fmt: skip


@pytest.mark.parametrize("text", SPECIAL)
def test_special_values(machine: Machine, text: str) -> None:
    inputs = list(SPECIAL[text])
    for bits, got in zip(inputs, evaluate(machine, text, inputs), strict=True):
        assert oracle.same_float(F32, got, SPECIAL[text][bits]), f"{text} {bits:#x}: {got:#x}"


def check_absolute(
    machine: Machine, text: str, inputs: list[int], function: Callable[[float], float], bound: float
) -> None:
    for bits, got in zip(inputs, evaluate(machine, text, inputs), strict=True):
        error = abs(as_float(got) - function(as_float(bits)))
        assert error <= bound, f"{text} {as_float(bits)!r}: {as_float(got)!r}, off by 2**{math.log2(error)}"


def check_relative(
    machine: Machine, text: str, inputs: list[int], function: Callable[[float], float], bound: float
) -> None:
    for bits, got in zip(inputs, evaluate(machine, text, inputs), strict=True):
        want = function(as_float(bits))
        error = abs(as_float(got) - want)
        assert error <= bound * abs(want), f"{text} {as_float(bits)!r}: {as_float(got)!r}, not {want!r}"


@pytest.mark.parametrize("text", ["sin.approx.f32", "cos.approx.f32", "sin.approx.ftz.f32", "cos.approx.ftz.f32"])
def test_sine_and_cosine_are_close_everywhere(machine: Machine, chance: random.Random, text: str) -> None:
    """The ISA asks for 2**-20.5 within two turns; a half unit of f32 is kept for every size of argument."""
    function = math.sin if text.startswith("sin") else math.cos
    inputs = uniform(chance, -2 * math.pi, 2 * math.pi) + uniform(chance, -1e4, 1e4) + uniform(chance, -1e8, 1e8)
    inputs += by_exponent(chance, negative=True)
    inputs += [pattern(turns * math.pi / 2) + step for turns in range(1, 60) for step in (-1, 0, 1)]
    check_absolute(machine, text, inputs, function, 2.0**-24)


def test_sines_of_small_angles_keep_their_relative_precision(machine: Machine, chance: random.Random) -> None:
    inputs = [bits for bits in by_exponent(chance, negative=True) if 1e-30 < abs(as_float(bits)) < 1]
    check_relative(machine, "sin.approx.f32", inputs, math.sin, 2.0**-23)


def test_powers_of_two_are_close_down_to_subnormal_results(machine: Machine, chance: random.Random) -> None:
    check_relative(machine, "ex2.approx.f32", uniform(chance, -126, 128), lambda x: 2.0**x, 2.0**-23.5)
    check_absolute(machine, "ex2.approx.f32", uniform(chance, -160, -126), lambda x: 2.0**x, 2.0**-149)
    whole = [pattern(float(exponent)) for exponent in range(-149, 128)]
    assert evaluate(machine, "ex2.approx.f32", whole) == [pattern(2.0**exponent) for exponent in range(-149, 128)]
    above = [pattern(128.0), pattern(1e30), 0x7F7F_FFFF]
    assert evaluate(machine, "ex2.approx.f32", above) == [INFINITY] * 3
    below = [pattern(-151.0), pattern(-1e30), 0xFF7F_FFFF]
    assert evaluate(machine, "ex2.approx.f32", below) == [ZERO] * 3


def test_logarithms_are_close_also_around_one_and_of_subnormal_numbers(machine: Machine, chance: random.Random) -> None:
    inputs = by_exponent(chance, negative=False) + uniform(chance, 0.5, 2) + [ONE + step for step in range(-50, 50)]
    inputs += [chance.randint(1, 0x007F_FFFF) for _ in range(100)]
    check_relative(machine, "lg2.approx.f32", [bits for bits in inputs if bits], math.log2, 2.0**-23)


def test_hyperbolic_tangents_are_close(machine: Machine, chance: random.Random) -> None:
    inputs = uniform(chance, -10, 10) + uniform(chance, -0.6, 0.6) + by_exponent(chance, negative=True)
    inputs = [bits for bits in inputs if not F32.is_subnormal(bits)]
    check_relative(machine, "tanh.approx.f32", inputs, math.tanh, 2.0**-22)


@pytest.mark.parametrize(("root", "power"), [("rcp", -1.0), ("sqrt", 0.5), ("rsqrt", -0.5)])
def test_reciprocals_and_roots_are_within_a_unit(
    machine: Machine, chance: random.Random, root: str, power: float
) -> None:
    inputs = [bits for bits in by_exponent(chance, negative=False) if 1e-37 < as_float(bits) < 1e37]
    for modifier in ("", ".ftz"):
        check_relative(machine, f"{root}.approx{modifier}.f32", inputs, lambda x: x**power, 2.0**-22.9)


def test_reciprocal_root_of_doubles(machine: Machine, chance: random.Random) -> None:
    rows = [(chance.getrandbits(63) % F64.infinity,) for _ in range(300)] + [(1,), (1 << 52,)]
    form = instruction("rsqrt.approx.f64", [ScalarType.F64])
    for (bits,), (got,) in zip(rows, machine.run(form, rows), strict=True):
        assert abs(Fraction(as_double(got)) ** 2 * F64.value(bits) - 1) < Fraction(1, 2**50)


@pytest.mark.parametrize("root", ["rcp", "rsqrt"])
def test_coarse_doubles_have_a_high_word_only(machine: Machine, chance: random.Random, root: str) -> None:
    """Both within 2**-20 where the result is a normal number; subnormal operands and results count as zeros."""
    rows = [(chance.getrandbits(63) % F64.infinity,) for _ in range(500)]
    form = instruction(f"{root}.approx.ftz.f64", [ScalarType.F64])
    for (bits,), (got,) in zip(rows, machine.run(form, rows), strict=True):
        assert got & 0xFFFF_FFFF == 0
        value, found = F64.value(F64.flush(bits)), got
        if value == 0:
            assert found == F64.infinity
        elif root == "rcp" and value > 2**1022:
            assert found == 0
        else:
            result = F64.value(found) if root == "rcp" else F64.value(found) ** 2
            assert abs(result * value - 1) < Fraction(1, 2**19), hex(bits)
    special = {
        F64.sign: F64.sign | F64.infinity,
        F64.sign | 1: F64.sign | F64.infinity,
        F64.infinity: 0,
        NAN_BITS[64]: NAN_BITS[64],
        F64.sign | F64.infinity: F64.sign if root == "rcp" else NAN_BITS[64],
    }
    for (got,), want in zip(machine.run(form, [(bits,) for bits in special]), special.values(), strict=True):
        assert oracle.same_float(F64, got, want)
