"""Comparisons, selections and property tests."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable
from fractions import Fraction

import pytest

from compiler.values import oracle
from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import F32, F64, Format, signed
from compiler.values.test_integers import integer_rows
from tensor_wasm.ptx.program import ScalarType

PLAIN: dict[str, Callable[[int | Fraction, int | Fraction], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
COMBINE = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}
FORMATS = {"f32": F32, "f64": F64}
PRED = ScalarType.PRED


def holds(relation: str, form: Format, a: int, b: int) -> bool:
    """A float relation: unordered names hold for NaN, ordered ones do not."""
    is_unordered = form.is_nan(a) or form.is_nan(b)
    if relation in ("num", "nan"):
        return is_unordered == (relation == "nan")
    name = relation.removesuffix("u") if relation not in PLAIN else relation
    if is_unordered:
        return name != relation
    scale = Fraction(1 << 3000)
    left, right = (
        (-scale if form.is_negative(bits) else scale) if form.is_infinite(bits) else form.value(bits) for bits in (a, b)
    )
    return PLAIN[name](left, right)


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "u16", "s16", "u32", "s32", "u64", "s64"])
def test_integer_relations(machine: Machine, chance: random.Random, kind: str) -> None:
    scalar = TYPES[kind]
    mask = (1 << scalar.bits) - 1
    relations = ("eq", "ne") if kind[0] == "b" else (*PLAIN, *UNSIGNED)
    rows = integer_rows(chance, [scalar.bits] * 2)
    for relation in relations:
        found = machine.run(instruction(f"setp.{relation}.{kind}", [scalar] * 2), rows)
        for row, (got,) in zip(rows, found, strict=True):
            a, b = (value & mask for value in row)
            if scalar.is_signed and relation not in UNSIGNED:
                a, b = signed(a, scalar.bits), signed(b, scalar.bits)
            assert got == PLAIN[UNSIGNED.get(relation, relation)](a, b), f"{a} {relation} {b}"


FLOAT_RELATIONS = (*PLAIN, "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("relation", FLOAT_RELATIONS)
def test_float_relations(machine: Machine, chance: random.Random, relation: str, kind: str) -> None:
    form = FORMATS[kind]
    rows = oracle.float_rows(chance, form, 2, 300) + list(itertools.product(oracle.float_edges(form), repeat=2))
    found = machine.run(instruction(f"setp.{relation}.{kind}", [TYPES[kind]] * 2), rows)
    for (a, b), (got,) in zip(rows, found, strict=True):
        assert got == holds(relation, form, a, b), f"{a:#x} {relation} {b:#x}"


def test_ftz_compares_subnormal_numbers_as_zeros(machine: Machine) -> None:
    rows = list(itertools.product([0, 0x8000_0000, 1, 0x807F_FFFF, 0x0080_0000, 0x8080_0000], repeat=2))
    for relation in FLOAT_RELATIONS:
        found = machine.run(instruction(f"setp.{relation}.ftz.f32", [ScalarType.F32] * 2), rows)
        for (a, b), (got,) in zip(rows, found, strict=True):
            assert got == holds(relation, F32, F32.flush(a), F32.flush(b))


@pytest.mark.parametrize("combination", COMBINE)
@pytest.mark.parametrize("negated", [frozenset[int](), frozenset({2})])
def test_both_destinations_are_combined_with_the_third_source(
    machine: Machine, combination: str, negated: frozenset[int]
) -> None:
    rows = [(a, b, c) for a, b in ((1, 2), (2, 1), (3, 3)) for c in (0, 1)]
    form = instruction(
        f"setp.lt.{combination}.s32", [ScalarType.S32, ScalarType.S32, PRED], destinations=2, negated=negated
    )
    for (a, b, c), found in zip(rows, machine.run(form, rows), strict=True):
        other = c ^ bool(negated)
        assert found == (COMBINE[combination](a < b, other), COMBINE[combination](a >= b, other))


def test_the_second_destination_is_the_contrary_also_for_nan(machine: Machine) -> None:
    rows = [(0x7FC0_0000, 0), (0, 0x3F80_0000), (0x3F80_0000, 0)]
    form = instruction("setp.lt.f32", [ScalarType.F32] * 2, destinations=2)
    assert machine.run(form, rows) == [(0, 1), (1, 0), (0, 1)]


@pytest.mark.parametrize(("kind", "true"), [("u32", 0xFFFF_FFFF), ("s32", 0xFFFF_FFFF), ("f32", 0x3F80_0000)])
def test_set_gives_all_ones_or_one(machine: Machine, kind: str, true: int) -> None:
    rows = [(1, 2, 1), (2, 1, 1), (1, 2, 0), (5, 5, 1)]
    plain = machine.run(instruction(f"set.lt.{kind}.s32", [ScalarType.S32] * 2), [row[:2] for row in rows])
    assert plain == [(true if a < b else 0,) for a, b, _ in rows]
    form = instruction(f"set.lt.and.{kind}.s32", [ScalarType.S32, ScalarType.S32, PRED], negated=frozenset({2}))
    assert machine.run(form, rows) == [(true if a < b and not c else 0,) for a, b, c in rows]
    floats = instruction(f"set.gtu.ftz.{kind}.f32", [ScalarType.F32] * 2)
    assert machine.run(floats, [(1, 0), (0x3F80_0000, 0), (0x7FC0_0000, 0)]) == [(0,), (true,), (true,)]


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64"])
def test_selection_by_a_predicate(machine: Machine, chance: random.Random, kind: str) -> None:
    scalar = TYPES[kind]
    mask = (1 << scalar.bits) - 1
    rows = [(a & mask, b & mask, c) for a, b in integer_rows(chance, [scalar.bits] * 2, 20) for c in (0, 1)]
    for negated in (frozenset[int](), frozenset({2})):
        form = instruction(f"selp.{kind}", [scalar, scalar, PRED], negated=negated)
        for (a, b, c), (got,) in zip(rows, machine.run(form, rows), strict=True):
            assert got == (a if c ^ bool(negated) else b)


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "u64", "f32", "f64"])
def test_selection_by_a_sign(machine: Machine, kind: str) -> None:
    scalar = TYPES[kind]
    integers = [(0, 1), (1, 1), (0xFFFF_FFFF, 0), (0x8000_0000, 0), (0x7FFF_FFFF, 1)]
    form = instruction(f"slct.{kind}.s32", [scalar, scalar, ScalarType.S32])
    rows = [(11, 22, c) for c, _ in integers]
    assert machine.run(form, rows) == [(11 if is_first else 22,) for _, is_first in integers]
    floats = [(0, 1, 1), (0x8000_0000, 1, 1), (0x8000_0001, 0, 1), (0xFF80_0000, 0, 0), (0x7FC0_0000, 0, 0), (1, 1, 1)]
    for modifier, column in (("", 1), (".ftz", 2)):
        form = instruction(f"slct{modifier}.{kind}.f32", [scalar, scalar, ScalarType.F32])
        rows = [(11, 22, row[0]) for row in floats]
        assert machine.run(form, rows) == [(11 if row[column] else 22,) for row in floats]


@pytest.mark.parametrize("kind", FORMATS)
def test_properties_of_floats(machine: Machine, chance: random.Random, kind: str) -> None:
    form = FORMATS[kind]
    tests = {
        "finite": lambda a: not form.is_nan(a) and not form.is_infinite(a),
        "infinite": form.is_infinite,
        "number": lambda a: not form.is_nan(a),
        "notanumber": form.is_nan,
        "normal": lambda a: not form.is_nan(a) and not form.is_infinite(a) and not form.is_subnormal(a),
        "subnormal": form.is_subnormal,
    }
    rows = oracle.float_rows(chance, form, 1, 200)
    for name, test in tests.items():
        found = machine.run(instruction(f"testp.{name}.{kind}", [TYPES[kind]]), rows)
        for (a,), (got,) in zip(rows, found, strict=True):
            assert got == test(a), f"{name} {a:#x}"
