"""Background jobs: calls that are acknowledged once they are kept, and run when their turn comes."""

from __future__ import annotations

from tensor_wasm.errors import (
    BodyTooLarge,
    CapacityExhausted,
    DeadlineExceeded,
    IdempotencyConflict,
    InvalidArguments,
    InvalidBase64,
    InvalidDeadline,
    InvalidJson,
    MissingExport,
    NotFound,
    NotReady,
    RequestError,
    TooManyArguments,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, wire, wire_jobs
from tensor_wasm.http.idempotency import KEY_HEADER, REPLAYED, REPLAYED_HEADER, bind_key, read_key
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.query import read_limit, read_query
from tensor_wasm.http.routes.invocations import read_request
from tensor_wasm.node import JobStatus, Node

_PAGE = 100
_PAGE_MAX = 1000
#: Bodies up to this are hashed on the event loop, larger ones by another thread.
_SMALL_BYTES = 64 * 1024


class Jobs:
    """The handlers; each leaves what may block to other threads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def submit(self, call: Call) -> Answer:
        """POST /functions/:id/invoke-async."""
        given = read_key(call)
        request, guest_input, deadline_s = await read_request(self._node, call)
        key = None
        if given is not None and len(call.content) <= _SMALL_BYTES:
            key = bind_key(given, call, call.content)
        elif given is not None:
            key = await self._node.intake.in_background(call.tenant, bind_key, given, call, call.content)
        function_id = call.parameters["id"]
        submission = await self._node.jobs.submit(
            function_id,
            request.export,
            request.args,
            tenant=call.tenant,
            input=guest_input,
            deadline_s=deadline_s,
            request_id=call.id,
            key=key,
        )
        call.resource, call.detail = submission.job_id, {"function_id": function_id}
        headers = [(b"location", b"/jobs/" + submission.job_id.encode())]
        if submission.is_replay:
            headers.append(REPLAYED)
        return Answer(wire.encode(wire_jobs.Submitted(submission.job_id)), 202, headers=headers)

    async def list(self, call: Call) -> Answer:
        """GET /jobs."""
        query = read_query(call, "limit", "after", "status")
        limit = read_limit(query.get("limit"), _PAGE, _PAGE_MAX)
        status = wire_jobs.read_status(query.get("status"))
        return Answer(
            await self._node.intake.in_background(
                call.tenant, self._page, call.tenant, limit, query.get("after"), status
            )
        )

    def _page(self, tenant: int, limit: int, after: str | None, status: JobStatus | None) -> bytes:
        page = self._node.jobs.list(tenant, limit, after, status)
        return wire.encode(wire_jobs.JobList([wire_jobs.summary(job) for job in page.items], page.next))

    async def show(self, call: Call) -> Answer:
        """GET /jobs/:id."""
        return Answer(
            await self._node.intake.in_background(call.tenant, self._describe, call.parameters["id"], call.tenant)
        )

    def _describe(self, identity: str, tenant: int) -> bytes:
        return wire.encode(wire_jobs.describe(self._node.jobs.show(identity, tenant)))

    async def cancel(self, call: Call) -> Answer:
        """DELETE /jobs/:id."""
        call.resource = call.parameters["id"]
        job = await self._node.jobs.cancel(call.resource, call.tenant)
        call.detail = {"status": job.status.value}
        return Answer(wire.encode(wire_jobs.Cancelling(job.id, job.status.value)), 202)


def operations(node: Node) -> list[Operation]:
    """The operations on background jobs."""
    handlers = Jobs(node)
    text = {"type": "string"}
    identity = {"type": "string", "format": "uuid"}
    limit = {"type": "integer", "minimum": 1, "maximum": _PAGE_MAX, "default": _PAGE}
    status = {"type": "string", "enum": [status.value for status in JobStatus]}
    job = {"id": examples.JOB_ID}
    summary = {
        "id": examples.JOB_ID,
        "function_id": examples.FUNCTION_ID,
        "export": "run",
        "status": "completed",
        "created_at": examples.MOMENT,
        "started_at": examples.MOMENT + 0.25,
        "finished_at": examples.MOMENT + 0.5,
        "error": None,
    }
    result = wire.Invoked("ok", examples.FUNCTION_ID, examples.INSTANCE_ID, 250.0, 0)
    return [
        Operation(
            method="POST",
            path="/functions/{id}/invoke-async",
            handler=handlers.submit,
            audience=Audience.TENANT,
            summary="Keep a call of an export as a background job, which runs when its turn comes",
            status=202,
            request=wire.InvokeRequest,
            response=wire_jobs.Submitted,
            request_headers=(KEY_HEADER,),
            response_headers=(Parameter("Location", "The path of the new job.", text), REPLAYED_HEADER),
            examples=(
                Example(
                    summary="A call with an argument",
                    parameters={"id": examples.FUNCTION_ID, "Idempotency-Key": "nightly-2026-01-01"},
                    request=wire.InvokeRequest("run", [1000]),
                    answer=wire_jobs.Submitted(examples.JOB_ID),
                ),
            ),
            errors=(
                RequestError, NotFound, MissingExport, InvalidArguments, TooManyArguments, InvalidDeadline,
                InvalidBase64, InvalidJson, UnsupportedMediaType, BodyTooLarge, IdempotencyConflict,
                CapacityExhausted, NotReady, DeadlineExceeded,
            ),
            event="job.create",
        ),
        Operation(
            method="GET",
            path="/jobs",
            handler=handlers.list,
            audience=Audience.TENANT,
            summary="List the tenant's jobs, oldest first",
            response=wire_jobs.JobList,
            query=(
                Parameter("limit", "Jobs of a page.", limit),
                Parameter("after", "The id that the page before gave as `next`.", identity),
                Parameter("status", "Only jobs that stand there.", status),
            ),
            examples=(
                Example(
                    summary="A page that is the last",
                    parameters={"limit": 10, "status": "completed"},
                    answer=wire_jobs.JobList([wire_jobs.JobSummary(**summary)], None),  # type: ignore[arg-type]
                ),
            ),
            errors=(RequestError, NotFound, CapacityExhausted, DeadlineExceeded),
        ),
        Operation(
            method="GET",
            path="/jobs/{id}",
            handler=handlers.show,
            audience=Audience.TENANT,
            summary="Show a job, with its result once it has completed",
            response=wire_jobs.JobDescription,
            examples=(
                Example(
                    summary="A job that completed",
                    parameters=job,
                    answer=wire_jobs.JobDescription(**summary, result=result),  # type: ignore[arg-type]
                ),
            ),
            errors=(NotFound, CapacityExhausted, DeadlineExceeded),
        ),
        Operation(
            method="DELETE",
            path="/jobs/{id}",
            handler=handlers.cancel,
            audience=Audience.TENANT,
            summary="Cancel a job: at once while it waits, soon when it runs",
            status=202,
            response=wire_jobs.Cancelling,
            examples=(
                Example(
                    summary="A job that waited",
                    parameters=job,
                    answer=wire_jobs.Cancelling(examples.JOB_ID, "cancelled"),
                ),
            ),
            errors=(NotFound, CapacityExhausted, DeadlineExceeded),
            event="job.cancel",
        ),
    ]  # fmt: skip
