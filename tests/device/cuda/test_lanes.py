"""Launches by the board, on a driver without a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from device.cuda.boards import (
    IMAGE,
    NOTHING,
    SHARED,
    SIZE_BYTES,
    STAGING_BYTES,
    STORE,
    Board,
)
from device.cuda.emulated import EmulatedDriver
from device.ptx_texts import COUNTER, INCREMENT
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Direction, Result
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, DriverError

ECC, ILLEGAL_ADDRESS, OUT_OF_RESOURCES = 214, 700, 701
BOTH = Direction.IN | Direction.OUT


# --- launches -------------------------------------------------------------------------------------------------------


def test_a_launch_takes_windows_in_and_out(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, INCREMENT), two.partitions[1].base
    two.staging[:16] = bytes([1, 0, 0, 0] * 4)
    two.staging[64:80] = bytes(16)
    before = time.monotonic_ns()
    windows = [(base, 0, 16, Direction.IN), (base + 4096, 64, 16, Direction.OUT), (0, 0, 0, BOTH)]
    given = _record(driver, "copy_to_device", "launch", "copy_to_host", "write_value")
    assert two.launch(1, kernel, base, base + 4096, block=(4, 1, 1), windows=windows) == (Result.OK, 0)
    assert bytes(two.staging[64:80]) == bytes([2, 0, 0, 0] * 4)
    assert before <= two.times[1 * board.DOORBELL_BYTES // 8 + board.ACCEPTED_NS // 8] <= time.monotonic_ns()
    (_, into), _, (_, out), _ = given
    assert [call for call, _ in given] == ["copy_to_device", "launch", "copy_to_host", "write_value"]
    staging = two.address + board.BYTES
    assert (into[:3], out[:3]) == ((base, staging, 16), (staging + 64, base + 4096, 16))


def _record(driver: EmulatedDriver, *calls: str) -> list[tuple[str, tuple[Any, ...]]]:
    """What the driver is asked from now on of these functions, and what they are given, in order."""
    given: list[tuple[str, tuple[Any, ...]]] = []

    def recorded(call: str) -> Callable[..., Any]:
        function = getattr(driver, call)
        return lambda *arguments: (given.append((call, arguments)), function(*arguments))[1]

    for call in calls:
        setattr(driver, call, recorded(call))
    return given


def test_a_lane_is_zeros_when_it_is_opened(two: Board) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    two.launch(1, kernel, base, 5)
    two.engine.close_lane(1)
    two.engine.open_lane(1, 2)
    bell, body = board.DOORBELL_BYTES, board.BODIES + board.BODY_BYTES
    assert bytes(two.view[bell : bell + board.DOORBELL_BYTES]) == bytes(board.DOORBELL_BYTES)
    assert bytes(two.view[body : body + board.BODY_BYTES]) == bytes(board.BODY_BYTES)
    assert two.engine.poll() == 0
    assert two.launch(1, kernel, base, 5) == (Result.REFUSED, 0)  # it is not the new tenant's


def test_numbers_of_requests_go_around(two: Board) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    for number in (0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1):
        two.words[board.DOORBELL_BYTES // 4] = (number - 1) & 0xFFFF_FFFF
        assert two.ask(1, kernel, base, number) == number
        assert two.wait(1) == (Result.OK, 0)
        assert int.from_bytes(two.read(1, base, 8), "little") == number


def test_windows_may_fill_all_there_is(two: Board) -> None:
    kernel, base = two.kernel(1, NOTHING, image=0), two.partitions[1].base
    many = [(base + 4096 + 16 * n, 16 * n, 16, BOTH) for n in range(board.WINDOWS_MAX)]
    assert two.launch(1, kernel, windows=many) == (Result.OK, 0)
    edges = [(base + SIZE_BYTES - 64, STAGING_BYTES - 64, 64, BOTH)]
    assert two.launch(1, kernel, windows=edges) == (Result.OK, 0)


def _refusals() -> dict[str, Callable[[int, int, int], dict[str, Any]]]:
    def window(*values: int) -> dict[str, Any]:
        return {"windows": [values]}

    return {
        "no kernel": lambda own, mine, theirs: {"kernel": 0},
        "an unknown kernel": lambda own, mine, theirs: {"kernel": 0xFFFF_FFFF},
        "a neighbour's kernel": lambda own, mine, theirs: {"kernel": own + 1},
        "no blocks": lambda own, mine, theirs: {"grid": (1, 0, 1)},
        "no threads": lambda own, mine, theirs: {"block": (1, 1, 0)},
        "too many blocks along x": lambda own, mine, theirs: {"grid": (1 << 31, 1, 1)},
        "too many blocks along y": lambda own, mine, theirs: {"grid": (1, 1 << 16, 1)},
        "too many blocks along z": lambda own, mine, theirs: {"grid": (1, 1, 1 << 16)},
        "too many threads along z": lambda own, mine, theirs: {"block": (1, 1, 65)},
        "threads that overflow": lambda own, mine, theirs: {"block": (1 << 16, 1 << 16, 65)},
        "too few parameters": lambda own, mine, theirs: {"parameter_bytes": 15},
        "too many parameters": lambda own, mine, theirs: {"parameter_bytes": board.PARAMETERS_MAX + 1},
        "too many windows": lambda own, mine, theirs: {"window_count": board.WINDOWS_MAX + 1},
        "very many windows": lambda own, mine, theirs: {"window_count": 0xFFFF_FFFF},
        "a neighbour's memory": lambda own, mine, theirs: window(theirs, 0, 4, Direction.OUT),
        "memory before": lambda own, mine, theirs: window(mine - 4, 0, 8, Direction.IN),
        "memory behind": lambda own, mine, theirs: window(mine + SIZE_BYTES - 4, 0, 8, Direction.IN),
        "memory nowhere": lambda own, mine, theirs: window((1 << 64) - 4, 0, 8, Direction.IN),
        "staging behind": lambda own, mine, theirs: window(mine, STAGING_BYTES - 4, 8, Direction.OUT),
        "staging that overflows": lambda own, mine, theirs: window(mine, 0xFFFF_FFFF, 8, Direction.OUT),
        "other directions": lambda own, mine, theirs: window(mine, 0, 8, 4),
        "the second of two": lambda own, mine, theirs: {"windows": [(mine, 0, 8, 1), (theirs, 0, 8, 1)]},
    }


@pytest.mark.parametrize("what", _refusals())
def test_a_request_for_what_the_tenant_does_not_have_is_refused_whole(
    two: Board, driver: EmulatedDriver, what: str
) -> None:
    kernel = two.kernel(1, STORE)
    two.kernel(2, STORE)
    mine, theirs = two.partitions[1].base, two.partitions[2].base
    options = {"kernel": kernel, **_refusals()[what](kernel, mine, theirs)}
    before = dict(driver.calls)
    two.ask(1, options.pop("kernel"), mine, 5, **options)
    assert two.engine.poll() == 1
    assert two.is_done(1)
    assert two.doorbell(1, board.RESULT) == Result.REFUSED
    assert driver.calls == before
    assert two.launch(1, kernel, mine, 6) == (Result.OK, 0)


def test_more_parameters_than_the_kernel_has_are_not_given_to_the_driver(two: Board, driver: EmulatedDriver) -> None:
    kernel = two.kernel(1, STORE)
    told = []
    launch = driver.launch
    driver.launch = lambda *arguments: (told.append(arguments[-1]), launch(*arguments))  # type: ignore[method-assign]
    assert two.launch(1, kernel, two.partitions[1].base, 5, parameter_bytes=4096) == (Result.OK, 0)
    assert told == [16]


def test_a_kernel_with_too_many_threads_or_too_much_shared_memory_is_not_launched(
    two: Board, driver: EmulatedDriver
) -> None:
    bounded = STORE.replace(")\n{", ")\n.maxntid 64, 1, 1\n{")
    assert bounded != STORE
    kernel, base = two.kernel(1, bounded), two.partitions[1].base
    assert two.launch(1, kernel, base, 5, block=(65, 1, 1)) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 5, shared_bytes=(227 << 10) + 1) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 5, shared_bytes=0xFFFF_FFFF) == (Result.NOT_LAUNCHABLE, 0)
    assert "allow_shared" not in driver.calls  # whose number is an int
    assert two.launch(1, kernel, base, 5, block=(64, 1, 1)) == (Result.OK, 0)
    assert driver.calls["launch"] == 1


def test_a_kernel_of_many_registers_has_another_module_for_large_blocks(two: Board, driver: EmulatedDriver) -> None:
    driver.threads_max["store"] = 64
    base, told = two.partitions[1].base, []
    number, threads = two.engine.add_kernel(*two.module(1, STORE), False)
    launch = driver.launch
    driver.launch = lambda *arguments: (told.append(arguments[0]), launch(*arguments))  # type: ignore[method-assign]
    assert (threads, driver.calls["load_module"]) == (1024, 2)
    for block in (64, 65, 1024, 64):
        assert two.launch(1, number, base, block, block=(block, 1, 1), shared_bytes=50 << 10) == (Result.OK, 0)
        assert two.read(1, base, 8) == block.to_bytes(8, "little")
    assert told[0] == told[3] != told[1] == told[2]
    two.engine.remove_kernel(number)
    assert driver.calls["unload_module"] == 2


def test_a_kernel_is_unloaded_once_what_ran_then_is_over_of_other_tenants_too(
    two: Board, driver: EmulatedDriver
) -> None:
    """The driver waits for it, and nothing could be begun meanwhile."""
    kernels = [two.kernel(tenant, STORE) for tenant in (1, 2)]
    driver.hold()
    before_s = time.monotonic()
    two.ask(1, kernels[0], two.partitions[1].base, 5)
    two.engine.poll()
    time.sleep(0.01)
    assert two.engine.is_over(before_s)  # it began later
    assert not two.engine.is_over(time.monotonic())
    two.engine.remove_kernel(kernels[1])
    two.engine.check()
    assert "unload_module" not in driver.calls
    driver.let_go()
    assert two.wait(1) == (Result.OK, 0)
    two.until(lambda: driver.calls.get("unload_module") == 1)


def test_dynamic_shared_memory_beyond_what_every_launch_has(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, SHARED), two.partitions[1].base
    for size in (100 << 10, 8, 200 << 10, 100 << 10):
        assert two.launch(1, kernel, base, size - 8, shared_bytes=size) == (Result.OK, 0)
        assert two.read(1, base, 8) == (77).to_bytes(8, "little")
    assert driver.calls["allow_shared"] == 2
    # With its own it is too much.
    assert two.launch(1, kernel, base, 0, shared_bytes=227 << 10) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 0, shared_bytes=64) == (Result.OK, 0)


def test_a_launch_that_the_driver_refuses_is_over_when_its_copies_are(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.fail("launch", OUT_OF_RESOURCES)
    driver.hold()
    two.ask(1, kernel, base, 5, windows=[(base, 0, 64, Direction.IN)])
    assert two.engine.poll() == 1
    assert [each.lane for each in two.engine.running()] == [1]
    two.engine.poll()
    two.engine.check()
    assert not two.is_done(1)
    driver.let_go()
    assert two.wait(1) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 5) == (Result.OK, 0)


@pytest.mark.parametrize("call", ["copy_to_device", "allow_shared", "set_memory", "launch", "copy_to_host"])
def test_a_request_of_which_a_part_fails_says_so_and_the_lane_goes_on(
    two: Board, driver: EmulatedDriver, call: str
) -> None:
    kernel, base = two.kernel(1, SHARED, leaves_faults=True), two.partitions[1].base
    options: dict[str, Any] = {"windows": [(base, 0, 64, BOTH)], "shared_bytes": 60 << 10}
    driver.fail(call, OUT_OF_MEMORY)
    assert two.launch(1, kernel, base, 5, **options) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 5, **options) == (Result.OK, 0)
    assert two.launch(2, kernel, base, 5) == (Result.REFUSED, 0)


def test_a_request_whose_end_the_driver_does_not_take_ends_all_the_same(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.fail("write_value", OUT_OF_MEMORY)
    assert two.launch(1, kernel, base, 5) == (Result.OK, 0)
    assert two.read(1, base, 8) == (5).to_bytes(8, "little")


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_fault_line_comes_with_its_launch_and_with_no_other(two: Board) -> None:
    line = COUNTER[: COUNTER.index("trap;")].count("\n") + 1
    base = two.partitions[1].base
    kernel = two.kernel(1, COUNTER, leaves_faults=True)
    two.engine.open_lane(5, 1)
    assert two.launch(1, kernel, base, 0) == (Result.OK, 0)
    assert two.launch(1, kernel, base, 1) == (Result.OK, line)
    assert two.launch(5, kernel, base, 0) == (Result.OK, 0)
    assert two.launch(1, kernel, base, 0) == (Result.OK, 0)
    assert int.from_bytes(two.read(1, base, 4), "little") == 104


def test_lanes_take_turns_with_a_kernel_that_leaves_faults(two: Board, driver: EmulatedDriver) -> None:
    base = two.partitions[1].base
    kernel = two.kernel(1, COUNTER, leaves_faults=True)
    other = two.kernel(1, STORE, image=IMAGE + 4096)
    for lane in (5, 6):
        two.engine.open_lane(lane, 1)
    driver.hold()
    two.ask(1, kernel, base, 1)
    two.ask(5, kernel, base, 0)
    two.ask(6, other, base + 8, 0)
    assert two.engine.poll() == 2  # the second waits, the third is another's
    assert two.engine.poll() == 0
    assert {each.lane for each in two.engine.running()} == {1, 6}
    driver.let_go()
    assert two.wait(1)[1] > 0
    assert two.wait(5) == (Result.OK, 0)
    assert two.wait(6) == (Result.OK, 0)


def test_a_lane_that_ran_a_kernel_that_leaves_faults_keeps_nobody_from_it(two: Board, driver: EmulatedDriver) -> None:
    base = two.partitions[1].base
    kernel = two.kernel(1, COUNTER, leaves_faults=True)
    other = two.kernel(1, STORE, image=IMAGE + 4096)
    two.engine.open_lane(5, 1)
    assert two.launch(5, kernel, base, 0) == (Result.OK, 0)
    driver.hold()
    two.ask(5, other, base, 5)  # the lane is busy with another
    assert two.engine.poll() == 1
    two.ask(1, kernel, base, 0)
    assert two.engine.poll() == 1
    driver.let_go()
    assert two.wait(1) == (Result.OK, 0)
    assert two.launch(5, kernel, base, 0) == (Result.OK, 0)
    two.engine.close_lane(5)
    two.engine.open_lane(5, 2)  # the lane is another's
    assert two.launch(1, kernel, base, 0) == (Result.OK, 0)


# --- one request a lane, lanes by turns -----------------------------------------------------------------------------


def test_a_lane_has_one_request_in_flight(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.hold()
    two.ask(1, kernel, base, 5)
    assert two.engine.poll() == 1
    two.ask(1, kernel, base, 6)
    assert two.engine.poll() == 0
    assert driver.calls["launch"] == 1
    driver.let_go()
    two.until(lambda: driver.calls["launch"] == 2)
    assert two.wait(1) == (Result.OK, 0)


def test_an_owner_who_says_that_its_work_is_over_fills_no_stream(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.hold()
    for _ in range(500):
        number = two.ask(1, kernel, base, 5)
        two.engine.poll()
        two.words[(board.DOORBELL_BYTES + board.DONE) // 4] = number
    assert driver.calls["launch"] < 100
    # Its kernel, its lane and its memory stay until the stream is done.
    two.engine.remove_kernel(kernel)
    two.engine.close_lane(1)
    two.engine.check()
    assert two.engine.is_lane_open(1)
    two.on_wait = driver.let_go
    two.engine.close_tenant(1)


def test_the_driver_is_seldom_asked_what_the_board_says(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    before = driver.calls["is_stream_done"]
    for number in range(140):
        two.ask(1, kernel, base, number)
        assert two.engine.poll() == 1
        driver.synchronize_stream(driver.streams[1])
    assert driver.calls["is_stream_done"] - before == 2


def test_the_lane_that_begins_first_changes(two: Board) -> None:
    for lane in (3, 700, 1023):
        two.engine.open_lane(lane, 1)
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    firsts = []
    for _ in range(8):
        for lane in (1, 3, 700, 1023):
            two.ask(lane, kernel, base, 5)
        assert two.engine.poll() == 4
        began = {each.lane: two.engine._lanes._lanes[each.lane].accepted_ns for each in two.engine.running()}
        order = sorted((two.engine._lanes._lanes[lane].accepted_ns, lane) for lane in (1, 3, 700, 1023))
        firsts.append(order[0][1])
        assert set(began) <= {1, 3, 700, 1023}
        for lane in (1, 3, 700, 1023):
            two.wait(lane)
    assert firsts == [1, 3, 700, 1023] * 2


def test_lanes_that_nobody_has_are_not_looked_at(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    for lane in (0, 4, 900):
        two.ask(lane, kernel, base, 5)
        assert two.engine.poll() == 0
    two.engine.open_lane(900, 1)
    assert two.engine.poll() == 0
    two.engine.close_lane(900)
    two.ask(1, kernel, base, 5)
    two.ask(900, kernel, base, 5)
    assert two.engine.poll() == 1
    assert two.wait(1) == (Result.OK, 0)
    assert driver.calls["launch"] == 1


@pytest.mark.parametrize("lane", [-1, board.LANES, 1 << 40])
def test_there_are_so_many_lanes(two: Board, lane: int) -> None:
    with pytest.raises(ValueError, match="no lane"):
        two.engine.open_lane(lane, 1)
    with pytest.raises(ValueError, match="not open"):
        two.engine.close_lane(lane)


def test_a_lane_is_one_tenants(two: Board) -> None:
    with pytest.raises(ValueError, match="in use"):
        two.engine.open_lane(1, 2)
    with pytest.raises(ValueError, match="no partition"):
        two.engine.open_lane(7, 3)
    two.engine.close_lane(1)
    with pytest.raises(ValueError, match="not open"):
        two.engine.close_lane(1)


# --- closing what is busy -------------------------------------------------------------------------------------------


def test_a_busy_lane_closes_once_it_is_done(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.hold()
    two.ask(1, kernel, base, 5)
    two.engine.poll()
    two.engine.close_lane(1)
    two.ask(1, kernel, base, 6)
    assert two.engine.poll() == 0
    two.engine.check()
    assert two.engine.is_lane_open(1)
    with pytest.raises(ValueError, match="in use"):
        two.engine.open_lane(1, 2)
    driver.let_go()
    driver.synchronize_stream(driver.streams[1])
    assert two.doorbell(1, board.DONE) == 1
    two.ask(1, kernel, base, 7)
    assert two.engine.poll() == 0
    two.until(lambda: not two.engine.is_lane_open(1))
    assert driver.calls["launch"] == 1
    two.engine.open_lane(1, 1)
    assert two.engine.poll() == 0
    assert two.launch(1, kernel, base, 7) == (Result.OK, 0)


def test_a_tenant_that_closes_begins_nothing_whatever_it_says(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.hold()
    two.ask(1, kernel, base, 5)
    two.engine.poll()
    two.words[(board.DOORBELL_BYTES + board.DONE) // 4] = two.ask(1, kernel, base, 6) - 1
    launches = []

    def on_wait() -> None:
        launches.append(driver.calls["launch"])
        driver.let_go()

    two.on_wait = on_wait
    two.engine.close_tenant(1)
    assert set(launches) == {1}


def test_a_failed_request_of_a_closed_lane_is_not_its_next_owners(two: Board, driver: EmulatedDriver) -> None:
    kernel, theirs = two.kernel(1, STORE), two.kernel(2, STORE)
    driver.fail("launch", OUT_OF_RESOURCES)
    two.ask(1, kernel, two.partitions[1].base, 5)
    two.engine.poll()
    two.engine.close_lane(1)
    two.engine.open_lane(1, 2)
    assert two.launch(1, theirs, two.partitions[2].base, 5) == (Result.OK, 0)


def test_a_module_waits_for_no_lane_that_is_closed(two: Board, driver: EmulatedDriver) -> None:
    kernel, theirs = two.kernel(1, STORE), two.kernel(2, STORE)
    driver.hold()
    two.ask(1, kernel, two.partitions[1].base, 5)
    two.engine.poll()
    two.engine.remove_kernel(kernel)
    driver.let_go()
    driver.synchronize_stream(driver.streams[1])
    two.engine.close_lane(1)
    two.engine.open_lane(1, 2)
    driver.hold()
    two.ask(1, theirs, two.partitions[2].base, 5)
    assert two.engine.poll() == 1
    two.engine.check()
    assert driver.calls["unload_module"] == 1
    driver.let_go()
    two.wait(1)


def test_streams_are_used_again(two: Board, driver: EmulatedDriver) -> None:
    count = driver.calls["create_stream"]
    for _ in range(5):
        for lane in (1, 2):
            two.engine.close_lane(lane)
            two.engine.open_lane(lane, 3 - lane)
            two.engine.close_lane(lane)
            two.engine.open_lane(lane, lane)
    assert driver.calls["create_stream"] == count


def test_closing_a_tenant_waits_for_its_work_and_others_go_on(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    theirs = two.kernel(2, STORE)
    driver.slow(0.05, "store", is_kept=False)
    two.ask(1, kernel, base, 5)
    two.engine.poll()
    two.ask(1, kernel, base, 6)  # is not begun any more
    two.ask(2, theirs, two.partitions[2].base, 7)
    two.engine.close_tenant(1)
    assert two.wait(2) == (Result.OK, 0)
    assert driver.calls["launch"] == 2
    assert not two.engine.is_lane_open(1)
    assert two.engine.running() == ()
    with pytest.raises(ValueError, match="has a partition"):
        two.open_tenant(2)
    two.open_tenant(1)
    two.engine.poll()
    assert driver.calls["launch"] == 2


def test_a_tenant_that_closes_takes_no_more(two: Board, driver: EmulatedDriver) -> None:
    two.kernel(1, STORE)
    module = two.module(1, STORE)
    driver.fail("unload_module", OUT_OF_MEMORY)
    with pytest.raises(DriverError):
        two.engine.close_tenant(1)
    for call in (
        lambda: two.engine.open_lane(3, 1),
        lambda: two.engine.add_kernel(*module, False),
        lambda: two.engine.copy_in(1, two.partitions[1].base, 0, 4),
    ):
        with pytest.raises(ValueError, match=r"tenant"):
            call()
    assert "release" not in driver.calls
    two.open_tenant(3)  # what failed is done first
    assert driver.calls["release"] == 1
    for tenant in (2, 3):
        with pytest.raises(ValueError, match="has a partition"):
            two.open_tenant(tenant)
    two.open_tenant(1)


# --- a context that is lost -----------------------------------------------------------------------------------------


def test_a_lost_context_ends_polls_and_checks(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    driver.fail("launch", ILLEGAL_ADDRESS, at_run=True)
    two.ask(1, kernel, base, 5)
    assert two.engine.poll() == 1
    with pytest.raises(DriverError) as raised:
        two.until(lambda: False)
    assert raised.value.is_sticky
    assert [(each.lane, each.tenant, each.kernel) for each in two.engine.running()] == [(1, 1, "store")]
    with pytest.raises(DriverError):
        two.engine.check()


def test_an_idle_engine_notices_that_the_gpu_is_gone(two: Board, driver: EmulatedDriver) -> None:
    driver.lose(ECC)
    with pytest.raises(DriverError) as raised:
        two.engine.check()
    assert raised.value.code == ECC


def test_a_check_does_not_mind_that_the_driver_has_no_memory(two: Board, driver: EmulatedDriver) -> None:
    driver.fail("is_stream_done", OUT_OF_MEMORY)
    two.engine.check()


def test_what_is_running_is_told(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    assert two.engine.running() == ()
    driver.hold()
    before = time.monotonic()
    two.ask(1, kernel, base, 5)
    two.engine.poll()
    (running,) = two.engine.running()
    assert (running.lane, running.tenant, running.kernel) == (1, 1, "store")
    assert before - 1e-6 <= running.since_s <= time.monotonic() + 1e-6
    two.engine.check()
    driver.let_go()
    two.wait(1)
    assert two.engine.running() == ()
