"""Device times: what is recorded for a request that asks for them, what is told, and that nothing waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from device.cuda.boards import IMAGE, STORE, Board
from device.cuda.emulated import EmulatedDriver
from device.ptx_texts import COUNTER, INCREMENT
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Direction, Result
from tensor_wasm.device.cuda.driver import NOT_READY, OUT_OF_MEMORY, DriverError
from tensor_wasm.device.cuda.records import Lane

ECC, OUT_OF_RESOURCES = 214, 701
BOTH = Direction.IN | Direction.OUT
EVENT_CALLS = ("create_event", "destroy_event", "record", "elapsed_ms")
NOTHING_KNOWN = (0, 0, 0)


def event_calls(driver: EmulatedDriver) -> dict[str, int]:
    return {call: driver.calls[call] for call in EVENT_CALLS if call in driver.calls}


def stream_of(two: Board, driver: EmulatedDriver, lane: int) -> int:
    """The engine's own stream is the first, lanes have theirs in the order in which they were opened."""
    return driver.streams[lane]


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_owner_is_told_how_long_the_kernel_and_its_copies_took(two: Board, driver: EmulatedDriver) -> None:
    driver.slow(0.03)
    kernel, base = two.kernel(1, INCREMENT), two.partitions[1].base
    two.staging[:16] = bytes([1, 0, 0, 0] * 4)
    windows = [(base, 0, 16, Direction.IN), (base + 4096, 64, 16, Direction.OUT)]
    options: dict[str, Any] = {"block": (4, 1, 1), "windows": windows, "is_timed": True}
    assert two.launch(1, kernel, base, base + 4096, **options) == (Result.OK, 0)
    assert bytes(two.staging[64:80]) == bytes([2, 0, 0, 0] * 4)
    kernel_ns, in_ns, out_ns = two.spent_ns(1)
    assert 30_000_000 <= kernel_ns < 60_000_000_000
    assert 0 < in_ns < 30_000_000
    assert 0 < out_ns < 30_000_000
    assert two.spent_ns(2) == NOTHING_KNOWN


@pytest.mark.parametrize(
    ("windows", "has_in", "has_out"),
    [([], False, False), ([Direction.IN], True, False), ([Direction.OUT], False, True), ([BOTH, BOTH], True, True)],
)
def test_what_is_not_copied_has_no_time(
    two: Board, driver: EmulatedDriver, windows: list[int], has_in: bool, has_out: bool
) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    copies = [(base + 64 * place, 64 * place, 64, direction) for place, direction in enumerate(windows)]
    assert two.launch(1, kernel, base, 5, windows=copies, is_timed=True) == (Result.OK, 0)
    kernel_ns, in_ns, out_ns = two.spent_ns(1)
    assert (kernel_ns > 0, in_ns > 0, out_ns > 0) == (True, has_in, has_out)
    assert driver.calls["create_event"] == driver.calls["record"] == 2 + has_in + has_out
    assert driver.calls["elapsed_ms"] == 1 + has_in + has_out


def test_a_request_that_is_not_timed_calls_nothing_more_and_is_told_nothing(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, COUNTER, leaves_faults=True), two.partitions[1].base
    before = dict(driver.calls)
    assert two.launch(1, kernel, base, 0, windows=[(base, 0, 64, BOTH)]) == (Result.OK, 0)
    made = {call: count - before.get(call, 0) for call, count in driver.calls.items() if call != "is_stream_done"}
    assert {call: count for call, count in made.items() if count} == {
        "copy_to_device": 1,
        "set_memory": 1,
        "launch": 1,
        "copy_to_host": 2,
        "write_value": 1,
    }
    assert two.spent_ns(1) == NOTHING_KNOWN


def test_each_event_stands_next_to_what_it_times(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, COUNTER, leaves_faults=True), two.partitions[1].base
    driver.hold()
    two.ask(1, kernel, base, 0, windows=[(base, 0, 64, BOTH), (base + 64, 64, 64, BOTH)], is_timed=True)
    assert two.engine.poll() == 1
    assert driver.waiting(stream_of(two, driver, 1)) == [
        "record",
        "copy_to_device",
        "copy_to_device",
        "set_memory",
        "record",
        "launch counter",
        "record",
        "copy_to_host",
        "copy_to_host",
        "record",
        "copy_to_host",  # the fault line
        "write_value",
    ]


def test_it_is_over_when_all_of_its_stream_is_and_the_times_are_there(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, COUNTER, leaves_faults=True), two.partitions[1].base
    seen = []
    elapsed_ms = driver.elapsed_ms

    def asked(*events: int) -> float:
        seen.append(two.is_done(1))
        return elapsed_ms(*events)

    driver.elapsed_ms = asked  # type: ignore[method-assign]
    driver.hold()
    two.ask(1, kernel, base, 0, windows=[(base, 0, 64, BOTH)], is_timed=True)
    two.engine.poll()
    while driver.step(stream_of(two, driver, 1)) != "write_value":
        two.engine.poll()
        two.engine.check()
        assert not two.is_done(1)
        assert [each.lane for each in two.engine.running()] == [1]
    assert not two.is_done(1)  # that is for the worker to say
    two.engine.poll()
    assert two.is_done(1)
    assert seen == [False] * 3
    assert 0 not in two.spent_ns(1)
    assert two.engine.running() == ()


def test_a_fault_line_comes_with_the_times(two: Board) -> None:
    line = COUNTER[: COUNTER.index("trap;")].count("\n") + 1
    kernel, base = two.kernel(1, COUNTER, leaves_faults=True), two.partitions[1].base
    assert two.launch(1, kernel, base, 1, is_timed=True) == (Result.OK, line)
    assert two.spent_ns(1)[0] > 0
    assert two.launch(1, kernel, base, 0, is_timed=True) == (Result.OK, 0)


def test_numbers_of_timed_requests_go_around(two: Board) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    bell = board.DOORBELL_BYTES // 4
    two.words[bell] = two.words[bell + board.DONE // 4] = 0xFFFF_FFFE
    two.engine._lanes._lanes[1].started = two.engine._lanes._started[1] = 0xFFFF_FFFE  # type: ignore[union-attr]
    for _ in range(4):
        assert two.launch(1, kernel, base, 5, is_timed=True) == (Result.OK, 0)
        assert two.spent_ns(1)[0] > 0
    assert two.words[bell] == 2


# --- events ---------------------------------------------------------------------------------------------------------


def test_there_are_as_many_events_as_are_used_at_once(two: Board, driver: EmulatedDriver) -> None:
    kernels = {tenant: two.kernel(tenant, STORE) for tenant in (1, 2)}
    for _ in range(20):
        for tenant, kernel in kernels.items():
            base = two.partitions[tenant].base
            two.launch(tenant, kernel, base, 5, windows=[(base, 0, 8, BOTH)], is_timed=True)
    assert event_calls(driver) == {"create_event": 4, "record": 160, "elapsed_ms": 120}
    driver.hold()
    for tenant, kernel in kernels.items():
        base = two.partitions[tenant].base
        two.ask(tenant, kernel, base, 5, windows=[(base, 0, 8, BOTH)], is_timed=True)
    two.engine.poll()
    assert driver.calls["create_event"] == 8
    driver.let_go()
    for tenant in kernels:
        assert two.wait(tenant) == (Result.OK, 0)
    assert "destroy_event" not in driver.calls


def test_events_go_with_the_engine(driver: EmulatedDriver) -> None:
    opened = Board(driver).open()
    base = opened.open_tenant(1).base
    opened.engine.open_lane(1, 1)
    assert opened.launch(1, opened.kernel(1, STORE), base, 5, is_timed=True) == (Result.OK, 0)
    opened.close()
    assert event_calls(driver)["create_event"] == event_calls(driver)["destroy_event"] == 2


@pytest.mark.parametrize(
    ("call", "after"),
    [
        (call, after)
        for call, count in (("create_event", 4), ("record", 4), ("elapsed_ms", 3))
        for after in range(count)
    ],
)
def test_without_an_event_a_request_is_not_timed_and_runs(
    two: Board, driver: EmulatedDriver, call: str, after: int
) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    options: dict[str, Any] = {"windows": [(base, 0, 64, BOTH)], "is_timed": True}
    if call != "create_event":
        two.launch(1, kernel, base, 4, **options)
        assert 0 not in two.spent_ns(1)
    driver.fail(call, OUT_OF_MEMORY, after)
    assert two.launch(1, kernel, base, 5, **options) == (Result.OK, 0)
    assert two.read(1, base, 8) == (5).to_bytes(8, "little")
    kernel_ns, in_ns, out_ns = two.spent_ns(1)  # none of them is the one before's
    assert (kernel_ns > 0, in_ns > 0, out_ns > 0) == {
        ("elapsed_ms", 1): (True, False, False),
        ("elapsed_ms", 2): (True, True, False),
    }.get((call, after), (False, False, False))
    assert two.launch(1, kernel, base, 6, **options) == (Result.OK, 0)
    assert 0 not in two.spent_ns(1)
    assert driver.calls["create_event"] == 4 + (call == "create_event")


def test_events_that_the_driver_has_not_seen_happen_are_asked_for_again(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    for _ in range(3):
        driver.fail("elapsed_ms", NOT_READY)
    assert two.launch(1, kernel, base, 5, is_timed=True) == (Result.OK, 0)
    assert two.spent_ns(1)[0] > 0
    assert driver.calls["elapsed_ms"] == 4


@pytest.mark.parametrize("call", ["create_event", "record", "elapsed_ms"])
def test_an_error_that_ends_the_context_is_raised(two: Board, driver: EmulatedDriver, call: str) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.fail(call, ECC)
    two.ask(1, kernel, base, 5, is_timed=True)
    with pytest.raises(DriverError, match="ECC"):
        two.until(lambda: two.is_done(1))
    assert not two.is_done(1)


# --- launches that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["copy_to_device", "launch", "copy_to_host", "write_value"])
def test_a_timed_request_that_the_driver_does_not_take_whole(two: Board, driver: EmulatedDriver, call: str) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    options: dict[str, Any] = {"windows": [(base, 0, 64, BOTH)], "is_timed": True}
    wanted = Result.OK if call == "write_value" else Result.NOT_LAUNCHABLE
    for _ in range(3):
        driver.fail(call, OUT_OF_RESOURCES)
        assert two.launch(1, kernel, base, 5, **options) == (wanted, 0)
        assert two.spent_ns(1) == NOTHING_KNOWN
    assert two.launch(1, kernel, base, 5, **options) == (Result.OK, 0)
    assert 0 not in two.spent_ns(1)
    assert driver.calls["create_event"] == 4


def test_such_a_request_is_not_over_before_it_is_said_what_became_of_it(two: Board, driver: EmulatedDriver) -> None:
    lanes, seen = two.engine._lanes, []
    end = lanes._end

    def ended(lane: Lane, result: Result) -> int:
        seen.append(two.is_done(1))
        return end(lane, result)

    lanes._end = ended  # type: ignore[method-assign]
    driver.fail("launch", OUT_OF_RESOURCES)
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    assert two.launch(1, kernel, base, 5, is_timed=True) == (Result.NOT_LAUNCHABLE, 0)
    assert seen == [False]


def test_a_refused_request_has_no_events(two: Board, driver: EmulatedDriver) -> None:
    kernel, theirs = two.kernel(1, STORE), two.partitions[2].base
    assert two.launch(1, kernel, 0, 5, windows=[(theirs, 0, 8, BOTH)], is_timed=True) == (Result.REFUSED, 0)
    assert two.launch(1, 99, 0, 5, is_timed=True) == (Result.REFUSED, 0)
    assert two.launch(1, kernel, 0, 5, shared_bytes=1 << 20, is_timed=True) == (Result.NOT_LAUNCHABLE, 0)
    assert event_calls(driver) == {}


# --- ends -------------------------------------------------------------------------------------------------------------


def in_flight(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.hold()
    two.ask(1, kernel, base, 5, is_timed=True)
    assert two.engine.poll() == 1


@pytest.mark.parametrize("order", ["poll first", "check first"])
def test_a_lane_that_is_closed_while_its_request_is_timed(two: Board, driver: EmulatedDriver, order: str) -> None:
    in_flight(two, driver)
    two.engine.close_lane(1)
    two.engine.check()
    two.engine.poll()
    assert two.engine.is_lane_open(1)
    assert not two.is_done(1)
    driver.let_go()
    driver.synchronize_stream(stream_of(two, driver, 1))
    if order == "poll first":
        two.engine.poll()
        assert two.is_done(1)
    two.engine.check()
    assert not two.engine.is_lane_open(1)
    assert two.is_done(1)
    # Its number is another's: what waited in it is none of that one's.
    two.engine.open_lane(1, 2)
    for _ in range(3):
        two.engine.poll()
    assert (two.doorbell(1, board.DONE), two.spent_ns(1)) == (0, NOTHING_KNOWN)
    kernel = two.kernel(2, STORE)
    assert two.launch(1, kernel, two.partitions[2].base, 7, is_timed=True) == (Result.OK, 0)
    assert two.spent_ns(1)[0] > 0
    assert driver.calls["create_event"] == 2


def test_a_tenant_that_is_closed_while_its_request_is_timed(two: Board, driver: EmulatedDriver) -> None:
    in_flight(two, driver)
    two.on_wait = driver.let_go
    two.engine.close_tenant(1)
    assert two.is_done(1)
    kernel, base = two.kernel(2, STORE), two.partitions[2].base
    assert two.launch(2, kernel, base, 7, is_timed=True) == (Result.OK, 0)
    assert driver.calls["create_event"] == 2


def test_an_owner_who_says_that_its_timed_work_is_over_takes_no_more_events(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.hold()
    for _ in range(500):
        number = two.ask(1, kernel, base, 5, is_timed=True)
        two.engine.poll()
        two.words[(board.DOORBELL_BYTES + board.DONE) // 4] = number
    assert driver.calls["launch"] < 100
    assert driver.calls["create_event"] == 2
    driver.let_go()
    driver.synchronize_stream(stream_of(two, driver, 1))
    two.engine.close_lane(1)
    two.engine.check()
    two.engine.open_lane(1, 1)
    assert two.launch(1, kernel, base, 5, is_timed=True) == (Result.OK, 0)
    assert driver.calls["create_event"] == 2


def test_an_owner_who_asks_again_before_the_end_is_told_of_the_last(two: Board, driver: EmulatedDriver) -> None:
    in_flight(two, driver)
    two.words[(board.DOORBELL_BYTES + board.DONE) // 4] = two.doorbell(1, board.REQUEST)
    two.ask(1, two.engine._lanes._lanes[1].kernel.number, two.partitions[1].base, 6)  # type: ignore[union-attr]
    assert two.engine.poll() == 1
    driver.let_go()
    driver.synchronize_stream(stream_of(two, driver, 1))
    for _ in range(3):
        two.engine.poll()
        assert two.is_done(1)
    assert two.read(1, two.partitions[1].base, 8) == (6).to_bytes(8, "little")


def test_an_owner_who_says_that_the_gpu_has_ended_it_is_not_believed(two: Board, driver: EmulatedDriver) -> None:
    in_flight(two, driver)
    two.words[(board.DOORBELL_BYTES + board.ENDED) // 4] = two.doorbell(1, board.REQUEST)
    for _ in range(3):
        two.engine.poll()
    assert not two.is_done(1)
    driver.let_go()
    assert two.wait(1) == (Result.OK, 0)
    assert two.spent_ns(1)[0] > 0


# --- others -----------------------------------------------------------------------------------------------------------


def test_a_poll_tells_of_a_few_and_of_all_in_turn_while_others_begin(two: Board, driver: EmulatedDriver) -> None:
    lanes = range(10, 30)
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    other, theirs = two.kernel(2, STORE), two.partitions[2].base
    for lane in lanes:
        two.engine.open_lane(lane, 1)
        two.ask(lane, kernel, base, 5, is_timed=True)
    assert two.engine.poll() == len(lanes)
    for stream in driver.streams:
        driver.synchronize_stream(stream)
    told = []
    for _ in range(3):
        two.ask(2, other, theirs, 5)
        assert two.engine.poll() == 1
        driver.synchronize_stream(stream_of(two, driver, 2))
        told.append(sum(two.is_done(lane) for lane in lanes))
    assert told == [8, 16, 20]
    # One whose kernel takes long keeps nobody behind it.
    driver.slow(1.0, is_kept=False)
    for lane in lanes:
        two.ask(lane, kernel, base, 5, is_timed=True)
    two.engine.poll()
    two.until(lambda: sum(two.is_done(lane) for lane in lanes) == len(lanes) - 1)
    two.until(lambda: all(two.is_done(lane) for lane in lanes))


@pytest.mark.parametrize("is_timed", [False, True])
def test_a_kernel_that_leaves_faults_is_the_next_ones_once_the_request_is_over(
    two: Board, driver: EmulatedDriver, is_timed: bool
) -> None:
    kernel, base = two.kernel(1, COUNTER, leaves_faults=True, image=IMAGE), two.partitions[1].base
    two.engine.open_lane(5, 1)
    driver.hold()
    two.ask(1, kernel, base, 1, is_timed=is_timed)
    two.ask(5, kernel, base, 0, is_timed=is_timed)
    assert two.engine.poll() == 1
    driver.let_go()
    ends: list[Callable[[], bool]] = [lambda: two.is_done(1), lambda: two.is_done(5)]
    for end in ends:
        two.until(end)
    assert two.doorbell(1, board.FAULT_LINE) > 0 == two.doorbell(5, board.FAULT_LINE)
