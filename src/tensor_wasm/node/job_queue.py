"""The queue of background jobs: which begins when, and how that gets onto the disk.

All changes go through one thread, which writes whatever waits in one transaction (:class:`~tensor_wasm.store.Group`).
The same thread then decides what begins next. Jobs run on the node's workers, of each tenant so many at once that half
of the threads are left to other calls. A tenant's turn there is a *slice*: jobs one after the other for some
milliseconds, for a thread that goes to sleep after each would cost more than most jobs do.
"""

from __future__ import annotations

import logging
import threading
import time

from tensor_wasm.errors import Cancelled, CapacityExhausted, StoreError, TensorWasmError
from tensor_wasm.host.trace import Trace
from tensor_wasm.node.accounts import Refused
from tensor_wasm.node.job_changes import (
    End,
    Insert,
    JobChange,
    JobChanges,
    JobLine,
    Outcomes,
    QueuedJob,
    Return,
    Stalled,
    Start,
    Waiter,
    ended_job,
    ending,
    line_of,
    tell,
)
from tensor_wasm.node.job_model import EndedJob, JobLimits, OnEnd
from tensor_wasm.node.job_runner import JobRunner
from tensor_wasm.node.workers import Workers
from tensor_wasm.runtime import is_spent
from tensor_wasm.store import Changes, Group, JobStore, NewJob
from tensor_wasm.store.jobs import ROW_BYTES, Forgotten

_log = logging.getLogger("tensor_wasm.node")

#: How long a thread runs a tenant's jobs before others have a turn on it.
_SLICE_S = 0.005
#: Of jobs that have begun on the disk so many may wait for a thread as run in this time, at most so many: with short
#: jobs threads would else wait for the disk. After a crash these are among those that are taken for begun.
_AHEAD_S = 0.05
_AHEAD_MAX = 128
#: Requests of waiting jobs up to this are kept in memory; larger ones are read again when their turn comes.
_KEPT_REQUEST_BYTES = ROW_BYTES + 1024
#: When a tenant's jobs take too much, this part of what they may take is freed besides.
_SPARE_PART = 64
#: Jobs deleted in one transaction.
_FORGOTTEN_AT_ONCE = 500
#: Pause before changes are written again that could not be.
_RETRY_S = 0.5


class JobQueue:
    """The jobs of a node that have not ended. Safe for threads.

    Jobs run from :meth:`start` on; :meth:`close` writes what is left to write. ``refused`` is told (tenant, "queue") of
    those that find no place.
    """

    def __init__(
        self, store: JobStore, workers: Workers, limits: JobLimits, runner: JobRunner, refused: Refused
    ) -> None:
        self._store = store
        self._workers = workers
        self._limits = limits
        self._runner = runner
        self._refused = refused
        self._on_end: OnEnd | None = None
        self._is_started = self._is_paused = False
        self._lock = threading.Lock()  # everything below; workers' lock is taken inside it, never the other way round
        self._lines: dict[int, JobLine] = {}
        self._unfinished: dict[str, QueuedJob] = {}
        self._restarted = store.fail_running(time.time())
        for tenant, (unfinished, finished) in store.sizes().items():
            line = self._line(tenant)
            line.unfinished_bytes, line.finished_bytes = unfinished, finished
        for row in store.pending():
            line = self._line(row.tenant)
            job = QueuedJob(line, row.position, row.id, row.function_id, row.request_id, row.export, row.size_bytes)
            line.pending[row.position] = self._unfinished[row.id] = job
        self._group: Group[JobChange] = Group(self._write, "jobs")

    # --- of one job -------------------------------------------------------------------------------------

    def add(self, job: NewJob, trace: Trace | None) -> Waiter:
        """Keep a job; who waits is told its id, or that of an earlier one with its key, once that is on the disk.

        Raises :class:`CapacityExhausted` when as many wait, or as many bytes, as may.
        """
        insert = Insert(job, self._admit(job.tenant, job.request.size_bytes), Waiter(), trace)
        self._group.put([insert])
        return insert.waiter

    def cancel(self, identity: str, tenant: int) -> Waiter | None:
        """Cancel a tenant's job if it has not ended.

        One that waits ends now, and who waits for that is told when it is on the disk.
        """
        with self._lock:
            job = self._unfinished.get(identity)
            if job is None or job.line.tenant != tenant:
                return None
            job.is_cancelled = True
            if job.line.pending.pop(job.position, None) is None:
                return None
            waiter = Waiter()
            self._group.put([ending(job, Cancelled("the job was cancelled before it began"), waiter=waiter)])
            return waiter

    def _admit(self, tenant: int, size_bytes: int) -> JobLine:
        """Count a job that comes. Raises :class:`CapacityExhausted` when it is one too many."""
        limits = self._limits
        with self._lock:
            line = self._line(tenant)
            if line.coming + len(line.pending) >= limits.queue_depth:
                reason = f"{limits.queue_depth} jobs of the tenant wait, as many as may"
            elif line.unfinished_bytes + size_bytes > limits.stored_bytes:
                reason = f"jobs of the tenant that wait hold {line.unfinished_bytes} bytes of {limits.stored_bytes}"
            else:
                line.coming += 1
                line.unfinished_bytes += size_bytes
                return line
        self._refused(tenant, "queue")
        raise CapacityExhausted(f"{reason}: try again later")

    # --- the node's side --------------------------------------------------------------------------------

    def start(self, on_end: OnEnd) -> None:
        """Begin to run jobs. ``on_end`` is told of each that ends, and of those that the last node's end has ended."""
        with self._lock:
            self._on_end = on_end
            self._is_started = True
            restarted, self._restarted = self._restarted, []
        for record in restarted:
            on_end(
                EndedJob(
                    record.id, record.tenant, record.function_id, record.request_id, record.export, record.error_kind,
                    None, None,
                )
            )  # fmt: skip
        self.resume()

    def pause(self) -> None:
        """Take no more jobs and begin none; those that wait stay on the disk, those that run go on."""
        with self._lock:
            self._is_paused = True
            for line in self._lines.values():
                self._group.put(Return(job) for job in line.ready)
                line.ready.clear()

    def resume(self) -> None:
        """Begin what may begin; to be called now and then, for jobs that could not when their turn came."""
        with self._lock:
            for line in self._lines.values():
                line.is_trying, line.is_held = line.is_trying or line.is_held, False
                self._advance(line)

    def forget_before(self, ended_at: float) -> None:
        """Forget jobs that ended before that moment, in seconds since 1970."""
        while self._forgot(self._store.forget_before(ended_at, _FORGOTTEN_AT_ONCE)):
            pass

    def close(self) -> None:
        """Write what waits. No job may run any more."""
        self._group.close()

    @property
    def busy(self) -> int:
        """Jobs that have begun, or are about to, and whose end is not on the disk."""
        with self._lock:
            return sum(line.claimed for line in self._lines.values())

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        with self._lock:
            return sum(len(line.pending) + line.coming for line in self._lines.values())

    # --- on the writing thread --------------------------------------------------------------------------

    def _write(self, changes: JobChanges) -> None:
        inserts = [change for change in changes if isinstance(change, Insert)]
        starts = [change for change in changes if isinstance(change, Start)]
        returns = [change for change in changes if isinstance(change, Return)]
        ends = [change for change in changes if isinstance(change, End)]
        batch = Changes(
            [insert.job for insert in inserts],
            [(start.job.position, start.started_at) for start in starts],
            [returned.job.position for returned in returns],
            [change.end for change in ends],
        )
        try:
            kept = self._store.write(batch)
        except StoreError as error:
            _log.error("jobs cannot be written: %s", error)
            self._not_written(changes, error)
            return
        told: Outcomes = []
        with self._lock:
            for insert, outcome in zip(inserts, kept, strict=True):
                told.append((insert.waiter, self._inserted(insert, outcome)))
            for start in starts:
                self._started(start)
            for returned in returns:
                self._returned(returned.job)
            for change in changes:
                if isinstance(change, Stalled):
                    change.line.runners -= 1
            for end in ends:
                self._ended(end)
                if end.waiter is not None:
                    told.append((end.waiter, None))
            lines = {line_of(change): None for change in changes}
            for line in lines:
                self._advance(line)
        tell(told)
        if self._on_end is not None:
            for end in ends:
                self._on_end(ended_job(end))
        for line in lines:
            self._keep_bounded(line)

    def _not_written(self, changes: JobChanges, error: StoreError) -> None:
        """Refuse what somebody waits for; write the rest again a moment later."""
        again: JobChanges = []
        told: Outcomes = []
        with self._lock:
            for change in changes:
                if isinstance(change, Insert):
                    self._give_back(change)
                    told.append((change.waiter, error))
                elif isinstance(change, End) and change.waiter is not None:
                    change.job.is_cancelled = False
                    change.job.line.pending[change.job.position] = change.job
                    change.job.line.pending.move_to_end(change.job.position, last=False)
                    told.append((change.waiter, error))
                else:
                    again.append(change)
        tell(told)
        if again and not self._group.is_closing:
            time.sleep(_RETRY_S)
            self._group.put(again)

    def _inserted(self, insert: Insert, outcome: int | str | TensorWasmError) -> str | TensorWasmError:
        job, line = insert.job, insert.line
        if not isinstance(outcome, int):
            self._give_back(insert)
            return outcome
        line.coming -= 1
        size_bytes = job.request.size_bytes
        request = job.request if size_bytes <= _KEPT_REQUEST_BYTES else None
        waiting = QueuedJob(
            line, outcome, job.id, job.function_id, job.request_id, job.request.export, size_bytes, request,
            insert.trace,
        )  # fmt: skip
        line.pending[outcome] = self._unfinished[job.id] = waiting
        return job.id

    def _give_back(self, insert: Insert) -> None:
        insert.line.coming -= 1
        insert.line.unfinished_bytes -= insert.job.request.size_bytes

    def _started(self, start: Start) -> None:
        if self._is_paused:
            self._group.put([Return(start.job)])
        else:
            start.job.line.ready.append(start.job)

    def _returned(self, job: QueuedJob) -> None:
        line = job.line
        job.is_claimed = False
        line.claimed -= 1
        if job.is_cancelled:  # while it was about to begin; what was promised holds after a restart too
            self._group.put([ending(job, Cancelled("the job was cancelled before it began"))])
            return
        line.pending[job.position] = job
        line.pending.move_to_end(job.position, last=False)

    def _ended(self, change: End) -> None:
        job, line = change.job, change.job.line
        line.claimed -= job.is_claimed
        line.unfinished_bytes -= job.size_bytes
        line.finished_bytes += change.end.size_bytes
        del self._unfinished[job.id]

    def _advance(self, line: JobLine) -> None:
        """Begin as many of a tenant's jobs as may; have threads run those that have begun on the disk."""
        if self._is_paused or not self._is_started or line.is_held:
            return
        at_once = 1 if line.is_trying else self._limits.at_once
        ahead = 0 if line.is_trying else min(_AHEAD_MAX, int(_AHEAD_S / max(line.mean_s, 1e-6)))
        count = min(at_once + ahead - line.claimed, len(line.pending))
        if count > 0:
            now = time.time()
            starts = []
            for _ in range(count):
                job = line.pending.popitem(last=False)[1]
                job.is_claimed = True
                starts.append(Start(job, now))
            line.claimed += count
            self._group.put(starts)
        for _ in range(min(at_once - line.runners, len(line.ready))):
            line.runners += 1
            self._post(line)

    def _post(self, line: JobLine) -> None:
        self._workers.post(line.tenant, lambda: self._slice(line), lambda _: self._group.put([Stalled(line)]))

    def _keep_bounded(self, line: JobLine) -> None:
        """Forget a tenant's oldest results when all its jobs take more than they may."""
        most_bytes = self._limits.stored_bytes
        while (over_bytes := line.unfinished_bytes + line.finished_bytes - most_bytes) > 0:
            # A little more than must go, so that the next job does not come here again.
            wanted_bytes = over_bytes + most_bytes // _SPARE_PART
            try:
                gone = self._store.forget_oldest(line.tenant, _FORGOTTEN_AT_ONCE, wanted_bytes)
                self._forgot(gone)
                if not gone:
                    return
            except StoreError:
                _log.exception("old jobs cannot be forgotten")
                return

    def _forgot(self, gone: Forgotten) -> bool:
        """Count these jobs less; whether as many went as could at once."""
        with self._lock:
            for tenant, (_, size_bytes) in gone.items():
                self._line(tenant).finished_bytes -= size_bytes
        return sum(count for count, _ in gone.values()) == _FORGOTTEN_AT_ONCE

    def _line(self, tenant: int) -> JobLine:
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = JobLine(tenant)
        return line

    # --- on a worker ------------------------------------------------------------------------------------

    def _slice(self, line: JobLine) -> None:
        """Run a tenant's jobs one after the other for a while; then others have their turn."""
        until_s = time.monotonic() + _SLICE_S
        ends: JobChanges = []
        is_held_up = False
        while True:
            with self._lock:
                if not line.ready:
                    break
                job = line.ready.popleft()
            end = self._runner.run(job)
            if end is None:
                is_held_up = True
                with self._lock:
                    line.ready.appendleft(job)
                    if line.runners == 1:  # else what another thread runs may make room when it ends
                        ends += self._hold(line)
                break
            line.is_trying = False
            ends.append(end)
            if time.monotonic() >= until_s or is_spent():
                break
        if ends:
            self._group.put(ends)
        with self._lock:
            line.runners -= 1
            if line.ready and not is_held_up:
                line.runners += 1
                self._post(line)

    def _hold(self, line: JobLine) -> JobChanges:
        """Begin nothing more until :meth:`resume`; what has begun on the disk only is to wait there again.

        So after a crash none of it counts as begun. The first of them comes last, to be put before the others.
        """
        line.is_held = True
        returns: JobChanges = [Return(job) for job in reversed(line.ready)]
        line.ready.clear()
        return returns
