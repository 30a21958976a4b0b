"""The ASGI application: one pass around every request, whatever becomes of it.

Request id, metrics, origin and token checks, errors to JSON. One function instead of a stack of middleware: the hot
route spends its time in the node, not here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from tensor_wasm.config import Config
from tensor_wasm.errors import (
    Cancelled,
    CapacityError,
    EndingError,
    InternalError,
    MethodNotAllowed,
    RateLimited,
    RequestError,
    RequestTimeout,
    TensorWasmError,
    Unauthorized,
)
from tensor_wasm.host.trace import Trace
from tensor_wasm.http import wire, wire_openai
from tensor_wasm.http.access import Access
from tensor_wasm.http.arrival import WAITED
from tensor_wasm.http.audit import Auditor
from tensor_wasm.http.limits import HeldBodies, RateLimits
from tensor_wasm.http.operations import Answer, Audience, Call, NoSuchMethod, Operation, StreamedAnswer, Table
from tensor_wasm.http.refusals import GENERIC, told
from tensor_wasm.http.routes import (
    admin,
    console,
    documents,
    functions,
    instances,
    invocations,
    jobs,
    kernels,
    openai,
    probes,
    snapshots,
)
from tensor_wasm.node import ORIGIN, Node
from tensor_wasm.telemetry import Collector, HttpMetrics, trace_context
from tensor_wasm.telemetry.audit import AuditLog
from tensor_wasm.telemetry.exposition import Source
from tensor_wasm.telemetry.http_metrics import OTHER
from tensor_wasm.telemetry.observer import Observer
from tensor_wasm.telemetry.tracing import NoTracing, Tracing

_log = logging.getLogger("tensor_wasm.http")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_RETRY_AFTER_S = b"1"
#: Keeps OpenAI's clients from running a guest that failed a second and a third time.
_NO_RETRY = (b"x-should-retry", b"false")
#: How long a client may read nothing of an answer that is being made.
_UNREAD_S = 30.0
#: Counted for a request whose task was ended: its client got no answer.
_NO_ANSWER = 499

#: Headers that decide something: a request that has one of them twice is refused.
_SINGLE = (
    b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"origin",
    b"x-tensorwasm-tenant",
)  # fmt: skip


class Application:
    """The HTTP API of a node. ``working`` is how many requests of tenants have no answer yet."""

    def __init__(
        self,
        node: Node,
        config: Config,
        http_metrics: HttpMetrics,
        sources: Sequence[Source] = (),
        audit: AuditLog | None = None,
        observer: Observer | None = None,
        tracing: Tracing | NoTracing | None = None,
    ) -> None:
        self._tracing = tracing or NoTracing()
        self.access = Access(config, node.tokens)
        self.working = 0
        self._rates = RateLimits(config, node.tenants, node.statistics.refused)
        self._bodies = HeldBodies(config.held_body_bytes)
        self._auditor = Auditor(audit or AuditLog("none"), config.audit_invocations)
        #: Is to be told of each job that ends.
        self.note_job = self._auditor.note_job
        #: Is to be told when the GPU starts anew.
        self.note_restart = self._auditor.note_restart
        self.metrics = http_metrics
        observer = observer or Observer(node, config, http_metrics)
        self.audit = self._auditor.log
        #: What has metrics.
        self.sources: list[Source] = [Collector(node), http_metrics, *sources, self.audit, self._tracing]
        self.table = Table(_operations(node, config, self.sources, observer))
        self._limit_bytes = config.max_body_bytes
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        for operation in self.table.operations:
            # The 5xx too: a series that begins with its first failure has no increase that a query could see.
            failures = {error.http_status for error in operation.errors if error.http_status >= 500}
            for status in (operation.status, InternalError.http_status, *failures):
                http_metrics.declare(operation.route, operation.method, status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application does not speak {scope['type']}")
        started_s = time.perf_counter() - scope.get("extensions", {}).get(WAITED, 0.0)
        pairs = scope["headers"]
        headers = dict(pairs)
        call = Call(scope, receive, headers, self._identity(headers), self._limit_bytes, self._bodies)
        call.started_s = started_s
        if b"traceparent" in headers:
            call.context = trace_context.read(pairs)
            if call.context is not None and call.context.is_sampled:
                call.origin.trace_id = call.context.trace_id
        ORIGIN.set(call.origin)  # of this request's task
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        route = OTHER
        operation: Operation | None = None
        refusal: TensorWasmError | None = None
        try:
            operation, call.parameters = self.table.find(scope)
            route = operation.route
        except NoSuchMethod as error:
            route, refusal = error.route, error
        except TensorWasmError as error:
            refusal = error
        self.metrics.started(route, method)
        status = _NO_ANSWER
        kind: str | None = Cancelled.kind
        works = operation is not None and operation.audience is Audience.TENANT
        self.working += works
        try:
            answer = await self._answer(operation, refusal, call, len(pairs))
            status, kind = answer.status, answer.kind
            if isinstance(answer, StreamedAnswer):
                kind = Cancelled.kind  # until it is through
                kind = await _send_parts(send, answer, call)
            else:
                await _send(send, answer, call)
        finally:
            self.working -= works
            call.close()
            self._auditor.note(call, operation, method, route, status, kind)
            trace = call.origin.trace
            self.metrics.finished(
                route, method, status, time.perf_counter() - started_s, None if trace is None else trace.trace_id
            )
            if trace is not None:
                _end_trace(trace, call, route, method, status, kind)

    async def _answer(
        self, operation: Operation | None, refusal: TensorWasmError | None, call: Call, header_count: int
    ) -> Answer | StreamedAnswer:
        """What the operation says, or what became of it instead: every error is an answer."""
        try:
            if header_count != len(call.headers):
                _check_single(call.scope["headers"])
            if operation is None:
                # The origin first: to a web page even the list of routes is none of its business.
                self.access.check_origin(call.headers)
                assert refusal is not None
                raise refusal
            if operation.audience is Audience.TENANT:
                self.access.check_origin(call.headers)
                call.principal = principal = self.access.principal(call.headers)
                call.tenant = call.subject = tenant = self.access.tenant(principal, call.headers)
                call.origin.tenant = tenant
                self._rates.check(principal, tenant)
                self._begin_trace(call, tenant)
            elif operation.audience is Audience.ADMIN:
                self.access.check_origin(call.headers)
                call.principal = self.access.principal(call.headers)
                self.access.check_admin(call.principal)
                self._begin_trace(call, None)
            elif operation.audience is Audience.SCRAPER:
                self.access.check_origin(call.headers)
                self.access.check_metrics(call.headers)
            return await operation.handler(call)
        except TensorWasmError as error:
            answer = self._refused(error, call)
            _let_go(error)
            return answer
        except Exception:
            _log.exception("a request failed", extra={"request_id": call.id})
            return _error_answer(InternalError.kind, GENERIC, InternalError.http_status, call)

    def _begin_trace(self, call: Call, tenant: int | None) -> None:
        """Trace a request from here on, if it is to be: who it is from is known."""
        trace = self._tracing.begin(call.context, tenant, time.perf_counter() - call.started_s)
        if trace is not None:
            call.origin.trace = trace
            call.origin.trace_id = trace.trace_id

    def _refused(self, error: TensorWasmError, call: Call) -> Answer:
        message = told(error, call.id)
        headers: list[tuple[bytes, bytes]] = []
        if isinstance(error, RateLimited):
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
            call.detail = {"retry_after_s": error.retry_after_s}
        elif isinstance(error, CapacityError):
            headers.append((b"retry-after", _RETRY_AFTER_S))
        elif isinstance(error, Unauthorized):
            headers.append((b"www-authenticate", b"Bearer"))
        elif isinstance(error, MethodNotAllowed):
            headers.append((b"allow", getattr(error, "allowed", "").encode()))
        elif isinstance(error, RequestTimeout):
            headers.append((b"connection", b"close"))
        elif isinstance(error, EndingError) and wire_openai.speaks(call.scope["path"]):
            headers.append(_NO_RETRY)
        return _error_answer(error.kind, message, error.http_status, call, headers, error)

    def _identity(self, headers: dict[bytes, bytes]) -> str:
        """The request's id: the client's own when it is plain, else one that no other request of any node has."""
        given = headers.get(b"x-request-id")
        if given is not None and _SAFE_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._prefix}-{next(self._numbers):x}"


def create_app(
    node: Node,
    config: Config,
    http_metrics: HttpMetrics,
    sources: Sequence[Source] = (),
    audit: AuditLog | None = None,
    observer: Observer | None = None,
    tracing: Tracing | NoTracing | None = None,
) -> Application:
    """The ASGI application of a node. ``sources`` have more metrics; without ``audit`` nothing is audited. Without
    ``observer`` it has one that keeps no history, without ``tracing`` it traces nothing.

    Raises :class:`~tensor_wasm.errors.ConfigurationError` for tokens that cannot be read, and for an address that
    others can reach on a node without tokens.
    """
    return Application(node, config, http_metrics, sources, audit, observer, tracing)


def _operations(node: Node, config: Config, sources: Sequence[Source], observer: Observer) -> list[Operation]:
    described = [
        *probes.operations(node, sources),
        *functions.operations(node),
        *invocations.operations(node),
        *instances.operations(node),
        *snapshots.operations(node),
        *jobs.operations(node),
        *kernels.operations(node),
        *openai.operations(node),
        *admin.operations(node, config, observer),
        *console.operations(node.tokens),
    ]
    return described + documents.operations(described, node.tokens)


def _let_go(error: BaseException | None) -> None:
    """Take from an error, and those before it, what they were raised through.

    Frames and errors refer to each other, so all that a failed request held, a body of 64 MiB perhaps, would stay
    until the collector of cycles comes by.
    """
    while error is not None:
        error.__traceback__ = None
        error.__context__, error = None, error.__context__


def _check_single(pairs: Sequence[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in pairs]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise RequestError(f"the request has more than one {name.decode()} header")


def error_body(kind: str, message: str, identity: str) -> bytes:
    """The body of every answer that is not 2xx."""
    return wire.encode(wire.ErrorAnswer(wire.ErrorBody(kind, message, identity)))


def _error_answer(
    kind: str,
    message: str,
    status: int,
    call: Call,
    headers: Sequence[tuple[bytes, bytes]] = (),
    error: TensorWasmError | None = None,
) -> Answer:
    if wire_openai.speaks(call.scope["path"]):
        body = wire_openai.error_body(kind, message, status, error)
    else:
        body = error_body(kind, message, call.id)
    return Answer(body, status, headers=headers, kind=kind)


def _end_trace(trace: Trace, call: Call, route: str, method: str, status: int, kind: str | None) -> None:
    root = trace.spans[0]
    root.attributes |= {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "request_id": call.id,
    }
    if call.origin.tenant is not None:
        root.attributes["tenant"] = str(call.origin.tenant)
    if kind is not None:
        root.attributes["error.type"] = kind
    # A client's mistake is no failure of the node's, by OpenTelemetry's rules.
    root.end(kind if status >= InternalError.http_status or status == _NO_ANSWER or call.failure is not None else None)
    trace.finish()


def _identity_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """The request's id, and its trace's when it has one."""
    headers = [(b"x-request-id", call.id.encode())]
    if call.origin.trace_id is not None:
        headers.append((b"x-trace-id", call.origin.trace_id.encode()))
    return headers


async def _send(send: Send, answer: Answer, call: Call) -> None:
    body = answer.body
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", b"%d" % len(body)),
        *_identity_headers(call),
        *answer.headers,
    ]
    if answer.status == 204:
        del headers[:2]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_parts(send: Send, answer: StreamedAnswer, call: Call) -> str | None:
    """Send an answer part by part; the kind of the error that it ended with, None when it is whole."""
    headers = [(b"content-type", answer.media_type), *_identity_headers(call), *answer.headers]
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for part in answer.body:
            async with asyncio.timeout(_UNREAD_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        await _cut(call)
        return Cancelled.kind
    except TensorWasmError as error:
        told(error, call.id)
        await _cut(call)
        return error.kind
    except Exception:
        _log.exception("an answer broke off", extra={"request_id": call.id})
        await _cut(call)
        return InternalError.kind
    finally:
        await answer.close()
    await send({"type": "http.response.body", "body": b""})
    return None if call.failure is None else call.failure.kind


async def _cut(call: Call) -> None:
    call.cut()
    await asyncio.sleep(0)  # the server learns of it before this request returns
