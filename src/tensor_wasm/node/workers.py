"""The node's own threads, on which guests run: one hop there, one back.

Calls wait in front of them, a bounded number of each tenant's, and are served fairly. ``count`` of them run at once; a
tenant of which none runs need not wait for another's to end: for its first call there is always a thread. So who fills
the node with calls that last for minutes holds up nobody but itself.

``run_in_executor`` would cost six times as much a call: a future of its own, a lock and two wakes.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from tensor_wasm.errors import CapacityExhausted, DeadlineExceeded
from tensor_wasm.node.queue import FairQueue
from tensor_wasm.runtime import step_back

_Result = TypeVar("_Result")

#: Threads beyond ``count`` for tenants of which nothing runs.
EXTRA_MAX = 256


class _Task:
    """One call, and who waits for it."""

    __slots__ = ("call", "future", "loop", "tenant")

    def __init__(self, tenant: int, call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.tenant = tenant
        self.call = call
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()


class Workers:
    """Threads that run ``count`` calls at once, and of each tenant a queue of at most ``depth`` calls before them.

    ``weight_of`` gives a tenant's weight against others that wait; threads are named after ``name``, and step back by
    ``niceness`` for the rest of the process.
    """

    def __init__(
        self, count: int, depth: int, weight_of: Callable[[int], int], name: str = "worker", niceness: int = 0
    ) -> None:
        self._name = name
        self._niceness = niceness
        self._count = count
        self._depth = depth
        self._queue: FairQueue[_Task] = FairQueue(weight_of)
        self._lock = threading.Lock()
        # What may start and has no thread yet: one queue for all threads, so that one that is through with a call takes
        # the next without going to sleep.
        self._ready: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._leaving = 0  # threads that were told to end and have not seen it yet
        self._names = itertools.count()

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return self._queue.length

    def waiting(self) -> dict[int, int]:
        """How many calls of each tenant wait; without those that have none."""
        with self._lock:
            return self._queue.tenants()

    async def run(self, tenant: int, call: Callable[[], _Result], deadline_ns: int) -> _Result:
        """Run ``call`` on a worker and wait for it.

        Raises :class:`CapacityExhausted` when the tenant's queue is full, :class:`DeadlineExceeded` when the call
        waited until ``deadline_ns`` (on :func:`time.monotonic_ns`'s clock). A caller that is cancelled takes its call
        out of the queue.
        """
        task = _Task(tenant, call, asyncio.get_running_loop())
        result: _Result
        if self._submit(task):
            result = await task.future
            return result
        left_s = (deadline_ns - time.monotonic_ns()) / 1e9
        timer = task.loop.call_later(max(left_s, 0.0), self._expire, task)
        try:
            result = await task.future
        except asyncio.CancelledError:
            self._withdraw(task)
            raise
        finally:
            timer.cancel()
        return result

    def trim(self) -> None:
        """End idle threads beyond ``count``; to be called now and then."""
        with self._lock:
            staying = len(self._threads) - self._leaving
            surplus = min(staying - self._count, staying - self._queue.running)
            for _ in range(surplus):
                self._leaving += 1
                self._ready.put(None)

    def close(self) -> None:
        """Let the threads end after what is queued."""
        with self._lock:
            threads = list(self._threads)
            for _ in range(len(threads) - self._leaving):
                self._leaving += 1
                self._ready.put(None)
        for thread in threads:
            thread.join()

    # --- on an event loop -------------------------------------------------------------------------------

    def _submit(self, task: _Task) -> bool:
        """Give a call to a thread, or else queue it; whether a thread has it."""
        with self._lock:
            queue = self._queue
            if self._may_start(queue.running_of(task.tenant)) and not queue.waiting(task.tenant):
                if queue.running >= len(self._threads) - self._leaving:
                    self._add_thread()
                queue.start(task.tenant)
                self._ready.put(task)
                return True
            if queue.waiting(task.tenant) >= self._depth:
                raise CapacityExhausted(
                    f"{self._depth} requests of the tenant already wait for a thread: try again later"
                )
            queue.push(task.tenant, task)
            return False

    def _may_start(self, running: int) -> bool:
        """Whether a call may start of a tenant of which ``running`` run."""
        return self._queue.running < self._count + (EXTRA_MAX if running == 0 else 0)

    def _expire(self, task: _Task) -> None:
        if self._withdraw(task) and not task.future.done():
            task.future.set_exception(DeadlineExceeded("the deadline came while the request waited for a thread"))

    def _withdraw(self, task: _Task) -> bool:
        with self._lock:
            return self._queue.remove(task.tenant, task)

    def _add_thread(self) -> None:
        name = f"{self._name}-{next(self._names)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise CapacityExhausted("the system gives the node no more threads: try again later") from None
        self._threads.add(thread)

    # --- on a worker ------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            step_back(self._niceness)
            task = self._ready.get()
            while task is not None:
                _perform(task)
                tenant, task = task.tenant, None  # an idle thread keeps nothing of its last call
                task = self._after(tenant) or self._ready.get()
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                self._leaving -= 1

    def _after(self, tenant: int) -> _Task | None:
        """Count a call of ``tenant`` as done; one that waited and may start now."""
        with self._lock:
            self._queue.finish(tenant)
            found = self._queue.next()
            return self._queue.pop()[1] if found is not None and self._may_start(found[1]) else None


def _perform(task: _Task) -> None:
    try:
        outcome, error = task.call(), None
    except BaseException as caught:  # goes to whoever waits for the future
        outcome, error = None, caught
    try:
        task.loop.call_soon_threadsafe(_finish, task.future, outcome, error)
    except RuntimeError:
        pass  # the loop was closed meanwhile: nobody waits any more
    finally:
        # The error's traceback has this frame, so this frame must not have the error: what a failed call held, a
        # body of 64 MiB perhaps, would stay until the collector of cycles comes by.
        del outcome, error, task


def _finish(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
