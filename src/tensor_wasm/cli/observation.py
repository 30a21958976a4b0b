"""Where ``observe`` has its document from: the node's API, or the operator's socket when that does not answer."""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from tensor_wasm.api.transport import split_url
from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import Failure, unreachable
from tensor_wasm.sockets import address_of

#: How long the API may take while there is a socket to ask as well, and all of it: with the start of this program, two
#: seconds.
SERVER_S = 0.7
WHOLE_S = 1.4
#: After so long without an answer of the API the socket is asked too.
_HEAD_START_S = 0.3
_ROUTE = "/admin/observe"
_ANSWER_BYTES_MAX = 16 << 20

Document = dict[str, Any]


class _SocketConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with address_of(self._path) as address:
            self.sock.connect(address)


class Source:
    """Gives documents. ``client`` None: the socket alone is asked; ``path`` None: the API alone.

    What was asked and has not answered in time is left to itself, and asked again once it has: a node that hangs is
    not sent one request after another.
    """

    def __init__(self, client: Client | None, path: Path | None) -> None:
        self._api = None if client is None else _Way("the API", lambda: client.observe(WHOLE_S))
        self._socket = None if path is None else _Way("the operator's socket", lambda: _ask_socket(path))

    def document(self) -> Document:
        """The node's state; in ``unread`` also what was asked in vain. Raises :class:`Failure`: nobody answers."""
        began_s = time.monotonic()
        end_s = began_s + WHOLE_S
        turns: list[tuple[_Way, float]] = []
        if self._api is not None and self._socket is not None:
            turns = [(self._api, began_s + _HEAD_START_S), (self._socket, began_s + _HEAD_START_S)]
            turns += [(self._api, began_s + SERVER_S)]
        turns += [(way, end_s) for way in (self._socket, self._api) if way is not None]
        asked: list[_Way] = []
        for way, until_s in turns:
            if way not in asked:
                way.begin()
                asked.append(way)
            document = way.wait(until_s)
            if document is not None:
                unread = document.get("unread")
                in_vain = [one.failure for one in asked if one is not way]
                return document | {"unread": [*in_vain, *(unread if isinstance(unread, list) else [])]}
        raise unreachable("; ".join(way.failure for way in asked))


class _Way:
    """One way to ask. It is waited for only so long, whatever the other side does."""

    def __init__(self, name: str, ask: Callable[[], Document]) -> None:
        self._name = name
        self._ask = ask
        self._answers: SimpleQueue[Document | Exception] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._began_s = 0.0
        self._refusal: str | None = None

    @property
    def failure(self) -> str:
        """Why there is no document."""
        late = f"no answer within {time.monotonic() - self._began_s:.1f} s"
        return f"{self._name}: {self._refusal or late}"

    def begin(self) -> None:
        """Ask, unless the last time has not been answered yet."""
        self._refusal, self._began_s = None, time.monotonic()
        if self._thread is None or not self._thread.is_alive():
            self._answers = SimpleQueue()
            self._thread = threading.Thread(target=self._run, args=(self._answers,), daemon=True)
            self._thread.start()

    def wait(self, until_s: float) -> Document | None:
        """The answer, if it comes until then on the monotonic clock."""
        if self._refusal is not None:
            return None
        try:
            answer = self._answers.get(timeout=max(until_s - time.monotonic(), 0.0))
        except Empty:
            return None
        if isinstance(answer, Exception):
            self._refusal = answer.message if isinstance(answer, Failure) else str(answer) or type(answer).__name__
            return None
        return answer

    def _run(self, answers: SimpleQueue[Document | Exception]) -> None:
        try:
            answers.put(self._ask())
        except Exception as error:
            answers.put(error)


def _ask_socket(path: Path) -> Document:
    connection = _SocketConnection(path, WHOLE_S)
    try:
        connection.request("GET", _ROUTE)
        response = connection.getresponse()
        body = response.read(_ANSWER_BYTES_MAX)
    except OSError as error:
        raise unreachable(f"{path}: {error.strerror or error}") from error
    finally:
        connection.close()
    document = json.loads(body)
    if response.status != http.client.OK or not isinstance(document, dict):
        raise unreachable(f"{path}: what answers there is not a TensorWasm node")
    return document


def is_local(server: str) -> bool:
    """Whether a server's URL names this machine: only then is the socket of a home that node's."""
    try:
        host = split_url(server).host
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
