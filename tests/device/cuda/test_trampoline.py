"""The trampoline: what reaches the board, what comes back to the guest, and every way in which a launch can end."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from device.cuda.launches import (
    BASE,
    EMPTY,
    KERNEL,
    LIMIT_S,
    STAGING_BYTES,
    Answer,
    LaunchGuest,
    LaunchRig,
    Request,
    Worker,
    both,
)
from tensor_wasm.abi import Code, Tag, pack
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.dispatch.scratch import Placement
from tensor_wasm.errors import DeadlineExceeded, KernelFault, QuotaExceeded, TensorWasmError, Terminated
from tensor_wasm.runtime import CallFailed, Engine

PAGE = 65_536
MEMORY_BYTES = 2 * PAGE
DATA = 4096


@pytest.fixture
def rig(engine: Engine) -> Iterator[LaunchRig]:
    rig = LaunchRig(engine)
    yield rig
    assert rig.ledger.read().used == 0
    rig.close()


@pytest.fixture
def guest(rig: LaunchRig) -> Iterator[LaunchGuest]:
    guest = LaunchGuest(rig)
    yield guest
    guest.close()


def invert(size_bytes: int) -> Callable[[Worker, Request], None]:
    """A kernel that inverts bytes at its first pointer."""

    def run(worker: Worker, request: Request) -> None:
        address = request.pointer()
        worker.write(address, bytes(255 - byte for byte in worker.read(address, size_bytes)))

    return run


# --- what is on the board ---------------------------------------------------------------------------------


def test_a_launch_is_on_the_board_as_the_guest_asked(rig: LaunchRig) -> None:
    entry = KernelEntry([(1 << Tag.I32, 0, 4), (1 << Tag.POINTER, 8, 8), (1 << Tag.F64, 16, 8)])
    guest = LaunchGuest(rig, entry=entry, parameter_bytes=24, lane=3)
    argv = pack([(Tag.I32, -7), (Tag.POINTER, DATA + 8, 100), (Tag.F64, 2.5)])
    assert guest.launch(argv, grid=(70_000, 3, 4), block=(5, 6, 7), shared=4321) == Code.OK
    (request,) = rig.worker.requests
    address = BASE + 8
    parameters = struct.pack("<i4xQd", -7, address, 2.5)
    windows = both(address, DATA + 8, 100)
    assert request == Request(3, 1, KERNEL, (70_000, 3, 4), (5, 6, 7), 4321, parameters, windows)
    assert rig.calls == []
    guest.close()


def test_bytes_go_there_and_come_back(guest: LaunchGuest, rig: LaunchRig) -> None:
    rig.worker.kernel = invert(256)
    guest.write(DATA, bytes(range(256)) * 4)
    assert guest.show((DATA + 256, 256)) == Code.OK
    before, after = bytes(range(256)), bytes(range(255, -1, -1))
    assert guest.read(DATA, 1024) == before + after + before * 2
    assert guest.slot.dispatches == 1


def test_a_kernel_without_pointers_has_no_windows(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, entry=KernelEntry([(1 << Tag.U64, 0, 8)]))
    assert guest.launch(pack([(Tag.U64, 4711)])) == Code.OK
    (request,) = rig.worker.requests
    assert request.windows == []
    assert request.pointer() == 4711
    guest.close()


def test_a_kernel_without_parameters_is_launched(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, 0)
    assert guest.launch(b"") == Code.OK
    assert [(request.parameters, request.windows) for request in rig.worker.requests] == [(b"", [])]
    guest.close()


def test_pointers_without_bytes_are_no_windows(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, 3)
    assert guest.show((0, 0), (DATA, 16), (MEMORY_BYTES, 0)) == Code.OK
    assert guest.show((5, 0), (6, 0), (7, 0)) == Code.OK
    some, none = rig.worker.requests
    assert struct.unpack("<3Q", some.parameters) == (EMPTY, BASE, EMPTY)
    assert some.windows == both(BASE, DATA, 16)
    assert struct.unpack("<3Q", none.parameters) == (EMPTY,) * 3
    assert none.windows == []
    guest.close()


def test_pointers_near_each_other_are_one_window(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, 3)
    low = DATA
    # 300 bytes of 450, then one byte more between them.
    assert guest.show((DATA + 10, 100), (DATA + 260, 200), (DATA + 300, 0)) == Code.OK
    assert guest.show((DATA + 10, 100), (DATA + 261, 200), (DATA + 300, 0)) == Code.OK
    dense, sparse = rig.worker.requests
    assert dense.windows == both(BASE + 10, low + 10, 450)
    assert sparse.windows == [(BASE + 10, low + 10, 100, 3), (BASE + 261, low + 261, 200, 3)]
    assert struct.unpack("<3Q", sparse.parameters) == (BASE + 10, guest.address(DATA + 261, low), EMPTY)
    guest.close()


def test_only_what_the_kernel_may_write_comes_back(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, 70, written=1 << 1 | 1 << 2 | 1 << 69)
    numbers = [(0, 0)] * 67
    assert guest.show((DATA, 100), (DATA + 100, 100), (DATA + 200, 50), *numbers) == Code.OK
    # All are near each other, one there and one back; then far apart, each by itself.
    assert guest.show((DATA, 8), (DATA + 1000, 8), (DATA + 2000, 0), *numbers[1:], (DATA + 3000, 8)) == Code.OK
    dense, sparse = rig.worker.requests
    assert dense.windows == [(BASE, DATA, 250, 1), (BASE + 100, DATA + 100, 150, 2)]
    assert sparse.windows == [(BASE + at, DATA + at, 8, way) for at, way in ((0, 1), (1000, 3), (3000, 3))]
    guest.close()


def test_a_kernel_that_writes_nothing_has_nothing_copied_back(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, written=0)
    rig.worker.kernel = invert(16)
    assert guest.show((DATA, 16)) == Code.OK
    assert rig.worker.requests[0].windows == [(BASE, DATA, 16, 1)]
    assert guest.read(DATA, 16) == bytes(16)
    guest.close()


def test_windows_that_overlap_stay_one(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, 3)

    def run(worker: Worker, request: Request) -> None:
        first, second, far = struct.unpack("<3Q", request.parameters)
        assert second - first == 8
        assert far - first == 60_000
        worker.write(first + 10, b"x")
        assert worker.read(second + 2, 1) == b"x"
        worker.write(far, b"y")

    rig.worker.kernel = run
    assert guest.show((DATA, 16), (DATA + 8, 16), (DATA + 60_000, 1)) == Code.OK
    assert [window[2] for window in rig.worker.requests[0].windows] == [16, 16, 1]
    assert guest.read(DATA, 24) == bytes(10) + b"x" + bytes(13)
    assert guest.read(DATA + 60_000, 2) == b"y\0"
    guest.close()


def test_as_many_pointers_as_there_can_be(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, 128)
    sparse = [(place * 1000, 1) for place in range(128)]
    assert guest.show(*sparse) == Code.OK
    assert len(rig.worker.requests[0].windows) == 128 == board.WINDOWS_MAX
    assert guest.show(*[(0, MEMORY_BYTES)] * 128) == Code.OK
    assert rig.worker.requests[1].windows == both(BASE, 0, MEMORY_BYTES)
    guest.close()


def test_only_the_guests_part_of_the_staging_area_is_touched(rig: LaunchRig) -> None:
    staging = rig.file.content[board.BYTES :]
    staging[:] = b"\xee" * len(staging)
    start, size_bytes = 3 * PAGE, 4096
    place = Placement(1, BASE, EMPTY, BASE + 512, size_bytes, start, size_bytes, 4096)
    guest = LaunchGuest(rig, placement=place)
    rig.worker.kernel = invert(1000)
    assert guest.show((4096 + 24, 1000)) == Code.OK
    assert rig.worker.requests[0].windows == both(BASE + 512 + 24, start + 24, 1000)
    assert guest.read(4096 + 24, 1000) == b"\xff" * 1000
    assert bytes(staging[:start]) == b"\xee" * start
    guest.write(0, b"\x55" * MEMORY_BYTES)
    assert bytes(staging[start : start + size_bytes]) == b"\x55" * size_bytes
    assert bytes(staging[:start]) == b"\xee" * start
    assert bytes(staging[start + size_bytes :]) == b"\xee" * (len(staging) - start - size_bytes)
    staging.release()
    guest.close()


def test_the_boards_memory_is_charged_to_no_guest(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig)
    assert guest.show((0, 1)) == Code.OK
    assert guest.store.budget.used_bytes == MEMORY_BYTES + PAGE  # its own, and scratch memory
    guest.close()


def test_two_guests_launch_on_lanes_of_their_own(rig: LaunchRig) -> None:
    guests = [
        LaunchGuest(rig, placement=Placement(lane, BASE, EMPTY, BASE + lane * PAGE, PAGE, lane * PAGE, PAGE))
        for lane in range(2)
    ]
    rig.worker.kernel = invert(8)

    def run(guest: LaunchGuest) -> None:
        for turn in range(20):
            assert guest.show((DATA, 8)) == Code.OK
            assert guest.read(DATA, 8) == (bytes(8) if turn % 2 else b"\xff" * 8)

    threads = [threading.Thread(target=run, args=(guest,)) for guest in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(request.lane for request in rig.worker.requests) == [0] * 20 + [1] * 20
    for guest in guests:
        guest.close()


# --- the lane ---------------------------------------------------------------------------------------------


def test_requests_numbers_wrap(guest: LaunchGuest, rig: LaunchRig) -> None:
    rig.worker.start_lane(0, 0xFFFF_FFFE)
    for _ in range(3):
        assert guest.show((DATA, 8)) == Code.OK
    assert [request.number for request in rig.worker.requests] == [0xFFFF_FFFF, 0, 1]


def test_a_lane_that_is_busy_gets_no_other_request(guest: LaunchGuest, rig: LaunchRig) -> None:
    assert guest.show((DATA, 8)) == Code.OK
    rig.worker.set_word(0, board.DONE, 0)
    with pytest.raises(KernelFault):
        guest.show((DATA, 8))
    assert rig.calls == [("fail", Result.REFUSED, 0)]
    assert len(rig.worker.requests) == 1


def test_what_the_last_request_left_is_not_taken_for_this_ones(guest: LaunchGuest, rig: LaunchRig) -> None:
    rig.worker.set_word(0, board.RESULT, Result.LOST)
    rig.worker.set_word(0, board.FAULT_LINE, 9)
    rig.worker.longs[board.ACCEPTED_NS >> 3] = 5
    seen = []

    def run(worker: Worker, request: Request) -> None:
        seen.append((worker.word(0, board.RESULT), worker.word(0, board.FAULT_LINE), worker.longs[2]))

    rig.worker.kernel = run
    assert guest.show((DATA, 8)) == Code.OK
    assert seen == [(0, 0, 0)]


# --- endings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(fault_line=42), (Result.OK, 42)),
        (Answer(fault_line=0xFFFF_FFFF), (Result.OK, 0xFFFF_FFFF)),
        (Answer(Result.REFUSED), (Result.REFUSED, 0)),
        (Answer(Result.NOT_LAUNCHABLE), (Result.NOT_LAUNCHABLE, 0)),
        (Answer(Result.LOST), (Result.LOST, 0)),
        (Answer(1234, 5), (1234, 5)),
    ],
)
def test_a_launch_that_fails_ends_the_guest_as_the_host_says(
    guest: LaunchGuest, rig: LaunchRig, answer: Answer, told: tuple[int, int]
) -> None:
    def run(worker: Worker, request: Request) -> Answer:
        worker.write(request.pointer(), b"\xaa" * 8)
        return answer

    rig.worker.kernel = run
    with pytest.raises(KernelFault, match=f"result {told[0]}, line {told[1]}"):
        guest.show((DATA, 8))
    assert rig.calls == [("fail", *told)]
    assert guest.read(DATA - 8, 8) + guest.read(DATA + 8, 8) == bytes(
        16
    )  # what the kernel left of its window is the guest's
    assert guest.slot.dispatches == 0


def test_a_launch_that_failed_does_not_go_on_when_the_host_says_nothing(guest: LaunchGuest, rig: LaunchRig) -> None:
    rig.worker.kernel = lambda _worker, _request: Answer(Result.LOST)
    rig.does_fail_return = True
    with pytest.raises(CallFailed):
        guest.show((DATA, 8))
    assert rig.calls == [("fail", Result.LOST, 0)]


def end_while_the_kernel_runs(rig: LaunchRig, guest: LaunchGuest, order: Callable[[], None]) -> float:
    """Launch what never ends, give an order once it runs, and say how long the guest took to end."""
    rig.worker.kernel = lambda _worker, _request: Answer(is_silent=True)
    ordered = 0.0

    def give() -> None:
        nonlocal ordered
        until = time.monotonic() + LIMIT_S
        while not rig.worker.requests and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)  # it waits in slices by now
        ordered = time.monotonic()
        order()

    thread = threading.Thread(target=give)
    thread.start()
    try:
        guest.show((DATA, 8))
    finally:
        took = time.monotonic() - ordered
        thread.join()
    return took


def test_an_order_ends_a_guest_whose_kernel_runs_and_the_lane_stays_busy(engine: Engine, rig: LaunchRig) -> None:
    ending: list[TensorWasmError] = []
    guest = LaunchGuest(rig, interrupt=lambda: ending[0] if ending else None)

    def order() -> None:
        ending.append(Terminated("ended"))
        engine.order()

    with pytest.raises(Terminated):
        end_while_the_kernel_runs(rig, guest, order)
    engine.carried_out()
    assert rig.worker.is_busy(0)
    assert guest.slot.held == 1
    guest.close()  # settles it
    assert rig.ledger.read().used == 0


def test_a_deadline_ends_a_guest_whose_kernel_runs(rig: LaunchRig) -> None:
    is_late = threading.Event()
    guest = LaunchGuest(rig, interrupt=lambda: DeadlineExceeded("late") if is_late.is_set() else None)
    with pytest.raises(DeadlineExceeded):
        end_while_the_kernel_runs(rig, guest, is_late.set)
    assert rig.worker.is_busy(0)
    guest.close()


def test_a_kernel_that_takes_long_is_waited_for(guest: LaunchGuest, rig: LaunchRig) -> None:
    def run(worker: Worker, request: Request) -> Answer:
        worker.write(request.pointer(), b"late")
        return Answer(later_s=0.05)

    rig.worker.kernel = run
    assert guest.show((DATA, 8)) == Code.OK
    assert guest.read(DATA, 4) == b"late"


# --- room ---------------------------------------------------------------------------------------------------


def test_the_host_is_asked_for_room_once(rig: LaunchRig) -> None:
    guest = LaunchGuest(rig, placement=Placement(0, BASE, EMPTY))

    def reach(guest: LaunchGuest, low: int, high: int) -> int:
        shown = replace(guest.placement, staging=PAGE, shown=0, shown_bytes=-(-high // 4096) * 4096)
        guest.place(replace(shown, arena=BASE + 4096, arena_bytes=high - low))
        return 0

    rig.on_reach = reach
    rig.worker.kernel = invert(300)
    for start in (DATA + 1000, DATA):
        assert guest.show((start, 300)) == Code.OK
        assert guest.read(start, 300) == b"\xff" * 300
    low = (DATA + 1000) & -256
    assert rig.calls == [("reach", low, DATA + 1300)]
    first, second = rig.worker.requests
    assert first.windows == both(BASE + 4096 + DATA + 1000 - low, PAGE + DATA + 1000, 300)
    assert second.windows == both(BASE + 4096, PAGE + DATA, 300)
    guest.close()


@pytest.mark.parametrize(
    "missing", [{"arena_bytes": 1000}, {"shown_bytes": DATA + 1000}, {"shown": DATA + 1, "shown_bytes": PAGE}]
)
def test_the_host_is_asked_when_one_byte_is_missing(rig: LaunchRig, missing: dict[str, int]) -> None:
    guest = LaunchGuest(rig)
    enough = guest.placement

    def reach(guest: LaunchGuest, _low: int, _high: int) -> int:
        guest.place(enough)
        return 0

    rig.on_reach = reach
    assert guest.show((1, 1)) == Code.OK
    guest.place(replace(enough, **missing))
    begin = missing.get("shown", DATA)
    assert guest.show((begin, 1000)) == Code.OK
    assert rig.calls == []
    # One byte more on the side where it ends.
    start = begin - 1 if "shown" in missing else begin
    assert guest.show((start, 1001)) == Code.OK
    assert rig.calls == [("reach", start & -256, start + 1001)]
    guest.close()


def test_what_is_not_staged_the_host_copies(rig: LaunchRig) -> None:
    shown = Placement(0, BASE, EMPTY, shown=DATA, shown_bytes=64)
    guest = LaunchGuest(rig, 2, placement=shown)

    def reach(guest: LaunchGuest, low: int, high: int) -> int:
        guest.place(replace(guest.placement, arena=BASE + 512, arena_bytes=high - low))
        assert guest.gate is not None
        for window in guest.gate.windows():
            rig.worker.write(guest.address(window.start, low), guest.read(window.start, window.size_bytes))
        return 1

    def fetch(guest: LaunchGuest) -> None:
        guest.write(DATA, rig.worker.read(BASE + 512, 100))

    rig.on_reach, rig.on_fetch = reach, fetch
    rig.worker.kernel = invert(100)
    guest.write(DATA, b"\x11" * 100)
    assert guest.show((DATA, 100), (DATA + 5000, 0)) == Code.OK
    assert guest.read(DATA, 101) == b"\xee" * 100 + b"\0"
    assert rig.calls == [("reach", DATA, DATA + 100), ("fetch",)]
    assert rig.worker.requests[0].windows == []
    assert struct.unpack("<2Q", rig.worker.requests[0].parameters) == (BASE + 512, EMPTY)
    # The next one that fits the staging area is staged again.
    assert guest.show((DATA, 64), (0, 0)) == Code.OK
    assert rig.worker.requests[1].windows == both(BASE + 512, 0, 64)
    assert rig.calls == [("reach", DATA, DATA + 100), ("fetch",)]
    guest.close()


def test_a_host_without_room_ends_the_launch(guest: LaunchGuest, rig: LaunchRig) -> None:
    def reach(_guest: LaunchGuest, _low: int, _high: int) -> int:
        raise QuotaExceeded("no more")

    rig.on_reach = reach
    assert guest.show((0, 1)) == Code.OK
    guest.place(replace(guest.placement, arena_bytes=0))
    with pytest.raises(QuotaExceeded):
        guest.show((0, 1))
    assert len(rig.worker.requests) == 1
    assert not rig.worker.is_busy(0)


def test_a_host_that_claims_room_where_there_is_none_does_not_expose_other_guests(
    guest: LaunchGuest, rig: LaunchRig
) -> None:
    assert guest.show((0, 1)) == Code.OK
    guest.place(replace(guest.placement, shown_bytes=PAGE))
    with pytest.raises(KernelFault):
        guest.show((0, PAGE + 1))
    assert rig.calls == [("reach", 0, PAGE + 1), ("fail", Result.REFUSED, 0)]
    assert len(rig.worker.requests) == 1


def test_windows_reach_to_the_end_of_a_memory_of_4_gib(engine: Engine) -> None:
    rig = LaunchRig(engine, pages=65_536)
    guest = LaunchGuest(rig, 2, placement=Placement(0, BASE, EMPTY), memory_bytes=(1 << 32) + PAGE)
    end = 1 << 32

    def reach(guest: LaunchGuest, low: int, high: int) -> int:
        guest.place(replace(guest.placement, arena=BASE, arena_bytes=PAGE, shown=end - PAGE, shown_bytes=PAGE))
        return 0

    rig.on_reach = reach
    rig.worker.kernel = invert(5)
    assert guest.show((end - 5, 5), (end - 1, 1)) == Code.OK
    assert guest.read(end - 6, 6) == b"\0" + b"\xff" * 5
    assert guest.show((end - 1, 1), (end - 1, 0)) == Code.OK
    assert guest.read(end - 6, 6) == b"\0" + b"\xff" * 4 + b"\0"
    assert rig.calls == [("reach", end - 256, end)]
    assert rig.worker.requests[0].windows == both(BASE + 251, PAGE - 5, 5)
    # All of it, which 32 bits cannot say: the host alone can do that.
    rig.on_reach = lambda _guest, _low, _high: 1
    rig.worker.kernel = lambda _worker, _request: None
    assert guest.show((0, 1), (end - 1, 1)) == Code.OK
    assert rig.calls[1:] == [("reach", 0, end), ("fetch",)]
    assert struct.unpack("<2Q", rig.worker.requests[2].parameters) == (BASE, BASE + end - 1)
    assert guest.show((0, end - 1), (0, end - 1)) == Code.OK
    assert rig.calls[3:] == [("reach", 0, end - 1), ("fetch",)]
    guest.close()
    rig.close()


def test_large_windows_are_copied_whole(engine: Engine) -> None:
    size_bytes = 20 << 20
    rig = LaunchRig(engine, staging_bytes=32 << 20, device_bytes=size_bytes + PAGE, pages=size_bytes // PAGE + 1)
    place = Placement(0, BASE, EMPTY, BASE, size_bytes + PAGE, 0, size_bytes + PAGE)
    guest = LaunchGuest(rig, placement=place, memory_bytes=64 << 20)
    content = random.Random(3).randbytes(size_bytes)
    seen = []

    def run(worker: Worker, request: Request) -> None:
        seen.append(worker.read(request.pointer(), size_bytes) == content)
        worker.write(request.pointer(), content[::-1])

    rig.worker.kernel = run
    guest.write(5, content)
    assert guest.launch(pack([(Tag.POINTER, 5, size_bytes)]), pointer=size_bytes + 100) == Code.OK
    assert seen == [True]
    assert guest.read(5, size_bytes) == content[::-1]
    guest.close()
    rig.close()


# --- time ---------------------------------------------------------------------------------------------------


def test_what_passes_until_the_driver_has_the_launch_is_its_latency(engine: Engine) -> None:
    rig = LaunchRig(engine)
    guest = LaunchGuest(rig)
    assert guest.launch(b"") == Code.INVALID_ARGUMENTS
    gate = guest.gate
    assert gate is not None
    guest.place(replace(guest.placement, clock_ns=gate.clock_offset_ns(rig.ledger, guest.slot)))
    rig.worker.kernel = lambda _worker, _request: Answer(later_s=0.03)
    assert guest.show((DATA, 8)) == Code.OK
    (counters,) = rig.ledger.read().tenants
    # The worker says that it had taken the launch at the end of those 30 ms.
    assert counters.latency.sum_ns >= 30_000_000
    assert counters.execution.sum_ns >= 0
    total_ns = counters.latency.sum_ns + counters.execution.sum_ns
    guest.place(replace(guest.placement, clock_ns=0))
    assert guest.show((DATA, 8)) == Code.OK
    (counters,) = rig.ledger.read().tenants
    assert counters.latency.sum_ns + counters.execution.sum_ns - total_ns >= 30_000_000
    assert counters.execution.sum_ns >= 30_000_000  # without the difference of the clocks it is all the kernel's
    guest.close()
    rig.close()


@pytest.mark.parametrize("accepted_ns", [0, 1, (1 << 63) - 1, 1 << 63])
def test_a_time_that_cannot_be_is_no_latency_that_cannot_be(
    rig: LaunchRig, guest: LaunchGuest, accepted_ns: int
) -> None:
    assert guest.launch(b"") == Code.INVALID_ARGUMENTS
    assert guest.gate is not None
    guest.place(replace(guest.placement, clock_ns=guest.gate.clock_offset_ns(rig.ledger, guest.slot)))

    def run(worker: Worker, request: Request) -> Answer:
        worker.longs[board.ACCEPTED_NS >> 3] = accepted_ns
        worker.set_word(0, board.DONE, request.number)
        return Answer(is_silent=True)

    rig.worker.kernel = run
    began_ns = time.monotonic_ns()
    assert guest.show((DATA, 8)) == Code.OK
    took_ns = time.monotonic_ns() - began_ns
    (counters,) = rig.ledger.read().tenants
    assert 0 <= counters.latency.sum_ns <= took_ns
    assert 0 <= counters.execution.sum_ns <= took_ns


# --- random windows -----------------------------------------------------------------------------------------

POINTERS = 128
NUMBER = 9


class Turn:
    """A launch with random windows and random changes in them, and what the guest's memory is to be after it."""

    def __init__(self, rng: random.Random, written: int) -> None:
        spread = rng.choice([300, 5000, MEMORY_BYTES])
        first = rng.randrange(0, MEMORY_BYTES - spread + 1)
        self.windows = []
        for _ in range(rng.choice([0, 1, 2, 3, 8, POINTERS])):
            start = first + rng.randrange(spread + 1)
            room = MEMORY_BYTES - start
            self.windows.append((start, rng.choice([0, min(1, room), rng.randrange(0, min(room, spread) + 1)])))
        numbers = [(Tag.U64, NUMBER)] * (POINTERS - len(self.windows))
        argv = pack([*((Tag.POINTER, *window) for window in self.windows), *numbers])
        self.argv_at, self.argv_bytes = rng.randrange(0, MEMORY_BYTES - len(argv)), len(argv)
        memory = bytearray(rng.randbytes(MEMORY_BYTES))
        memory[self.argv_at : self.argv_at + len(argv)] = argv
        self.before = bytes(memory)
        self.changes = [
            (place, at, rng.randbytes(min(size - at, 5)))
            for place, (_, size) in enumerate(self.windows)
            for at in (rng.randrange(size) for _ in range(rng.randrange(3) if size and written >> place & 1 else 0))
        ]
        for place, at, data in self.changes:
            start = self.windows[place][0] + at
            memory[start : start + len(data)] = data
        self.after = bytes(memory)
        self.wrong: list[str] = []

    def run(self, worker: Worker, request: Request) -> None:
        """The kernel: looks at all that it was given, and makes the changes."""
        pointers = struct.unpack(f"<{POINTERS}Q", request.parameters)
        count = len(self.windows)
        for place, (start, size) in enumerate(self.windows):
            if not size:
                self.wrong += ["empty"] * (pointers[place] != EMPTY)
            elif worker.read(pointers[place], size) != self.before[start : start + size]:
                self.wrong.append(f"window {place}")
        self.wrong += ["number"] * (pointers[count:] != (NUMBER,) * (POINTERS - count))
        for place, at, data in self.changes:
            worker.write(pointers[place] + at, data)


class RandomHost:
    """Makes room anywhere, or copies the windows itself."""

    def __init__(self, rng: random.Random, rig: LaunchRig) -> None:
        self.rng = rng
        self.rig = rig
        self.turn = Turn(rng, 0)
        self.low = self.fetched = 0
        rig.on_reach, rig.on_fetch = self.reach, self.fetch

    def reach(self, guest: LaunchGuest, low: int, high: int) -> int:
        span = high - low
        arena = BASE + (self.rng.randrange(0, MEMORY_BYTES + PAGE - span + 1) & -256)
        placement = replace(guest.placement, arena=arena, arena_bytes=span, shown_bytes=0)
        if self.rng.random() < 0.7:
            shown = self.rng.randrange(0, low + 1) & -4096
            end = self.rng.randrange(high, MEMORY_BYTES + 1)
            shown_bytes = -(-(end - shown) // 4096) * 4096
            staging = self.rng.randrange(0, STAGING_BYTES - shown_bytes) & -PAGE
            guest.place(replace(placement, staging=staging, shown=shown, shown_bytes=shown_bytes))
            return 0
        guest.place(placement)
        self.low = low
        for start, size in self.turn.windows:
            if size:
                self.rig.worker.write(guest.address(start, low), guest.read(start, size))
        return 1

    def fetch(self, guest: LaunchGuest) -> None:
        self.fetched += 1
        for start, size in self.turn.windows:
            if size:
                guest.write(start, self.rig.worker.read(guest.address(start, self.low), size))


def test_random_windows_are_as_a_model_says(engine: Engine) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    rig = LaunchRig(engine, device_bytes=MEMORY_BYTES + PAGE)
    written = rng.getrandbits(POINTERS)
    guest = LaunchGuest(rig, POINTERS, placement=Placement(0, BASE, EMPTY), written=written)
    host = RandomHost(rng, rig)
    for number in range(150):
        turn = host.turn = Turn(rng, written)
        rig.worker.kernel = turn.run
        guest.write(0, turn.before)
        assert guest.launch(pointer=turn.argv_at, length=turn.argv_bytes) == Code.OK
        assert turn.wrong == [], f"seed {seed}, turn {number}"
        assert guest.read(0, MEMORY_BYTES) == turn.after, f"seed {seed}, turn {number}"
        if rng.random() < 0.3:
            guest.place(Placement(0, BASE, EMPTY))
    assert host.fetched
    assert any(len(request.windows) > 1 for request in rig.worker.requests)
    assert any(len(request.windows) == 2 for request in rig.worker.requests)
    guest.close()
    rig.close()
