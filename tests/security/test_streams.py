"""Streams against a node: readers that do not read, guests that do not stop, chunks that would be something else."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest

from administered import Administered, administered
from security.attacked import MIB, Attacked, reset
from security.guests import streamer
from tensor_wasm.http import app, protocol

CHUNK = 65_536
#: A promise of 100 ms; what is much longer cannot be blamed on a machine that has too much to do.
_TERMINATION_MS = 1000


@pytest.fixture(scope="session")
def streams(served: Attacked, before: dict[str, int]) -> str:
    """The guest that streams, deployed."""
    return served.deploy(streamer())


@contextlib.contextmanager
def not_reading(address: tuple[str, int], path: str, request: object, count: int, token: str = "") -> Iterator[None]:
    """Connections that have asked for a stream and read nothing of it."""
    body = json.dumps(request).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    opened = []
    try:
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(address)
            opened.append(connection)
            connection.sendall(head.encode() + b"\r\n" + body)
        yield
    finally:
        for connection in opened:
            reset(connection)


def wait_for(is_so, seconds: float = 20.0):
    until = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def test_ending_a_guest_that_writes_to_a_reader_that_does_not_read(node: Attacked, streams: str):
    """Bound: whoever waits for room in a stream sees an order at once; memory and permits are back, readers or not."""
    path = f"/functions/{streams}/invoke-stream"
    with not_reading(node.address, path, {"export": "pour", "args": [CHUNK]}, 3):
        live = wait_for(lambda: [*node.ask("GET", "/admin/instances").json["instances"]][2:])
        time.sleep(0.2)
        for instance in node.ask("GET", "/admin/instances").json["instances"]:
            answer = node.ask("POST", f"/admin/instances/{instance['id']}/terminate").json
            assert answer["ended"]
            assert answer["took_ms"] < _TERMINATION_MS
        assert live
        for name in ("active_instances", "dispatch_permits_used", "guest_memory_bytes"):
            assert node.metric(f"tensor_wasm_{name}") == 0, name


def test_a_guest_that_floods_chunks(node: Attacked, streams: str):
    """Bound: 32 chunks of 64 KiB wait, then the guest does; it holds one thread, until its deadline."""
    before = node.resident_bytes
    path = f"/functions/{streams}/invoke-stream"
    with not_reading(node.address, path, {"export": "pour", "args": [CHUNK], "deadline_ms": 1500}, 4):
        wait_for(lambda: node.metric("tensor_wasm_active_instances"))
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert node.resident_bytes < before + 64 * MIB
            time.sleep(0.05)
    body = json.dumps({"export": "pour", "args": [1], "deadline_ms": 1500}).encode()
    answer = node.ask("POST", path, body, Content_Type="application/json")
    assert answer.body.endswith(b"\n\n")
    assert answer.body.count(b"event: error") == 1
    assert node.resident_bytes < before + 128 * MIB


def test_empty_chunks(node: Attacked, streams: str):
    """Bound: an empty chunk is none of HTTP's, which would be the stream's end; without end it meets the deadline."""
    path = f"/functions/{streams}/invoke-stream"
    whole = {"Content_Type": "application/json", "Accept": "application/octet-stream"}
    request = json.dumps({"export": "emit", "args": [1000, 0]}).encode()
    assert (node.ask("POST", path, request, **whole).status, node.ask("POST", path, request, **whole).body) == (
        200,
        b"",
    )
    request = json.dumps({"export": "pour", "args": [0], "deadline_ms": 500}).encode()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        node.ask("POST", path, request, **whole)


def test_chunks_that_would_forge_events(node: Attacked, streams: str):
    """Bound: what a guest emits is base64 in its event: it ends no event and begins none."""
    forged = b'"}\n\nevent: done\ndata: {"result":[1]}\n\nevent: error\r\rdata: {}\n\n'
    request = {"export": "say", "input_b64": base64.b64encode(forged).decode()}
    body = json.dumps(request).encode()
    answer = node.ask("POST", f"/functions/{streams}/invoke-stream", body, Content_Type="application/json")
    names = [line for line in answer.body.decode().splitlines() if line.startswith("event:")]
    assert names == ["event: chunk", "event: done"]
    assert base64.b64encode(forged) in answer.body


@pytest.fixture
def server(tmp_path) -> Iterator[Administered]:
    with administered(tmp_path) as server:
        yield server


def test_a_guest_that_ignores_that_its_client_is_gone(server: Administered):
    """Bound: told so by -3, it has a second to end; then it is ended, long before its deadline of 30 s."""
    identity = server.deploy(wasm=streamer())
    path = f"/functions/{identity}/invoke-stream"
    with not_reading((server.host, server.port), path, {"export": "pour", "args": [CHUNK]}, 3, "one"):
        wait_for(lambda: len(server.instances()) == 3)
    began = time.monotonic()
    wait_for(lambda: not server.instances())
    assert time.monotonic() - began < 20


def test_readers_that_stop_reading(server: Administered, monkeypatch):
    """Bound: with the time made short: who reads nothing for it is cut off, and the guest goes, before its deadline."""
    monkeypatch.setattr(protocol, "UNREAD_S", 0.3)
    monkeypatch.setattr(app, "_UNREAD_S", 0.3)
    identity = server.deploy(wasm=streamer())
    path = f"/functions/{identity}/invoke-stream"
    with not_reading((server.host, server.port), path, {"export": "pour", "args": [CHUNK]}, 3, "one"):
        wait_for(server.instances)
        wait_for(lambda: not server.instances())
