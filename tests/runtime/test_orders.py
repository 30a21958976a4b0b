"""Orders to end: a running store learns of them without waiting for the ticks of its next look."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tensor_wasm.errors import Terminated
from tensor_wasm.runtime import Budget, Engine, Store
from tensor_wasm.wasm import Module

PATIENCE_S = 20.0


class Spinning:
    """A guest in an endless loop; ``is_told`` makes it end at its next look."""

    def __init__(self, engine: Engine) -> None:
        module = Module()
        spin = module.function([], [], export="spin").code
        with spin.loop() as again:
            spin.br(again)
        self.is_told = threading.Event()
        self.has_looked = threading.Event()
        self.store = Store(engine, Budget(), interrupt=self._look)
        self._spin = self.store.instantiate(engine.compile(module.encode().wasm), []).function("spin")
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _look(self) -> Terminated | None:
        self.has_looked.set()
        return Terminated("by order") if self.is_told.is_set() else None

    def _run(self) -> None:
        with pytest.raises(Terminated):
            self.store.call(self._spin, [], [], [])


@pytest.fixture
def still() -> Iterator[Engine]:
    """An engine whose epoch does not advance by itself."""
    engine = Engine()
    yield engine
    engine.close()


def test_an_order_has_running_stores_look_though_no_tick_comes(still: Engine) -> None:
    guest = Spinning(still)
    still.order()
    assert guest.has_looked.wait(PATIENCE_S)
    guest.is_told.set()
    # One look may have been under way when it was told: orders that are not carried out have others follow.
    while guest.thread.is_alive():
        still.order()
        still.carried_out()
        guest.thread.join(0.05)
    guest.store.close()
