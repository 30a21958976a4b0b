"""Tricks with paths, headers and framing: a request means one thing or is refused, and never more than it says."""

from __future__ import annotations

import json
import socket

import pytest

from security.attacked import Attacked
from security.conftest import TOKENS, bearer

_HEAD = b"Host: 127.0.0.1\r\nConnection: close\r\n"


def _status(received: bytes) -> int:
    assert received.startswith(b"HTTP/1.1 "), received[:200]
    return int(received[9:12])


def _get(node: Attacked, target: bytes, more: bytes = b"") -> tuple[int, bytes]:
    received = node.raw(b"GET " + target + b" HTTP/1.1\r\n" + _HEAD + more + b"\r\n")
    return _status(received), received


_PATHS = [
        b"/functions/..%2fmetrics", b"/functions/%2e%2e/metrics", b"/functions/../../etc/passwd", b"//metrics",
        b"/functions//", b"/./metrics", b"/functions/%00", b"/functions/a%2Fb", b"/functions/%252e%252e",
        b"/functions/..;/metrics", b"/functions/%c0%ae%c0%ae/", b"/functions/%ff", b"/functions/\\..\\metrics",
        b"/METRICS", b"/metrics/", b"/metrics%20", b"/metrics;a=b", b"/functions/%0d%0aX-Evil:%201",
    ]  # fmt: skip


def test_paths_that_lead_elsewhere(node: Attacked):
    """Bound: paths are compared, never walked: no file is reached, and no route but under its own name."""
    for target in _PATHS:
        status, received = _get(node, target)
        assert status in (400, 404, 405), received[:300]
        assert b"root:" not in received
        assert b"X-Evil" not in received.partition(b"\r\n\r\n")[0]


def test_absolute_and_odd_targets(node: Attacked):
    """Bound: a target in absolute form is its path on this node, whatever host it names; others are refused."""
    for target in (b"http://evil.example/metrics", b"http://127.0.0.1@evil.example/healthz", b"*", b"evil.example:443"):
        status, received = _get(node, target)
        assert status in (200, 400, 404, 405, 421), received[:300]
    # Host decides on an open node, not the target: a page of another site still gets nothing.
    received = node.raw(b"GET http://127.0.0.1/functions HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert _status(received) == 421


def test_overlong_paths(node: Attacked):
    """Bound: a head has 64 KiB; a path below that which is no route is a short 404."""
    status, received = _get(node, b"/" + b"a" * 60_000)
    assert status == 404
    assert len(received) < 1000
    received = node.raw(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + _HEAD + b"\r\n")
    assert received == b"" or _status(received) == 400


def test_a_great_many_headers(node: Attacked):
    """Bound: a head has 64 KiB: thousands of headers in that are read, more are refused; nothing else waits."""
    status, _ = _get(node, b"/healthz", b"".join(b"a%d:b\r\n" % n for n in range(6_000)))
    assert status == 200
    received = node.raw(b"GET /healthz HTTP/1.1\r\n" + _HEAD + b"a:b\r\n" * 100_000 + b"\r\n")
    assert received == b"" or _status(received) == 400


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3, 4\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length : 3\r\n",
    ],
)
def test_smuggling_by_two_lengths(node: Attacked, head: bytes):
    """Bound: a body whose length can be read in two ways is refused, and the connection with it: nothing follows."""
    hidden = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    data = b"POST /functions?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n0\r\n\r\n" + hidden
    with socket.create_connection(node.address, timeout=5) as connection:
        connection.sendall(data)
        connection.settimeout(0.3)
        received = b""
        try:
            while piece := connection.recv(65_536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    assert b'"openapi"' not in received
    assert received.count(b"HTTP/1.1 ") <= 1


def test_chunks_with_extensions_and_trailers(node: Attacked, function: str):
    """Bound: extensions and trailers of chunks change nothing, and what does not end is cut at 64 KiB."""
    start = f"POST /functions/{function}/invoke HTTP/1.1\r\n".encode() + _HEAD
    start += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    good = b'14;name="\\"evil";x\r\n{"export":"nothing"}\r\n0\r\nX-Evil: 7\r\n\r\n'
    assert _status(node.raw(start + good)) == 200
    endless = (b"1;" + b"x" * 300_000, b"0\r\n" + b"a: b\r\n" * 50_000, b"0" * 300_000)
    for tail in endless:
        received = node.raw(start + tail)
        assert received == b"" or _status(received) == 400


def test_a_trailer_does_not_act_for_a_header(tenants: Attacked):
    """Bound: who calls, and for whom, is decided by the head: a token in a trailer is none."""
    head = b"GET /functions HTTP/1.1\r\n" + _HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    received = tenants.raw(head + f"Authorization: Bearer {TOKENS[1]}\r\n\r\n".encode())
    assert _status(received) == 401


_LINES = [
        b"X-Evil: a\0b", b"X-Evil\0: a", b"X Evil: a", b"X-Evil: a\rb", b": empty", b"X-\xff: a", b"no colon",
        b" folded: a", b"X-Evil: a\n b",
    ]  # fmt: skip


def test_headers_that_are_none(node: Attacked):
    """Bound: a NUL, a bare CR, a folded line or a broken name is refused, or stays inside its own value."""
    for line in _LINES:
        status, received = _get(node, b"/functions", line + b"\r\n")
        assert status in (200, 400)
        assert b"X-Evil" not in received


_CASES = ["X-TensorWasm-Tenant", "x-tensorwasm-tenant", "X-TENSORWASM-TENANT"]  # fmt: skip


def test_a_header_of_another_case(tenants: Attacked):
    """Bound: the tenant's header is found whatever its letters' case: it is no way around a token's scope."""
    for name in _CASES:
        assert tenants.ask("GET", "/functions", **bearer(1), **{name.replace("-", "_"): "2"}).kind == "forbidden"


_ODD_TENANTS = [
    "+1", "-1", " ", "1 ", "1\t", "0x1", "1.0", "1e0", "1_0", "", "1,2", "18446744073709551616", "1;2", "*", "9" * 5000,
    "\u0661".encode().decode("latin-1"), "\xb2", "\xbd",
]  # fmt: skip


def test_a_tenant_in_odd_digits(tenants: Attacked):
    """Bound: a tenant is a plain decimal number of 64 bits; nothing else is read as one, nor as somebody else's."""
    for text in _ODD_TENANTS:
        answer = tenants.ask("GET", "/functions", **bearer(1), X_TensorWasm_Tenant=text)
        if text.strip(" \t") == "1" and answer.status == 200:
            continue  # HTTP takes blanks off a value's ends
        assert (answer.status, answer.kind) == (400, "invalid_tenant"), text


@pytest.mark.parametrize("names", [("Authorization", "authorization"), ("X-TensorWasm-Tenant", "x-tensorwasm-tenant")])
def test_headers_that_come_twice(tenants: Attacked, names: tuple[str, str]):
    """Bound: a header that decides may come once: which of two was meant cannot be known."""
    values = {"Authorization": (f"Bearer {TOKENS[1]}", f"Bearer {TOKENS[2]}"), "X-TensorWasm-Tenant": ("1", "2")}
    more = b"".join(f"{n}: {v}\r\n".encode() for n, v in zip(names, values[names[0]], strict=True))
    if names[0] != "Authorization":
        more += f"Authorization: Bearer {TOKENS[1]}\r\n".encode()
    received = tenants.raw(b"GET /functions HTTP/1.1\r\n" + _HEAD + more + b"\r\n")
    assert _status(received) == 400


def test_request_ids_that_would_forge_an_answer(node: Attacked):
    """Bound: a client's request id comes back only when it is plain; it can put no line into an answer or a log."""
    for text in ("a b", "a" * 65, "<script>", "a\tb", "\xe9", '"}'):
        answer = node.ask("GET", "/nowhere", X_Request_Id=text)
        assert answer.headers["x-request-id"] != text
        assert json.loads(answer.body)["error"]["request_id"] == answer.headers["x-request-id"]
