"""``redux``: combinations over members."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest

from compiler.warp.harness import ALL, Warps, lanes_of

OPERATIONS = {
    "add.u32": operator.add,
    "add.s32": operator.add,
    "min.u32": min,
    "min.s32": min,
    "max.u32": max,
    "max.s32": max,
    "and.b32": operator.and_,
    "or.b32": operator.or_,
    "xor.b32": operator.xor,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_member_gets_the_combination_of_the_members(name: str, warps: Warps, chance: np.random.Generator) -> None:
    kind = np.int32 if name.endswith("s32") else np.uint32
    edges = np.array([0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF], dtype=np.uint32)
    for members in [ALL, 1, 1 << 31, *chance.integers(1, 1 << 32, 15).tolist()]:
        for words in (chance.integers(0, 1 << 32, 32, dtype=np.uint32), chance.choice(edges, 32)):
            results = warps.resolve(f"redux.{name}", words.reshape(32, 1), members)
            values = words.view(kind).tolist()
            lanes = lanes_of(members)
            wanted = functools.reduce(OPERATIONS[name], (values[lane] for lane in lanes))
            assert {int(results[lane, 0]) for lane in lanes} == {wanted & 0xFFFF_FFFF}, hex(members)


def test_no_members_is_no_work(warps: Warps) -> None:
    warps.resolve("redux.min.s32", np.zeros((32, 1), np.uint32), 0)
