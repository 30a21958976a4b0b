"""Traced launches on a GPU: who asks for device times, and what of them is in the trace's ring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from device.cuda.launches import Answer, LaunchGuest, LaunchRig
from dispatch.rig import Rig, RigGuest, kernel_module
from tensor_wasm.abi import Code
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.dispatch import Event, layout
from tensor_wasm.errors import KernelFault
from tensor_wasm.runtime import Engine

DATA = 70_000
TIMES = (5_000_000_000, 7, 1 << 40)


@pytest.fixture
def rig(engine: Engine) -> Iterator[LaunchRig]:
    rig = LaunchRig(engine)
    yield rig
    rig.close()


@pytest.fixture
def guest(rig: LaunchRig) -> Iterator[LaunchGuest]:
    """A guest whose gate is there."""
    guest = LaunchGuest(rig)
    guest.bind()
    yield guest
    guest.close()


def begin(guest: RigGuest) -> None:
    assert guest.gate is not None
    assert guest.rig.ledger.begin_trace(guest.slot)
    guest.gate.begin_trace(guest.rig.ledger, guest.slot)


def end(guest: RigGuest) -> list[Event]:
    assert guest.gate is not None
    guest.gate.end_trace()
    return list(guest.rig.ledger.end_trace(guest.slot).take())


def times(event: Event) -> tuple[int, int, int]:
    return event.kernel_ns, event.copy_in_ns, event.copy_out_ns


def test_the_times_that_the_worker_tells_are_in_the_event(rig: LaunchRig, guest: LaunchGuest) -> None:
    answers = iter([TIMES, (1, 2, 3), (0, 0, 0), TIMES])
    rig.worker.kernel = lambda _worker, _request: Answer(spent_ns=next(answers))
    begin(guest)
    for _ in range(4):
        assert guest.show((DATA, 8)) == Code.OK
    events = end(guest)
    assert [times(event) for event in events] == [TIMES, (1, 2, 3), (0, 0, 0), TIMES]
    assert all(event.entered_ns <= event.started_ns <= event.ended_ns for event in events)
    assert [event.code for event in events] == [Code.OK] * 4


def test_only_traced_launches_are_timed(rig: LaunchRig, guest: LaunchGuest) -> None:
    rig.worker.kernel = lambda _worker, _request: Answer(spent_ns=TIMES)
    for _ in range(2):
        guest.show((DATA, 8))
        begin(guest)
        guest.show((DATA, 8))
        guest.show((DATA, 0))
        end(guest)
    guest.show((DATA, 8))
    assert [request.is_timed for request in rig.worker.requests] == [False, True, True, False, True, True, False]


def test_a_place_of_the_ring_has_no_times_of_the_launch_before(rig: LaunchRig, guest: LaunchGuest) -> None:
    rig.worker.kernel = lambda _worker, _request: Answer(spent_ns=TIMES)
    begin(guest)
    for _ in range(layout.RING_FIRST + layout.RING_LAST):
        guest.show((DATA, 0))
    assert guest.show((1 << 30, 8)) == Code.INVALID_POINTER
    *others, last = end(guest)
    assert (last.code, times(last)) == (Code.INVALID_POINTER, (0, 0, 0))
    assert {times(event) for event in others} == {TIMES}


def test_a_launch_that_does_not_end_well_has_none(rig: LaunchRig, guest: LaunchGuest) -> None:
    rig.worker.kernel = lambda _worker, _request: Answer(Result.OK, 17, spent_ns=TIMES)
    begin(guest)
    with pytest.raises(KernelFault):
        guest.show((DATA, 8))
    (event,) = end(guest)
    assert (event.code, times(event)) == (layout.EVENT_OPEN, (0, 0, 0))


def test_a_launch_on_the_cpu_has_none(engine: Engine) -> None:
    rig = Rig(engine)
    guest = RigGuest(rig, kernel_module(engine, "copy"))
    guest.bind()
    begin(guest)
    assert guest.launch() == Code.OK
    (event,) = end(guest)
    assert times(event) == (0, 0, 0)
    guest.close()
