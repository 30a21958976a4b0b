"""The node's own threads, on which guests run: one hop there, one back.

A bounded number of calls waits in front of them. ``run_in_executor`` would cost six times as much a call: a future
of its own, a lock and two wakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from tensor_wasm.errors import CapacityExhausted

_Result = TypeVar("_Result")
_Task = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Workers:
    """``count`` threads and a queue of at most ``depth`` calls in front of them."""

    def __init__(self, count: int, depth: int) -> None:
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._depth = depth
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return self._queue.qsize()

    def submit(self, call: Callable[[], _Result]) -> asyncio.Future[_Result]:
        """Run ``call`` on a worker; to be called on an event loop, whose future is returned.

        Raises :class:`CapacityExhausted` when the queue is full.
        """
        if self._queue.qsize() >= self._depth:
            raise CapacityExhausted(f"{self._depth} invocations already wait for a worker: try again later")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Result] = loop.create_future()
        self._queue.put((call, loop, future))
        return future

    def close(self) -> None:
        """Let the threads end after what is queued."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            call, loop, future = task
            try:
                outcome, error = call(), None
            except BaseException as caught:  # goes to whoever waits for the future
                outcome, error = None, caught
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(_finish, future, outcome, error)
            del task, call, future, outcome, error


def _finish(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
