"""Integer arithmetic of every width against Python's integers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import integer_edges, random_integer, signed
from tensor_wasm.ptx.program import Immediate, ScalarType

ALL = ("u16", "s16", "u32", "s32", "u64", "s64")
SIGNED = ("s16", "s32", "s64")
ROWS = 200


def number(bits: int, kind: ScalarType) -> int:
    return signed(bits, kind.bits) if kind.is_signed else bits


def integer_rows(chance: random.Random, widths: Sequence[int], count: int = ROWS) -> list[tuple[int, ...]]:
    """Pairs of edges first, then anything; above its bits a cell holds noise."""
    rows = [[chance.choice(integer_edges(width)) for width in widths] for _ in range(count)]
    rows += [[random_integer(chance, width) for width in widths] for _ in range(count)]
    return [
        tuple(value | chance.getrandbits(64 - width) << width for value, width in zip(row, widths, strict=True))
        for row in rows
    ]


def check(
    machine: Machine,
    chance: random.Random,
    text: str,
    sources: Sequence[str],
    expected: Callable[..., int],
    result_bits: int | None = None,
) -> None:
    """``expected`` gets the operands as numbers of their types and gives the result, of any size."""
    kinds = [TYPES[name] for name in sources]
    rows = integer_rows(chance, [max(kind.bits, 8) for kind in kinds])
    form = instruction(text, kinds)
    mask = (1 << (result_bits or kinds[0].bits)) - 1
    for row, (got,) in zip(rows, machine.run(form, rows), strict=True):
        operands = [number(bits & ((1 << kind.bits) - 1), kind) for bits, kind in zip(row, kinds, strict=True)]
        want = expected(*operands) & mask
        assert got & mask == want, f"{text} {operands}: {got:#x}, not {want:#x}"


def limited(value: int, kind: str) -> int:
    bits = TYPES[kind].bits
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if TYPES[kind].is_signed else (0, (1 << bits) - 1)
    return min(max(value, low), high)


def quotient(a: int, b: int) -> int:
    """Towards zero; all ones for a zero divisor."""
    if b == 0:
        return -1
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a: int, b: int) -> int:
    return a - b * quotient(a, b) if b else -1


SIMPLE: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "min": min,
    "max": max,
    "div": quotient,
    "rem": remainder,
    "mad.lo": lambda a, b, c: a * b + c,
    "sad": lambda a, b, c: c + abs(a - b),
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("root", SIMPLE)
def test_arithmetic_wraps_at_the_width(machine: Machine, chance: random.Random, root: str, kind: str) -> None:
    formula = SIMPLE[root]
    count = formula.__code__.co_argcount if root not in ("min", "max") else 2
    check(machine, chance, f"{root}.{kind}", [kind] * count, formula)


@pytest.mark.parametrize("kind", ALL)
def test_high_halves_of_products(machine: Machine, chance: random.Random, kind: str) -> None:
    bits = TYPES[kind].bits
    check(machine, chance, f"mul.hi.{kind}", [kind] * 2, lambda a, b: a * b >> bits)
    check(machine, chance, f"mad.hi.{kind}", [kind] * 3, lambda a, b, c: (a * b >> bits) + c)


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32"])
def test_wide_products_are_exact(machine: Machine, chance: random.Random, kind: str) -> None:
    bits = 2 * TYPES[kind].bits
    wide = f"{kind[0]}{bits}"
    check(machine, chance, f"mul.wide.{kind}", [kind] * 2, lambda a, b: a * b, bits)
    check(machine, chance, f"mad.wide.{kind}", [kind, kind, wide], lambda a, b, c: a * b + c, bits)


def test_saturating_forms_stay_in_range(machine: Machine, chance: random.Random) -> None:
    check(machine, chance, "add.sat.s32", ["s32"] * 2, lambda a, b: limited(a + b, "s32"))
    check(machine, chance, "sub.sat.s32", ["s32"] * 2, lambda a, b: limited(a - b, "s32"))
    check(machine, chance, "mad.hi.sat.s32", ["s32"] * 3, lambda a, b, c: limited((a * b >> 32) + c, "s32"))


def low_24(value: int, kind: str) -> int:
    return signed(value & 0xFF_FFFF, 24) if kind == "s32" else value & 0xFF_FFFF


@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_products_of_24_bits(machine: Machine, chance: random.Random, kind: str) -> None:
    def product(a: int, b: int) -> int:
        return low_24(a, kind) * low_24(b, kind)

    check(machine, chance, f"mul24.lo.{kind}", [kind] * 2, product)
    check(machine, chance, f"mul24.hi.{kind}", [kind] * 2, lambda a, b: product(a, b) >> 16)
    check(machine, chance, f"mad24.lo.{kind}", [kind] * 3, lambda a, b, c: product(a, b) + c)
    check(machine, chance, f"mad24.hi.{kind}", [kind] * 3, lambda a, b, c: (product(a, b) >> 16) + c)


def test_saturating_product_of_24_bits(machine: Machine, chance: random.Random) -> None:
    def expected(a: int, b: int, c: int) -> int:
        return limited((low_24(a, "s32") * low_24(b, "s32") >> 16) + c, "s32")

    check(machine, chance, "mad24.hi.sat.s32", ["s32"] * 3, expected)


@pytest.mark.parametrize("kind", SIGNED)
def test_signs(machine: Machine, chance: random.Random, kind: str) -> None:
    check(machine, chance, f"abs.{kind}", [kind], abs)
    check(machine, chance, f"neg.{kind}", [kind], lambda a: -a)


@pytest.mark.parametrize("kind", ["s16", "s32"])
def test_relu_replaces_negative_extremes_by_zero(machine: Machine, chance: random.Random, kind: str) -> None:
    check(machine, chance, f"min.relu.{kind}", [kind] * 2, lambda a, b: max(min(a, b), 0))
    check(machine, chance, f"max.relu.{kind}", [kind] * 2, lambda a, b: max(a, b, 0))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("divisor", [0, 1, 2, 3, 7, -1, -2, -8])
def test_division_by_a_constant(machine: Machine, chance: random.Random, kind: str, divisor: int) -> None:
    scalar = TYPES[kind]
    known = Immediate(divisor & ((1 << scalar.bits) - 1), scalar)
    rows = [(a, 0) for (a,) in integer_rows(chance, [scalar.bits], 50)]
    mask = (1 << scalar.bits) - 1
    for root, formula in (("div", quotient), ("rem", remainder)):
        found = machine.run(instruction(f"{root}.{kind}", [scalar, known]), rows)
        for (a, _), (got,) in zip(rows, found, strict=True):
            want = formula(number(a & mask, scalar), number(known.bits, scalar)) & mask
            assert got & mask == want, f"{root}.{kind} {a & mask:#x} by {divisor}"


def parts(value: int, bits: int, kind: str) -> list[int]:
    found = [value >> at & ((1 << bits) - 1) for at in range(0, 32, bits)]
    return [signed(part, bits) for part in found] if kind == "s32" else found


@pytest.mark.parametrize("first", ["u32", "s32"])
@pytest.mark.parametrize("second", ["u32", "s32"])
def test_dot_products_of_bytes_and_halves(machine: Machine, chance: random.Random, first: str, second: str) -> None:
    def expected(count: int, bits: int, start: int) -> Callable[[int, int, int], int]:
        def formula(a: int, b: int, c: int) -> int:
            right = parts(b, 8, second)[start : start + count]
            return c + sum(x * y for x, y in zip(parts(a, bits, first), right, strict=True))

        return formula

    kinds = ["b32", "b32", "b32"]
    check(machine, chance, f"dp4a.{first}.{second}", kinds, expected(4, 8, 0))
    check(machine, chance, f"dp2a.lo.{first}.{second}", kinds, expected(2, 16, 0))
    check(machine, chance, f"dp2a.hi.{first}.{second}", kinds, expected(2, 16, 2))
