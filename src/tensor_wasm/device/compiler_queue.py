"""Compilations that wait, and whose turn is next: callers take turns, whoever has many waiting."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Hashable, Iterator

from tensor_wasm.device.compiler_jobs import Job
from tensor_wasm.errors import CapacityExhausted

#: Callers of which the last turn is remembered; of the others it counts as long ago.
_TURNS_MAX = 4096


class JobQueue:
    """At most ``limit`` jobs, of one named caller half of them. Not safe for threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[Job] = deque()
        self._running: Counter[Hashable] = Counter()
        self._turns: dict[Hashable, int] = {}
        self._numbers = itertools.count(1)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def push(self, job: Job) -> None:
        """Add a job. Raises :class:`CapacityExhausted`; those who left do not count."""
        if self._is_full(job.caller):
            self._jobs = deque(waiting for waiting in self._jobs if not waiting.future.cancelled())
            if self._is_full(job.caller):
                raise CapacityExhausted(f"{self._limit} compilations already wait: try again later")
        self._jobs.append(job)

    def take(self, *, small_only: bool) -> Job | None:
        """The next job, None when there is none: of the caller with the least running, then of who was not served for
        longest, its oldest.
        """
        jobs = [job for job in self._jobs if job.is_small or not small_only]
        if not jobs:
            return None
        job = min(jobs, key=lambda job: (self._running[job.caller], self._turns.get(job.caller, 0)))
        self._jobs.remove(job)
        self._running[job.caller] += 1
        if len(self._turns) >= _TURNS_MAX:
            self._turns.clear()
        self._turns[job.caller] = next(self._numbers)
        return job

    def done(self, job: Job) -> None:
        """Count a job that was taken as running no longer."""
        self._running[job.caller] -= 1
        if not self._running[job.caller]:
            del self._running[job.caller]

    def clear(self) -> list[Job]:
        """Take out all that waits."""
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def _is_full(self, caller: Hashable) -> bool:
        if len(self._jobs) >= self._limit:
            return True
        return caller is not None and sum(job.caller == caller for job in self._jobs) >= max(self._limit // 2, 1)
