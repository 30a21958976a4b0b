"""Requests to one node over HTTP/1.1: connections kept alive, streamed bodies and answers. For any number of threads.

On the standard library's ``http.client``: a program starts 0.3 s sooner than with httpx, and no proxy of the
environment stands between it and a node on the same machine. Only a request that reads is sent a second time, when a
kept connection turns out to be closed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 10.0
#: How long an answer may take that waits for no guest.
ANSWER_TIMEOUT_S = 60.0
#: A node's answers are small; what is longer is not a node's.
ANSWER_MAX_BYTES = 256 << 20
#: Connections kept for the next requests, and how long: a node closes idle ones after 75 s.
_IDLE_MAX = 32
_IDLE_S = 30.0
#: When a peer is asked whether it is still there, how often, and how often in vain: a call may be silent for long, and
#: a machine that is gone would never be noticed.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
_BLOCK_BYTES = 64 * 1024
_READING = frozenset({"GET", "HEAD"})

Body = bytes | BinaryIO | None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node is."""

    is_tls: bool
    host: str
    port: int | None
    prefix: str


class UserInUrlError(ValueError):
    """A URL has a user or a password in it."""

    def __init__(self) -> None:
        super().__init__("a token does not belong in the URL")


def split_url(url: str) -> Address:
    """The parts of a node's URL, such as ``http://HOST:PORT``. Raises ValueError, which says what is wrong with it."""
    parts = urlsplit(url)
    port = parts.port
    if parts.username is not None or parts.password is not None:
        raise UserInUrlError
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise ValueError
    return Address(parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/"))


def decode(body: bytes) -> Any:
    """JSON, None for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer of any status."""

    status: int
    body: bytes
    request_id: str | None
    retry_after: str | None = None


class _Connection(http.client.HTTPConnection):
    """A connection, and since when it is idle."""

    idle_since = 0.0

    def connect(self) -> None:
        """Connect, with TLS when the transport has it."""
        super().connect()
        _watch_peer(self.sock)


class _TlsConnection(http.client.HTTPSConnection):
    idle_since = 0.0

    def connect(self) -> None:
        """Connect and shake hands."""
        super().connect()
        _watch_peer(self.sock)


_Any = _Connection | _TlsConnection


def _watch_peer(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Interrupter:
    """Breaks off the requests of one caller from another thread; the node then ends what they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: _Any | None = None
        self.is_asked = False

    def watch(self, connection: _Any | None) -> None:
        """Note the connection that is in use now."""
        with self._lock:
            self._connection = connection
            if connection is not None and self.is_asked:
                _shut(connection)

    def interrupt(self) -> None:
        """Break off."""
        with self._lock:
            self.is_asked = True
            if self._connection is not None:
                _shut(self._connection)


def _shut(connection: _Any) -> None:
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class Transport:
    """Requests to one node as one caller.

    What goes wrong is raised as the errors that the ``*_error`` methods make: subclasses say in whose words.
    """

    def __init__(
        self, url: str, address: Address, tls: ssl.SSLContext | None, token: str | None, tenant: int | None
    ) -> None:
        self.url = url
        self._address = address
        self._tls = tls
        self._headers: dict[str, str] = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        if tenant is not None:
            self._headers["X-TensorWasm-Tenant"] = str(tenant)
        self._lock = threading.Lock()
        self._idle: list[_Any] = []
        self._is_closed = False
        # Not `__del__`: the collector of cycles may come to a socket before it comes to this object, and a socket that
        # nobody has closed warns. The list is the finalizer's, so it is in no cycle.
        weakref.finalize(self, _close_all, self._idle)

    def close(self) -> None:
        """Close idle connections; those in use are closed when their request is through."""
        with self._lock:
            self._is_closed = True
            idle = self._idle.copy()
            self._idle.clear()
        _close_all(idle)

    # --- requests ---------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
        interrupter: Interrupter | None = None,
    ) -> Answer:
        """One request; the answer whatever its status."""
        with self._exchange(method, path, body, headers, timeout_s, interrupter) as response, self._told():
            return self._whole(response)

    def json(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
        interrupter: Interrupter | None = None,
    ) -> dict[str, Any]:
        """The JSON object of an answer that is a success."""
        decoded = decode(self.checked(self.request(method, path, body, headers, timeout_s, interrupter)).body)
        if not isinstance(decoded, dict):
            raise self.stranger_error()
        return decoded

    def json_of(
        self,
        method: str,
        path: str,
        value: Mapping[str, object],
        timeout_s: float | None = ANSWER_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        interrupter: Interrupter | None = None,
    ) -> dict[str, Any]:
        """As :meth:`json`, for a request with a JSON object."""
        headers = {"Content-Type": "application/json"} | dict(headers or {})
        return self.json(method, path, self.encoded(value), headers, timeout_s, interrupter)

    @staticmethod
    def encoded(value: Mapping[str, object]) -> bytes:
        """A request's JSON object."""
        return json.dumps(value, allow_nan=False).encode()

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
        interrupter: Interrupter | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """The body of a success, in pieces as they come; the iterator raises when the answer is cut short.

        ``timeout_s`` is how long nothing may come.
        """
        with self._exchange(method, path, body, headers, timeout_s, interrupter) as response:
            if not 200 <= response.status < 300:
                with self._told():
                    answer = self._whole(response)
                self.checked(answer)
            if not response.chunked and response.length is None:
                raise self.stranger_error()  # whether such an answer is whole cannot be told
            yield self._pieces(response)

    def checked(self, answer: Answer) -> Answer:
        """The answer, when it is a success."""
        if 200 <= answer.status < 300:
            return answer
        raise self.told_error(decode(answer.body), answer.status, answer.request_id, answer.retry_after)

    def items(self, answer: Mapping[str, object], name: str) -> list[dict[str, Any]]:
        """A list of objects in an answer."""
        items = answer.get(name)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self.stranger_error()
        return items

    def told_error(
        self, decoded: object, status: int = 500, request_id: str | None = None, retry_after: str | None = None
    ) -> Exception:
        """The error that a node's ``{"error": …}`` tells."""
        error = decoded.get("error") if isinstance(decoded, dict) else None
        if not isinstance(error, dict):
            return self.stranger_error()
        kind, message = str(error.get("kind", "unknown")), str(error.get("message", ""))
        found = error.get("request_id", request_id)
        return self.refusal_error(status, kind, message, None if found is None else str(found), retry_after)

    # --- in whose words ---------------------------------------------------------------------------------

    def connect_error(self, reason: str) -> Exception:
        """Nobody listens there."""
        raise NotImplementedError

    def tls_error(self, error: ssl.SSLError) -> Exception:
        """No secure connection."""
        raise NotImplementedError

    def broken_error(self, reason: str) -> Exception:
        """The connection broke before the answer was whole."""
        raise NotImplementedError

    def late_error(self) -> Exception:
        """No answer in time."""
        raise NotImplementedError

    def stranger_error(self) -> Exception:
        """What answers is no node."""
        raise NotImplementedError

    def refusal_error(
        self, status: int, kind: str, message: str, request_id: str | None, retry_after: str | None
    ) -> Exception:
        """The node answered with an error."""
        raise NotImplementedError

    # --- connections ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
        interrupter: Interrupter | None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; the beginning of its answer. The connection is kept when the answer was read to its end."""
        connection, response = self._begin(method, path, body, headers, timeout_s, interrupter)
        try:
            yield response
            if response.isclosed() and not response.will_close:
                self._keep(connection)
                connection = None
        finally:
            if interrupter is not None:
                interrupter.watch(None)
            if connection is not None:
                connection.close()

    def _begin(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
        interrupter: Interrupter | None,
    ) -> tuple[_Any | None, http.client.HTTPResponse]:
        all_headers = self._headers | dict(headers or {})
        while True:
            kept = self._take()
            connection = kept or self._connect()
            try:
                if interrupter is not None:
                    interrupter.watch(connection)
                assert connection.sock is not None
                connection.sock.settimeout(timeout_s)
                with self._told():
                    is_sent = False
                    # It may refuse before it has taken all, and then the reason is there to be read.
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                        connection.request(method, self._address.prefix + path, body, all_headers)
                        is_sent = True
                    try:
                        response = connection.getresponse()
                        response.will_close = response.will_close or not is_sent
                        return connection, response
                    except ConnectionError:
                        if kept is None or method not in _READING:
                            raise
            except BaseException:
                connection.close()
                raise
            connection.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A block in which a connection may fail."""
        try:
            yield
        except TimeoutError as error:
            raise self.late_error() from error
        except ssl.SSLError as error:  # in TLS 1.3 a client's certificate is judged only after its handshake
            raise self.tls_error(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self.broken_error(str(error) or type(error).__name__) from error

    def _connect(self) -> _Any:
        address = self._address
        connection: _Any
        if self._tls is not None:
            connection = _TlsConnection(
                address.host, address.port, timeout=CONNECT_TIMEOUT_S, context=self._tls, blocksize=_BLOCK_BYTES
            )
        else:
            connection = _Connection(address.host, address.port, timeout=CONNECT_TIMEOUT_S, blocksize=_BLOCK_BYTES)
        try:
            connection.connect()
        except ssl.SSLError as error:
            connection.close()
            raise self.tls_error(error) from error
        except (OSError, UnicodeError) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self.connect_error(reason) from error
        return connection

    def _take(self) -> _Any | None:
        """An idle connection that still stands."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            sock = connection.sock
            if sock is not None and time.monotonic() - connection.idle_since < _IDLE_S and not _is_readable(sock):
                return connection
            connection.close()

    def _keep(self, connection: _Any | None) -> None:
        if connection is None:
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            if not self._is_closed and len(self._idle) < _IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _whole(self, response: http.client.HTTPResponse) -> Answer:
        content = response.read(ANSWER_MAX_BYTES + 1) if response.length is None else self._exact(response)
        if len(content) > ANSWER_MAX_BYTES:
            raise self.stranger_error()
        headers = response.headers
        return Answer(response.status, content, headers.get("X-Request-Id"), headers.get("Retry-After"))

    def _exact(self, response: http.client.HTTPResponse) -> bytes:
        if response.length is not None and response.length > ANSWER_MAX_BYTES:
            raise self.stranger_error()
        return response.read()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        with self._told():
            while piece := response.read1(_BLOCK_BYTES):
                yield piece
            if response.length:  # read1 says nothing about bytes that never came
                raise http.client.IncompleteRead(b"", response.length)
            response.read()  # what ends a chunked body


def _close_all(connections: list[_Any]) -> None:
    for connection in connections:
        connection.close()


def _is_readable(sock: socket.socket) -> bool:
    """Whether something came on an idle connection: its end, most likely."""
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return True
