"""Whose call is next in front of the workers."""

from __future__ import annotations

import random

import pytest

from tensor_wasm.node.queue import FairQueue


def serve(queue: FairQueue[str], count: int) -> list[int]:
    """Take items one after another, each finished before the next."""
    served = []
    for _ in range(count):
        tenant, _ = queue.pop()
        queue.finish(tenant)
        served.append(tenant)
    return served


def test_tenants_take_turns_and_each_tenants_items_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue(lambda _: 1)
    for name in "abcd":
        queue.push(1, name)
    for name in "xy":
        queue.push(2, name)
    popped = []
    for _ in range(6):
        tenant, item = queue.pop()
        queue.finish(tenant)
        popped.append(item)
    assert [item for item in popped if item in "abcd"] == list("abcd")
    assert sorted(popped[:4]) == ["a", "b", "x", "y"]
    assert queue.next() is None


def test_turns_go_by_weight() -> None:
    queue: FairQueue[str] = FairQueue({1: 3, 2: 1}.__getitem__)
    for _ in range(40):
        queue.push(1, "")
        queue.push(2, "")
    served = serve(queue, 40)
    assert served.count(1) == pytest.approx(30, abs=1)


def test_who_has_most_running_waits_for_the_others() -> None:
    queue: FairQueue[str] = FairQueue(lambda _: 1)
    for _ in range(3):
        queue.start(1)
    queue.push(1, "a")
    queue.push(2, "x")
    assert queue.next() == (2, 0)
    assert queue.pop() == (2, "x")
    assert queue.next() == (1, 3)


def test_a_tenant_that_comes_late_has_no_turns_to_make_up_for() -> None:
    queue: FairQueue[str] = FairQueue(lambda _: 1)
    for _ in range(50):
        queue.push(1, "")
    serve(queue, 40)
    for _ in range(10):
        queue.push(2, "")
    assert serve(queue, 10).count(1) == pytest.approx(5, abs=1)


def test_an_item_that_left_is_not_served() -> None:
    queue: FairQueue[str] = FairQueue(lambda _: 1)
    queue.push(1, "a")
    queue.push(1, "b")
    assert queue.remove(1, "a")
    assert not queue.remove(1, "a")
    assert not queue.remove(9, "a")
    assert queue.pop() == (1, "b")
    queue.push(2, "c")
    assert queue.remove(2, "c")
    assert queue.next() is None
    assert queue.length == 0


def test_a_flood_of_tenants_leaves_nothing_behind() -> None:
    queue: FairQueue[str] = FairQueue(lambda _: 1)
    for tenant in range(20_000):
        queue.start(tenant)
        queue.finish(tenant)
    assert len(queue._lines) <= 1024
    assert len(queue._heap) < 200


@pytest.mark.parametrize("seed", [random.randrange(1 << 32)], ids=["random"])
def test_counts_hold_whatever_comes(seed: int) -> None:
    chance = random.Random(seed)
    weights = {tenant: chance.randrange(1, 5) for tenant in range(6)}
    queue: FairQueue[int] = FairQueue(weights.__getitem__)
    waiting: dict[int, list[int]] = {tenant: [] for tenant in weights}
    running = dict.fromkeys(weights, 0)
    for number in range(5_000):
        tenant = chance.randrange(6)
        match chance.randrange(4):
            case 0 | 1:
                queue.push(tenant, number)
                waiting[tenant].append(number)
            case 2 if queue.next() is not None:
                least = min(running[t] / weights[t] for t in weights if waiting[t])
                found, item = queue.pop()
                assert item == waiting[found].pop(0)
                assert running[found] / weights[found] == least
                running[found] += 1
            case _ if running[tenant]:
                queue.finish(tenant)
                running[tenant] -= 1
        assert queue.length == sum(map(len, waiting.values()))
        assert queue.running == sum(running.values())
    assert queue.tenants() == {t: len(items) for t, items in waiting.items() if items}
