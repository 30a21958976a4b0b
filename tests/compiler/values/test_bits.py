"""Logic, shifts, counts and byte permutes against the ISA's pseudo code in Python."""

from __future__ import annotations

import itertools
import random

import pytest

from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import PERMUTES, signed
from compiler.values.test_integers import check, integer_rows
from tensor_wasm.ptx.program import Immediate, Register, ScalarType

B32 = ScalarType.B32


@pytest.mark.parametrize("kind", ["b16", "b32", "b64"])
def test_logic(machine: Machine, chance: random.Random, kind: str) -> None:
    check(machine, chance, f"and.{kind}", [kind] * 2, lambda a, b: a & b)
    check(machine, chance, f"or.{kind}", [kind] * 2, lambda a, b: a | b)
    check(machine, chance, f"xor.{kind}", [kind] * 2, lambda a, b: a ^ b)
    check(machine, chance, f"not.{kind}", [kind], lambda a: ~a)
    check(machine, chance, f"cnot.{kind}", [kind], lambda a: int(a == 0))


def test_logic_of_predicates_with_negated_sources(machine: Machine) -> None:
    rows = list(itertools.product((0, 1), repeat=2))
    for name, formula in (("and", int.__and__), ("or", int.__or__), ("xor", int.__xor__)):
        for negated in (frozenset[int](), frozenset({1}), frozenset({0, 1})):
            form = instruction(f"{name}.pred", [ScalarType.PRED] * 2, negated=negated)
            want = [(formula(a ^ (0 in negated), b ^ (1 in negated)),) for a, b in rows]
            assert machine.run(form, rows) == want
    assert machine.run(instruction("not.pred", [ScalarType.PRED]), [(0,), (1,)]) == [(1,), (0,)]


AMOUNTS = (0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 2**31, 2**32 - 1)


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "u16", "s16", "u32", "s32", "u64", "s64"])
def test_shifts_clamp_their_amounts(machine: Machine, chance: random.Random, kind: str) -> None:
    scalar = TYPES[kind]
    mask = (1 << scalar.bits) - 1
    values = [a for (a,) in integer_rows(chance, [scalar.bits], 20)]
    rows = [(a, amount) for a in values for amount in AMOUNTS]
    for root in ("shl", "shr"):
        if root == "shl" and kind[0] != "b":
            continue
        found = machine.run(instruction(f"{root}.{kind}", [scalar, ScalarType.U32]), rows)
        for (a, amount), (got,) in zip(rows, found, strict=True):
            number = signed(a & mask, scalar.bits) if scalar.is_signed else a & mask
            count = min(amount, 100)
            want = (number << count if root == "shl" else number >> count) & mask
            assert got & mask == want, f"{root}.{kind} {number} by {amount}"
        for amount in AMOUNTS:
            known = Immediate(amount, ScalarType.U32)
            folded = machine.run(instruction(f"{root}.{kind}", [scalar, known]), [(a, 0) for a in values])
            variable = [got for (_, other), got in zip(rows, found, strict=True) if other == amount]
            assert [got & mask for (got,) in folded] == [got & mask for (got,) in variable]


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
@pytest.mark.parametrize("side", ["l", "r"])
def test_funnel_shifts(machine: Machine, chance: random.Random, side: str, mode: str) -> None:
    def expected(a: int, b: int, c: int) -> int:
        amount = min(c, 32) if mode == "clamp" else c & 31
        both = b << 32 | a
        return both << amount >> 32 if side == "l" else both >> amount

    check(machine, chance, f"shf.{side}.{mode}.b32", ["b32", "b32", "b32"], expected)
    register = Register("%same", B32, 0)
    rows = [(a, a, amount) for (a,) in integer_rows(chance, [32], 20) for amount in AMOUNTS]
    found = machine.run(instruction(f"shf.{side}.{mode}.b32", [register, register, B32]), rows)
    for (a, _, amount), (got,) in zip(rows, found, strict=True):
        word = a & 0xFFFF_FFFF
        assert got == expected(word, word, amount) & 0xFFFF_FFFF


@pytest.mark.parametrize("bits", [32, 64])
def test_counts_and_reversal(machine: Machine, chance: random.Random, bits: int) -> None:
    kind = f"b{bits}"
    check(machine, chance, f"popc.{kind}", [kind], int.bit_count, 32)
    check(machine, chance, f"clz.{kind}", [kind], lambda a: bits - a.bit_length(), 32)
    check(machine, chance, f"brev.{kind}", [kind], lambda a: int(f"{a:0{bits}b}"[::-1], 2))
    for sign in "us":
        kind = f"{sign}{bits}"

        def place(a: int) -> int:
            return (a if a >= 0 else ~a).bit_length() - 1

        check(machine, chance, f"bfind.{kind}", [kind], place, 32)
        check(
            machine,
            chance,
            f"bfind.shiftamt.{kind}",
            [kind],
            lambda a, place=place: -1 if place(a) < 0 else bits - 1 - place(a),
            32,
        )


def chosen_bytes(a: int, b: int, nibbles: list[int]) -> int:
    """The ISA's generic permute: four nibbles, the lowest byte's first."""
    data = [(b << 32 | a) >> 8 * index & 0xFF for index in range(8)]
    result = 0
    for index, nibble in enumerate(nibbles):
        byte = data[nibble & 7]
        if nibble & 8:
            byte = 0xFF if byte & 0x80 else 0
        result |= byte << 8 * index
    return result


def test_permutes_by_any_selector(machine: Machine, chance: random.Random) -> None:
    def expected(a: int, b: int, c: int) -> int:
        return chosen_bytes(a, b, [c >> 4 * index & 15 for index in range(4)])

    check(machine, chance, "prmt.b32", ["b32"] * 3, expected)
    rows = [(a, b, 0) for a, b in integer_rows(chance, [32, 32], 10)]
    for selector in (
        0x5410,
        0x7632,
        0x3210,
        0x0123,
        0x4567,
        0x8888,
        0xBA98,
        0x7BF0,
        0xFFFF_5410,
        chance.getrandbits(16),
    ):
        form = instruction("prmt.b32", [B32, B32, Immediate(selector, B32)])
        for (a, b, _), (got,) in zip(rows, machine.run(form, rows), strict=True):
            assert got == expected(a & 0xFFFF_FFFF, b & 0xFFFF_FFFF, selector), hex(selector)


@pytest.mark.parametrize("mode", PERMUTES)
def test_permutes_by_a_named_mode(machine: Machine, chance: random.Random, mode: str) -> None:
    def expected(a: int, b: int, c: int) -> int:
        return chosen_bytes(a, b, [int(digit) for digit in reversed(PERMUTES[mode][c & 3])])

    check(machine, chance, f"prmt.b32.{mode}", ["b32"] * 3, expected)
    rows = [(a, b, 0) for a, b in integer_rows(chance, [32, 32], 10)]
    for selector in (0, 1, 2, 3, 0xFFFF_FFFE):
        form = instruction(f"prmt.b32.{mode}", [B32, B32, Immediate(selector, B32)])
        for (a, b, _), (got,) in zip(rows, machine.run(form, rows), strict=True):
            assert got == expected(a & 0xFFFF_FFFF, b & 0xFFFF_FFFF, selector)


def looked_up(a: int, b: int, c: int, table: int) -> int:
    result = 0
    for index in range(8):
        if table >> index & 1:
            x, y, z = ((word if index >> at & 1 else ~word) for word, at in ((a, 2), (b, 1), (c, 0)))
            result |= x & y & z
    return result & 0xFFFF_FFFF


def test_every_truth_table_of_three_operands(machine: Machine) -> None:
    """The operands run through all combinations in their bits, so one row decides."""
    row = (0xF0F0_F0F0, 0xCCCC_CCCC, 0xAAAA_AAAA, 0)
    for table in range(256):
        form = instruction("lop3.b32", [B32, B32, B32, Immediate(table, B32)])
        assert machine.run(form, [row]) == [(looked_up(*row[:3], table),)], hex(table)


def test_truth_tables_with_a_predicate(machine: Machine, chance: random.Random) -> None:
    rows = [(0xF0, 0xCC, 0xAA, 0, 0), (0xF0, 0xCC, 0xAA, 0, 1), (0, 0, 0, 0, 0), (0, 0, 0, 0, 1)]
    for name in ("and", "or"):
        for table in (0x80, 0xFE, 0x96, 0, chance.getrandbits(8)):
            for negated in (frozenset[int](), frozenset({4})):
                sources: list[ScalarType | Immediate] = [B32, B32, B32, Immediate(table, B32), ScalarType.PRED]
                form = instruction(f"lop3.{name}.b32", sources, destinations=2, negated=negated)
                for row, found in zip(rows, machine.run(form, rows), strict=True):
                    word = looked_up(*row[:3], table)
                    other = row[4] ^ bool(negated)
                    truth = (word != 0) & other if name == "and" else (word != 0) | other
                    assert found == (word, truth)
