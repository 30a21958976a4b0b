"""Each call of the driver's fails, in each operation: nothing is left behind, and other tenants go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from device.cuda.boards import (
    GRANULE_BYTES,
    NOTHING,
    SIZE_BYTES,
    STORE,
    Board,
)
from device.cuda.emulated import EmulatedDriver
from device.ptx_texts import COUNTER
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.board import Direction, Result
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, DriverError

ECC = 214
BOTH = Direction.IN | Direction.OUT


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
    node.open_tenant(9, 2 * GRANULE_BYTES)
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


def _asked_for_times(node: Board) -> None:
    _lane(node)
    base = node.partitions[1].base
    node.ask(1, node.kernels[1], base, 1, windows=[(base, 0, 64, BOTH)], is_timed=True)  # type: ignore[attr-defined]


def _ended_with_times(node: Board) -> None:
    _asked_for_times(node)
    node.engine.poll()
    while node.doorbell(1, board.ENDED) != node.doorbell(1, board.REQUEST):
        time.sleep(0.001)


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
    "poll of a timed request": (_asked_for_times, lambda node: node.engine.poll()),
    "poll at its end": (_ended_with_times, lambda node: node.engine.poll()),
    "check": (_begun, lambda node: node.engine.check()),
}
#: What goes on as if nothing were: a request says on the board what became of it, the rest is tried again later.
FORGIVING = {"poll", "poll of a timed request", "poll at its end", "check", "close_lane", "remove_kernel"}


@pytest.mark.parametrize("code", [OUT_OF_MEMORY, ECC], ids=["out-of-memory", "sticky"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_that_fails_in_an_operation(name: str, code: int) -> None:
    before, operation = OPERATIONS[name]
    at = 1
    while True:
        with EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=GRANULE_BYTES) as driver:
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
                if name.startswith("poll"):
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
        with EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=GRANULE_BYTES) as driver:
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
