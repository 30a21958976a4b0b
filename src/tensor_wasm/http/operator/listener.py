"""The operator's listener: a Unix socket in the home and, if that is set, a TCP address. One thread serves both.

It needs nothing of the event loop. It is attacked like any other: connections, their requests and their time are
bounded, and where there are too many, the one that came first goes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import ssl
import stat
import threading
import time
from pathlib import Path

from tensor_wasm.config import Config, split_address
from tensor_wasm.errors import ConfigurationError
from tensor_wasm.http.operator.answers import Answers, Caller
from tensor_wasm.http.operator.connection import Connection
from tensor_wasm.http.tls import Tls
from tensor_wasm.sockets import OPERATOR_SOCKET, address_of

_log = logging.getLogger("tensor_wasm.http")

#: Connections at once, of the socket and of the address each.
CONNECTIONS_MAX = 16
_BACKLOG = 16
#: Pause after the system could not give a connection: no more open files, no memory.
_PAUSE_S = 0.2
_IDLE_S = 60.0


class _Door:
    """A listening socket, and the connections that came in by it, oldest first."""

    def __init__(self, listener: socket.socket, tls: Tls | None, *, is_operators: bool) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.tls = tls
        self.is_operators = is_operators
        self.connections: dict[Connection, None] = {}
        self.closed_until_s: float | None = None


class OperatorListener:
    """Listens from :meth:`start` to :meth:`close`.

    Raises :class:`ConfigurationError` when the TCP address cannot be had. A socket that cannot be made is logged: a
    node is not to stay down for want of it.
    """

    def __init__(self, config: Config, answers: Answers, tls: Tls | None) -> None:
        self._answers = answers
        self._path = config.home / OPERATOR_SOCKET
        self._address = config.operator_addr
        self._tls = tls
        self._doors: list[_Door] = []
        self._identity: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._is_ending = False

    @property
    def tcp_address(self) -> tuple[str, int] | None:
        """Host and port of the TCP address, once it listens; None without one."""
        for door in self._doors:
            if not door.is_operators:
                host, port = door.listener.getsockname()[:2]
                return host, port
        return None

    def start(self) -> None:
        """Listen, and begin to answer."""
        if self._address is not None:
            self._doors.append(_Door(_listen(self._address), self._tls, is_operators=False))
        try:
            self._doors.append(_Door(self._open_socket(), None, is_operators=True))
        except OSError as error:
            _log.warning(
                "there is no operator's socket: %s: %s; `tensor-wasm observe` needs the event loop then",
                self._path,
                error.strerror or error,
            )
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        for door in self._doors:
            self._selector.register(door.listener, selectors.EVENT_READ, door)
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()
        address = self.tcp_address
        if address is not None:
            _log.info("the operator's listener is at %s port %d%s", *address, " with TLS" if self._tls else "")

    def close(self) -> None:
        """End every connection, and take the socket out of the home. Safe to call twice."""
        self._is_ending = True
        if self._thread is not None:
            self._wake.send(b"\0")
            self._thread.join()
            self._thread = None
        for door in self._doors:
            for connection in list(door.connections):
                self._end(door, connection)
            door.listener.close()
        if self._identity is not None:
            with contextlib.suppress(OSError):
                if _identity_of(self._path) == self._identity:
                    self._path.unlink()
            self._identity = None
        self._doors.clear()
        self._selector.close()
        self._woken.close()
        self._wake.close()
        self._answers.close()

    def _open_socket(self) -> socket.socket:
        """The socket in the home, in the place of one that a node left which was killed: the home is ours alone."""
        if self._path.is_symlink() or (self._path.exists() and not stat.S_ISSOCK(self._path.lstat().st_mode)):
            raise FileExistsError(errno.EEXIST, "something else has its name: move it away", str(self._path))
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address_of(self._path) as address:
                listener.bind(address)
            # Nobody can connect before it listens.
            self._path.chmod(0o600)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._identity = _identity_of(self._path)
        return listener

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_ending:
            try:
                self._turn()
            except Exception:  # whatever it is, it must not end the one thread
                _log.exception("the operator's listener stumbled")
                time.sleep(_PAUSE_S)

    def _turn(self) -> None:
        """Wait for something to happen, and do what is to be done then."""
        for key, _ in self._selector.select(self._patience_s()):
            if isinstance(key.data, _Door):
                self._accept(key.data)
            elif key.data is not None:
                self._go_on(*key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(64)
        now_s = time.monotonic()
        for door in self._doors:
            if door.closed_until_s is not None and now_s >= door.closed_until_s:
                door.closed_until_s = None
                self._selector.register(door.listener, selectors.EVENT_READ, door)
            for connection in [one for one in door.connections if now_s >= one.until_s]:
                self._end(door, connection)

    def _patience_s(self) -> float:
        moments = [one.until_s for door in self._doors for one in door.connections]
        moments += [door.closed_until_s for door in self._doors if door.closed_until_s is not None]
        return max(min(moments, default=time.monotonic() + _IDLE_S) - time.monotonic(), 0.0)

    def _accept(self, door: _Door) -> None:
        try:
            connected, address = door.listener.accept()
        except (BlockingIOError, ConnectionError):  # it ended while it waited
            return
        except OSError as error:
            _log.error("the operator's listener takes no connections for a moment: %s", error)
            self._selector.unregister(door.listener)
            door.closed_until_s = time.monotonic() + _PAUSE_S
            return
        if len(door.connections) >= CONNECTIONS_MAX:
            self._end(door, next(iter(door.connections)))
        caller = Caller(None if door.is_operators else address[0], door.is_operators)
        try:
            connected.setblocking(False)
            if door.tls is not None:
                connected = door.tls.context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            connected.close()
            return
        connection = Connection(connected, caller, self._answers)
        door.connections[connection] = None
        self._selector.register(connected, connection.interest, (door, connection))

    def _go_on(self, door: _Door, connection: Connection) -> None:
        if connection not in door.connections:  # it made room for another in this very turn
            return
        try:
            is_over = connection.go_on()
        except (OSError, ssl.SSLError, ValueError):
            is_over = True
        if is_over:
            self._end(door, connection)
        else:
            self._selector.modify(connection.socket, connection.interest, (door, connection))

    def _end(self, door: _Door, connection: Connection) -> None:
        del door.connections[connection]
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)
        connection.socket.close()


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        return socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]
        raise ConfigurationError(
            f"TENSOR_WASM_OPERATOR_ADDR={address}: {reason}; choose another address or port"
        ) from error


def _identity_of(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
