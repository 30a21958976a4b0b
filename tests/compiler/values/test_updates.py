"""What ``atom`` and ``red`` leave in memory, against Python's integers and exact fractions."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from compiler.values import oracle
from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import BF16, F16, F32, F64
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.values import updates
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.opcodes import TABLE
from tensor_wasm.ptx.program import Immediate, ScalarType
from tensor_wasm.wasm import Body, Module

S = ScalarType
FORMATS = {"f16": F16, "f16x2": F16, "bf16": BF16, "bf16x2": BF16, "f32": F32, "f64": F64}
INTEGERS = ("u32", "s32", "u64", "s64")


def check(machine: Machine, text: str, rows: list[tuple[int, ...]], expected: Callable[..., int]) -> None:
    """Rows are the old value and the operands. Of ``atom`` and ``red`` alike, where there is such a ``red``."""
    kind = TYPES[text.rpartition(".")[2]]
    outer = instruction("mov.b32", [kind] * len(rows[0]))
    for root in ("atom", "red") if "cas" not in text and "exch" not in text else ("atom",):
        form = instruction(f"{root}.{text}", [kind] * (len(rows[0]) - 1))
        assert updates.handles(form), form.text

        def write(body: Body, push: Callable[[int, ScalarType], None], library: Library, form=form) -> None:
            updates.update(body, form, lambda: push(0, kind), lambda at, own: push(at + 1, own), library)

        found = machine.run_code(outer, [kind], write, rows)
        for row, (got,) in zip(rows, found, strict=True):
            want = expected(*row)
            is_same = got == want or (kind in (S.F32, S.F64) and oracle.same_float(FORMATS[kind.ptx_name], got, want))
            assert is_same, f"{form.text} {[hex(value) for value in row]}: {got:#x}, not {want:#x}"


def rows_of(chance: random.Random, width: int, count: int = 2) -> list[tuple[int, ...]]:
    edges = oracle.integer_edges(width)
    rows = [(a, b) + (a ^ b,) * (count - 2) for a in edges for b in edges]
    return rows + [tuple(oracle.random_integer(chance, width) for _ in range(count)) for _ in range(200)]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_are_added_and_compared(machine: Machine, chance: random.Random, kind: str) -> None:
    width = TYPES[kind].bits
    mask = (1 << width) - 1
    rows = rows_of(chance, width)

    def number(bits: int) -> int:
        return oracle.signed(bits, width) if kind.startswith("s") else bits

    check(machine, f"relaxed.gpu.add.{kind}", rows, lambda old, b: old + b & mask)
    check(machine, f"min.{kind}", rows, lambda old, b: min(old, b, key=number))
    check(machine, f"max.{kind}", rows, lambda old, b: max(old, b, key=number))


def test_counters_wrap_at_their_limit(machine: Machine, chance: random.Random) -> None:
    rows = rows_of(chance, 32) + [(a + d & 0xFFFF_FFFF, a) for a, _ in rows_of(chance, 32) for d in (-1, 0, 1)]
    check(machine, "inc.u32", rows, lambda old, limit: 0 if old >= limit else old + 1)
    check(machine, "dec.u32", rows, lambda old, limit: limit if old == 0 or old > limit else old - 1)


@pytest.mark.parametrize("width", [32, 64])
def test_bits_are_combined_and_exchanged(machine: Machine, chance: random.Random, width: int) -> None:
    rows = rows_of(chance, width)
    check(machine, f"and.b{width}", rows, lambda old, b: old & b)
    check(machine, f"or.b{width}", rows, lambda old, b: old | b)
    check(machine, f"xor.b{width}", rows, lambda old, b: old ^ b)
    check(machine, f"acq_rel.sys.exch.b{width}", rows, lambda _old, b: b)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_a_place_is_swapped_only_if_it_holds_what_is_expected(
    machine: Machine, chance: random.Random, width: int
) -> None:
    rows = rows_of(chance, width, 3)
    rows += [(old, old, new) for old, _, new in rows]
    check(machine, f"cas.b{width}", rows, lambda old, compare, new: new if old == compare else old)


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
def test_sums_of_floats_are_rounded_to_nearest_and_not_flushed(
    machine: Machine, chance: random.Random, kind: str
) -> None:
    form = FORMATS[kind]
    rows = oracle.float_rows(chance, form, 2, 400)
    text = f"add.{kind}" if kind in ("f32", "f64") else f"add.noftz.{kind}"
    check(machine, text, rows, lambda old, b: oracle.add(form, old, b, "rn"))


@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
def test_the_halves_of_a_pair_are_added_apart(machine: Machine, chance: random.Random, kind: str) -> None:
    form = FORMATS[kind]
    low, high = (oracle.float_rows(chance, form, 2, 300) for _ in range(2))
    rows = [(a | c << 16, b | d << 16) for (a, b), (c, d) in zip(low, high, strict=True)]

    def expected(old: int, b: int) -> int:
        upper = oracle.add(form, old >> 16, b >> 16, "rn")
        return oracle.add(form, old & 0xFFFF, b & 0xFFFF, "rn") | upper << 16

    check(machine, f"add.noftz.{kind}", rows, expected)


def test_a_constant_operand_is_as_good_as_a_register(machine: Machine) -> None:
    form = instruction("atom.add.u32", [Immediate(5, S.U32)])
    outer = instruction("mov.b32", [S.U32, Immediate(5, S.U32)])

    def write(body: Body, push: Callable[[int, ScalarType], None], library: Library) -> None:
        updates.update(body, form, lambda: push(0, S.U32), lambda at, own: push(at + 1, own), library)

    assert machine.run_code(outer, [S.U32], write, [(37, 0)]) == [(42,)]


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        ("atom.exch.b128", 1),
        ("atom.cas.b32", 1),
        ("atom.inc.u64", 1),
        ("atom.min.f32", 1),
        ("atom.and.u32", 1),
        ("atom.relaxed.gpu.b32", 1),
        ("add.u32", 2),
    ],
)
def test_what_is_no_update_is_refused_with_its_place(text: str, operands: int) -> None:
    form = instruction(text, [S.B32] * operands)
    assert not updates.handles(form)
    with pytest.raises(PtxError, match="not supported") as caught:
        updates.update(Body([], []), form, lambda: None, lambda _at, _kind: None, Library(Module()))
    assert (caught.value.line, caught.value.column) == (1, 1)


def test_every_atomic_form_that_the_front_end_lets_through_has_an_update() -> None:
    named = ["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"]
    for row in TABLE:
        if row.root not in ("atom", "red") or not row.is_lowered:
            continue
        (names,) = [slot.names for slot in row.parts if slot.names & set(named)]
        extra = [name for slot in row.parts if not slot.is_optional for name in slot.names if name == "noftz"]
        for name in names:
            for kind in row.parts[-1].names:
                text = ".".join([row.root, name, *extra, kind])
                assert updates.handles(instruction(text, [TYPES[kind]] * (2 if name == "cas" else 1))), text
