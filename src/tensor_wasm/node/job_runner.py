"""The running of one job: its call, and what that came to."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from tensor_wasm.errors import (
    Cancelled,
    CapacityError,
    CapacityExhausted,
    EndingError,
    InternalError,
    KernelError,
    RequestError,
    StoreError,
    TensorWasmError,
)
from tensor_wasm.node.accounts import TooManyInstances
from tensor_wasm.node.job_changes import End, QueuedJob, ending
from tensor_wasm.node.job_results import bounded, write_result
from tensor_wasm.node.model import InvocationResult
from tensor_wasm.node.origin import Origin, acting_for
from tensor_wasm.node.sandbox import Call
from tensor_wasm.store import JobEnd, JobStatus, JobStore
from tensor_wasm.store.jobs import ROW_BYTES

_log = logging.getLogger("tensor_wasm.node")

#: How much a new duration counts in the mean of a tenant's.
_NEWEST = 0.1
#: Errors whose message was written for the caller.
_TOLD = (RequestError, EndingError, CapacityError, KernelError)
_GENERIC = "the node failed; its log has the details under the job's request id"


class JobRunner:
    """Runs jobs on the calling thread. ``invoke`` makes a call there; a job may run for ``longest_s`` at most."""

    def __init__(self, store: JobStore, invoke: Callable[[Call], InvocationResult], longest_s: float) -> None:
        self._store = store
        self._invoke = invoke
        self._longest_s = longest_s

    def run(self, job: QueuedJob) -> End | None:
        """Run a job; its end, or None when the tenant or the node has no place for it now."""
        with acting_for(Origin(job.request_id, job.line.tenant, job.trace)):
            return self._perform(job)

    def _perform(self, job: QueuedJob) -> End | None:
        line = job.line
        if job.is_cancelled:
            return ending(job, Cancelled("the job was cancelled before it began"))
        started_at, began_s = time.time(), time.perf_counter()
        error: TensorWasmError
        result: InvocationResult | None = None
        try:
            result = self._invoke(self._call(job))
        except (TooManyInstances, CapacityExhausted) as caught:
            if not job.is_cancelled:
                return None
            error = Cancelled(str(caught))
        except TensorWasmError as caught:
            error = caught if isinstance(caught, _TOLD) else self._told(job, caught)
        except Exception as caught:
            error = self._told(job, caught)
        if job.trace is not None:
            job.trace.finish()
        duration_s = time.perf_counter() - began_s
        line.mean_s += _NEWEST * (duration_s - line.mean_s)
        if result is None:
            ended = ending(job, error, started_at)
            del error
            ended.duration_s = duration_s
            return ended
        text = write_result(bounded(result))
        size_bytes = ROW_BYTES + len(text)
        end = JobEnd(job.position, JobStatus.COMPLETED, started_at, time.time(), size_bytes, text)
        return End(job, end, result.duration_s, result.launches)

    def _call(self, job: QueuedJob) -> Call:
        request = job.request or self._store.request(job.position)
        if request is None:
            raise InternalError("a job's row is gone from the database")
        deadline_s = min(request.deadline_s or self._longest_s, self._longest_s)
        deadline_ns = time.monotonic_ns() + int(deadline_s * 1e9)
        arguments = json.loads(request.arguments)
        return Call(
            job.function_id, job.line.tenant, request.export, arguments, request.input, deadline_ns,
            lambda: job.is_cancelled,
        )  # fmt: skip

    @staticmethod
    def _told(job: QueuedJob, error: Exception) -> InternalError | StoreError:
        """An error whose message is for the log alone, as the caller may see it."""
        _log.error("job %s failed: %s", job.id, error, exc_info=error, extra={"request_id": job.request_id})
        return StoreError(_GENERIC) if isinstance(error, StoreError) else InternalError(_GENERIC)
