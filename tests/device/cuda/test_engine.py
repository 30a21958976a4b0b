"""What a worker does with the driver, on one without a GPU that notices what must not be done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device.cuda.boards import IMAGE, LIMIT_S, SIZE_BYTES, STAGING_BYTES, Board
from device.cuda.emulated import EmulatedDriver
from device.ptx_texts import COUNTER, HEAD, INCREMENT
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Direction, Result
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, DriverError
from tensor_wasm.device.cuda.engine import Engine, _parameter_bytes
from tensor_wasm.device.fence import GUARD_BYTES

GRANULE = 1 << 16
ECC, INVALID_VALUE, ILLEGAL_ADDRESS, OUT_OF_RESOURCES = 214, 1, 700, 701
BOTH = Direction.IN | Direction.OUT
#: target[0] = value
STORE = (
    HEAD
    + """
.visible .entry store(.param .u64 target, .param .u64 value)
{
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [target];
    ld.param.u64 %rd2, [value];
    st.global.u64 [%rd1], %rd2;
    ret;
}
"""
)
#: Uses dynamic shared memory beside 1 KiB of its own.
SHARED = (
    HEAD
    + """
.extern .shared .align 8 .b8 open[];
.visible .entry sharing(.param .u64 target, .param .u64 offset)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    .shared .align 8 .b8 own[1024];
    ld.param.u64 %rd1, [target];
    ld.param.u32 %r1, [offset];
    mov.u32 %r2, open;
    add.u32 %r2, %r2, %r1;
    mov.u64 %rd2, 77;
    st.shared.u64 [%r2], %rd2;
    st.shared.u64 [own], %rd2;
    ld.shared.u64 %rd3, [%r2];
    st.global.u64 [%rd1], %rd3;
    ret;
}
"""
)
NOTHING = HEAD + ".visible .entry nothing() { ret; }\n"


@pytest.fixture
def driver() -> Iterator[EmulatedDriver]:
    with EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=GRANULE) as driver:
        yield driver
        assert not driver.misuses


@pytest.fixture
def node(driver: EmulatedDriver) -> Iterator[Board]:
    opened = Board(driver).open()
    yield opened
    driver.let_go()
    opened.close()


@pytest.fixture
def two(node: Board) -> Board:
    """Tenants 1 and 2, who have lanes 1 and 2."""
    for tenant in (1, 2):
        node.open_tenant(tenant)
        node.engine.open_lane(tenant, tenant)
    return node


# --- partitions -----------------------------------------------------------------------------------------------------


def test_a_partition_is_aligned_zeroed_and_apart_from_others(node: Board, driver: EmulatedDriver) -> None:
    first, second = node.open_tenant(1), node.open_tenant(2)
    for partition in (first, second):
        assert driver.peek(partition.base - GUARD_BYTES, SIZE_BYTES + 2 * GUARD_BYTES).strip(b"\0") == b""
    driver.poke(first.base - GUARD_BYTES, b"\x77" * (SIZE_BYTES + 2 * GUARD_BYTES))
    assert driver.peek(second.base - GUARD_BYTES, SIZE_BYTES + 2 * GUARD_BYTES).strip(b"\0") == b""


@pytest.mark.parametrize("size_bytes", [2 * GRANULE, 4 * GRANULE])
def test_guard_zones_show_the_partitions_own_ends(node: Board, driver: EmulatedDriver, size_bytes: int) -> None:
    base = node.open_tenant(1, size_bytes).base
    driver.poke(base, b"first")
    driver.poke(base + size_bytes - 4, b"last")
    assert driver.peek(base + size_bytes, 5) == b"first"
    assert driver.peek(base - 4, 4) == b"last"
    driver.poke(base - GUARD_BYTES, b"x")
    assert driver.peek(base + size_bytes - GUARD_BYTES, 1) == b"x"


def test_nothing_of_a_tenant_is_left_in_memory(node: Board, driver: EmulatedDriver) -> None:
    base = node.open_tenant(1).base
    driver.poke(base, b"secret!!" * (SIZE_BYTES // 8))
    node.engine.close_tenant(1)
    size = 8 << 20
    memory, address = driver.create_memory(size), driver.reserve(size, GRANULE)
    driver.map_memory(address, size, memory, 0)
    assert b"secret" not in driver.peek(address, size)
    driver.unmap_memory(address, size)
    driver.destroy_memory(memory)
    driver.release(address, size)


@pytest.mark.parametrize("size_bytes", [0, -GRANULE, GRANULE, 3 * GRANULE, 2 * GRANULE + 1])
def test_sizes_that_no_partition_has_are_refused(node: Board, size_bytes: int) -> None:
    with pytest.raises(ValueError, match="no partition"):
        node.engine.open_tenant(1, size_bytes)


def test_a_tenant_has_one_partition(two: Board) -> None:
    with pytest.raises(ValueError, match="has a partition"):
        two.engine.open_tenant(1, SIZE_BYTES)
    with pytest.raises(ValueError, match="has no partition"):
        two.engine.close_tenant(3)


def test_a_full_device_opens_no_partition_and_goes_on(two: Board, driver: EmulatedDriver) -> None:
    before = driver.memory_info()
    with pytest.raises(DriverError) as raised:
        two.engine.open_tenant(3, 16 << 20)
    assert raised.value.code == OUT_OF_MEMORY
    assert driver.memory_info() == before
    two.open_tenant(3)


# --- requests that are no launches ----------------------------------------------------------------------------------


def test_copies_and_fills(two: Board) -> None:
    base = two.partitions[1].base
    two.write(1, base + 5, b"abcdef")
    two.engine.set_memory(1, base + 7, ord("-"), 2)
    assert two.read(1, base + 4, 8) == b"\0ab--ef\0"
    two.engine.copy_out(1, STAGING_BYTES, base + SIZE_BYTES, 0)


@pytest.mark.parametrize(
    ("offset", "staging", "size_bytes"),
    [
        (-1, 0, 1),
        (SIZE_BYTES, 0, 1),
        (SIZE_BYTES - 3, 0, 4),
        (0, 0, -1),
        (0, -1, 4),
        (0, STAGING_BYTES - 3, 4),
        (0, 0, 1 << 65),
        (1 << 64, 0, 1),
    ],
)
def test_ranges_outside_are_refused(two: Board, offset: int, staging: int, size_bytes: int) -> None:
    address = two.partitions[1].base + offset
    with pytest.raises(ValueError, match="not inside"):
        two.engine.copy_in(1, address, staging, size_bytes)
    with pytest.raises(ValueError, match="not inside"):
        two.engine.copy_out(1, staging, address, size_bytes)


def test_a_neighbours_memory_is_out_of_reach_of_requests(two: Board) -> None:
    theirs = two.partitions[2].base
    for call in (
        lambda: two.engine.copy_in(1, theirs, 0, 4),
        lambda: two.engine.copy_out(1, 0, theirs, 4),
        lambda: two.engine.set_memory(1, theirs, 0, 4),
        lambda: two.engine.set_memory(1, two.partitions[1].base - 1, 0, 4),
        lambda: two.engine.copy_in(3, theirs, 0, 4),
    ):
        with pytest.raises(ValueError, match=r"not inside|no partition"):
            call()
    with pytest.raises(ValueError, match="byte"):
        two.engine.set_memory(1, two.partitions[1].base, 256, 4)


def test_launches_begin_while_a_copy_is_waited_for(two: Board, driver: EmulatedDriver) -> None:
    kernel = two.kernel(2, STORE)
    two.ask(2, kernel, two.partitions[2].base, 9)
    driver.hold()
    seen = []

    def on_wait() -> None:
        seen.append(driver.calls.get("launch", 0))
        driver.let_go()

    two.on_wait = on_wait
    two.engine.copy_in(1, two.partitions[1].base, 0, 4)
    assert seen[0] == 1
    assert two.wait(2) == (Result.OK, 0)


def test_what_on_wait_raises_ends_a_wait_but_not_before_the_copy_is_done(two: Board, driver: EmulatedDriver) -> None:
    driver.hold()

    def on_wait() -> None:
        driver.let_go()
        raise InterruptedError

    two.on_wait = on_wait
    with pytest.raises(InterruptedError):
        two.engine.copy_in(1, two.partitions[1].base, 0, 4)
    assert driver.waiting(driver.streams[0]) == []
    two.on_wait = lambda: None


# --- kernels --------------------------------------------------------------------------------------------------------


def test_an_image_is_written_whole(node: Board, driver: EmulatedDriver) -> None:
    partition = node.open_tenant(1, 4 << 20)
    image = bytes(range(256)) * 4096 * 2 + b"end"
    tenant, module, name, base, _ = node.module(1, NOTHING)
    number, threads = node.engine.add_kernel(tenant, module, name, base, image, leaves_faults=False)
    assert (number, threads) == (1, 1024)
    assert driver.peek(base, len(image) + 1) == image + b"\0"
    assert partition.holds(base, len(image))


@pytest.mark.parametrize("offset", [-16, SIZE_BYTES - 8, SIZE_BYTES])
def test_an_image_outside_is_refused_and_the_module_unloaded(two: Board, driver: EmulatedDriver, offset: int) -> None:
    tenant, module, name, _, image = two.module(1, NOTHING)
    with pytest.raises(ValueError, match="image"):
        two.engine.add_kernel(tenant, module, name, two.partitions[1].base + offset, image, leaves_faults=False)
    assert driver.calls["unload_module"] == 1
    with pytest.raises(ValueError, match="module"):
        two.engine.add_kernel(tenant, module, name, two.partitions[1].base, image, leaves_faults=False)


def test_a_module_without_the_kernel_or_without_a_tenant_is_unloaded(two: Board, driver: EmulatedDriver) -> None:
    tenant, module, _, base, image = two.module(1, NOTHING)
    with pytest.raises(ValueError, match="no kernel"):
        two.engine.add_kernel(tenant, module, "other", base, image, leaves_faults=False)
    _, module, name, base, image = two.module(1, NOTHING)
    with pytest.raises(ValueError, match="no partition"):
        two.engine.add_kernel(3, module, name, base, image, leaves_faults=False)
    assert driver.calls["unload_module"] == 2


def test_a_text_that_the_assembler_refuses_says_why(node: Board) -> None:
    with pytest.raises(DriverError) as raised:
        node.engine.assemble(b"no ptx")
    assert raised.value.log
    assert not raised.value.is_sticky


def test_another_thread_assembles(two: Board) -> None:
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(two.module(1, STORE)))
    thread.start()
    thread.join(LIMIT_S)
    kernel, _ = two.engine.add_kernel(*made[0], leaves_faults=False)
    assert two.launch(1, kernel, two.partitions[1].base, 5) == (Result.OK, 0)


def test_a_module_that_nobody_takes_can_be_forgotten(two: Board, driver: EmulatedDriver) -> None:
    module = two.module(1, NOTHING)[1]
    two.engine.forget(module)
    two.engine.forget(module)
    assert driver.calls["unload_module"] == 1


def test_a_removed_kernel_is_unloaded_once_it_does_not_run(two: Board, driver: EmulatedDriver) -> None:
    kernel = two.kernel(1, STORE)
    driver.hold()
    two.ask(1, kernel, two.partitions[1].base, 5)
    two.engine.poll()
    two.engine.remove_kernel(kernel)
    two.engine.check()
    assert "unload_module" not in driver.calls
    driver.let_go()
    assert two.wait(1) == (Result.OK, 0)
    two.until(lambda: driver.calls.get("unload_module") == 1)
    assert two.launch(1, kernel, two.partitions[1].base, 5) == (Result.REFUSED, 0)
    with pytest.raises(ValueError, match="no kernel"):
        two.engine.remove_kernel(kernel)


def test_a_module_that_cannot_be_unloaded_is_tried_again(two: Board, driver: EmulatedDriver) -> None:
    kernel = two.kernel(1, STORE)
    driver.fail("unload_module", OUT_OF_MEMORY)
    two.engine.remove_kernel(kernel)
    two.engine.check()
    assert driver.calls["unload_module"] == 2


@pytest.mark.parametrize(
    ("formals", "size_bytes"),
    [
        ("", 0),
        (".param .u64 a", 8),
        (".param .u8 a, .param .u64 b", 16),
        (".param .u64 a,\n .param .f32 b", 12),
        (".param .align 16 .b8 a[20], .param .u16 b", 22),
        (".param .u32 a, .param .align 8 .b8 b[12]", 20),
        (".param .u64 .ptr .global .align 4 a, .param .b8 b[3]", 11),
    ],
)
def test_the_bytes_of_a_kernels_parameters_are_read_from_its_text(formals: str, size_bytes: int) -> None:
    text = f"{HEAD}.visible .entry first(.param .u32 x) {{ ret; }}\n.visible .entry k(\n{formals}\n)\n{{ ret; }}"
    assert _parameter_bytes(text.encode()) == {"first": 4, "k": size_bytes}


# --- launches -------------------------------------------------------------------------------------------------------


def test_a_launch_takes_windows_in_and_out(two: Board) -> None:
    kernel, base = two.kernel(1, INCREMENT), two.partitions[1].base
    two.staging[:16] = bytes([1, 0, 0, 0] * 4)
    two.staging[64:80] = bytes(16)
    before = time.monotonic_ns()
    windows = [(base, 0, 16, Direction.IN), (base + 4096, 64, 16, Direction.OUT), (0, 0, 0, BOTH)]
    assert two.launch(1, kernel, base, base + 4096, block=(4, 1, 1), windows=windows) == (Result.OK, 0)
    assert bytes(two.staging[64:80]) == bytes([2, 0, 0, 0] * 4)
    assert before <= two.times[1 * board.DOORBELL_BYTES // 8 + board.ACCEPTED_NS // 8] <= time.monotonic_ns()
    assert two.engine.statistics()[1].launches == 1
    assert (two.engine.statistics()[1].in_bytes, two.engine.statistics()[1].out_bytes) == (16, 16)
    assert two.engine.statistics()[2].launches == 0


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
    driver.threads_max["store"] = 64
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    assert two.launch(1, kernel, base, 5, block=(65, 1, 1)) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 5, shared_bytes=(227 << 10) + 1) == (Result.NOT_LAUNCHABLE, 0)
    assert two.launch(1, kernel, base, 5, block=(64, 1, 1)) == (Result.OK, 0)
    assert driver.calls["launch"] == 1


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
    assert set(two.engine.busy_since) == {1, 6}
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
    two.ask(1, kernel, base, 0)
    assert two.engine.poll() == 2
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
    assert set(two.engine.statistics()) == {2}
    assert not two.engine.is_lane_open(1)
    two.open_tenant(1)
    assert two.engine.statistics()[1].launches == 0


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
    assert set(two.engine.statistics()) == {1, 2}
    two.open_tenant(3)  # what failed is done first
    assert set(two.engine.statistics()) == {2, 3}
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


def test_running_and_busy_since(two: Board, driver: EmulatedDriver) -> None:
    kernel, base = two.kernel(1, STORE), two.partitions[1].base
    assert two.engine.busy_since == {}
    driver.hold()
    before = time.monotonic()
    two.ask(1, kernel, base, 5)
    two.engine.poll()
    (running,) = two.engine.running()
    assert (running.lane, running.tenant, running.kernel) == (1, 1, "store")
    assert before - 1e-6 <= running.since_s <= time.monotonic() + 1e-6
    assert two.engine.busy_since == {1: running.since_s}
    two.engine.check()
    driver.let_go()
    two.wait(1)
    assert two.engine.busy_since == {}
    assert two.engine.statistics()[1].busy_s > 0


# --- each call of the driver's fails once ---------------------------------------------------------------------------


class Failing:
    """A driver whose n-th call from now on fails. That a wait looks again counts once."""

    def __init__(self, driver: EmulatedDriver) -> None:
        self._driver = driver
        self.count = 0
        self.at: int | None = None
        self.code = 0
        self._last = ""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._driver, name)

        def call(*arguments: Any) -> Any:
            is_again = name == self._last == "is_stream_done"
            self._last = name
            self.count += not is_again
            if self.count == self.at and not is_again:
                error = DriverError(self.code, "CUDA_ERROR_INJECTED", name)
                if error.is_sticky:
                    self._driver.lose(self.code)
                raise error
            return method(*arguments)

        return call

    def fail(self, at: int, code: int) -> None:
        self.count, self.at, self.code, self._last = 0, at, code, ""


def _start(node: Board) -> None:
    """Another tenant, whose launches must go on."""
    node.open_tenant(9, 2 * GRANULE)
    node.engine.open_lane(9, 9)
    node.kernels = {9: node.kernel(9, STORE, image=0)}  # type: ignore[attr-defined]


def _tenant(node: Board) -> None:
    node.open_tenant(1)


def _kernel(node: Board) -> None:
    _tenant(node)
    node.kernels[1] = node.kernel(1, COUNTER, leaves_faults=True)  # type: ignore[attr-defined]


def _lane(node: Board) -> None:
    _kernel(node)
    node.engine.open_lane(1, 1)


def _asked(node: Board) -> None:
    _lane(node)
    base = node.partitions[1].base
    node.ask(1, node.kernels[1], base, 1, windows=[(base, 0, 64, BOTH)], shared_bytes=64)  # type: ignore[attr-defined]


def _begun(node: Board) -> None:
    _asked(node)
    node.engine.poll()
    node.wait(1)


#: What comes before, and the operation.
OPERATIONS: dict[str, tuple[Callable[[Board], None], Callable[[Board], object]]] = {
    "open_tenant": (lambda node: None, lambda node: node.engine.open_tenant(1, SIZE_BYTES)),
    "close_tenant": (_begun, lambda node: node.engine.close_tenant(1)),
    "add_kernel": (_tenant, lambda node: node.kernel(1, COUNTER, leaves_faults=True)),
    "remove_kernel": (_begun, lambda node: node.engine.remove_kernel(node.kernels[1])),  # type: ignore[attr-defined]
    "open_lane": (_tenant, lambda node: node.engine.open_lane(1, 1)),
    "close_lane": (_begun, lambda node: node.engine.close_lane(1)),
    "copy_in": (_tenant, lambda node: node.engine.copy_in(1, node.partitions[1].base, 0, 99)),
    "copy_out": (_tenant, lambda node: node.engine.copy_out(1, 0, node.partitions[1].base, 99)),
    "set_memory": (_tenant, lambda node: node.engine.set_memory(1, node.partitions[1].base, 7, 99)),
    "poll": (_asked, lambda node: node.engine.poll()),
    "check": (_begun, lambda node: node.engine.check()),
}
#: What goes on as if nothing were: a request says on the board what became of it, the rest is tried again later.
FORGIVING = {"poll", "check", "close_lane", "remove_kernel"}


@pytest.mark.parametrize("code", [OUT_OF_MEMORY, ECC], ids=["out-of-memory", "sticky"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_that_fails_in_an_operation(name: str, code: int) -> None:
    before, operation = OPERATIONS[name]
    at = 1
    while True:
        with EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=GRANULE) as driver:
            through = Failing(driver)
            node = Board(through).open()  # type: ignore[arg-type]
            _start(node)
            before(node)
            free = driver.memory_info()
            through.fail(at, code)
            error = None
            try:
                operation(node)
            except DriverError as raised:
                error = raised
            was_reached, through.at = through.count >= at, None
            if was_reached and code == ECC:
                assert error is not None
                assert error.code == ECC
                node.engine.close()  # only lets go of the board
                driver.close()  # what is in flight has the board's memory
                node.release()
            else:
                if was_reached and error is not None:
                    assert error.code == OUT_OF_MEMORY
                    assert name not in FORGIVING
                    if name == "open_tenant":
                        assert driver.memory_info() == free
                    operation(node)  # now it works
                if name == "poll":
                    node.wait(1)
                # It was the one tenant's matter.
                base = node.partitions[9].base
                assert node.launch(9, node.kernels[9], base, at) == (Result.OK, 0)  # type: ignore[attr-defined]
                assert node.read(9, base, 8) == at.to_bytes(8, "little")
                node.engine.check()
                node.close()
        if not was_reached:
            break
        at += 1
    assert at > 1


@pytest.mark.parametrize("code", [OUT_OF_MEMORY, ECC], ids=["out-of-memory", "sticky"])
def test_an_engine_that_cannot_start_leaves_nothing_behind(code: int) -> None:
    at = 0
    error: DriverError | None = DriverError(code, "", "")
    while error is not None:
        at += 1
        with EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=GRANULE) as driver:
            through = Failing(driver)
            through.fail(at, code)
            node, error = Board(through), None  # type: ignore[arg-type]
            try:
                node.open()
            except DriverError as raised:
                error = raised
            assert error is None or error.code == code
            if error is None:
                node.close()
    assert at > 4


def test_closing_gives_all_back_and_lets_go_of_the_board(driver: EmulatedDriver) -> None:
    node = Board(driver).open()
    _start(node)
    _begun(node)
    node.module(1, NOTHING)
    node.ask(9, node.kernels[9], node.partitions[9].base, 5)  # type: ignore[attr-defined]
    node.engine.poll()
    node.close()
    assert driver.leaks() == []


def test_a_board_that_is_too_small_is_refused(driver: EmulatedDriver) -> None:
    with pytest.raises(ValueError, match="board"):
        Engine(driver, 0, memoryview(bytearray(board.BYTES - 1)), 0)
