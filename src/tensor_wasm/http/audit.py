"""Which requests the audit log tells of: those that change state, and those that are refused."""

from __future__ import annotations

from tensor_wasm.errors import DeviceRestarting
from tensor_wasm.http.operations import Call, Operation
from tensor_wasm.node import DeviceRestart, EndedJob
from tensor_wasm.telemetry.audit import AuditLog, AuditRecord
from tensor_wasm.telemetry.audit_schema import OK

#: Statuses of refusals: no valid token, not allowed, too much of something.
_REFUSALS = frozenset({401, 403, 429})
#: The event of a refused call that changes nothing.
_OTHER_EVENT = "request"
_JOB_EVENT = "job.end"
_RESTART_EVENT = "device.restart"


class Auditor:
    """Writes the audit log of one application. ``invocations`` are written too when ``is_thorough``."""

    def __init__(self, log: AuditLog, is_thorough: bool) -> None:
        self.log = log
        self._is_thorough = is_thorough

    def note_job(self, job: EndedJob) -> None:
        """Write the line of a job that ended."""
        if not self.log.is_on:
            return
        detail: dict[str, str | int | float | bool | None] = {"function_id": job.function_id}
        if job.export is not None:
            detail["export"] = job.export
        if job.duration_s is not None:
            detail["duration_ms"] = round(job.duration_s * 1e3, 3)
        if job.launches is not None:
            detail["launches"] = job.launches
        self.log.write(
            AuditRecord(
                request_id=job.request_id,
                event=_JOB_EVENT,
                method=None,
                route=None,
                status=None,
                outcome=job.error_kind or OK,
                tenant=job.tenant,
                resource=job.id,
                detail=detail,
            )
        )

    def note_restart(self, restart: DeviceRestart) -> None:
        """Write the line of a GPU that lost everything that was on it."""
        if not self.log.is_on:
            return
        self.log.write(
            AuditRecord(
                request_id="",
                event=_RESTART_EVENT,
                method=None,
                route=None,
                status=None,
                outcome=DeviceRestarting.kind,
                tenant=restart.offender,
                resource=restart.device,
                detail={
                    "reason": restart.reason,
                    "kernel": restart.kernel,
                    "victims": ",".join(map(str, restart.victims)),
                },
            )
        )

    def note(
        self, call: Call, operation: Operation | None, method: str, route: str, status: int, kind: str | None
    ) -> None:
        """Write the line of a request that has its answer, if it has one."""
        event = None if operation is None else operation.event
        if status not in _REFUSALS and (
            event is None or (operation is not None and operation.is_routine and not self._is_thorough)
        ):
            return
        if not self.log.is_on:
            return
        client, principal = call.scope.get("client"), call.principal
        self.log.write(
            AuditRecord(
                request_id=call.id,
                event=event or _OTHER_EVENT,
                method=method,
                route=route,
                status=status,
                outcome=kind or OK,
                tenant=call.subject,
                token=None if principal is None else principal.token_id,
                client=client[0] if client else None,
                resource=call.resource,
                detail=call.detail or {},
            )
        )
