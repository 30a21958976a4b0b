"""What a worker does with the driver, on one without a GPU that notices what must not be done."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from device.cuda.boards import (
    GRANULE_BYTES,
    LIMIT_S,
    NOTHING,
    SIZE_BYTES,
    STAGING_BYTES,
    STORE,
    Board,
)
from device.cuda.emulated import EmulatedDriver
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, DriverError
from tensor_wasm.device.cuda.engine import Engine
from tensor_wasm.device.fence import GUARD_BYTES

# --- partitions -----------------------------------------------------------------------------------------------------


def test_a_partition_is_aligned_zeroed_and_apart_from_others(node: Board, driver: EmulatedDriver) -> None:
    first, second = node.open_tenant(1), node.open_tenant(2)
    for partition in (first, second):
        assert driver.peek(partition.base - GUARD_BYTES, SIZE_BYTES + 2 * GUARD_BYTES).strip(b"\0") == b""
    driver.poke(first.base - GUARD_BYTES, b"\x77" * (SIZE_BYTES + 2 * GUARD_BYTES))
    assert driver.peek(second.base - GUARD_BYTES, SIZE_BYTES + 2 * GUARD_BYTES).strip(b"\0") == b""


@pytest.mark.parametrize("size_bytes", [2 * GRANULE_BYTES, 4 * GRANULE_BYTES])
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
    memory, address = driver.create_memory(size), driver.reserve(size, GRANULE_BYTES)
    driver.map_memory(address, size, memory, 0)
    assert b"secret" not in driver.peek(address, size)
    driver.unmap_memory(address, size)
    driver.destroy_memory(memory)
    driver.release(address, size)


@pytest.mark.parametrize("size_bytes", [0, -GRANULE_BYTES, GRANULE_BYTES, 3 * GRANULE_BYTES, 2 * GRANULE_BYTES + 1])
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


def test_what_could_not_be_given_back_at_once_is_given_back_later(node: Board, driver: EmulatedDriver) -> None:
    before = driver.memory_info()
    driver.fail("map_memory", OUT_OF_MEMORY, 3)
    driver.fail("unmap_memory", OUT_OF_MEMORY, 1)
    with pytest.raises(DriverError):
        node.engine.open_tenant(1, SIZE_BYTES)
    assert driver.memory_info() < before
    node.engine.open_tenant(1, before[0])


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


def test_a_board_that_is_too_small_is_refused(driver: EmulatedDriver) -> None:
    with pytest.raises(ValueError, match="board"):
        Engine(driver, 0, memoryview(bytearray(board.BYTES - 1)), 0)
