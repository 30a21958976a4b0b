"""Taking TLS connections, each with the certificate of the moment.

A server of the event loop has one certificate for its whole life, and tells nothing of a connection before its
handshake is done: neither a reload nor a count of all connections can be built on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from tensor_wasm.http import protocol as http
from tensor_wasm.http.tls import Tls, on_refusal

_log = logging.getLogger("tensor_wasm.http")

#: Connections taken in a row before the event loop does anything else.
_AT_ONCE = 64
#: Pause after the system could not give a connection: no more open files, no memory.
_PAUSE_S = 0.2
#: Time for a client to read why its handshake was refused, and to end the connection. It is ended then anyway: a
#: connection that is closed at once, with bytes of the client unread, may take the alert along.
_LINGER_S = 1.0


class Acceptor:
    """Takes the connections of a listener, shakes hands, and gives each to a protocol of its own.

    It begins with the first call of :meth:`start` and ends with :meth:`close`, both on the event loop. A handshake
    has ``HEAD_S`` seconds, and counts under the limit of connections from its first moment.
    """

    def __init__(self, listener: socket.socket, tls: Tls, limit: http.ConnectionLimit) -> None:
        self._listener = listener
        self._tls = tls
        self._limit = limit
        self._handshakes: dict[asyncio.Task[None], http.Protocol] = {}
        self._pause: asyncio.TimerHandle | None = None

    def start(self, create_protocol: Callable[[], http.Protocol]) -> None:
        """Begin to take connections."""
        self._create_protocol = create_protocol
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Take no more connections, and end those whose handshake is not done."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        for protocol in self._handshakes.values():
            protocol.abandon()

    async def wait_closed(self) -> None:
        """Wait for the handshakes that :meth:`close` ended."""
        if self._handshakes:
            await asyncio.wait(self._handshakes)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # it ended while it waited
                continue
            except OSError as error:
                _log.error("no connections are taken for a moment: %s", error)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            self._take(connection)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _take(self, connection: socket.socket) -> None:
        protocol = self._create_protocol()
        if not self._limit.enter(protocol):
            connection.close()
            return
        protocol.handshaking = connection
        task = self._loop.create_task(self._shake_hands(connection, protocol))
        self._handshakes[task] = protocol
        task.add_done_callback(self._handshakes.pop)

    async def _shake_hands(self, connection: socket.socket, protocol: http.Protocol) -> None:
        def refused(error: ssl.SSLError) -> None:
            # Whoever can reach the port can cause it: no line of the log at its usual level for that.
            _log.debug("a TLS handshake was refused: %s", error)
            self._loop.call_soon(_end_output, connection)
            self._loop.call_later(_LINGER_S, protocol.abandon)

        on_refusal.set(refused)
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._tls.context, ssl_handshake_timeout=http.HEAD_S
            )
        except OSError as error:
            _log.debug("a TLS handshake ended: %s", error)
        finally:
            if protocol.transport is None:
                self._limit.leave(protocol)


def _end_output(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it ended meanwhile
        connection.shutdown(socket.SHUT_WR)
