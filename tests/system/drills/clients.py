"""Clients that call a node beside a drill, whatever it answers, until they are told to stop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import Failure

_OK = "ok"
_AFTER_FAILURE_S = 0.1
_JOIN_S = 60.0


class Clients:
    """Some threads that make one call again and again. ``outcomes`` counts answers: "ok" or an error's kind."""

    def __init__(
        self, clients: list[Client], call: Callable[[Client], object], *, pause_s: float = 0.0, again: bool = True
    ) -> None:
        """One thread for each client. ``again``: also after a failure, as clients do that try for ever."""
        self.outcomes: Counter[str] = Counter()
        self._call = call
        self._pause_s = pause_s
        self._again = again
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(client,), name="client", daemon=True) for client in clients
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(thread.is_alive() for thread in self._threads)

    def tell_to_stop(self) -> None:
        """Make no more calls; those under way go on."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the last call's end."""
        self._stop.set()
        until_s = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(until_s - time.monotonic(), 0.0))
        assert not self.running, f"{self.running} clients still wait for an answer"

    def _run(self, client: Client) -> None:
        while not self._stop.is_set():
            try:
                self._call(client)
            except Failure as failure:
                self.outcomes[failure.kind] += 1
                if not self._again:
                    return
                self._stop.wait(_AFTER_FAILURE_S)
            else:
                self.outcomes[_OK] += 1
                self._stop.wait(self._pause_s)
