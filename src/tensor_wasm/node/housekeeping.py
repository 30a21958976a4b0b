"""What a node does by itself, again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_log = logging.getLogger("tensor_wasm.node")
_TICK_S = 1.0


@dataclass(slots=True)
class Chore:
    """A piece of work that is done every ``interval_s``; it may touch the disk."""

    name: str
    interval_s: float
    work: Callable[[], None]
    due_s: float = field(default=0.0)


class Housekeeping:
    """A thread that does chores. One that fails is logged, and done again at its next time."""

    def __init__(self, *chores: Chore) -> None:
        self._chores = chores
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; no chore runs any more when this returns."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            now_s = time.monotonic()
            for chore in self._chores:
                if now_s >= chore.due_s:
                    chore.due_s = now_s + chore.interval_s
                    self._do(chore)

    def _do(self, chore: Chore) -> None:
        try:
            chore.work()
        except Exception:
            _log.exception("housekeeping: %s failed", chore.name)
