"""Group commit: one thread writes all that waits at once, so that many callers share one trip to the disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

#: Items written at once. Nobody else gets at the database meanwhile.
_AT_ONCE = 1024


class Group(Generic[_Item]):
    """A thread that hands what was put to ``write``, in its order, as much at once as waits. Safe for threads.

    ``write`` must not raise; it may put more.
    """

    def __init__(self, write: Callable[[list[_Item]], None], name: str) -> None:
        self._write = write
        self._queue: SimpleQueue[list[_Item]] = SimpleQueue()
        #: Nothing that failed is to be put again.
        self.is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, items: Iterable[_Item]) -> None:
        """Have items written soon. Those that are put together are written together."""
        self._queue.put(list(items))

    def close(self) -> None:
        """Write what waits, and what writing it puts, and end the thread."""
        self.is_closing = True
        self._queue.put([])
        self._thread.join()

    def _run(self) -> None:
        while not (self.is_closing and self._queue.empty()):
            waiting = self._queue.get()
            with contextlib.suppress(Empty):
                while len(waiting) < _AT_ONCE:
                    waiting += self._queue.get_nowait()
            if waiting:
                self._write(waiting)
