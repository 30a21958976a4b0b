"""Jobs that have not ended, and the changes to them that wait for the disk."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tensor_wasm.errors import Cancelled, TensorWasmError
from tensor_wasm.host.trace import Trace
from tensor_wasm.node.job_model import EndedJob
from tensor_wasm.store import JobEnd, JobRequest, JobStatus, NewJob
from tensor_wasm.store.jobs import ROW_BYTES

#: What a job is taken to last before any of its tenant's has run.
_USUAL_S = 0.05
_MESSAGE_MAX = 4000


class JobLine:
    """A tenant's jobs. ``coming`` are not on the disk yet; ``claimed`` have begun there and not ended.

    ``is_held`` while there was no place for the last that was to run; ``is_trying`` while one is tried again.
    """

    __slots__ = (
        "claimed", "coming", "finished_bytes", "is_held", "is_trying", "mean_s", "pending", "ready", "runners",
        "tenant", "unfinished_bytes",
    )  # fmt: skip

    def __init__(self, tenant: int) -> None:
        self.tenant = tenant
        self.coming = 0
        self.pending: OrderedDict[int, QueuedJob] = OrderedDict()
        self.claimed = 0
        self.ready: deque[QueuedJob] = deque()
        self.runners = 0
        self.is_held = self.is_trying = False
        self.mean_s = _USUAL_S
        self.unfinished_bytes = 0
        self.finished_bytes = 0


class QueuedJob:
    """A job that has not ended. ``request`` is None when it is to be read from the disk.

    ``trace`` is that of the request which left it, when that is traced and this node still the same.
    """

    __slots__ = (
        "export", "function_id", "id", "is_cancelled", "is_claimed", "line", "position", "request", "request_id",
        "size_bytes", "trace",
    )  # fmt: skip

    def __init__(
        self,
        line: JobLine,
        position: int,
        id: str,  # noqa: A002 - the field's word
        function_id: str,
        request_id: str,
        export: str | None,
        size_bytes: int,
        request: JobRequest | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.line = line
        self.trace = trace
        self.position = position
        self.id = id
        self.function_id = function_id
        self.request_id = request_id
        self.export = export
        self.size_bytes = size_bytes
        self.request = request
        self.is_claimed = False
        self.is_cancelled = False


class Waiter:
    """Somebody on an event loop who waits until a change is on the disk."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


# --- changes that wait for the disk ---------------------------------------------------------------------


@dataclass(slots=True)
class Insert:
    """A new job."""

    job: NewJob
    line: JobLine
    waiter: Waiter
    trace: Trace | None = None


@dataclass(slots=True)
class Start:
    """A job that is about to begin."""

    job: QueuedJob
    started_at: float


@dataclass(slots=True)
class Return:
    """A job that was about to begin and waits again."""

    job: QueuedJob


@dataclass(slots=True)
class End:
    """A job that has ended, and how."""

    job: QueuedJob
    end: JobEnd
    duration_s: float | None = None
    launches: int | None = None
    waiter: Waiter | None = None


@dataclass(slots=True)
class Stalled:
    """A thread that was to run a tenant's jobs, and that there cannot be."""

    line: JobLine


JobChange = Insert | Start | Return | End | Stalled
JobChanges = list[JobChange]
Outcomes = list[tuple[Waiter, object]]


def ending(
    job: QueuedJob, error: TensorWasmError, started_at: float | None = None, waiter: Waiter | None = None
) -> End:
    """The end of a job that did not complete."""
    status = JobStatus.CANCELLED if isinstance(error, Cancelled) else JobStatus.FAILED
    message = error.message.encode("utf-8", "replace").decode()[:_MESSAGE_MAX]
    size_bytes = ROW_BYTES + len(message)
    end = JobEnd(job.position, status, started_at, time.time(), size_bytes, None, error.kind, message)
    return End(job, end, waiter=waiter)


def line_of(change: JobChange) -> JobLine:
    """The jobs among which a change is."""
    return change.line if isinstance(change, Insert | Stalled) else change.job.line


def ended_job(change: End) -> EndedJob:
    """What the audit log is told of an end."""
    job = change.job
    return EndedJob(
        job.id, job.line.tenant, job.function_id, job.request_id, job.export, change.end.error_kind,
        change.duration_s, change.launches,
    )  # fmt: skip


def tell(told: Iterable[tuple[Waiter, object]]) -> None:
    """Tell who waits, with one wake of each event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object]]] = defaultdict(list)
    for waiter, outcome in told:
        by_loop[waiter.loop].append((waiter.future, outcome))
    for loop, outcomes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
            continue


def _settle(outcomes: Iterable[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in outcomes:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
