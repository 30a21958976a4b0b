"""What requests and answers about background jobs look like as JSON. The API's description is generated from these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from tensor_wasm.errors import RequestError
from tensor_wasm.http import wire
from tensor_wasm.http.wire import told
from tensor_wasm.node import JobRecord, JobStatus, read_result

JobId = Annotated[str, told("The job's id.", format="uuid")]
#: The values of :class:`JobStatus`.
Status = Literal["pending", "running", "completed", "failed", "cancelled"]


class Submitted(msgspec.Struct):
    """A job that was accepted: it is on the disk."""

    job_id: JobId


class JobError(msgspec.Struct):
    """Why a job did not complete; as an answer to the call would have said it."""

    kind: Annotated[str, told("For programs; one of the kinds of errors, or `node_restarted`.")]
    message: Annotated[str, told("For people.")]


class JobSummary(msgspec.Struct):
    """A job as lists show it."""

    id: JobId
    function_id: wire.FunctionId
    export: Annotated[str | None, told("The export that was asked for; null for `run`, else `_start`.")]
    status: Annotated[Status, told("Where it stands.")]
    created_at: Annotated[float, told("When it was accepted, in seconds since 1970.")]
    started_at: Annotated[float | None, told("When it began to run; null when it has not.")]
    finished_at: Annotated[float | None, told("When it ended; null when it has not.")]
    error: Annotated[JobError | None, told("Why it did not complete; null else.")]


class JobDescription(JobSummary):
    """A job."""

    result: Annotated[wire.Invoked | None, told("What the call would have answered; null unless it completed.")]


class JobList(msgspec.Struct):
    """A page of jobs, oldest first."""

    jobs: Annotated[list[JobSummary], told("The jobs, without their results.")]
    next: Annotated[str | None, told("Goes into `after` for the following page; null at the end.")]


class Cancelling(msgspec.Struct):
    """A job that is not wanted any more."""

    job_id: JobId
    status: Annotated[Status, told("Where it stands: one that runs ends soon, one that had ended stays as it was.")]


def read_status(text: str | None) -> JobStatus | None:
    """The status that a query names. Raises :class:`RequestError`."""
    if text is None:
        return None
    try:
        return JobStatus(text)
    except ValueError:
        raise RequestError(f"status must be one of {', '.join(status.value for status in JobStatus)}") from None


def summary(job: JobRecord) -> JobSummary:
    """A job as lists show it."""
    return JobSummary(**_fields(job))  # type: ignore[arg-type]


def describe(job: JobRecord) -> JobDescription:
    """A job with its result."""
    result = None if job.result is None else msgspec.Raw(wire.encode_invoked(read_result(job.result)))
    return JobDescription(**_fields(job), result=result)  # type: ignore[arg-type]


def _fields(job: JobRecord) -> dict[str, object]:
    return {
        "id": job.id,
        "function_id": job.function_id,
        "export": job.export,
        "status": job.status.value,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error": None if job.error_kind is None else JobError(job.error_kind, job.error_message or ""),
    }
