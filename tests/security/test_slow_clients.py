"""Clients that take their time, or never come back: each costs a connection, for a bounded time."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from security.attacked import MIB, Attacked, reset
from serving import running
from tensor_wasm.http import body, protocol, server

_SLOW = 100


@contextlib.contextmanager
def connections(node: Attacked, count: int):
    opened = [socket.create_connection(node.address, timeout=5) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            reset(connection)


def test_heads_that_trickle(node: Attacked):
    """Bound: a connection costs no thread; a head has 10 seconds from its first byte, and nobody waits for it."""
    threads = node.threads
    with connections(node, _SLOW) as opened:
        for letter in b"GET /":
            for connection in opened:
                connection.sendall(bytes((letter,)))
            assert node.ask("GET", "/healthz").status == 200
        assert node.threads <= threads + 2


def test_bodies_that_trickle(node: Attacked, function: str):
    """Bound: a body may pause for 10 seconds and must come at 64 KiB a second; meanwhile it holds no worker."""
    head = f"POST /functions/{function}/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n".encode()
    with connections(node, _SLOW) as opened:
        for connection in opened:
            connection.sendall(head + b"{")
        for _ in range(5):
            for connection in opened:
                connection.sendall(b" ")
            assert node.invoke(function, "nothing").status == 200


def test_connections_that_say_nothing(node: Attacked):
    """Bound: an idle connection is a file descriptor, closed after 10 seconds; it slows nobody."""
    with connections(node, _SLOW):
        assert node.ask("GET", "/healthz").status == 200


def test_requests_whose_clients_go_away(node: Attacked, function: str):
    """Bound: an invocation whose client is gone is ended soon, long before its deadline; nothing of it stays."""
    request = b'{"export":"spin"}'
    head = f"POST /functions/{function}/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(request)}\r\n"
    for _ in range(3):
        with connections(node, 40) as opened:
            for connection in opened:
                connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + request)
            time.sleep(0.2)
    until = time.monotonic() + 3
    while node.metric("tensor_wasm_active_instances") and time.monotonic() < until:
        time.sleep(0.05)
    assert node.metric("tensor_wasm_active_instances") == 0


@pytest.mark.slow
def test_a_pipeline_without_end(node: Attacked):
    """Bound: requests that are sent without reading the answers wait in the kernel's buffers, not in the node's."""
    before = node.resident_bytes
    request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connections(node, 3) as opened:
        for connection in opened:
            connection.settimeout(0.3)
            with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
                for _ in range(150):
                    connection.sendall(request * 1000)
        grown = node.resident_bytes - before
    node.settle(node.descriptors)
    node.worst()
    assert grown < 64 * MIB


def test_a_trickle_is_given_up(tmp_path, monkeypatch):
    """Bound: with the times made short: a head, a body and an idle connection are each closed when theirs is over."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    monkeypatch.setattr(body, "PAUSE_S", 0.2)
    with running(tmp_path / "home") as served:
        started = time.monotonic()
        assert served.raw(b"GET /healthz HT") == b""
        head = b"POST /functions/x/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{"
        assert served.raw(head).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 3


@pytest.mark.slow
def test_answers_that_are_never_read(tmp_path, monkeypatch):
    """Bound: an answer that nobody reads is held for the time of an idle connection at most, then dropped."""
    monkeypatch.setattr(server, "_KEEP_ALIVE_S", 0.5)
    monkeypatch.setattr(protocol, "UNREAD_S", 0.5, raising=False)
    with running(tmp_path / "home") as served:
        served.node.invocations.output = (b"x" * (24 * MIB), b"", 0)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((served.host, served.port))
        connection.sendall(b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        time.sleep(3.0)
        connection.settimeout(5)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while received < 24 * MIB and (piece := connection.recv(1 << 20)):
                received += len(piece)
        connection.close()
        assert received < 24 * MIB, "the node kept the whole answer"
