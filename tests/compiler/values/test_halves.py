"""Arithmetic of f16, bf16 and pairs of them, against exact fractions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from compiler.values import oracle
from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import BF16, F16, NAN_BITS, Format
from tensor_wasm.compiler import values
from tensor_wasm.ptx.forms import Category
from tensor_wasm.ptx.opcodes import TABLE
from tensor_wasm.ptx.program import Immediate, ScalarType

FORMATS = {"f16": F16, "bf16": BF16}
KINDS = ("f16", "bf16", "f16x2", "bf16x2")
COUNTS = {"add": 2, "sub": 2, "mul": 2, "fma": 3}
ROWS = 200

Exact = Callable[..., int]


def format_of(kind: str) -> Format:
    return FORMATS[kind.removesuffix("x2")]


def packed(rows: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Rows of pairs: each row in the low halves, with the one before it in the high halves."""
    return [
        tuple(low | high << 16 for low, high in zip(row, before, strict=True))
        for row, before in zip(rows, [rows[-1], *rows[:-1]], strict=True)
    ]


def check(machine: Machine, text: str, rows: Sequence[Sequence[int]], expected: Exact) -> None:
    """Compare with an exact result, patterns of NaN included; a pair's halves each with its own."""
    kind = text.rpartition(".")[2]
    is_pair = kind.endswith("x2")
    form = instruction(text, [TYPES[kind]] * len(rows[0]))
    wants = [expected(*row) for row in rows]
    if is_pair:
        wants = [want | before << 16 for want, before in zip(wants, [wants[-1], *wants[:-1]], strict=True)]
    given = packed(rows) if is_pair else rows
    for row, (got,), want in zip(given, machine.run(form, given), wants, strict=True):
        assert got == want, f"{text} {[hex(value) for value in row]}: {got:#x}, exactly {want:#x}"


def exact(root: str, form: Format, operands: Sequence[int]) -> int:
    match root:
        case "add":
            return oracle.add(form, operands[0], operands[1], "rn")
        case "sub":
            return oracle.add(form, operands[0], operands[1] ^ form.sign, "rn")
        case "mul":
            return oracle.multiply(form, operands[0], operands[1], "rn")
        case _:
            return oracle.fused(form, operands[0], operands[1], operands[2], "rn")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("root", COUNTS)
def test_arithmetic_is_correctly_rounded(machine: Machine, chance: random.Random, root: str, kind: str) -> None:
    form = format_of(kind)
    rows = oracle.float_rows(chance, form, COUNTS[root], 3 * ROWS)
    for text in (f"{root}.rn.{kind}",) if root == "fma" else (f"{root}.rn.{kind}", f"{root}.{kind}"):
        check(machine, text, rows, lambda *operands: exact(root, form, operands))


@pytest.mark.parametrize("kind", KINDS)
def test_fused_sums_that_cancel_are_correctly_rounded(machine: Machine, chance: random.Random, kind: str) -> None:
    form = format_of(kind)
    rows = []
    for _ in range(ROWS):
        a, b = oracle.random_float(chance, form), oracle.random_float(chance, form)
        c = oracle.multiply(form, a, b, "rn") ^ form.sign
        if not form.is_infinite(c):
            c = max(c - chance.randint(-2, 2), 0) & 0xFFFF
        rows.append((a, b, c))
    check(machine, f"fma.rn.{kind}", rows, lambda *operands: exact("fma", form, operands))


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_in_the_middle_of_two_halves_is_moved_by_the_least_addend(
    machine: Machine, chance: random.Random, kind: str
) -> None:
    """Also by an addend that no f64 holds beside it; results around the smallest numbers included."""
    form = format_of(kind)
    bits = form.precision + 1
    pairs = [
        (a, b)
        for a in range(1 << form.precision - 1, 1 << form.precision, 2 if form is BF16 else 8)
        for b in range(3, 64, 2)
        if (a * b).bit_length() >= bits
        and (a * b) % (1 << (a * b).bit_length() - bits + 1) == 1 << ((a * b).bit_length() - bits)
    ]
    pairs += [(1 << index, 1) for index in range(3)]
    rows = []
    for a, b in pairs[:: max(len(pairs) // 120, 1)]:
        for _ in range(4):
            scale = Fraction(2) ** chance.randint(form.exponent_min - form.precision, form.exponent_max - 20)
            left = form.round(a * scale, "rn")
            right = form.round(Fraction(b) * Fraction(2) ** chance.randint(-form.precision - 3, 3), "rn")
            addend = chance.choice((0, 1, 2, oracle.random_float(chance, form)))
            rows += [(left, right, addend | sign) for sign in (0, form.sign)]
            rows += [(left | form.sign, right, addend | sign) for sign in (0, form.sign)]
    rows = [tuple(value & 0xFFFF for value in row) for row in rows]
    check(machine, f"fma.rn.{kind}", rows, lambda *operands: exact("fma", form, operands))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("root", COUNTS)
def test_ftz_flushes_operands_and_result_keeping_signs(
    machine: Machine, chance: random.Random, root: str, kind: str
) -> None:
    form = format_of(kind)
    tiny = 1 << (form.precision - 1)
    rows = [
        tuple(oracle.random_float(chance, form, tiny if chance.random() < 0.7 else None) for _ in range(COUNTS[root]))
        for _ in range(ROWS)
    ]
    rows += oracle.float_rows(chance, form, COUNTS[root], ROWS)
    check(
        machine,
        f"{root}.rn.ftz.{kind}",
        rows,
        lambda *operands: form.flush(exact(root, form, [form.flush(operand) for operand in operands])),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("root", COUNTS)
def test_sat_limits_to_the_unit_interval_and_turns_nan_into_zero(
    machine: Machine, chance: random.Random, root: str, kind: str
) -> None:
    form = format_of(kind)
    one = form.round(Fraction(1), "rn")
    rows = oracle.float_rows(chance, form, COUNTS[root], ROWS)
    rows += [tuple(oracle.random_float(chance, form, one) for _ in range(COUNTS[root])) for _ in range(ROWS)]
    check(machine, f"{root}.rn.sat.{kind}", rows, lambda *operands: form.saturate(exact(root, form, operands)))


def rectified(form: Format, bits: int) -> int:
    return 0 if form.is_negative(bits) and not form.is_nan(bits) else bits


@pytest.mark.parametrize("kind", KINDS)
def test_relu_turns_negative_results_into_zero_and_keeps_nan(
    machine: Machine, chance: random.Random, kind: str
) -> None:
    form = format_of(kind)
    rows = oracle.float_rows(chance, form, 3, 2 * ROWS)
    check(machine, f"fma.rn.relu.{kind}", rows, lambda *operands: rectified(form, exact("fma", form, operands)))


@pytest.mark.parametrize("kind", KINDS)
def test_signs_are_changed_and_cleared_whatever_the_number(machine: Machine, kind: str) -> None:
    form = format_of(kind)
    rows = [(bits,) for bits in range(0, 1 << 16, 5)]
    check(machine, f"neg.{kind}", rows, lambda a: a ^ form.sign)
    check(machine, f"abs.{kind}", rows, lambda a: a & ~form.sign)
    check(machine, f"neg.ftz.{kind}", rows, lambda a: form.flush(a) ^ form.sign)
    check(machine, f"abs.ftz.{kind}", rows, lambda a: form.flush(a) & ~form.sign)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("root", ["min", "max"])
@pytest.mark.parametrize(
    "modifiers", ["", ".ftz", ".NaN", ".xorsign.abs", ".ftz.NaN.xorsign.abs", ".NaN.xorsign.abs", ".ftz.NaN"]
)
def test_extremes_order_zeros_and_skip_or_pass_nan(
    machine: Machine, chance: random.Random, root: str, modifiers: str, kind: str
) -> None:
    form = format_of(kind)
    rows = oracle.float_rows(chance, form, 2, ROWS)
    rows += [(a, b) for a in oracle.float_edges(form) for b in oracle.float_edges(form)]

    def expected(*operands: int) -> int:
        numbers = [form.flush(bits) if "ftz" in modifiers else bits for bits in operands]
        sign = (numbers[0] ^ numbers[1]) & form.sign
        if "abs" in modifiers:
            numbers = [bits & ~form.sign for bits in numbers]
        numbers = [bits for bits in numbers if not form.is_nan(bits)]
        if not numbers or ("NaN" in modifiers and len(numbers) < 2):
            return NAN_BITS[16]
        # Ordered by sign and size: -0 comes before +0.
        key = {bits: -(bits ^ form.sign) - 1 if bits & form.sign else bits for bits in numbers}
        found = (min if root == "min" else max)(numbers, key=lambda bits: key[bits])
        return found | sign if "xorsign" in modifiers else found

    check(machine, f"{root}{modifiers}.{kind}", rows, expected)


def holds(form: Format, relation: str, a: int, b: int) -> bool:
    is_unordered = form.is_nan(a) or form.is_nan(b)
    if relation in ("num", "nan"):
        return is_unordered == (relation == "nan")
    if is_unordered:
        return relation.endswith("u")
    x, y = (value_of(form, bits) for bits in (a, b))
    match relation.removesuffix("u"):
        case "eq":
            return x == y
        case "ne":
            return x != y
        case "lt":
            return x < y
        case "le":
            return x <= y
        case "gt":
            return x > y
        case _:
            return x >= y


def value_of(form: Format, bits: int) -> Fraction:
    size = form.value_or_infinity(bits)
    return -size if form.is_negative(bits) else size


RELATIONS = ("eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
COMBINE: dict[str, Callable[[bool, bool], bool]] = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a is not b,
}


def compared(chance: random.Random, form: Format) -> list[tuple[int, int]]:
    edges = oracle.float_edges(form)
    rows = [(a, b) for a in edges for b in edges[::3]]
    rows += [(a, a) for a in edges]
    return rows + [(a, b) for a, b in oracle.float_rows(chance, form, 2, 100)]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_predicates_of_numbers_are_the_comparison_and_its_contrary(
    machine: Machine, chance: random.Random, kind: str, relation: str
) -> None:
    form = FORMATS[kind]
    rows = compared(chance, form)
    for modifier in ("", ".ftz"):
        found = machine.run(instruction(f"setp.{relation}{modifier}.{kind}", [TYPES[kind]] * 2, destinations=2), rows)
        for row, got in zip(rows, found, strict=True):
            a, b = (form.flush(bits) if modifier else bits for bits in row)
            truth = holds(form, relation, a, b)
            assert got == (truth, not truth), f"setp.{relation}{modifier}.{kind} {[hex(bits) for bits in row]}"


@pytest.mark.parametrize("relation", ["lt", "geu", "ne"])
@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
@pytest.mark.parametrize("combination", ["", *COMBINE])
def test_predicates_of_pairs_are_those_of_the_low_and_of_the_high_half(
    machine: Machine, chance: random.Random, kind: str, relation: str, combination: str
) -> None:
    form = format_of(kind)
    rows = compared(chance, form)
    sources = [TYPES[kind]] * 2 + [ScalarType.PRED] * bool(combination)
    text = f"setp.{relation}.{combination}.{kind}" if combination else f"setp.{relation}.{kind}"
    for other in (False, True):
        given = [(*row, other) if combination else row for row in packed(rows)]
        found = machine.run(instruction(text, sources, destinations=2), given)
        truths = [holds(form, relation, a, b) for a, b in rows]
        if combination:
            truths = [COMBINE[combination](truth, other) for truth in truths]
        assert found == list(zip(truths, [truths[-1], *truths[:-1]], strict=True)), text


@pytest.mark.parametrize("relation", ["lt", "equ", "nan", "ne"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("combination", ["", *COMBINE])
def test_set_gives_all_ones_or_one_in_each_half(
    machine: Machine, chance: random.Random, kind: str, relation: str, combination: str
) -> None:
    form = format_of(kind)
    one = form.round(Fraction(1), "rn")
    is_pair = kind.endswith("x2")
    yes = {"u32": 0xFFFF, kind: one} if is_pair else {"u32": 0xFFFF_FFFF, "s16": 0xFFFF, "f32": 0x3F80_0000, kind: one}
    sources = [TYPES[kind]] * 2 + [ScalarType.PRED] * bool(combination)
    rows = compared(chance, form)
    given = [(*row, place & 1) if combination else row for place, row in enumerate(packed(rows) if is_pair else rows)]
    for target, value in yes.items():
        text = ".".join(filter(None, ("set", relation, combination, target, kind)))
        found = machine.run(instruction(text, sources), given)
        for place, (row, (got,)) in enumerate(zip(given, found, strict=True)):
            want = 0
            for shift in (0, 16) if is_pair else (0,):
                truth = holds(form, relation, row[0] >> shift & 0xFFFF, row[1] >> shift & 0xFFFF)
                truth = COMBINE[combination](truth, bool(place & 1)) if combination else truth
                want |= value << shift if truth else 0
            assert got == want, f"{text} {[hex(bits) for bits in row]}: {got:#x}, not {want:#x}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("root", ["ex2.approx", "ex2.approx.ftz", "tanh.approx"])
def test_approximations_of_every_number_are_within_a_unit(machine: Machine, root: str, kind: str) -> None:
    form = format_of(kind)
    every = np.arange(1 << 16, dtype=np.uint32)
    rows = packed([(int(bits),) for bits in every]) if kind.endswith("x2") else [(int(bits),) for bits in every]
    found = np.array(machine.run(instruction(f"{root}.{kind}", [TYPES[kind]]), rows), dtype=np.uint32)[:, 0]
    if kind.endswith("x2"):
        assert (found >> 16 == np.roll(found & 0xFFFF, 1)).all()
    got, given = numbers(form, found & 0xFFFF), numbers(form, every)
    if "ftz" in root:
        given = np.where(np.abs(given) < 2.0**form.exponent_min, 0.0, given)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        want = np.tanh(given) if "tanh" in root else np.exp2(given)
        largest = (2 - 2.0 ** (1 - form.precision)) * 2.0**form.exponent_max
        unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(want), 2.0**form.exponent_min))) - form.precision + 1)
        is_close = np.abs(got - want) <= 0.5001 * unit
    is_close |= (want > largest) & (got == np.inf)
    if "ftz" in root:
        is_close |= (got == 0) & (want < 2.0**form.exponent_min)
    is_nan = np.isnan(given)
    assert (found[is_nan] & 0xFFFF == NAN_BITS[16]).all()
    assert is_close[~is_nan].all(), [hex(bits) for bits in every[~is_nan & ~is_close]][:8]


def numbers(form: Format, bits: np.ndarray) -> np.ndarray:
    if form is F16:
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(invalid="ignore"):  # of signalling NaN
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_is_as_good_as_a_register(machine: Machine, chance: random.Random, kind: str) -> None:
    scalar = TYPES[kind]
    known = 0x4248 * (0x1_0001 if scalar.bits == 32 else 1)
    rows = oracle.float_rows(chance, format_of(kind), 2, 50)
    plain = machine.run(instruction(f"fma.rn.{kind}", [scalar] * 3), [(a, known, b) for a, b in rows])
    folded = instruction(f"fma.rn.{kind}", [scalar, Immediate(known, scalar), scalar])
    assert machine.run(folded, [(a, 0, b) for a, b in rows]) == plain


def test_every_form_that_the_front_end_lets_through_has_an_emitter() -> None:
    rows = [row for row in TABLE if row.category is Category.HALF and row.is_lowered]
    assert {row.root for row in rows} >= {"add", "sub", "mul", "fma", "neg", "abs", "min", "max", "cvt", "set", "setp"}
    for row in rows:
        sources = sum(role.type != "" for role in row.roles) - sum(
            role.kind.name == "DESTINATION" for role in row.roles
        )
        for slot in row.parts:
            for name in slot.names:
                parts = [name if part is slot else ("" if part.is_optional else min(part.names)) for part in row.parts]
                text = ".".join(filter(None, (row.root, *parts)))
                form = instruction(text, [ScalarType.B32] * sources)
                assert values.handles(form), text
