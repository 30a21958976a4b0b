"""Votes, ballots, masks and elections."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.warp.harness import Warps, lanes_of, masks


def truths(chance: np.random.Generator, members: int) -> list[np.ndarray]:
    """Predicates of 32 lanes: random ones, then all the same among the members and different outside."""
    inside = np.array([members >> lane & 1 for lane in range(32)], dtype=np.uint32)
    one = inside.copy()
    one[chance.choice(lanes_of(members))] ^= 1
    return [chance.integers(0, 2, 32, dtype=np.uint32), inside, 1 - inside, one, 1 - one]


@pytest.mark.parametrize("mode", ["all", "any", "uni", "ballot"])
def test_votes_count_members_only(mode: str, warps: Warps, chance: np.random.Generator) -> None:
    for members in masks(chance):
        for predicates in truths(chance, members):
            results = warps.resolve(f"vote.{mode}", predicates.reshape(32, 1), members)
            votes = [bool(predicates[lane]) for lane in lanes_of(members)]
            wanted = {
                "all": all(votes),
                "any": any(votes),
                "uni": len(set(votes)) == 1,
                "ballot": sum(1 << lane for lane in lanes_of(members) if predicates[lane]),
            }[mode]
            assert {int(results[lane, 0]) for lane in lanes_of(members)} == {int(wanted)}, hex(members)


def test_activemask_is_the_members(warps: Warps, chance: np.random.Generator) -> None:
    for members in masks(chance):
        results = warps.resolve("activemask", np.zeros((32, 0), np.uint32), members)
        assert {int(results[lane, 0]) for lane in lanes_of(members)} == {members}


def test_the_lowest_member_is_elected(warps: Warps, chance: np.random.Generator) -> None:
    for members in masks(chance):
        results = warps.resolve("elect", np.zeros((32, 0), np.uint32), members)
        leader = lanes_of(members)[0]
        found = [tuple(results[lane, :2].tolist()) for lane in lanes_of(members)]
        assert found == [(leader, int(lane == leader)) for lane in lanes_of(members)]


def test_a_warp_barrier_writes_nothing(warps: Warps) -> None:
    # The harness fills what is around the operands with the same noise for the same members.
    results = warps.resolve("bar.warp", np.zeros((32, 1), np.uint32))
    others = warps.resolve("activemask", np.zeros((32, 1), np.uint32))
    assert np.array_equal(results[:, 1:], others[:, 1:])


@pytest.mark.parametrize("key", ["vote.all", "vote.uni", "vote.ballot", "activemask", "elect"])
def test_no_members_is_no_work(key: str, warps: Warps) -> None:
    warps.resolve(key, np.zeros((32, 1), np.uint32), 0)
