"""A client of the node: requests over one connection that is kept, and tokens that an operator makes and revokes."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

#: Longer than any answer may take.
_TIMEOUT_S = 60.0
OK = "ok"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or that there was none: ``outcome`` is "ok", an error's kind, or "no answer"."""

    status: int
    body: bytes
    outcome: str
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        """An invocation's values; None where there are none."""
        return self.json.get("result") if self.outcome == OK else None

    def __str__(self) -> str:
        return f"{self.status} {self.outcome} after {self.took_s:.3f} s: {self.body[:300]!r}"


class Client:
    """Requests one after another. For one thread."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self,
        method: str,
        path: str,
        token: str,
        body: bytes | None = None,
        media_type: str = "application/json",
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        """``more`` are further headers."""
        headers = {"Content-Type": media_type, "Authorization": f"Bearer {token}"} | dict(more or {})
        began = time.perf_counter()
        try:
            status, data = self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, repr(error).encode(), "no answer", time.perf_counter() - began)
        took_s = time.perf_counter() - began
        outcome = OK if status < 300 else str(json.loads(data)["error"]["kind"])
        return Answer(status, data, outcome, took_s)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        is_kept = self._connection is not None
        try:
            return self._once(method, path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # A connection that lay idle may be closed at any time; a new one may not.
            self.close()
            if not is_kept:
                raise
            return self._once(method, path, body, headers)
        except BaseException:
            self.close()
            raise

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_S)
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def invocation(
    export: str | None, args: Sequence[object] = (), data: bytes = b"", deadline_ms: int | None = None
) -> bytes:
    """The body of an invocation."""
    value: dict[str, object] = {"args": list(args)}
    if export is not None:
        value["export"] = export
    if data:
        value["input_b64"] = base64.b64encode(data).decode()
    if deadline_ms is not None:
        value["deadline_ms"] = deadline_ms
    return json.dumps(value).encode()


def request(method: str, path: str, token: str, body: bytes = b"", length: int | None = None) -> bytes:
    """A request as bytes; ``length`` where it is to be a lie."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def end(connection: socket.socket, random: Random) -> None:
    """Close a connection, in order or as one that broke."""
    if random.random() < 0.5:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- tokens -------------------------------------------------------------------------------------------------


class Token:
    """A token, and when it was valid: times of ``time.monotonic``, 0 where it has not come to that."""

    __slots__ = ("id", "revoked_s", "revoking_s", "secret")

    def __init__(self, secret: str, identity: str = "") -> None:
        self.secret = secret
        self.id = identity
        self.revoking_s = 0.0
        self.revoked_s = 0.0

    def may_be_refused(self) -> bool:
        """Whether an answer that has just come may say that the token is unknown."""
        return self.revoking_s > 0

    def must_be_refused(self, asked_s: float) -> bool:
        """Whether a request that began at ``asked_s`` has to be refused."""
        return 0 < self.revoked_s < asked_s


class Wallet:
    """The tokens of one tenant: one that stays, and those that an operator makes and revokes meanwhile."""

    def __init__(self, tenant: int, settings_token: str) -> None:
        self.tenant = tenant
        self.settings = Token(settings_token)
        self._lock = threading.Lock()
        self._made: list[Token] = []
        self._spent: Token | None = None

    @property
    def size(self) -> int:
        """Tokens that an operator made."""
        return len(self._made)

    def add(self, token: Token) -> None:
        with self._lock:
            self._made.append(token)

    def take_oldest(self) -> Token | None:
        """The oldest token that was made, for its end; clients go on to have it until it is :meth:`spent`."""
        with self._lock:
            waiting = [token for token in self._made if not token.revoking_s]
            if not waiting:
                return None
            waiting[0].revoking_s = time.monotonic()
            return waiting[0]

    def spent(self, token: Token) -> None:
        """A token is revoked; now and then somebody tries it still."""
        token.revoked_s = time.monotonic()
        with self._lock:
            self._made.remove(token)
            self._spent = token

    def pick(self, random: Random) -> Token:
        with self._lock:
            if self._spent is not None and random.random() < 0.02:
                return self._spent
            return random.choice([self.settings, *self._made])
