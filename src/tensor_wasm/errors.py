"""The one error tree.

Every failure a caller can meet is one of these classes. Each says when it is raised, the ``kind`` it has in
HTTP answers, the HTTP status, the guest ABI code when a guest can see it, and the exit code of the CLI.

::

    TensorWasmError
    ├── ConfigurationError               a setting that cannot be used
    │   └── DeviceUnavailable
    ├── RequestError                     the caller must change the request
    │   ├── InvalidName  InvalidBase64  InvalidWasm  InvalidJson  InvalidTenant
    │   ├── BodyTooLarge  RequestTimeout
    │   ├── MissingExport  InvalidArguments  TooManyArguments  InvalidDeadline
    │   ├── NotFound  RouteNotFound  MethodNotAllowed  UnsupportedMediaType  Misdirected
    │   ├── Unauthorized  Forbidden
    │   ├── Conflict ── Busy  AlreadyRegistered  IdempotencyConflict
    │   ├── InvalidManifest  DigestMismatch  BadSignature  ModelNotFound
    │   └── InvalidSnapshot ── SnapshotTruncated  SnapshotDamaged  SnapshotVersion  SnapshotSignatureInvalid
    ├── EndingError                      an invocation that did not return (see ``Ending``)
    │   ├── GuestTrap ── KernelFault
    │   └── DeadlineExceeded  Terminated  QuotaExceeded  Cancelled  NodeRestarted
    ├── CapacityError                    try again later
    │   └── Saturated  CapacityExhausted  NotReady  RateLimited  DeviceRestarting
    ├── KernelError                      PTX or a launch that cannot be
    │   └── PtxError  KernelArgumentError
    ├── StoreError                       the node's own files cannot be used
    └── InternalError                    a defect of TensorWasm

Messages reach tenants: they never hold a path, a token, or another tenant's name.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Ending(Enum):
    """How an invocation ended: the value is the metric label and the span status."""

    RETURNED = "returned"
    TRAPPED = "trapped"
    DEADLINE = "deadline"
    TERMINATED = "terminated"
    QUOTA = "quota"
    CANCELLED = "cancelled"


class TensorWasmError(Exception):
    """Base of every error raised on purpose."""

    kind: str = "internal"
    http_status: int = 500
    exit_code: ClassVar[int] = 1
    #: Of an error that a node answered a client with: finds it in the node's log.
    request_id: str | None = None

    @property
    def message(self) -> str:
        """The text shown to the caller."""
        return str(self)


class ConfigurationError(TensorWasmError):
    """A setting has a value that cannot be used; the start stops."""

    kind = "invalid_configuration"
    exit_code = 2


class DeviceUnavailable(ConfigurationError):
    """This machine does not have the GPU that was asked for, or it cannot be used; the message says why."""

    kind = "device_unavailable"


# --- the caller must change the request -------------------------------------------------------------------


class RequestError(TensorWasmError):
    """The request cannot be served as it stands."""

    kind = "invalid_request"
    http_status = 400


class InvalidName(RequestError):
    """A function name is empty, too long, or has characters outside ``[A-Za-z0-9._-]``."""

    kind = "invalid_name"


class InvalidBase64(RequestError):
    """A ``*_b64`` field is not base64."""

    kind = "invalid_base64"


class InvalidWasm(RequestError):
    """The bytes are not a module this node can run; the message gives the offset where there is one."""

    kind = "invalid_wasm"


class InvalidJson(RequestError):
    """The body is not JSON of the documented shape: wrong type, unknown field, bad UTF-8."""

    kind = "invalid_json"


class InvalidTenant(RequestError):
    """``X-TensorWasm-Tenant`` is not an unsigned 64-bit decimal number."""

    kind = "invalid_tenant"


class InvalidDeadline(RequestError):
    """``deadline_ms`` is not between 1 and the node's maximum."""

    kind = "invalid_deadline"


class RequestTimeout(RequestError):
    """The request does not arrive; its connection is of no more use."""

    kind = "request_timeout"
    http_status = 408


class BodyTooLarge(RequestError):
    """The body is larger than ``TENSOR_WASM_MAX_BODY_BYTES``."""

    kind = "body_too_large"
    http_status = 413


class MissingExport(RequestError):
    """The function has no such export, or it is not a function."""

    kind = "missing_export"


class InvalidArguments(RequestError):
    """The arguments do not fit the export's parameters: count, type or range."""

    kind = "invalid_args"


class TooManyArguments(RequestError):
    """More arguments than an export may have."""

    kind = "too_many_args"


class NotFound(RequestError):
    """No such thing for this tenant."""

    kind = "not_found"
    http_status = 404
    exit_code = 5


class RouteNotFound(RequestError):
    """No such route."""

    kind = "route_not_found"
    http_status = 404
    exit_code = 5


class MethodNotAllowed(RequestError):
    """The route exists, the method does not."""

    kind = "method_not_allowed"
    http_status = 405


class UnsupportedMediaType(RequestError):
    """The body's ``Content-Type`` is none that the route takes."""

    kind = "unsupported_media_type"
    http_status = 415


class Misdirected(RequestError):
    """The ``Host`` or ``Origin`` header is not the node's own while the node has no tokens."""

    kind = "misdirected"
    http_status = 421
    exit_code = 4


class Unauthorized(RequestError):
    """The token is missing or unknown."""

    kind = "unauthorized"
    http_status = 401
    exit_code = 4


class Forbidden(RequestError):
    """The token is known and does not allow this."""

    kind = "forbidden"
    http_status = 403
    exit_code = 4


class Conflict(RequestError):
    """The request cannot be served in the state things are in; the message says what to change first."""

    kind = "conflict"
    http_status = 409


class Busy(Conflict):
    """The kept instance is answering another call: one at a time."""

    kind = "busy"


class AlreadyRegistered(Conflict):
    """A kernel of that name and version is published; versions never change."""

    kind = "already_registered"


class IdempotencyConflict(Conflict):
    """The ``Idempotency-Key`` was used for another request."""

    kind = "idempotency_conflict"


class InvalidManifest(RequestError):
    """A kernel's manifest is not one JSON object with the documented fields, each once and of its form."""

    kind = "invalid_manifest"


class DigestMismatch(RequestError):
    """The manifest's digest is not that of the kernel's text."""

    kind = "digest_mismatch"


class BadSignature(RequestError):
    """A kernel's manifest is not signed by its publisher, or its publisher may not publish here."""

    kind = "bad_signature"
    http_status = 403
    exit_code = 4


class ModelNotFound(NotFound):
    """No function is bound to that model name."""

    kind = "model_not_found"


class InvalidSnapshot(RequestError):
    """A snapshot file cannot be used; subclasses say why."""

    kind = "invalid_snapshot"


class SnapshotTruncated(InvalidSnapshot):
    """A snapshot file ends too early."""

    kind = "snapshot_truncated"


class SnapshotDamaged(InvalidSnapshot):
    """A snapshot file is not what was signed, or not a snapshot at all."""

    kind = "snapshot_damaged"


class SnapshotVersion(InvalidSnapshot):
    """A snapshot file is of a format that this release does not read."""

    kind = "snapshot_version"


class SnapshotSignatureInvalid(InvalidSnapshot):
    """A snapshot file is signed by a key that this node does not trust, or not at all."""

    kind = "snapshot_signature_invalid"
    http_status = 403
    exit_code = 4


# --- an invocation that did not return --------------------------------------------------------------------


class EndingError(TensorWasmError):
    """An invocation ended without returning; ``ending`` says how."""

    ending: ClassVar[Ending]


class GuestTrap(EndingError):
    """The guest trapped: unreachable, out of bounds, division by zero, stack overflow, exit code not 0."""

    kind = "trap"
    ending = Ending.TRAPPED


class KernelFault(GuestTrap):
    """A kernel faulted: the message names kernel, block, thread and PTX line."""


class DeadlineExceeded(EndingError):
    """The invocation's deadline came."""

    kind = "invoke_timeout"
    http_status = 504
    exit_code = 124
    ending = Ending.DEADLINE


class Terminated(EndingError):
    """An operator ended the instance."""

    kind = "terminated"
    http_status = 409
    ending = Ending.TERMINATED


class QuotaExceeded(EndingError):
    """A quota of the tenant is used up."""

    kind = "quota_exceeded"
    http_status = 429
    ending = Ending.QUOTA


class Cancelled(EndingError):
    """The caller went away or cancelled."""

    kind = "cancelled"
    http_status = 499
    ending = Ending.CANCELLED


class NodeRestarted(EndingError):
    """The node ended while a job ran; whether the guest's work had its effects is not known."""

    kind = "node_restarted"
    ending = Ending.CANCELLED


# --- try again later --------------------------------------------------------------------------------------


class CapacityError(TensorWasmError):
    """The node is at a limit now; the same request may work later."""

    http_status = 503


class Saturated(CapacityError):
    """No permit of the device within the allowed wait."""

    kind = "saturated"
    http_status = 429


class CapacityExhausted(CapacityError):
    """The queue in front of the workers, or the instance table, is full."""

    kind = "capacity_exhausted"


class NotReady(CapacityError):
    """The node is starting or draining."""

    kind = "not_ready"


class RateLimited(CapacityError):
    """A token or a tenant asks more often than it may; ``retry_after_s`` from now the same request is accepted."""

    kind = "rate_limited"
    http_status = 429

    def __init__(self, text: str, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(text)


class DeviceRestarting(EndingError, CapacityError):
    """The GPU lost everything that was on it, and starts anew; try again shortly."""

    kind = "device_restarting"
    ending = Ending.CANCELLED


# --- kernels ----------------------------------------------------------------------------------------------


class KernelError(TensorWasmError):
    """PTX or a launch that cannot be done."""

    kind = "kernel_error"
    http_status = 400


class PtxError(KernelError):
    """PTX that is malformed or needs what is not supported (guest ABI code −4).

    ``line`` and ``column`` count from 1; 0 when the error is not at one place.
    """

    kind = "invalid_ptx"

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        self.text = text
        self.line = line
        self.column = column
        super().__init__(f"{line}:{column}: {text}" if line else text)


class KernelArgumentError(KernelError):
    """Launch arguments do not fit the kernel's parameters (guest ABI code −9)."""

    kind = "invalid_kernel_args"


# --- the node itself --------------------------------------------------------------------------------------


class StoreError(TensorWasmError):
    """The node's home cannot be used: not writable, corrupt, or of a newer version. Says how to repair it."""

    kind = "store_error"


class InternalError(TensorWasmError):
    """A defect of TensorWasm; details are in the node's log under the request id."""

    kind = "internal"
