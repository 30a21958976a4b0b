"""What the operator's listener answers, and whom."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tensor_wasm.config import Config, split_address
from tensor_wasm.errors import (
    ConfigurationError,
    InternalError,
    MethodNotAllowed,
    NotReady,
    RouteNotFound,
    TensorWasmError,
    Unauthorized,
)
from tensor_wasm.http import wire
from tensor_wasm.http.access import Access, is_loopback
from tensor_wasm.http.app import error_body
from tensor_wasm.http.operator.request import Request, response
from tensor_wasm.http.query import parse_query
from tensor_wasm.http.refusals import GENERIC, told
from tensor_wasm.http.routes.admin.observe import wants_history
from tensor_wasm.telemetry import observation, render
from tensor_wasm.telemetry.audit import AuditLog, AuditRecord
from tensor_wasm.telemetry.bounded import Bounded
from tensor_wasm.telemetry.exposition import Source, wants_openmetrics
from tensor_wasm.telemetry.observer import Observer
from tensor_wasm.tenancy import Principal, TokenBook

_log = logging.getLogger("tensor_wasm.http")

_JSON = "application/json"
_METHODS = ("GET", "HEAD")
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEALTHY = wire.encode(wire.Health("ok"))
_REFUSALS = frozenset({401, 403})
#: Longest time that metrics may take to be collected.
_METRICS_S = 1.0
_TEXT, _OPEN = "metrics", "OpenMetrics"


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a connection came from; ``is_operator`` when that alone says who it is: who may open the socket."""

    address: str | None
    is_operator: bool


def check_operator_address(config: Config, tokens: TokenBook) -> None:
    """Raises :class:`ConfigurationError` for a TCP address that would show the node to others in the clear."""
    address = config.operator_addr
    if address is None or is_loopback(split_address(address)[0]):
        return
    wanted = "choose a loopback address, as 127.0.0.1:8081"
    if config.tls_cert is None:
        raise ConfigurationError(
            f"TENSOR_WASM_OPERATOR_ADDR={address} can be reached from other machines and there is no TLS: {wanted},"
            " or set TENSOR_WASM_TLS_CERT and TENSOR_WASM_TLS_KEY"
        )
    if tokens.is_empty:
        raise ConfigurationError(
            f"TENSOR_WASM_OPERATOR_ADDR={address} can be reached from other machines and there are no tokens: {wanted},"
            " or set TENSOR_WASM_API_TOKENS"
        )


class Answers:
    """Answers requests, one after another, each within a second or two whatever the node is doing. For one thread."""

    def __init__(
        self, config: Config, tokens: TokenBook, observer: Observer, sources: Sequence[Source], audit: AuditLog
    ) -> None:
        self._observer = observer
        self._audit = audit
        # The API's own rules, for another address; whether that may be had without tokens was looked at above.
        address = config.operator_addr or config.listen_addr
        self._access = Access(replace(config, listen_addr=address, dev_mode=True), tokens)
        parts = {
            _TEXT: lambda: render(sources, ""),
            _OPEN: lambda: render(sources, "application/openmetrics-text"),
        }
        self._metrics = Bounded(parts, _METRICS_S, _METRICS_S)

    def close(self) -> None:
        """Give the thread back that collects metrics."""
        self._metrics.close()

    def answer(self, request: Request, caller: Caller) -> bytes:
        """The bytes of the answer."""
        given = request.headers.get(b"x-request-id", b"")
        identity = given.decode() if _SAFE_ID.fullmatch(given) else os.urandom(8).hex()
        is_head = request.method == "HEAD"
        headers = [("x-request-id", identity)]
        principal = _Known()
        try:
            body, media_type = self._body(request, caller, principal)
        except TensorWasmError as error:
            self._note(request, caller, principal, identity, error)
            return self.refusal(error, identity, is_head=is_head)
        except Exception:
            _log.exception("a request to the operator's listener failed", extra={"request_id": identity})
            return self.refusal(InternalError(GENERIC), identity, is_head=is_head)
        return response(200, body, media_type, headers, is_head=is_head)

    def refusal(self, error: TensorWasmError, identity: str | None = None, *, is_head: bool = False) -> bytes:
        """The bytes of an answer that is an error."""
        identity = os.urandom(8).hex() if identity is None else identity
        headers = [("x-request-id", identity)]
        if isinstance(error, Unauthorized):
            headers.append(("www-authenticate", "Bearer"))
        elif isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(_METHODS)))
        body = error_body(error.kind, told(error, identity), identity)
        return response(error.http_status, body, _JSON, headers, is_head=is_head)

    def _body(self, request: Request, caller: Caller, known: _Known) -> tuple[bytes, str]:
        """Body and content type. Raises a :class:`TensorWasmError`."""
        if not caller.is_operator:
            self._access.check_origin(request.headers)
        show = {"/admin/observe": self._observe, "/metrics": self._show_metrics, "/healthz": self._health}.get(
            request.path
        )
        if show is None:
            raise RouteNotFound("the operator's listener has /admin/observe, /metrics and /healthz")
        if request.method not in _METHODS:
            raise MethodNotAllowed(f"this route takes {', '.join(_METHODS)}")
        return show(request, caller, known)

    def _observe(self, request: Request, caller: Caller, known: _Known) -> tuple[bytes, str]:
        if not caller.is_operator:
            if self._access.is_exposed:  # the last token was revoked: nobody is to be let in then, rather than all
                raise Unauthorized("the node has no tokens: this address asks for one")
            known.principal = self._access.principal(request.headers)
            self._access.check_admin(known.principal)
        history = wants_history(parse_query(request.query, "history"))
        return observation.encode(self._observer.document(history=history)), _JSON

    def _show_metrics(self, request: Request, caller: Caller, _: _Known) -> tuple[bytes, str]:
        if not caller.is_operator:
            self._access.check_metrics(request.headers)
        accept = request.headers.get(b"accept", b"").decode("latin-1")
        name = _OPEN if wants_openmetrics(accept) else _TEXT
        values, _failures = self._metrics.read([name])
        if name not in values:
            raise NotReady("the metrics cannot be read now: ask /admin/observe, which does without what hangs")
        body, content_type = values[name][1]
        return body, content_type

    def _health(self, _request: Request, _caller: Caller, _known: _Known) -> tuple[bytes, str]:
        return _HEALTHY, _JSON

    def _note(self, request: Request, caller: Caller, known: _Known, identity: str, error: TensorWasmError) -> None:
        """Have a refusal audited, as the API's are."""
        if error.http_status not in _REFUSALS or not self._audit.is_on:
            return
        principal = known.principal
        self._audit.write(
            AuditRecord(
                request_id=identity,
                event="request",
                method=request.method if request.method in _METHODS else "other",
                route=request.path,
                status=error.http_status,
                outcome=error.kind,
                token=None if principal is None else principal.token_id,
                client=caller.address,
            )
        )


@dataclass(slots=True)
class _Known:
    """Who asks, once that is known."""

    principal: Principal | None = None
