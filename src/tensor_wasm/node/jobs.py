"""Background jobs: calls that are kept on the disk until their turn comes, and their results after it.

A job is acknowledged once its row is on the disk, begins once it is there as running, and its result is shown once that
is there too. So after a crash a job that is there as running has begun, or was about to: it is never run twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from tensor_wasm.errors import NotFound
from tensor_wasm.node.arguments import convert
from tensor_wasm.node.exports import choose_export
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.instances import new_id
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.job_model import JobPage, Submission
from tensor_wasm.node.job_queue import JobQueue
from tensor_wasm.node.modules import Modules
from tensor_wasm.node.origin import ORIGIN
from tensor_wasm.store import (
    IdempotencyKey,
    IdempotencyStore,
    JobRecord,
    JobRequest,
    JobStatus,
    JobStore,
    NewJob,
)


class Jobs:
    """The background jobs of a node. Those that have ended are kept for ``retention_s``.

    ``look_soon`` has running guests see their cancellation.
    """

    def __init__(
        self,
        store: JobStore,
        keys: IdempotencyStore,
        queue: JobQueue,
        functions: Functions,
        modules: Modules,
        intake: Intake,
        retention_s: float,
        look_soon: Callable[[], None],
    ) -> None:
        self._store = store
        self._keys = keys
        self._queue = queue
        self._functions = functions
        self._modules = modules
        self._intake = intake
        self._retention_s = retention_s
        self._look_soon = look_soon

    async def submit(
        self,
        function_id: str,
        export: str | None = None,
        args: Sequence[object] = (),
        *,
        tenant: int = 0,
        input: bytes = b"",  # noqa: A002 - the field's word
        deadline_s: float | None = None,
        request_id: str = "",
        key: IdempotencyKey | None = None,
    ) -> Submission:
        """Keep a call as a job; it survives ``kill -9`` once this has returned. ``deadline_s`` counts from its start.

        Raises what :meth:`Invocations.invoke` raises before anything runs, and
        :class:`~tensor_wasm.errors.CapacityExhausted` when as many wait, or as many bytes, as may;
        :class:`~tensor_wasm.errors.IdempotencyConflict`.
        """
        if key is not None:
            before = await self._intake.in_background(tenant, self._keys.find, key)
            if before is not None:
                return Submission(before, is_replay=True)
        self._intake.check_open()
        record = self._functions.find(function_id, tenant)
        ready = self._modules.peek(record.digest)
        if ready is None:
            ready = await self._intake.in_background(tenant, self._modules.ready, record.digest)
        convert(choose_export(ready, export), args)
        if deadline_s is not None:
            self._intake.check_deadline(deadline_s)
        request = JobRequest(export, json.dumps(list(args)), input, deadline_s)
        job = NewJob(new_id(), tenant, function_id, request_id, request, time.time(), key)
        origin = ORIGIN.get()
        trace = None if origin is None or origin.trace is None else origin.trace.of_job()
        kept: str = await self._queue.add(job, trace).future
        return Submission(kept, is_replay=kept != job.id)

    def show(self, id: str, tenant: int = 0) -> JobRecord:  # noqa: A002 - the field's word
        """A tenant's job, as it is on the disk. Raises :class:`~tensor_wasm.errors.NotFound`."""
        record = self._store.get(id, tenant)
        if record is None:
            raise NotFound("no such job for this tenant; jobs that have ended are kept for a while only")
        return record

    def owner_of(self, id: str) -> int | None:  # noqa: A002
        """The tenant whose job this is; None when there is none."""
        return self._store.owner_of(id)

    def list(
        self, tenant: int = 0, limit: int = 100, after: str | None = None, status: JobStatus | None = None
    ) -> JobPage:
        """A page of a tenant's jobs, oldest first, without results.

        Raises :class:`~tensor_wasm.errors.NotFound` when there is no job ``after``.
        """
        records = self._store.list(tenant, limit + 1, after, status)
        items = records[:limit]
        return JobPage(items, items[-1].id if len(records) > limit else None)

    async def cancel(self, id: str, tenant: int = 0) -> JobRecord:  # noqa: A002
        """Cancel a job: at once while it waits; one that runs ends soon. One that has ended stays as it is.

        Raises :class:`~tensor_wasm.errors.NotFound`.
        """
        waiter = self._queue.cancel(id, tenant)
        if waiter is not None:
            await waiter.future
        self._look_soon()
        return await self._intake.in_background(tenant, self.show, id, tenant)

    def sweep(self, now: float | None = None) -> None:
        """Forget jobs and idempotency keys that were kept for as long as they are to be."""
        now = time.time() if now is None else now
        self._queue.forget_before(now - self._retention_s)
        self._keys.sweep(now)
