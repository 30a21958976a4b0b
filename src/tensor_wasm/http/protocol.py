"""HTTP/1.1 on a connection, with bounds that uvicorn leaves open: the number of connections, the size of a request's
head, the time it takes to come, and errors in the API's own form.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tensor_wasm.errors import RequestError
from tensor_wasm.http.app import error_body
from tensor_wasm.http.arrival import WAITED, connection_of, waited_s
from tensor_wasm.http.operations import CUT
from tensor_wasm.telemetry import HttpMetrics
from tensor_wasm.telemetry.connection_metrics import ConnectionMetrics
from tensor_wasm.telemetry.http_metrics import OTHER

#: Longest head of a request, request line and headers together.
HEAD_BYTES_MAX = 64 * 1024
#: Most requests of one connection that wait for the answer to the one before them; with more it is closed.
PIPELINE_MAX = 32
#: Longest time in which a client may read nothing of the answers that wait for it.
UNREAD_S = 30.0
#: Time for a head to come once the connection stands or its first byte is there.
HEAD_S = 10.0
#: Most connections at once, where the process may have enough files open.
CONNECTIONS_MAX = 10_000
#: Open files that connections leave to everything else: database, caches, compilers, pipes.
SPARE_FILES = 256
#: What stays when the limit of open files is smaller than that.
_CONNECTIONS_MIN = 16
#: Time for the last bytes to leave before a connection that is idle is cut.
_FAREWELL_S = 0.5


class Abandonable(Shape):
    """What :class:`ConnectionLimit` counts."""

    def abandon(self) -> None:
        """Close at once, whatever is still to be sent."""


class ConnectionLimit:
    """How many connections there may be at once, and which goes when one more comes.

    The one that has been idle between two requests for the longest time makes room; when none is idle, the one that
    has waited for the longest time without a request's whole head, or in its handshake. One whose request is being
    answered is never closed: when all are, the new one is. Used on the event loop only.
    """

    def __init__(self, count_max: int, metrics: ConnectionMetrics) -> None:
        self.count_max = count_max
        self.metrics = metrics
        self._silent: OrderedDict[Abandonable, None] = OrderedDict()
        self._busy: OrderedDict[Abandonable, None] = OrderedDict()
        self._idle: OrderedDict[Abandonable, None] = OrderedDict()
        self._groups: dict[Abandonable, OrderedDict[Abandonable, None]] = {}

    def enter(self, connection: Abandonable) -> bool:
        """Count a new connection; False when there is no room for it. One that is counted already is let in."""
        if connection in self._groups:
            return True
        if len(self._groups) >= self.count_max and not self._make_room():
            self.metrics.refused += 1
            return False
        self._groups[connection] = self._silent
        self._silent[connection] = None
        self.metrics.open = len(self._groups)
        return True

    def leave(self, connection: Abandonable) -> None:
        """A connection ended, or was never counted."""
        group = self._groups.pop(connection, None)
        if group is not None:
            del group[connection]
            self.metrics.open = len(self._groups)

    def silent(self, connection: Abandonable) -> None:
        """A request begins to come."""
        self._move(connection, self._silent)

    def busy(self, connection: Abandonable) -> None:
        """A request is there and is being answered."""
        self._move(connection, self._busy)

    def idle(self, connection: Abandonable) -> None:
        """All requests have their answers."""
        self._move(connection, self._idle)

    def _move(self, connection: Abandonable, group: OrderedDict[Abandonable, None]) -> None:
        before = self._groups.get(connection)
        if before is None:  # it was closed to make room, and has not heard of it yet
            return
        del before[connection]
        group[connection] = None
        self._groups[connection] = group

    def _make_room(self) -> bool:
        if self._idle:
            oldest = next(iter(self._idle))
            self.metrics.idle += 1
        elif self._silent:
            oldest = next(iter(self._silent))
            self.metrics.silent += 1
        else:
            return False
        self.leave(oldest)
        oldest.abandon()
        return True


def connections_max() -> int:
    """``CONNECTIONS_MAX``, or what the process's limit of open files leaves."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(_CONNECTIONS_MIN, files - SPARE_FILES))


class Protocol(HttpToolsProtocol):
    """One connection."""

    #: Set by :func:`protocol_for`.
    http_metrics: HttpMetrics
    connection_limit: ConnectionLimit

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
        self._unread_timer: asyncio.TimerHandle | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._connection: socket.socket | None = None
        #: The connection while there is no transport yet: a TLS handshake goes on.
        self.handshaking: socket.socket | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; end when there is no room."""
        super().connection_made(transport)
        self.handshaking = None
        self._connection = connection_of(transport)
        if not self.connection_limit.enter(self):
            transport.abort()
            return
        self._head_timer = self.loop.call_later(HEAD_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell every request of the connection: uvicorn tells the one that came last."""
        self._stop_waiting()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self.connection_limit.leave(self)
        self._connection = None
        super().connection_lost(exc)
        # uvicorn lets the timer of a connection that was reset run on, and keeps all there was until then.
        self._unset_keepalive_if_required()
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._unanswered.clear()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse a head that does not end."""
        if self.parser is None or self.transport.is_closing():
            return
        # In pieces: one read brings up to 256 KiB, which may be 50,000 headers, and the bounds hold only in between.
        for start in range(0, len(data), HEAD_BYTES_MAX):
            piece = data[start : start + HEAD_BYTES_MAX]
            self._loose_bytes += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._loose_bytes > HEAD_BYTES_MAX:
                self.send_400_response(f"the request's head is longer than {HEAD_BYTES_MAX} bytes")
                return
        if self._head_timer is None and self._is_idle():
            self._head_timer = self.loop.call_later(HEAD_S, self._too_slow)

    def on_message_begin(self) -> None:
        """A head begins to come."""
        if self._is_idle():
            self.connection_limit.silent(self)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there: the application takes over."""
        if len(self.pipeline) >= PIPELINE_MAX:
            # uvicorn reads on after each answer, however many requests wait: a client that never stops would fill
            # the memory, with some 3 KB for each 50 bytes it sends.
            self.transport.abort()
            return
        self._loose_bytes = 0
        self._stop_waiting()
        self.connection_limit.busy(self)
        extensions: dict[str, Any] = {CUT: self.abandon, WAITED: waited_s(self._connection)}
        self.scope["extensions"] = extensions
        super().on_headers_complete()
        self.headers = []  # what comes after the body, a trailer, is no header: nothing may be decided by it
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        self._loose_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """An answer is sent: the next request's turn, or nobody's."""
        super().on_response_complete()
        if self._is_idle():
            self.connection_limit.idle(self)
        if self._unread_timer is None:
            self._watch_unread()

    def abandon(self) -> None:
        """Close at once, in a TLS handshake too, whatever is still to be sent."""
        if self.handshaking is not None:
            # A transport in a handshake is the event loop's own: what it sees is the end of the stream.
            with contextlib.suppress(OSError):
                self.handshaking.shutdown(socket.SHUT_RDWR)
        elif self.transport is not None:
            self.transport.abort()

    def shutdown(self) -> None:
        """The server stops: close when nothing is being answered, after the answer else."""
        super().shutdown()
        if self.scheme == "https" and self._is_idle() and not self.transport.get_write_buffer_size():
            # TLS waits for the other side's farewell too, which a client that is idle does not send.
            self.loop.call_later(_FAREWELL_S, self.transport.abort)

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

    def _watch_unread(self, before_bytes: int | None = None) -> None:
        """Cut the connection when nothing of what waits to be sent was read for ``UNREAD_S``.

        To close it would wait for the client without end.
        """
        self._unread_timer = None
        waiting_bytes = self.transport.get_write_buffer_size()
        if waiting_bytes and waiting_bytes == before_bytes:
            self.transport.abort()
        elif waiting_bytes:
            self._unread_timer = self.loop.call_later(UNREAD_S, self._watch_unread, waiting_bytes)

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


def protocol_for(http_metrics: HttpMetrics, connection_limit: ConnectionLimit) -> Callable[..., Protocol]:
    """The protocol's class, counting in ``http_metrics`` and under one limit of connections."""
    members = {"http_metrics": http_metrics, "connection_limit": connection_limit}
    return type("CountedProtocol", (Protocol,), members)
