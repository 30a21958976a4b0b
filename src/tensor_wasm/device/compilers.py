"""A pool of compiler processes: compiling costs the node neither its interpreter lock nor an unbounded time.

Each process has a *lane*, a thread that takes jobs and waits for its process. The first lane takes every job; the last
of several takes only small ones, so that whoever has large kernels compiled does not hold up everybody's small ones.
A process is killed and replaced when it does not answer within the time limit, and replaced when it dies or holds much
memory after a job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tensor_wasm.device import compiler_messages as messages
from tensor_wasm.device.compiler_handle import CompilerDied, CompilerHandle, CompilerLate
from tensor_wasm.device.compiler_jobs import (
    SMALL_BYTES,
    Job,
    KernelCode,
    draft_job,
    fence_job,
    kernel_job,
    module_job,
)
from tensor_wasm.device.compiler_messages import Message
from tensor_wasm.device.compiler_queue import JobQueue
from tensor_wasm.errors import InternalError, NotReady
from tensor_wasm.runtime import asleep

_log = logging.getLogger("tensor_wasm.device")

#: Memory that a compiler process may use.
MEMORY_BYTES = 2 << 30
#: A process that holds more than this after a job is replaced, so that the memory goes back to the machine.
_KEPT_BYTES = 384 << 20
#: A module that takes about as long to compile as a process to start.
_SMALL_MODULE_BYTES = 256 << 10
#: Jobs that may wait, over all tenants.
_QUEUE_MAX = 64


@dataclass(slots=True, eq=False)
class _Lane:
    takes_large: bool
    is_busy: bool = False
    handle: CompilerHandle | None = None
    thread: threading.Thread | None = None


class Compilers:
    """At most ``count`` compiler processes, started when they are needed; with 0 all is compiled in the node itself.

    A job may take ``limit_s`` seconds. Close the pool: that ends its processes.
    """

    def __init__(self, count: int, limit_s: float, memory_bytes: int = MEMORY_BYTES) -> None:
        self._count = count
        self._limit_s = limit_s
        self._memory_bytes = memory_bytes
        self._queue = JobQueue(_QUEUE_MAX)
        self._acting = threading.local()
        self._lanes: list[_Lane] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._is_warm = False

    @property
    def processes(self) -> list[int]:
        """The ids of the processes there are now."""
        with self._changed:
            return [lane.handle.pid for lane in self._lanes if lane.handle is not None]

    @property
    def is_warm(self) -> bool:
        """Whether a process has finished its start."""
        return self._is_warm

    @property
    def has_processes(self) -> bool:
        """Whether there are processes, or will be when they are needed."""
        return self._count > 0

    def takes(self, size_bytes: int, small_bytes: int = SMALL_BYTES) -> bool:
        """Whether a text of this size is for the pool.

        A small one is not while no process has finished its start: starting one takes longer than compiling the text.
        """
        return self._count > 0 and (self._is_warm or size_bytes > small_bytes)

    @contextmanager
    def acting_for(self, caller: Hashable) -> Iterator[None]:
        """In a ``with`` block this thread's jobs are of ``caller``: callers take turns at the compilers."""
        self._acting.caller = caller
        try:
            yield
        finally:
            self._acting.caller = None

    def warm_up(self, delay_s: float = 0.0) -> None:
        """Start a process in the background, ``delay_s`` seconds from now."""
        if self._count:
            threading.Thread(target=self._warm_up, args=(delay_s,), name="compiler-start", daemon=True).start()

    def kernel(self, ptx: bytes, entry: str) -> Future[KernelCode]:
        """Compile a kernel. Cancelling the future before the job has begun takes it out of the queue.

        The future raises :class:`~tensor_wasm.errors.PtxError`, also when the time or the memory does not suffice.
        Raises :class:`~tensor_wasm.errors.CapacityExhausted` when too many jobs wait, :class:`NotReady` when the pool
        is closing.
        """
        return self._submit(kernel_job(ptx, entry))

    def draft(self, ptx: bytes, entry: str) -> Future[bytes]:
        """Read a text for a GPU: an encoded draft of its kernel. As :meth:`kernel`."""
        return self._submit(draft_job(ptx, entry))

    def fenced(self, ptx: bytes, order: bytes) -> Future[tuple[bytes, bytes, bytes, bytes]]:
        """Fence a kernel for a GPU, as an encoded order says: its text or machine code, its name, its image, and not
        empty for one that is narrow. As :meth:`kernel`.
        """
        return self._submit(fence_job(ptx, order))

    def machine_code(self, wasm: bytes) -> bytes | None:
        """The serialized machine code of a module, waited for; None when it is not for the pool: see :meth:`takes`.

        Raises :class:`~tensor_wasm.errors.InvalidWasm`, also when the time or the memory does not suffice;
        :class:`~tensor_wasm.errors.CapacityExhausted`, :class:`NotReady`.
        """
        if not self.takes(len(wasm), _SMALL_MODULE_BYTES):
            return None
        job = self._submit(module_job(wasm))
        with asleep():
            code: bytes = job.result()
        return code

    def close(self) -> None:
        """End the processes. What waits or runs fails with :class:`NotReady`. Safe to call twice."""
        with self._changed:
            self._closing.set()
            waiting = self._queue.clear()
            self._changed.notify_all()
            for lane in self._lanes:
                if lane.handle is not None:
                    lane.handle.kill()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_closing())
        for lane in self._lanes:
            if lane.thread is not None:
                lane.thread.join()

    # --- the queue --------------------------------------------------------------------------------------

    def _submit(self, job: Job) -> Future[Any]:
        with self._changed:
            if self._closing.is_set():
                raise _closing()
            job.caller = getattr(self._acting, "caller", None)
            self._queue.push(job)
            self._add_lane(job)
            self._changed.notify_all()
        return job.future

    def _take(self, lane: _Lane) -> Job | None:
        """The next job that the lane may take, when there is one; None when the pool closes."""
        with self._changed:
            lane.is_busy = False
            while not self._closing.is_set():
                job = self._queue.take(small_only=not lane.takes_large)
                if job is not None:
                    lane.is_busy = True
                    for waiting in self._queue:
                        self._add_lane(waiting)
                    return job
                self._changed.wait()
        return None

    # --- lanes ------------------------------------------------------------------------------------------

    def _warm_up(self, delay_s: float) -> None:
        if not self._closing.wait(delay_s):
            with self._changed:
                if not self._lanes and not self._closing.is_set():
                    self._add_lane(None)

    def _add_lane(self, job: Job | None) -> None:
        """Start the next lane when it may take the job and every other that may is busy. The lock is held."""
        number = len(self._lanes)
        takes_large = number == 0 or number < self._count - 1
        is_small = job is not None and job.is_small
        if number >= self._count or not (is_small or takes_large):
            return
        if any(not lane.is_busy and (is_small or lane.takes_large) for lane in self._lanes):
            return
        lane = _Lane(takes_large)
        lane.thread = threading.Thread(target=self._work, args=(lane,), name=f"compiler-{number}", daemon=True)
        self._lanes.append(lane)
        lane.thread.start()

    def _work(self, lane: _Lane) -> None:
        self._open(lane)
        while (job := self._take(lane)) is not None:
            is_fit = not job.future.set_running_or_notify_cancel() or self._run(job, lane)
            with self._changed:
                self._queue.done(job)
            if not is_fit:
                # At once, not when the next job comes: that one is not to wait for the start.
                self._drop(lane)
                self._open(lane)
            del job  # its text is not kept until the next one comes
        self._drop(lane)

    def _run(self, job: Job, lane: _Lane) -> bool:
        """Give the job's future its value or its error; whether the lane's process can take another."""
        is_fit = False
        try:
            handle = lane.handle
            if handle is None or not handle.is_alive:  # it could not be started, or something ended it since
                self._drop(lane)
                handle = self._open(lane)
            if handle is None:
                raise _closing() if self._closing.is_set() else InternalError("a compiler could not be started")
            started = time.perf_counter()
            answer = self._exchange(job, handle)
            is_fit = messages.unpack_size(answer.fields[0]) <= _KEPT_BYTES
            value = job.read(answer, time.perf_counter() - started)
        except Exception as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(value)
        return is_fit

    def _exchange(self, job: Job, handle: CompilerHandle) -> Message:
        try:
            return handle.exchange(job.request(self._limit_s), self._limit_s)
        except CompilerLate:
            raise job.too_slow(self._limit_s) from None
        except CompilerDied as died:
            if self._closing.is_set():
                raise _closing() from None
            if died.is_out_of_memory:
                raise job.too_large() from None
            _log.error("%s", died)
            raise InternalError(f"the compiler ended while it compiled this {job.subject}") from None

    def _open(self, lane: _Lane) -> CompilerHandle | None:
        """Start the lane's process and wait until it is ready; None when there is none, which is logged."""
        if self._closing.is_set():
            return None
        try:
            handle = CompilerHandle(self._memory_bytes)
            with self._changed:
                lane.handle = handle
                if self._closing.is_set():
                    handle.kill()
            handle.wait_until_ready()
        except (CompilerDied, CompilerLate) as error:
            self._drop(lane)
            if not self._closing.is_set():
                _log.error("a compiler process does not start: %s", error or "it takes too long")
            return None
        self._is_warm = True
        return handle

    def _drop(self, lane: _Lane) -> None:
        """End the lane's process, if it has one."""
        with self._changed:
            handle, lane.handle = lane.handle, None
        if handle is not None:
            handle.close()


def _closing() -> NotReady:
    return NotReady("the node is closing and compiles no more")
