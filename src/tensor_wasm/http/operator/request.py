"""Requests to the operator's listener: the head of an HTTP/1.1 request without a body, and the bytes of an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from tensor_wasm.errors import RequestError

HEAD_BYTES_MAX = 16 * 1024
_HEADERS_MAX = 64
_END = b"\r\n\r\n"
_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,2047}) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\t -~\x80-\xff]*)")
#: Headers that decide something: a request that has one of them twice is refused.
_SINGLE = frozenset({b"authorization", b"content-length", b"host", b"origin", b"x-request-id"})
_BODIES = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its method, the path and the query apart, and the headers by their names in lower case."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]


def head_of(received: bytes) -> bytes | None:
    """The head in what was received so far; None while it is not whole. Raises :class:`RequestError` for a long one."""
    end = received.find(_END)
    if end > HEAD_BYTES_MAX or (end < 0 and len(received) > HEAD_BYTES_MAX):
        raise RequestError(f"the request's head is longer than {HEAD_BYTES_MAX} bytes")
    return None if end < 0 else received[:end]


def parse(head: bytes) -> Request:
    """Read a head. Raises :class:`RequestError` for what is no HTTP, and for a request with a body."""
    first, *lines = head.split(b"\r\n")
    found = _LINE.fullmatch(first)
    if found is None:
        raise RequestError("this is no HTTP/1.1 request for a path")
    if len(lines) > _HEADERS_MAX:
        raise RequestError(f"the request has more than {_HEADERS_MAX} headers")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise RequestError("a header of the request cannot be read")
        name = header[1].lower()
        if name in headers and name in _SINGLE:
            raise RequestError(f"the request has more than one {name.decode()} header")
        headers[name] = header[2].rstrip(b" \t")
    if any(name in headers and headers[name] != b"0" for name in _BODIES):
        raise RequestError("no request to this listener has a body")
    path, _, query = found[2].partition(b"?")
    return Request(found[1].decode(), path.decode(), query, headers)


def response(
    status: int, body: bytes, media_type: str, headers: Sequence[tuple[str, str]] = (), *, is_head: bool = False
) -> bytes:
    """The bytes of an answer, after which the connection ends."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {media_type}",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "connection: close",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + _END + (b"" if is_head else body)
