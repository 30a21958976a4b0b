"""Float arithmetic in every rounding mode against exact fractions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from compiler.values import oracle
from compiler.values.harness import Machine, instruction
from compiler.values.oracle import F32, F64, NAN_BITS, Format
from tensor_wasm.ptx.program import Immediate, ScalarType

KINDS = {"f32": (F32, ScalarType.F32), "f64": (F64, ScalarType.F64)}
MODES = ("rn", "rz", "rm", "rp")
ROWS = 400

Exact = Callable[..., int]


def negated(form: Format, bits: int) -> int:
    return bits ^ form.sign


def exact(root: str, form: Format, operands: Sequence[int], mode: str) -> int:
    match root:
        case "add":
            return oracle.add(form, operands[0], operands[1], mode)
        case "sub":
            return oracle.add(form, operands[0], negated(form, operands[1]), mode)
        case "mul":
            return oracle.multiply(form, operands[0], operands[1], mode)
        case "div":
            return oracle.divide(form, operands[0], operands[1], mode)
        case "fma" | "mad":
            return oracle.fused(form, operands[0], operands[1], operands[2], mode)
        case "rcp":
            return oracle.divide(form, form.round(Fraction(1), "rn"), operands[0], mode)
        case "sqrt":
            return oracle.square_root(form, operands[0], mode)
        case _:
            raise ValueError(root)


COUNTS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "fma": 3, "mad": 3, "rcp": 1, "sqrt": 1}


def check(machine: Machine, text: str, rows: Sequence[tuple[int, ...]], expected: Callable[..., int]) -> None:
    kind_name = text.rsplit(".", maxsplit=1)[-1]
    form, kind = KINDS[kind_name]
    found = machine.run(instruction(text, [kind] * len(rows[0])), rows)
    for row, (got,) in zip(rows, found, strict=True):
        want = expected(*row)
        assert oracle.same_float(form, got, want), f"{text} {[hex(v) for v in row]}: {got:#x}, exactly {want:#x}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("root", COUNTS)
def test_arithmetic_is_correctly_rounded_in_every_mode(
    machine: Machine, chance: random.Random, root: str, kind: str, mode: str
) -> None:
    form = KINDS[kind][0]
    rows = oracle.float_rows(chance, form, COUNTS[root], ROWS)
    check(machine, f"{root}.{mode}.{kind}", rows, lambda *operands: exact(root, form, operands, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_fused_sums_that_cancel_are_correctly_rounded(
    machine: Machine, chance: random.Random, kind: str, mode: str
) -> None:
    """c close to -a*b, at every scale that fits: the result is the product's low half or less."""
    form = KINDS[kind][0]
    rows = []
    for _ in range(ROWS):
        a, b = oracle.random_float(chance, form), oracle.random_float(chance, form)
        c = negated(form, oracle.multiply(form, a, b, "rn"))
        if not form.is_infinite(c):
            c = max(c - chance.randint(-2, 2), 0)
        rows.append((a, b, c & (2 * form.sign - 1)))
    check(machine, f"fma.{mode}.{kind}", rows, lambda *operands: exact("fma", form, operands, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_results_around_the_smallest_numbers_are_correctly_rounded(
    machine: Machine, chance: random.Random, kind: str, mode: str
) -> None:
    form = KINDS[kind][0]
    tiny = 1 << (form.precision - 1)
    half = form.exponent_max // 2 << (form.precision - 1)
    for root in ("mul", "div", "fma"):
        rows = []
        for _ in range(ROWS // 2):
            a = oracle.random_float(chance, form, tiny if root == "div" else half)
            b = oracle.random_float(chance, form, half if root != "div" else 2 * half)
            c = oracle.random_float(chance, form, tiny)
            rows.append((a, b, c)[: COUNTS[root]])
        check(machine, f"{root}.{mode}.{kind}", rows, lambda *ops, root=root: exact(root, form, ops, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_overflow_goes_to_infinity_or_the_largest_number_by_mode(machine: Machine, kind: str, mode: str) -> None:
    form = KINDS[kind][0]
    largest = form.infinity - 1
    two = form.round(Fraction(2), "rn")
    for sign in (0, form.sign):
        check(
            machine,
            f"add.{mode}.{kind}",
            [(largest | sign, largest | sign)],
            lambda a, b: exact("add", form, (a, b), mode),
        )
        check(machine, f"mul.{mode}.{kind}", [(largest | sign, two)], lambda a, b: exact("mul", form, (a, b), mode))
        rows = [(largest | sign, two, sign), (largest, two, largest | form.sign), (largest | sign, two, 1)]
        check(machine, f"fma.{mode}.{kind}", rows, lambda *ops: exact("fma", form, ops, mode))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_zero_sum_is_negative_only_when_rounding_down(machine: Machine, kind: str) -> None:
    form, scalar = KINDS[kind]
    one = form.round(Fraction(1), "rn")
    for mode in MODES:
        form_add = instruction(f"add.{mode}.{kind}", [scalar] * 2)
        assert machine.run(form_add, [(one, one | form.sign)]) == [(form.sign if mode == "rm" else 0,)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("root", COUNTS)
def test_ftz_flushes_operands_and_result_keeping_signs(
    machine: Machine, chance: random.Random, root: str, mode: str
) -> None:
    tiny = 0x0080_0000
    rows = [
        tuple(oracle.random_float(chance, F32, tiny if chance.random() < 0.7 else None) for _ in range(COUNTS[root]))
        for _ in range(ROWS)
    ]

    def expected(*operands: int) -> int:
        return F32.flush(exact(root, F32, [F32.flush(operand) for operand in operands], mode))

    check(machine, f"{root}.{mode}.ftz.f32", rows, expected)


@pytest.mark.parametrize("root", ["add", "sub", "mul", "fma"])
def test_sat_limits_to_the_unit_interval_and_turns_nan_into_zero(
    machine: Machine, chance: random.Random, root: str
) -> None:
    one = 0x3F80_0000
    rows = oracle.float_rows(chance, F32, COUNTS[root], ROWS)
    rows += [tuple(oracle.random_float(chance, F32, one) for _ in range(COUNTS[root])) for _ in range(ROWS)]
    for mode in MODES:
        form = instruction(f"{root}.{mode}.sat.f32", [ScalarType.F32] * COUNTS[root])
        for row, (got,) in zip(rows, machine.run(form, rows), strict=True):
            assert got == F32.saturate(exact(root, F32, row, mode)), [hex(value) for value in row]


def test_a_sum_without_a_mode_rounds_to_nearest(machine: Machine, chance: random.Random) -> None:
    rows = oracle.float_rows(chance, F32, 2, ROWS)
    check(machine, "add.f32", rows, lambda a, b: exact("add", F32, (a, b), "rn"))


@pytest.mark.parametrize("text", ["div.approx.f32", "div.full.f32", "div.approx.ftz.f32", "div.full.ftz.f32"])
def test_approximate_quotients_are_within_two_units(machine: Machine, chance: random.Random, text: str) -> None:
    rows = oracle.float_rows(chance, F32, 2, ROWS)
    found = machine.run(instruction(text, [ScalarType.F32] * 2), rows)
    is_flushing = ".ftz" in text
    for (a, b), (got,) in zip(rows, found, strict=True):
        x, y = (F32.flush(a), F32.flush(b)) if is_flushing else (a, b)
        want = exact("div", F32, (x, y), "rn")
        if "approx" in text and not F32.is_nan(y) and F32.value_or_infinity(y) > Fraction(2**126):
            is_undefined = F32.is_nan(x) or F32.is_infinite(x)
            want = NAN_BITS[32] if is_undefined else (a ^ b) & F32.sign
        if is_flushing:
            want = F32.flush(want)
        is_close = got & F32.sign == want & F32.sign and abs(got - want) <= 2
        assert is_close or oracle.same_float(F32, got, want), f"{a:#x} / {b:#x}: {got:#x}, {want:#x}"


@pytest.mark.parametrize("root", ["min", "max"])
@pytest.mark.parametrize(
    "modifiers", ["", ".ftz", ".NaN", ".xorsign.abs", ".ftz.NaN.xorsign.abs", ".NaN.xorsign.abs", ".ftz.NaN"]
)
@pytest.mark.parametrize("count", [2, 3])
def test_extremes_order_zeros_and_skip_or_pass_nan(
    machine: Machine, chance: random.Random, root: str, modifiers: str, count: int
) -> None:
    rows = oracle.float_rows(chance, F32, count, ROWS)

    def expected(*operands: int) -> int:
        values = [F32.flush(bits) if "ftz" in modifiers else bits for bits in operands]
        sign = 0
        for bits in values:
            sign ^= bits & F32.sign
        if "abs" in modifiers:
            values = [bits & ~F32.sign for bits in values]
        numbers = [bits for bits in values if not F32.is_nan(bits)]
        if not numbers or ("NaN" in modifiers and len(numbers) < count):
            return NAN_BITS[32]
        # Ordered by sign and size: -0 comes before +0.
        key = {bits: -(bits ^ F32.sign) - 1 if bits & F32.sign else bits for bits in numbers}
        found = (min if root == "min" else max)(numbers, key=lambda bits: key[bits])
        return found & ~F32.sign | sign if "xorsign" in modifiers else found

    check(machine, f"{root}{modifiers}.f32", rows, expected)


@pytest.mark.parametrize("root", ["min", "max"])
@pytest.mark.parametrize("known", [0, 0x8000_0000, 1, 0x8000_0001, 0x7FC0_0000, 0xFFC0_0000, 0x3F80_0000, 0xFF80_0000])
def test_extremes_with_a_constant_agree_with_those_of_a_register(
    machine: Machine, chance: random.Random, root: str, known: int
) -> None:
    rows = [(a, known) for (a,) in oracle.float_rows(chance, F32, 1, ROWS)]
    kind = ScalarType.F32
    for modifiers in ("", ".ftz", ".ftz.xorsign.abs", ".NaN"):
        plain = machine.run(instruction(f"{root}{modifiers}.f32", [kind, kind]), rows)
        folded = machine.run(instruction(f"{root}{modifiers}.f32", [kind, Immediate(known, kind)]), rows)
        for row, (one,), (other,) in zip(rows, plain, folded, strict=True):
            assert oracle.same_float(F32, one, other), f"{modifiers} {[hex(value) for value in row]}"


@pytest.mark.parametrize("root", ["min", "max"])
def test_extremes_of_doubles_skip_nan(machine: Machine, chance: random.Random, root: str) -> None:
    rows = oracle.float_rows(chance, F64, 2, ROWS)

    def expected(a: int, b: int) -> int:
        numbers = [bits for bits in (a, b) if not F64.is_nan(bits)]
        key = {bits: -(bits ^ F64.sign) - 1 if bits & F64.sign else bits for bits in numbers}
        return (min if root == "min" else max)(numbers, key=lambda bits: key[bits]) if numbers else NAN_BITS[64]

    check(machine, f"{root}.f64", rows, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_signs_are_changed_cleared_and_copied(machine: Machine, chance: random.Random, kind: str) -> None:
    form = KINDS[kind][0]
    rows = oracle.float_rows(chance, form, 1, ROWS)
    check(machine, f"neg.{kind}", rows, lambda a: a ^ form.sign)
    check(machine, f"abs.{kind}", rows, lambda a: a & ~form.sign)
    if form is F32:
        check(machine, "neg.ftz.f32", rows, lambda a: form.flush(a ^ form.sign))
        check(machine, "abs.ftz.f32", rows, lambda a: form.flush(a & ~form.sign))
    pairs = oracle.float_rows(chance, form, 2, ROWS)
    check(machine, f"copysign.{kind}", pairs, lambda a, b: b & ~form.sign | a & form.sign)
