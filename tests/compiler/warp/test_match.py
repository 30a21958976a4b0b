"""``match``: equal values among members."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.warp.harness import Warps, lanes_of, masks

WIDTHS = (1, 2)


def values_of(chance: np.random.Generator, width: int) -> list[np.ndarray]:
    """Few different values, all different ones, all the same, and values that differ in one word only."""
    few = chance.integers(0, 1 << 32, (3, width), dtype=np.uint32)[chance.integers(0, 3, 32)]
    different = chance.permutation(32).astype(np.uint32).repeat(width).reshape(32, width)
    same = np.full((32, width), chance.integers(0, 1 << 32), dtype=np.uint32)
    low, high = same.copy(), same.copy()
    low[:, 0] += chance.integers(0, 2, 32, dtype=np.uint32)
    high[:, -1] += chance.integers(0, 2, 32, dtype=np.uint32)
    return [few, different, same, low, high]


@pytest.mark.parametrize("width", WIDTHS)
def test_any_gives_the_members_with_the_same_value(width: int, warps: Warps, chance: np.random.Generator) -> None:
    for members in masks(chance):
        for values in values_of(chance, width):
            results = warps.resolve(f"match.any.b{32 * width}", values, members)
            lanes = lanes_of(members)
            for lane in lanes:
                wanted = sum(1 << other for other in lanes if np.array_equal(values[other], values[lane]))
                assert int(results[lane, 0]) == wanted, (hex(members), lane)


@pytest.mark.parametrize("width", WIDTHS)
def test_all_gives_the_members_if_they_agree_else_nothing(
    width: int, warps: Warps, chance: np.random.Generator
) -> None:
    for members in masks(chance):
        lanes = lanes_of(members)
        agreeing = np.array(chance.integers(0, 1 << 32, (32, width)), dtype=np.uint32)
        agreeing[lanes] = agreeing[lanes[0]]
        for values in [agreeing, *values_of(chance, width)]:
            results = warps.resolve(f"match.all.b{32 * width}", values, members)
            agree = len({tuple(values[lane].tolist()) for lane in lanes}) == 1
            found = {tuple(results[lane, :2].tolist()) for lane in lanes}
            assert found == {(members if agree else 0, int(agree))}, hex(members)


@pytest.mark.parametrize("mode", ["any", "all"])
def test_no_members_is_no_work(mode: str, warps: Warps) -> None:
    warps.resolve(f"match.{mode}.b64", np.zeros((32, 2), np.uint32), 0)
