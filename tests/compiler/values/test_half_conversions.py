"""``cvt`` to and from f16, bf16 and tf32, against exact fractions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from compiler.values import oracle
from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import BF16, F16, F32, F64, NAN_BITS, Format
from compiler.values.test_conversions import INTEGERS, INTEGRAL, MODES, to_integer
from compiler.values.test_halves import numbers, packed, rectified
from compiler.values.test_integers import integer_rows, limited, number
from tensor_wasm.compiler import values
from tensor_wasm.compiler.library import Library
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.runtime import Budget, Engine, Store
from tensor_wasm.wasm import Module, ValType

HALVES = {"f16": F16, "bf16": BF16}
REALS = {"f32": F32, "f64": F64}
FORMATS = {**HALVES, **REALS}
EVERY = [(bits,) for bits in range(1 << 16)]


def rounded(source: Format, target: Format, bits: int, mode: str) -> int:
    """A number of one format in another; what is not finite stays so."""
    if source.is_nan(bits):
        return NAN_BITS[target.bits]
    sign = target.sign if source.is_negative(bits) else 0
    if source.is_infinite(bits):
        return sign | target.infinity
    return target.round(source.value(bits), mode, sign)


def finite(form: Format, bits: int) -> int:
    return bits - 1 if form.is_infinite(bits) else bits


def around(chance: random.Random, source: Format, target: Format, count: int) -> list[int]:
    """Numbers of ``source``: the edges of both formats, what lies on, between and beside numbers of ``target``."""
    found = oracle.float_edges(source)
    ends = [target.infinity - 1, 0, 1, 1 << (target.precision - 1)]
    for place in range(count):
        near = chance.choice(ends) if place % 5 == 0 else oracle.random_float(chance, target)
        exact = source.round(target.value(near), "rn", near & target.sign)
        half_unit = 1 << max(source.precision - target.precision - 1, 0)
        step = chance.choice((0, half_unit, -half_unit)) + chance.choice((0, 0, 1, -1))
        found.append(max(exact + step, 0) & (2 * source.sign - 1))
        found.append(oracle.random_float(chance, source))
    for power in range(target.exponent_min - target.precision - 2, target.exponent_min + 3):
        for odd in (1, 3, 5):
            middle = source.round(odd * Fraction(2) ** power, "rn")
            found += [max(middle + delta, 0) | sign for delta in (-1, 0, 1) for sign in (0, source.sign)]
    return found


def check(machine: Machine, text: str, rows: Sequence[Sequence[int]], expected: Callable[..., int]) -> None:
    target, source = text.split(".")[-2:]
    found = machine.run(instruction(text, [TYPES[source]] * len(rows[0])), rows)
    for row, (got,) in zip(rows, found, strict=True):
        want = expected(*row)
        is_same = got == want or (target in REALS and oracle.same_float(REALS[target], got, want))
        assert is_same, f"{text} {[hex(bits) for bits in row]}: {got:#x}, exactly {want:#x}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", REALS)
@pytest.mark.parametrize("target", HALVES)
def test_narrowing_is_correctly_rounded(
    machine: Machine, chance: random.Random, source: str, target: str, mode: str
) -> None:
    have, want = REALS[source], HALVES[target]
    rows = [(bits,) for bits in around(chance, have, want, 150)]
    check(machine, f"cvt.{mode}.{target}.{source}", rows, lambda bits: rounded(have, want, bits, mode))
    for modifier, change in {"sat": want.saturate, "relu": lambda bits: rectified(want, bits)}.items():
        check(
            machine,
            f"cvt.{mode}.{modifier}.{target}.{source}",
            rows[::2],
            lambda bits, change=change: change(rounded(have, want, bits, mode)),
        )
    check(
        machine,
        f"cvt.{mode}.satfinite.{target}.{source}",
        rows[::2],
        lambda bits: finite(want, rounded(have, want, bits, mode)),
    )
    check(
        machine,
        f"cvt.{mode}.relu.satfinite.{target}.{source}",
        rows[::2],
        lambda bits: finite(want, rectified(want, rounded(have, want, bits, mode))),
    )
    if source == "f32":
        tiny = [(oracle.random_float(chance, F32, 1 << 23),) for _ in range(100)]
        check(
            machine,
            f"cvt.{mode}.ftz.{target}.f32",
            tiny,
            lambda bits: rounded(F32, want, F32.flush(bits), mode),
        )


@pytest.mark.parametrize("source", HALVES)
def test_every_half_is_widened_exactly(machine: Machine, source: str) -> None:
    form = HALVES[source]
    bits = np.arange(1 << 16, dtype=np.uint32)
    wanted = numbers(form, bits)
    for target, kind, word in (("f32", np.float32, np.uint32), ("f64", np.float64, np.uint64)):
        found = np.array(machine.run(instruction(f"cvt.{target}.{source}", [TYPES[source]]), EVERY)).astype(word)
        got = found[:, 0].view(kind)
        is_nan = np.isnan(wanted)
        assert (np.isnan(got) == is_nan).all()
        with np.errstate(invalid="ignore"):
            exact = wanted.astype(kind).view(word)
        assert (found[:, 0] == exact)[~is_nan].all()
        check(machine, f"cvt.sat.{target}.{source}", EVERY[::61], saturated(form, FORMATS[target]))
    check(machine, f"cvt.ftz.f32.{source}", EVERY[::61], flushed(form))


def saturated(form: Format, target: Format) -> Callable[[int], int]:
    return lambda bits: target.saturate(rounded(form, target, bits, "rn"))


def flushed(form: Format) -> Callable[[int], int]:
    return lambda bits: F32.flush(rounded(form, F32, bits, "rn"))


@pytest.mark.parametrize("mode", MODES)
def test_halves_of_one_layout_turn_into_those_of_the_other(machine: Machine, mode: str) -> None:
    rows = EVERY[:: 67 if mode == "rn" else 211]
    check(machine, f"cvt.{mode}.bf16.f16", rows, lambda bits: rounded(F16, BF16, bits, mode))
    check(machine, f"cvt.{mode}.f16.bf16", rows, lambda bits: rounded(BF16, F16, bits, mode))


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("mode", ["", *INTEGRAL])
def test_halves_round_to_integral_halves_keeping_the_sign_of_zero(machine: Machine, kind: str, mode: str) -> None:
    form = HALVES[kind]

    def expected(bits: int) -> int:
        if form.is_nan(bits):
            return NAN_BITS[16]
        if form.is_infinite(bits) or not mode:
            return bits
        return form.round(Fraction(to_integer(form.value(bits), mode)), "rn", bits & form.sign)

    name = f"cvt.{mode}" if mode else "cvt"
    check(machine, f"{name}.{kind}.{kind}", EVERY[::61], expected)
    check(machine, f"{name}.sat.{kind}.{kind}", EVERY[::61], lambda bits: form.saturate(expected(bits)))


@pytest.mark.parametrize("mode", INTEGRAL)
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", HALVES)
def test_halves_to_integers_round_and_saturate(machine: Machine, source: str, target: str, mode: str) -> None:
    form, want = HALVES[source], TYPES[target]
    mask = (1 << want.bits) - 1

    def expected(bits: int) -> int:
        if form.is_nan(bits):
            return 1 << 63 if want.bits == 64 else 0
        if form.is_infinite(bits):
            return limited(-(1 << 99) if form.is_negative(bits) else 1 << 99, target) & mask
        return limited(to_integer(form.value(bits), mode), target) & mask

    for modifier in ("", ".sat"):
        check(machine, f"cvt.{mode}{modifier}.{target}.{source}", EVERY[::211], expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", HALVES)
def test_integers_to_halves_are_rounded_once(
    machine: Machine, chance: random.Random, source: str, target: str, mode: str
) -> None:
    form, have = HALVES[target], TYPES[source]
    mask = (1 << have.bits) - 1
    rows = integer_rows(chance, [have.bits])
    for _ in range(80):  # a middle between two halves, or one beside it
        top = chance.getrandbits(form.precision + 1) | 1 << form.precision | 1
        middle = top << chance.randint(0, max(have.bits - form.precision - 1, 0))
        rows.append(((middle + chance.choice((-1, 0, 1))) * chance.choice((1, -1)) & mask,))
    for modifier in ("", ".sat"):
        found = machine.run(instruction(f"cvt.{mode}{modifier}.{target}.{source}", [have]), rows)
        for (bits,), (got,) in zip(rows, found, strict=True):
            value = number(bits & mask, have)
            want = form.round(Fraction(value), mode)
            want = form.saturate(want) if modifier else want
            assert got == want, f"cvt.{mode}{modifier}.{target}.{source} {value}: {got:#x}, exactly {want:#x}"


@pytest.mark.parametrize("modifiers", ["", ".relu", ".satfinite", ".relu.satfinite"])
@pytest.mark.parametrize("mode", ["rn", "rz"])
@pytest.mark.parametrize("target", ["f16x2", "bf16x2"])
def test_the_first_of_two_numbers_goes_to_the_upper_half(
    machine: Machine, chance: random.Random, target: str, mode: str, modifiers: str
) -> None:
    form = HALVES[target.removesuffix("x2")]
    rows = list(itertools.pairwise(around(chance, F32, form, 150)))

    def half(bits: int) -> int:
        result = rounded(F32, form, bits, mode)
        result = rectified(form, result) if "relu" in modifiers else result
        return finite(form, result) if "satfinite" in modifiers else result

    check(machine, f"cvt.{mode}{modifiers}.{target}.f32", rows, lambda a, b: half(a) << 16 | half(b))


TF32 = Format(19, 11, 127)


@pytest.mark.parametrize("modifiers", ["", ".relu", ".satfinite", ".relu.satfinite"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rna"])
def test_tf32_is_an_f32_rounded_to_ten_stored_bits(
    machine: Machine, chance: random.Random, mode: str, modifiers: str
) -> None:
    def away(bits: int) -> int:
        """Ties go away from zero: what is at least the middle between the neighbours is rounded up."""
        sign = TF32.sign if F32.is_negative(bits) else 0
        size = abs(F32.value(bits))
        down, up = TF32.round(size, "rz"), TF32.round(size, "rp")
        if TF32.is_infinite(up):
            is_up = size >= (2 - Fraction(1, 2**11)) * 2**127
        else:
            is_up = 2 * size >= TF32.value(down) + TF32.value(up)
        return sign | (up if is_up else down)

    def expected(bits: int) -> int:
        if F32.is_nan(bits):
            return 0x7FFF_FFFF
        if mode == "rna" and not F32.is_infinite(bits):
            result = away(bits)
        else:
            result = rounded(F32, TF32, bits, mode) if F32.is_infinite(bits) or mode != "rna" else 0
        result = 0 if "relu" in modifiers and TF32.is_negative(result) else result
        return (finite(TF32, result) if "satfinite" in modifiers else result) << 13

    rows = [(bits,) for bits in around(chance, F32, TF32, 200)]
    check(machine, f"cvt.{mode}{modifiers}.tf32.f32", rows, expected)


@pytest.mark.parametrize("layout", HALVES)
def test_helpers_of_the_library_convert_as_instructions_do(engine: Engine, chance: random.Random, layout: str) -> None:
    """A module of its own, because what calls them is not an instruction."""
    form = HALVES[layout]
    module = Module()
    library = Library(module, values.BUILDERS)
    names = {f"{layout}.to_f32": ("i32", "f32"), f"{layout}.from_f32": ("f32", "i32")}
    names |= {f"{layout}.from_f64": ("f64", "i32"), f"{layout}.from_f32.rz": ("f32", "i32")}
    kinds = {"i32": ValType.I32, "f32": ValType.F32, "f64": ValType.F64}
    for name, (parameter, result) in names.items():
        outer = module.function([kinds[parameter]], [kinds[result]], export=name)
        outer.code.get(outer.parameters[0])
        outer.code.call(library.function(name))
    store = Store(engine, Budget(1 << 26))
    try:
        instance = store.instantiate(engine.compile(module.encode().wasm), [])

        def call(name: str, value: float) -> float:
            parameter, result = names[name]
            (found,) = store.call(instance.function(name), [parameter], [value], [result])
            return found

        for _ in range(50):
            half = form.round(Fraction(chance.randint(-4000, 4000), 64), "rn")
            number_ = float(form.value(half))
            assert call(f"{layout}.to_f32", half) == number_
            for name in (f"{layout}.from_f32", f"{layout}.from_f64", f"{layout}.from_f32.rz"):
                assert call(name, number_) == half
    finally:
        store.close()


def test_pairs_are_independent(machine: Machine) -> None:
    """NaN, infinities and carries of one half leave the other alone."""
    rows = packed([(0x7FFF, 0x3C00), (0x7C00, 0x7BFF), (0x3C00, 0x3C00), (0x8001, 0x0001), (0xFFFF, 0xFC00)])
    alone = [(low & 0xFFFF, other & 0xFFFF) for low, other in rows]
    pairs = machine.run(instruction("add.f16x2", [ScalarType.F16X2] * 2), rows)
    singles = machine.run(instruction("add.f16", [ScalarType.F16] * 2), alone)
    assert [got & 0xFFFF for (got,) in pairs] == [got for (got,) in singles]
    assert [got >> 16 for (got,) in pairs[1:]] == [got for (got,) in singles[:-1]]
