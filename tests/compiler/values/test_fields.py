"""Bit fields against the pseudo code of the PTX ISA."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from compiler.values.harness import TYPES, Machine, instruction
from compiler.values.oracle import signed
from compiler.values.test_integers import integer_rows
from tensor_wasm.ptx.program import Immediate, ScalarType

U32, B32 = ScalarType.U32, ScalarType.B32
PLACES = (0, 1, 5, 16, 24, 31, 32, 33, 40, 63, 64, 65, 128, 255, 256, 257, 0xFFFF_FFFF)


def extracted(a: int, b: int, c: int, kind: ScalarType) -> int:
    top = kind.bits - 1
    position, length = b & 0xFF, c & 0xFF
    fill = 0
    if kind.is_signed and length:
        fill = a >> min(position + length - 1, top) & 1
    bits = [
        a >> (position + index) & 1 if index < length and position + index <= top else fill for index in range(top + 1)
    ]
    return sum(bit << index for index, bit in enumerate(bits))


def inserted(a: int, b: int, c: int, d: int, width: int) -> int:
    position, length = c & 0xFF, d & 0xFF
    result = b
    for index in range(length):
        if position + index < width:
            result &= ~(1 << position + index)
            result |= (a >> index & 1) << position + index
    return result


def compare(
    machine: Machine,
    text: str,
    sources: Sequence[ScalarType],
    rows: Sequence[tuple[int, ...]],
    folded: int,
    expected: Callable[..., int],
) -> None:
    """In registers, and for some rows with the operands from ``folded`` on as constants."""
    found = machine.run(instruction(text, sources), rows)
    for row, (got,) in zip(rows, found, strict=True):
        assert got == expected(*row), f"{text} {[hex(value) for value in row]}"
    for row in rows[:: max(len(rows) // 150, 1)]:
        constants = [Immediate(value, kind) for value, kind in zip(row, sources, strict=True)][folded:]
        form = instruction(text, [*sources[:folded], *constants])
        assert machine.run(form, [row]) == [(expected(*row),)], f"{text} {[hex(value) for value in row]}, constants"


@pytest.mark.parametrize("name", ["u32", "s32", "u64", "s64"])
def test_extraction(machine: Machine, chance: random.Random, name: str) -> None:
    kind = TYPES[name]
    values = [a & ((1 << kind.bits) - 1) for (a,) in integer_rows(chance, [kind.bits], 3)]
    rows = [(a, b, c) for a in values for b in PLACES for c in PLACES]
    compare(machine, f"bfe.{name}", [kind, U32, U32], rows, 1, lambda a, b, c: extracted(a, b, c, kind))


@pytest.mark.parametrize("name", ["b32", "b64"])
def test_insertion(machine: Machine, chance: random.Random, name: str) -> None:
    kind = TYPES[name]
    mask = (1 << kind.bits) - 1
    values = [(a & mask, b & mask) for a, b in integer_rows(chance, [kind.bits, kind.bits], 3)]
    rows = [(a, b, c, d) for a, b in values for c in PLACES for d in PLACES]
    compare(machine, f"bfi.{name}", [kind, kind, U32, U32], rows, 2, lambda a, b, c, d: inserted(a, b, c, d, kind.bits))


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_masks(machine: Machine, mode: str) -> None:
    def expected(a: int, b: int) -> int:
        ones = 0xFFFF_FFFF
        start, count = a & 31, b & 31
        first = ones << start & ones
        beyond = ones << start + count & ones if start + count < 32 else 0
        if mode == "clamp":
            if a >= 32:
                first = beyond = 0
            if b >= 32:
                beyond = 0
        if count == 0 and not (mode == "clamp" and (a >= 32 or b >= 32)):
            beyond = ones
        return first & ~beyond

    rows = [(a, b) for a in PLACES for b in PLACES]
    found = machine.run(instruction(f"bmsk.{mode}.b32", [B32, B32]), rows)
    for row, (got,) in zip(rows, found, strict=True):
        assert got == expected(*row), f"bmsk.{mode} {row}"


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
@pytest.mark.parametrize("name", ["u32", "s32"])
def test_extension_from_any_width(machine: Machine, chance: random.Random, name: str, mode: str) -> None:
    def expected(a: int, b: int) -> int:
        if mode == "clamp" and b >= 32:
            return a
        count = b & 31
        if count == 0:
            return 0
        low = a & ((1 << count) - 1)
        return (signed(low, count) if name == "s32" else low) & 0xFFFF_FFFF

    values = [a & 0xFFFF_FFFF for (a,) in integer_rows(chance, [32], 20)]
    rows = [(a, b) for a in values for b in PLACES]
    found = machine.run(instruction(f"szext.{mode}.{name}", [TYPES[name], U32]), rows)
    for row, (got,) in zip(rows, found, strict=True):
        assert got == expected(*row), f"szext.{mode}.{name} {row}"


def nth_set_bit(mask: int, base: int, offset: int) -> int:
    if offset == 0:
        return base if base < 32 and mask >> base & 1 else 0xFFFF_FFFF
    position, left = base, abs(offset) - 1
    while 0 <= position < 32:
        if mask >> position & 1:
            if left == 0:
                return position
            left -= 1
        position += 1 if offset > 0 else -1
    return 0xFFFF_FFFF


def test_the_nth_set_bit_in_either_direction(machine: Machine, chance: random.Random) -> None:
    masks = [mask & 0xFFFF_FFFF for (mask,) in integer_rows(chance, [32], 15)]
    offsets = (0, 1, 2, 5, 32, 33, -1, -2, -5, -32, 2**31 - 1, -(2**31))
    rows = [(m, b, o & 0xFFFF_FFFF) for m in masks for b in (0, 1, 7, 30, 31, 32, 2**31) for o in offsets]
    found = machine.run(instruction("fns.b32", [B32] * 3), rows)
    for (mask, base, offset), (got,) in zip(rows, found, strict=True):
        assert got == nth_set_bit(mask, base, signed(offset, 32)), f"fns {mask:#x} {base} {offset:#x}"
