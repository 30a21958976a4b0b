"""Trace rings: what a traced instance launched and when, the first and the last of it, and nothing of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dispatch.rig import Rig, RigGuest, kernel_module
from tensor_wasm.abi import Code
from tensor_wasm.dispatch import Event, Events, layout
from tensor_wasm.runtime import CallFailed, Engine

FIRST, LAST = layout.RING_FIRST, layout.RING_LAST


@pytest.fixture(scope="module")
def rig(engine: Engine) -> Rig:
    return Rig(engine)


@pytest.fixture
def guest(rig: Rig) -> Iterator[RigGuest]:
    guest = bound(rig)
    yield guest
    guest.close()


def bound(rig: Rig, write: str = "copy", tenant: int = 7) -> RigGuest:
    """A guest whose gate is there: nothing was launched before its trace."""
    guest = RigGuest(rig, kernel_module(rig.engine, write), tenant=tenant)
    guest.bind()
    return guest


def begin(guest: RigGuest) -> int:
    assert guest.gate is not None
    assert guest.rig.ledger.begin_trace(guest.slot)
    return guest.gate.begin_trace(guest.rig.ledger, guest.slot)


def end(guest: RigGuest) -> Events:
    assert guest.gate is not None
    guest.gate.end_trace()
    return guest.rig.ledger.end_trace(guest.slot).take()


def test_a_traced_launch_is_noted_with_its_shape_and_its_times(guest: RigGuest) -> None:
    before_ns = time.monotonic_ns()
    offset_ns = begin(guest)
    assert guest.launch(grid=(2, 3, 4), block=(5, 6, 7), shared=128) == Code.OK
    after_ns = time.monotonic_ns()
    events = end(guest)
    (event,) = events
    assert (events.count, events.syncs) == (1, 0)
    assert event[:9] == (0, 2, 3, 4, 5, 6, 7, 128, Code.OK)
    assert event.kind == layout.KIND_LAUNCH
    assert event.waited_ns == 0
    times = [time_ns + offset_ns for time_ns in (event.entered_ns, event.started_ns, event.ended_ns)]
    assert before_ns <= times[0] <= times[1] <= times[2] <= after_ns


def test_nothing_is_noted_before_and_after_the_trace(guest: RigGuest) -> None:
    guest.loop(3)
    begin(guest)
    guest.loop(2)
    assert end(guest).count == 2
    guest.loop(3)
    begin(guest)
    assert end(guest).count == 0
    assert guest.slot.dispatches == 8
    # A launch that still believed in a ring would have written where none is: at the ledger's beginning.
    assert guest.rig.ledger.read().permits == 4


@pytest.mark.parametrize("count", [1, FIRST, FIRST + 1, FIRST + LAST, FIRST + LAST + 1, 1000, 3 * LAST + FIRST])
def test_the_first_and_the_last_launches_are_kept_in_their_order(guest: RigGuest, count: int) -> None:
    begin(guest)
    for number in range(count):
        guest.launch(shared=number)
    events = end(guest)
    assert events.count == count
    numbers = list(range(count))
    kept = numbers if count <= FIRST + LAST else numbers[:FIRST] + numbers[-LAST:]
    found = list(events)
    assert [event.shared_bytes for event in found] == kept
    entered = [event.entered_ns for event in found]
    assert entered == sorted(entered)


def test_a_refused_launch_is_noted_with_its_code(guest: RigGuest) -> None:
    begin(guest)
    assert guest.launch(kernel=3) == Code.UNKNOWN_KERNEL
    assert guest.launch() == Code.OK
    refused, run = end(guest)
    assert (refused.kernel, refused.code, refused.started_ns) == (3, Code.UNKNOWN_KERNEL, 0)
    assert refused.entered_ns <= refused.ended_ns <= run.entered_ns
    assert run.code == Code.OK


def test_a_launch_that_faults_is_the_last_one_and_stays_open(rig: Rig) -> None:
    guest = bound(rig, "trap")
    begin(guest)
    with pytest.raises(CallFailed):
        guest.launch(grid=(9, 1, 1))
    (event,) = rig.ledger.end_trace(guest.slot).take()
    guest.close()
    assert (event.code, event.grid_x, event.ended_ns) == (layout.EVENT_OPEN, 9, 0)
    assert event.started_ns >= event.entered_ns > 0


def test_a_launch_that_waited_says_for_how_long_and_the_next_one_did_not(engine: Engine) -> None:
    rig = Rig(engine, permits=1)
    holder, waiter = bound(rig, "spin", tenant=1), bound(rig, tenant=2)
    ends: list[BaseException] = []

    def hold() -> None:
        try:
            holder.launch()
        except BaseException as error:
            ends.append(error)

    def interrupt() -> RuntimeError | None:
        return RuntimeError("over") if holder.slot.terminate_asked else None

    holder.store.interrupt = interrupt  # type: ignore[assignment]
    thread = threading.Thread(target=hold)
    thread.start()
    until = time.monotonic() + 30
    while not holder.slot.held and time.monotonic() < until:
        time.sleep(0.001)
    begin(waiter)

    def let_go() -> None:
        while waiter.slot.state != layout.State.WAITING and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        holder.slot.ask_to_terminate()
        thread.join()
        holder.close()

    freer = threading.Thread(target=let_go)
    freer.start()
    assert waiter.launch() == Code.OK
    freer.join()
    assert waiter.launch() == Code.OK
    waited, free = end(waiter)
    waiter.close()
    assert ends
    assert 20_000_000 <= waited.waited_ns <= waited.started_ns - waited.entered_ns
    assert free.waited_ns == 0


def test_syncs_stand_between_the_launches_and_count_among_them(guest: RigGuest) -> None:
    ledger = guest.rig.ledger
    begin(guest)
    for number in range(FIRST + LAST):
        guest.launch(shared=number)
        ledger.note_sync(guest.slot, 0, 2 * number + 1, 2 * number + 2)
    events = end(guest)
    assert (events.count, events.syncs) == (2 * (FIRST + LAST), FIRST + LAST)
    found = list(events)
    assert [event.kind for event in found] == [layout.KIND_LAUNCH, layout.KIND_SYNC] * ((FIRST + LAST) // 2)
    assert (found[-1].entered_ns, found[-1].ended_ns) == (2 * (FIRST + LAST) - 1, 2 * (FIRST + LAST))
    assert found[-2].shared_bytes == FIRST + LAST - 1


def test_a_ring_is_empty_for_the_next_instance_and_there_are_so_many_of_them(engine: Engine) -> None:
    rig = Rig(engine)
    guests = [rig.ledger.open(1, True) for _ in range(layout.RING_SLOTS)]
    late = rig.ledger.open(2, True)
    assert all(rig.ledger.begin_trace(slot) for slot in guests)
    assert not rig.ledger.begin_trace(late)
    for slot in guests:
        for _ in range(FIRST + LAST + 5):
            rig.ledger.note_sync(slot, 0, 1, 2)
    filled = [rig.ledger.end_trace(slot) for slot in guests]
    assert not rig.ledger.begin_trace(late)  # until somebody has read them, or lets them go
    filled.pop()
    assert rig.ledger.begin_trace(late)
    rig.ledger.end_trace(late).give()
    assert all(len(list(ring.take())) == FIRST + LAST for ring in filled)
    start, size = layout.RINGS, layout.RING_SLOTS * layout.RING_BYTES
    assert not bytes(rig.ledger._view[start >> 3 : (start + size) >> 3]).strip(b"\0")
    assert rig.ledger.begin_trace(late)
    assert rig.ledger.end_trace(late).take() == Events(0, 0, b"")
    for slot in (*guests, late):
        rig.ledger.close(slot, False)


def test_an_events_fields_are_where_the_layout_says() -> None:
    words = bytearray(layout.EVENT_BYTES)
    for value, (field, size) in enumerate(
        [
            (layout.EVENT_KERNEL, 8),
            *((layout.EVENT_GRID + 4 * axis, 4) for axis in range(3)),
            *((layout.EVENT_BLOCK + 4 * axis, 4) for axis in range(3)),
            (layout.EVENT_SHARED, 4),
            (layout.EVENT_CODE, 4),
            (layout.EVENT_ENTERED, 8),
            (layout.EVENT_WAITED, 8),
            (layout.EVENT_STARTED, 8),
            (layout.EVENT_ENDED, 8),
            (layout.EVENT_KIND, 4),
            (layout.EVENT_KERNEL_NS, 8),
            (layout.EVENT_COPY_IN_NS, 8),
            (layout.EVENT_COPY_OUT_NS, 8),
        ]
    ):
        words[field : field + size] = (value + 1).to_bytes(size, "little")
    assert list(Events(1, 0, bytes(words))) == [Event(*range(1, 18))]
