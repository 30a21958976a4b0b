"""``shfl`` against the pseudocode of the PTX ISA, lane by lane."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.warp.harness import ALL, Warps, lanes_of

MODES = ("up", "down", "bfly", "idx")


def expected(mode: str, words: list[list[int]], members: int) -> dict[int, tuple[int, int]]:
    """Value and predicate of each member; ``words`` holds a, b and c of each lane."""
    found = {}
    for lane in lanes_of(members):
        value, b, c = words[lane]
        offset, clamp, segment = b & 31, c & 31, c >> 8 & 31
        last = (lane & segment) | (clamp & ~segment)
        first = lane & segment
        source, is_inside = {
            "up": (lane - offset, lane - offset >= last),
            "down": (lane + offset, lane + offset <= last),
            "bfly": (lane ^ offset, (lane ^ offset) <= last),
            "idx": (first | (offset & ~segment), (first | (offset & ~segment)) <= last),
        }[mode]
        if is_inside and members >> source & 1:
            value = words[source][0]
        found[lane] = (value, int(is_inside))
    return found


def check(warps: Warps, mode: str, operands: np.ndarray, members: int) -> None:
    results = warps.resolve(f"shfl.{mode}", operands, members)
    wanted = expected(mode, operands.tolist(), members)
    assert {lane: tuple(results[lane, :2].tolist()) for lane in wanted} == wanted, (mode, hex(members))


def operands_of(chance: np.random.Generator, b: object, c: object) -> np.ndarray:
    operands = chance.integers(0, 1 << 32, (32, 3), dtype=np.uint32)
    operands[:, 1] = b
    operands[:, 2] = c
    return operands


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [32, 16, 8, 4, 2, 1])
def test_every_offset_in_segments_of_every_width(
    mode: str, width: int, warps: Warps, chance: np.random.Generator
) -> None:
    # What CUDA's intrinsics make of a width.
    control = (32 - width) << 8 | (0 if mode == "up" else 31)
    for offset in range(0, 32, 1 if width == 32 else 5):
        check(warps, mode, operands_of(chance, offset, control), ALL)


@pytest.mark.parametrize("mode", MODES)
def test_lanes_may_differ_in_every_operand(mode: str, warps: Warps, chance: np.random.Generator) -> None:
    for _ in range(25):
        check(warps, mode, chance.integers(0, 1 << 32, (32, 3), dtype=np.uint32), ALL)


@pytest.mark.parametrize("mode", MODES)
def test_lanes_that_do_not_take_part_are_neither_read_nor_written(
    mode: str, warps: Warps, chance: np.random.Generator
) -> None:
    for members in [1, 1 << 31, 0x7FFF_FFFF, 0xFFFF_FFFE, *chance.integers(1, 1 << 32, 20).tolist()]:
        check(warps, mode, chance.integers(0, 1 << 32, (32, 3), dtype=np.uint32), members)
        check(warps, mode, operands_of(chance, 3, 0 if mode == "up" else 31), members)


@pytest.mark.parametrize("mode", MODES)
def test_no_members_is_no_work(mode: str, warps: Warps, chance: np.random.Generator) -> None:
    check(warps, mode, chance.integers(0, 1 << 32, (32, 3), dtype=np.uint32), 0)


def test_a_butterfly_sums_a_warp(warps: Warps) -> None:
    values = np.arange(32, dtype=np.uint32)
    for offset in (16, 8, 4, 2, 1):
        operands = np.stack([values, np.full(32, offset, np.uint32), np.full(32, 31, np.uint32)], axis=1)
        values = values + warps.resolve("shfl.bfly", operands)[:, 0]
    assert values.tolist() == [496] * 32
