"""HTTP/1.1 on a connection, with bounds that uvicorn leaves open: the size of a request's head, the time it takes to
come, and errors in the API's own form.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tensor_wasm.errors import RequestError
from tensor_wasm.http.app import error_body
from tensor_wasm.telemetry import HttpMetrics
from tensor_wasm.telemetry.http_metrics import OTHER

#: Longest head of a request, request line and headers together.
HEAD_BYTES_MAX = 64 * 1024
#: Time for a head to come once the connection stands or its first byte is there.
HEAD_S = 10.0


class Protocol(HttpToolsProtocol):
    """One connection."""

    #: Set by :func:`protocol_for`.
    http_metrics: HttpMetrics

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._loose_bytes = 0  # received since the parser last got anywhere
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse a head that does not end."""
        if self.parser is None or self.transport.is_closing():
            return
        self._loose_bytes += len(data)
        super().data_received(data)
        if self._loose_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(f"the request's head is longer than {HEAD_BYTES_MAX} bytes")
        elif self._head_timer is None and self._is_idle():
            self._head_timer = self.loop.call_later(HEAD_S, self._too_slow)

    def on_headers_complete(self) -> None:
        """The head is there: the application takes over."""
        self._loose_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        self._loose_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close."""
        if not self._is_idle():  # an answer of the application is on its way: nothing can come in between
            self.transport.close()
            return
        identity = os.urandom(8).hex()
        body = error_body(RequestError.kind, msg, identity)
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {identity}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self.http_metrics.count(OTHER, OTHER, 400, 0.0)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._is_idle() and not self.transport.is_closing():
            self.transport.close()


def protocol_for(http_metrics: HttpMetrics) -> Callable[..., Protocol]:
    """The protocol's class, counting in ``http_metrics``."""
    return type("CountedProtocol", (Protocol,), {"http_metrics": http_metrics})
