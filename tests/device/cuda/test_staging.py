"""Who has which part of the staging area: what a tenant can take beside others, and that nothing is given out twice."""

from __future__ import annotations

import random

import pytest

from tensor_wasm.device.cuda.staging import Staging

MIB = 1 << 20
GRAIN = 1 << 16


@pytest.mark.parametrize(
    ("area", "copies"), [(GRAIN * 4, GRAIN), (16 * MIB, 4 * MIB), (256 * MIB, 64 * MIB), (512 * MIB, 64 * MIB)]
)
def test_copies_have_a_part_of_their_own(area: int, copies: int) -> None:
    staging = Staging(area)
    assert staging.copies == (area - copies, copies)
    assert staging.take(area - copies) == 0
    assert staging.take(1) is None


def test_one_tenant_alone_has_half_and_another_finds_room_then() -> None:
    staging = Staging(512 * MIB)
    assert staging.take(225 * MIB, 1) is None
    place = staging.take(224 * MIB, 1)
    assert place is not None
    assert staging.take(1, 1) is None
    # Of what is left, too, each gets half.
    assert staging.take(112 * MIB, 2) is not None
    assert staging.take(57 * MIB, 3) is None
    assert staging.take(56 * MIB, 3) is not None
    staging.give(place, 224 * MIB)
    assert staging.take(128 * MIB, 1) is not None


def test_what_is_given_back_instead_does_not_count() -> None:
    staging = Staging(512 * MIB)
    first = staging.take(64 * MIB, 1)
    assert first is not None
    assert staging.take(192 * MIB, 1) is None
    assert staging.take(192 * MIB, 1, instead_bytes=64 * MIB) is not None
    staging.give(first, 64 * MIB)
    assert staging.take(64 * MIB, 1) is None
    assert staging.take(32 * MIB, 1) is not None


def test_random_takes_never_overlap_and_all_comes_back() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    staging = Staging(64 * MIB)
    room, _ = staging.copies
    held: list[tuple[int, int, int | None]] = []
    for _ in range(3000):
        if held and rng.random() < 0.45:
            place, size, _ = held.pop(rng.randrange(len(held)))
            staging.give(place, size)
            continue
        size, tenant = rng.choice([1, GRAIN, 100_000, rng.randrange(1, 20 * MIB)]), rng.choice([None, 1, 2, 3])
        found = staging.take(size, tenant)
        if found is None:
            continue
        end = found + -(-size // GRAIN) * GRAIN
        assert found % GRAIN == 0
        assert end <= room
        for place, other, _ in held:
            assert end <= place or place + -(-other // GRAIN) * GRAIN <= found, f"seed {seed}"
        held.append((found, size, tenant))
        if tenant is not None:
            rounded = [(-(-size // GRAIN) * GRAIN, owner) for _, size, owner in held]
            free = room - sum(size for size, _ in rounded)
            assert sum(size for size, owner in rounded if owner == tenant) <= free, f"seed {seed}"
    for place, size, _ in held:
        staging.give(place, size)
    assert staging.take(room) == 0
