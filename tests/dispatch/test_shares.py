"""Fair shares: whose turn a freed permit is, weights, caps, order of arrival; and that no ending loses a permit."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dispatch.rig import Rig, RigGuest, kernel_module
from tensor_wasm.abi import Code
from tensor_wasm.dispatch import Share
from tensor_wasm.dispatch.layout import State
from tensor_wasm.errors import TensorWasmError, Terminated
from tensor_wasm.runtime import CallFailed, Engine

PATIENCE_S = 20.0


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.001)


class Holder:
    """A guest that launches a kernel which ends by order only."""

    def __init__(self, rig: Rig, tenant: int) -> None:
        self.tenant = tenant
        self.guest = RigGuest(rig, kernel_module(rig.engine, "spin"), tenant=tenant, interrupt=self._interrupt)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        wait_until(lambda: self.holds or self.waits, "the guest neither runs nor waits")

    def _interrupt(self) -> Terminated | None:
        return Terminated("by order") if self.guest.slot.terminate_asked else None

    def _run(self) -> None:
        with pytest.raises((TensorWasmError, CallFailed)):
            self.guest.launch()

    @property
    def holds(self) -> bool:
        return self.guest.slot.state == State.IN_KERNEL

    @property
    def waits(self) -> bool:
        return self.guest.slot.state == State.WAITING

    def end(self) -> None:
        self.guest.slot.ask_to_terminate()
        self.thread.join()
        self.guest.close()


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    made: list[Holder] = []
    yield made
    for holder in made:
        holder.end()


def served_in_turn(holders: list[Holder], rig: Rig, count: int) -> list[Holder]:
    """End who holds the permit, again and again; who gets it each time."""
    served = []
    for _ in range(count):
        current = next(holder for holder in holders if holder.holds)
        holders.remove(current)
        current.end()
        wait_until(lambda: sum(holder.holds for holder in holders) == 1, "nobody was granted the permit")
        served.append(next(holder for holder in holders if holder.holds))
    return served


def test_tenants_take_turns_however_many_launches_one_of_them_queues(engine: Engine, holders: list[Holder]) -> None:
    rig = Rig(engine, permits=1)
    holders += [Holder(rig, tenant) for tenant in (1, 1, 1, 1, 1, 2, 2)]
    served = [holder.tenant for holder in served_in_turn(holders, rig, 4)]
    assert served.count(2) == 2
    assert served[:2].count(2) == 1


def test_launches_of_a_tenant_are_served_in_order_of_arrival(engine: Engine, holders: list[Holder]) -> None:
    rig = Rig(engine, permits=1)
    holders += [Holder(rig, 1) for _ in range(5)]
    arrived = holders[1:]
    assert served_in_turn(holders, rig, 4) == arrived


def test_who_gives_up_waiting_does_not_break_the_queue(engine: Engine, holders: list[Holder]) -> None:
    rig = Rig(engine, permits=1)
    holders += [Holder(rig, 1) for _ in range(6)]
    first, second, third, fourth, fifth = holders[1:]
    for leaver in (third, first, fifth):  # from the middle, the head, the tail
        holders.remove(leaver)
        leaver.end()
    assert rig.ledger.read().tenants[0].waiting == 2
    assert served_in_turn(holders, rig, 2) == [second, fourth]


def test_a_freed_permit_goes_to_who_holds_least_for_its_weight(engine: Engine, holders: list[Holder]) -> None:
    shares = {1: Share(weight=3), 2: Share(weight=1)}
    rig = Rig(engine, permits=4, share_of=shares.__getitem__)
    holders += [Holder(rig, tenant) for tenant in (1, 1, 2, 2, *[1] * 4, *[2] * 4)]
    # 2 and 2 are held. One of tenant 2's comes back: 1 holds 2 of 3, 2 holds 1 of 1.
    leaver = next(holder for holder in holders if holder.tenant == 2 and holder.holds)
    holders.remove(leaver)
    leaver.end()
    wait_until(lambda: sum(holder.holds for holder in holders) == 4, "nobody was granted the permit")
    assert [t.held for t in rig.ledger.read().tenants] == [3, 1]


@pytest.mark.slow  # it measures, and wants the machine for itself
@pytest.mark.parametrize("weight", [1, 3])
def test_even_one_permit_is_shared_by_weight(engine: Engine, weight: int) -> None:
    shares = {1: Share(weight), 2: Share()}
    rig = Rig(engine, permits=1, share_of=shares.__getitem__)
    guests = [RigGuest(rig, kernel_module(engine), tenant=1 + number % 2) for number in range(8)]
    for guest in guests:
        assert guest.launch() == Code.OK  # binds the gates

    def work(guest: RigGuest) -> None:
        with contextlib.suppress(CallFailed):  # ended while it waited
            guest.loop(1_000_000)

    threads = [threading.Thread(target=work, args=(guest,)) for guest in guests]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(t.waiting for t in rig.ledger.read().tenants) >= 2, "there is no contention")
    before = [t.dispatches for t in rig.ledger.read().tenants]
    wait_until(lambda: rig.ledger.read().tenants[1].dispatches - before[1] >= 2_000, "too slow")
    view = rig.ledger.read()
    assert min(t.waiting for t in view.tenants) >= 1, "one tenant was through: nothing was measured"
    one, two = (t.dispatches - old for t, old in zip(view.tenants, before, strict=True))
    for guest in guests:
        guest.slot.ask_to_terminate()
    for thread in threads:
        thread.join()
    for guest in guests:
        guest.close()
    assert one / two == pytest.approx(weight, rel=0.1)
    assert rig.ledger.read().used == 0


def test_a_cap_holds_while_permits_are_free_and_is_no_bound_to_others(engine: Engine, holders: list[Holder]) -> None:
    rig = Rig(engine, permits=4, share_of=lambda tenant: Share(cap=1 if tenant == 1 else None))
    holders += [Holder(rig, tenant) for tenant in (1, 1, 1, 2, 2)]
    wait_until(lambda: sum(holder.holds for holder in holders) == 3, "a tenant without a cap was held up")
    assert [(t.held, t.waiting) for t in rig.ledger.read().tenants] == [(1, 2), (2, 0)]
    rig.ledger.set_share(1, Share(cap=3))
    wait_until(lambda: sum(holder.holds for holder in holders) == 4, "the new cap had no effect")
    assert [(t.held, t.waiting) for t in rig.ledger.read().tenants] == [(2, 1), (2, 0)]


def test_a_permit_given_back_under_a_cap_goes_to_the_same_tenant(engine: Engine, holders: list[Holder]) -> None:
    rig = Rig(engine, permits=4, share_of=lambda _: Share(cap=1))
    holders += [Holder(rig, 1), Holder(rig, 1)]
    first = holders.pop(0)
    first.end()
    wait_until(lambda: holders[0].holds, "the tenant's next launch was forgotten")


def test_a_flood_of_tenants_shares_one_slot_and_loses_nothing(engine: Engine) -> None:
    rig = Rig(engine, permits=1)
    for tenant in range(2_000):
        rig.ledger.tenant_index(tenant)
    guests = [RigGuest(rig, kernel_module(engine), tenant=tenant) for tenant in (5, 1_500, 1_999)]
    threads = [threading.Thread(target=guest.loop, args=(500,)) for guest in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for guest in guests:
        guest.close()
    view = rig.ledger.read()
    assert view.used == 0
    assert [t.dispatches for t in view.tenants if t.tenant in (5, None)] == [500, 1000]


@pytest.mark.parametrize("seed", [random.randrange(1 << 32)], ids=["random"])
def test_no_ending_loses_or_invents_a_permit(engine: Engine, seed: int) -> None:
    """Guests of five tenants launch, are ended at any moment, and their tenants' shares change meanwhile."""
    chance = random.Random(seed)
    rig = Rig(engine, permits=3, max_wait_ms=40, share_of=lambda tenant: Share(1 + tenant, cap=1 + tenant % 3))
    kernels = [kernel_module(engine), kernel_module(engine, "trap")]
    is_over = threading.Event()

    def work(chance: random.Random) -> None:
        while not is_over.is_set():
            guest: list[RigGuest] = []

            def interrupt(guest: list[RigGuest] = guest) -> Terminated | None:
                return Terminated("by order") if guest and guest[0].slot.terminate_asked else None

            made = RigGuest(rig, chance.choice(kernels), tenant=chance.randrange(5), interrupt=interrupt)
            guest.append(made)
            timer = threading.Timer(chance.random() * 0.01, made.slot.ask_to_terminate)
            timer.start()
            with contextlib.suppress(CallFailed, TensorWasmError):
                made.loop(chance.randrange(1, 3_000))
            timer.join()
            made.close()

    threads = [threading.Thread(target=work, args=(random.Random(chance.random()),)) for _ in range(12)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        tenant = chance.randrange(5)
        rig.ledger.set_share(tenant, Share(chance.randrange(1, 9), chance.choice([None, 1, 2, 3])))
        time.sleep(0.002)
    is_over.set()
    for thread in threads:
        thread.join()
    view = rig.ledger.read()
    assert view.used == 0
    assert [(t.held, t.waiting) for t in view.tenants] == [(0, 0)] * 5
    held = RigGuest(rig, kernels[0])
    assert [held.launch() for _ in range(3)] == [Code.OK] * 3
    held.close()
