"""The node's own threads, on which guests run: one hop there, one back.

Calls wait in front of them, a bounded number of each tenant's, and are served fairly. ``count`` of them run at once,
and of those no more than there are ``cores`` for: calls that sleep or have run for a while do not count there. With
more, each waits for its turn on a core behind the others, and so does the event loop whenever one of them has the
interpreter lock.

A tenant of which none runs need not wait for another's to end: for its first call there is always a thread. So who
fills the node with calls that last for minutes holds up nobody but itself.

``run_in_executor`` would cost six times as much a call: a future of its own, a lock and two wakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from tensor_wasm.errors import CapacityExhausted, DeadlineExceeded
from tensor_wasm.node.queue import FairQueue
from tensor_wasm.runtime import begin_call, is_spent, step_back

_Result = TypeVar("_Result")

#: How often :meth:`Workers.close` looks whether its threads have ended.
_CLOSE_POLL_S = 0.05
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

    def tell(self, outcome: Any, error: BaseException | None) -> None:
        """Say what the call came to."""
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            self.loop.call_soon_threadsafe(_finish, self.future, outcome, error)


class _Post:
    """One call for which nobody waits; ``on_error`` is told when it raised or cannot be made."""

    __slots__ = ("call", "on_error", "tenant")

    def __init__(self, tenant: int, call: Callable[[], Any], on_error: Callable[[BaseException], None]) -> None:
        self.tenant = tenant
        self.call = call
        self.on_error = on_error

    def tell(self, _outcome: Any, error: BaseException | None) -> None:
        if error is not None:
            self.on_error(error)


_Work = _Task | _Post


class _Crew:
    """Threads of one priority: ``running`` of them have a call, or will at once."""

    def __init__(self, niceness: int) -> None:
        self.niceness = niceness
        # What may start and has no thread yet: one queue for all threads, so that one that is through with a call takes
        # the next without going to sleep.
        self.ready: SimpleQueue[_Work | None] = SimpleQueue()
        self.threads: set[threading.Thread] = set()
        self.leaving = 0  # threads that were told to end and have not seen it yet
        self.running = 0

    @property
    def staying(self) -> int:
        """Threads that will take another call."""
        return len(self.threads) - self.leaving

    def dismiss(self, count: int) -> None:
        """Tell idle threads to end."""
        for _ in range(count):
            self.leaving += 1
            self.ready.put(None)


class Workers:
    """Threads that run ``count`` calls at once, and of each tenant a queue of at most ``depth`` calls before them.

    At most ``cores`` calls that are neither asleep nor long run at once; as many as ``count`` when not given.
    ``weight_of`` gives a tenant's weight against others that wait; threads are named after ``name``. They step back for
    the rest of the process by ``niceness``: the first number is for a tenant's only call, the second for those that it
    runs besides.
    """

    def __init__(
        self,
        count: int,
        depth: int,
        weight_of: Callable[[int], int],
        name: str = "worker",
        niceness: tuple[int, int] = (0, 0),
        cores: int | None = None,
    ) -> None:
        self._name = name
        self._count = count
        self._cores = count if cores is None else cores
        self._aside = 0  # calls that run and sleep, or have run for a while
        self._depth = depth
        self._queue: FairQueue[_Work] = FairQueue(weight_of)
        self._lock = threading.Lock()
        first, further = niceness
        self._first = _Crew(first)
        self._further = self._first if further == first else _Crew(further)
        self._names = itertools.count()

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return self._queue.length

    @property
    def running(self) -> int:
        """Calls that run."""
        return self._queue.running

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

    def post(self, tenant: int, call: Callable[[], None], on_error: Callable[[BaseException], None]) -> None:
        """Run ``call`` on a worker when its tenant's turn comes; nobody waits for it.

        The tenant's queue may be full: who posts keeps its own bound. ``on_error`` is told, on any thread and maybe at
        once, what the call raised or why it cannot be made; it must not call back.
        """
        task = _Post(tenant, call, on_error)
        with self._lock:
            running = self._queue.running_of(tenant)
            if self._queue.waiting(tenant) or not self._may_start(running):
                self._queue.push(tenant, task)
                return
            try:
                self._start(task, running)
            except CapacityExhausted as error:
                on_error(error)
                return
            self._queue.start(tenant)

    def trim(self) -> None:
        """End idle threads beyond ``count``; to be called now and then."""
        with self._lock:
            crews = {self._first, self._further}
            surplus = sum(crew.staying for crew in crews) - self._count
            for crew in crews:
                idle = min(surplus, crew.staying - crew.running)
                crew.dismiss(idle)
                surplus -= max(idle, 0)

    def close(self) -> None:
        """Let the threads end after what is queued."""
        while True:
            with self._lock:
                crews = {self._first, self._further}
                threads = [thread for crew in crews for thread in crew.threads]
                if not self._queue.length:  # else those that run take what waits first
                    for crew in crews:
                        crew.dismiss(crew.staying)
            if not threads:
                return
            for thread in threads:
                thread.join(_CLOSE_POLL_S)

    # --- on an event loop -------------------------------------------------------------------------------

    def _submit(self, task: _Task) -> bool:
        """Give a call to a thread, or else queue it; whether a thread has it."""
        with self._lock:
            queue = self._queue
            running, waiting = queue.running_of(task.tenant), queue.waiting(task.tenant)
            if not waiting and self._may_start(running):
                self._start(task, running)
                queue.start(task.tenant)
                return True
            if waiting >= self._depth:
                raise CapacityExhausted(
                    f"{self._depth} requests of the tenant already wait for a thread: try again later"
                )
            queue.push(task.tenant, task)
            return False

    def _may_start(self, running: int) -> bool:
        """Whether a call may start of a tenant of which ``running`` run."""
        total = self._queue.running
        if running == 0:
            return total < self._count + EXTRA_MAX
        return total < self._count and total - self._aside < self._cores

    def _crew(self, running: int) -> _Crew:
        """The threads for a call of a tenant of which ``running`` run."""
        return self._further if running else self._first

    def _start(self, task: _Work, running: int) -> None:
        """Have a thread take a call. Raises :class:`CapacityExhausted` when there can be none."""
        crew = self._crew(running)
        if crew.running >= crew.staying:
            self._add_thread(crew)
        crew.running += 1
        crew.ready.put(task)

    def _expire(self, task: _Task) -> None:
        if self._withdraw(task) and not task.future.done():
            task.future.set_exception(DeadlineExceeded("the deadline came while the request waited for a thread"))

    def _withdraw(self, task: _Task) -> bool:
        with self._lock:
            return self._queue.remove(task.tenant, task)

    def _add_thread(self, crew: _Crew) -> None:
        name = f"{self._name}-{next(self._names)}"
        thread = threading.Thread(target=self._work, args=(crew,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise CapacityExhausted("the system gives the node no more threads: try again later") from None
        crew.threads.add(thread)

    # --- on a worker ------------------------------------------------------------------------------------

    def leave_cores(self) -> None:
        """The call on this thread sleeps or has run for a while: another may start."""
        with self._lock:
            self._aside += 1
            self._next(None)

    def want_core(self) -> None:
        """The call on this thread sleeps no longer."""
        with self._lock:
            self._aside -= 1

    def _work(self, crew: _Crew) -> None:
        step_back(crew.niceness)
        task = crew.ready.get()
        while task is not None:
            if crew.niceness:
                begin_call(self)
            task = self._perform(task, crew)
            if is_spent():
                break
            if task is None:
                task = crew.ready.get()
        with self._lock:
            crew.threads.discard(threading.current_thread())
            if not is_spent():
                crew.leaving -= 1
            if task is not None:
                crew.ready.put(task)
            # A call may have been given to this thread, as it seemed, since it was through with its last one.
            if crew.running > crew.staying:
                with contextlib.suppress(CapacityExhausted):
                    self._add_thread(crew)

    def _perform(self, task: _Work, crew: _Crew) -> _Work | None:
        """Run a call and tell who waits for it. One that waited and may start now, when it is for this thread."""
        try:
            outcome, error = task.call(), None
        except BaseException as caught:  # goes to whoever waits for the future
            outcome, error = None, caught
        try:
            # Before anybody is told: who calls again at once is the tenant's only call then, not one more.
            following = self._after(task.tenant, crew)
            task.tell(outcome, error)
        finally:
            # The error's traceback has this frame, so this frame must not have the error: what a failed call held, a
            # body of 64 MiB perhaps, would stay until the collector of cycles comes by.
            del outcome, error, task
        return following

    def _after(self, tenant: int, crew: _Crew) -> _Work | None:
        """Count a call of ``tenant`` as done. One that waited and may start now, when it is for this thread."""
        with self._lock:
            crew.running -= 1
            self._queue.finish(tenant)
            if is_spent():
                self._aside -= 1
            return self._next(crew)

    def _next(self, crew: _Crew | None) -> _Work | None:
        """Start what waits and may. One of those calls, when it is for a thread of ``crew``, which is through."""
        own: _Work | None = None
        while (found := self._queue.next()) is not None and self._may_start(found[1]):
            task = self._queue.pop()[1]
            chosen = self._crew(found[1])
            if chosen is crew and own is None:
                crew.running += 1
                own = task
            else:
                self._pass_on(task, chosen)
        return own

    def _pass_on(self, task: _Work, crew: _Crew) -> None:
        """Give a call that counts as running to another thread of ``crew``."""
        try:
            if crew.running >= crew.staying:
                self._add_thread(crew)
        except CapacityExhausted:
            if not crew.threads:  # nobody would ever take it
                task.tell(None, CapacityExhausted("the system gives the node no more threads: try again later"))
                self._queue.finish(task.tenant)
                return
        crew.running += 1
        crew.ready.put(task)


def _finish(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
