"""Streams through a real server: both forms, back-pressure, and that a cut one is never taken for a whole one."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import time

import pytest

from administered import administered
from tensor_wasm.abi import TENSOR_MODULE
from tensor_wasm.wasm import Module, ValType

I32 = ValType.I32
CHUNK = 65_536


def emitter() -> bytes:
    """``emit(count, bytes)`` emits so many chunks and gives the last code; ``echo`` the input, whole; ``fail(count,
    bytes)`` traps after so many.
    """
    module = Module()
    send = module.import_function(TENSOR_MODULE, "emit-chunk", [I32, I32], [I32])
    flush = module.import_function(TENSOR_MODULE, "flush", [], [I32])
    length = module.import_function(TENSOR_MODULE, "input-len", [], [I32])
    read = module.import_function(TENSOR_MODULE, "read-input", [I32, I32], [I32])
    module.memory(3, export="memory")
    module.data(bytes(range(256)) * 256, 0)
    for name, traps in (("emit", False), ("fail", True)):
        function = module.function([I32, I32], [I32], export=name)
        count, size = function.parameters
        body = function.code
        code = body.local(I32)
        with body.block() as done, body.loop() as again:
            body.get(count)
            body.op("i32.eqz")
            body.br_if(done)
            body.i32_const(0)
            body.get(size)
            body.call(send)
            body.tee(code)
            body.br_if(done)
            body.get(count)
            body.i32_const(1)
            body.op("i32.sub")
            body.set(count)
            body.br(again)
        if traps:
            body.op("unreachable")
        else:
            body.get(code)
    echo = module.function([], [I32], export="echo").code
    echo.i32_const(CHUNK)
    echo.call(length)
    echo.call(read)
    echo.op("drop")
    echo.i32_const(CHUNK)
    echo.call(length)
    echo.call(send)
    echo.op("drop")
    echo.call(flush)
    return module.encode().wasm


@pytest.fixture
def server(tmp_path):
    with administered(tmp_path) as server:
        yield server


@contextlib.contextmanager
def streaming(server, identity, request, accept, who="one"):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {who}", "Accept": accept}
    try:
        connection.request("POST", f"/functions/{identity}/invoke-stream", json.dumps(request), headers)
        yield connection.getresponse()
    finally:
        connection.close()


def events(text):
    """Server-Sent Events as (name, JSON), read as a browser does."""
    assert text.endswith("\n\n")
    for record in text[:-2].split("\n\n"):
        fields = dict(line.split(": ", 1) for line in record.split("\n"))
        assert fields.keys() == {"event", "data"}
        yield fields["event"], json.loads(fields["data"])


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_events_carry_chunks_then_the_result(server):
    identity = server.deploy(wasm=emitter())
    with streaming(server, identity, {"export": "emit", "args": [3, 300]}, "text/event-stream") as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        *chunks, (name, done) = events(answer.read().decode())
    assert [kind for kind, _ in chunks] == ["chunk"] * 3
    expected = (bytes(range(256)) * 2)[:300]
    assert [base64.b64decode(data["chunk_b64"]) for _, data in chunks] == [expected] * 3
    assert name == "done"
    assert done["result"] == [0]


def test_bytes_alone_are_exact_and_whole(server):
    identity = server.deploy(wasm=emitter())
    data = bytes(range(256)) * 40 + b"\r\n\r\n0\r\n\r\n\0"
    request = {"export": "echo", "input_b64": base64.b64encode(data).decode()}
    with streaming(server, identity, request, "application/octet-stream") as answer:
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.read() == data
    with streaming(server, identity, {"export": "emit", "args": [500, CHUNK]}, "application/octet-stream") as answer:
        assert answer.read() == bytes(range(256)) * 256 * 500


def test_an_invocation_that_fails_before_its_first_chunk_is_an_error_like_any_other(server):
    identity = server.deploy(wasm=emitter())
    for accept in ("text/event-stream", "application/octet-stream"):
        with streaming(server, identity, {"export": "fail", "args": [0, 1]}, accept) as answer:
            assert (answer.status, json.loads(answer.read())["error"]["kind"]) == (500, "trap")
        with streaming(server, identity, {"export": "nowhere"}, accept) as answer:
            assert (answer.status, json.loads(answer.read())["error"]["kind"]) == (400, "missing_export")


def test_a_failure_after_chunks_is_an_event_or_a_cut_connection(server):
    identity = server.deploy(wasm=emitter())
    with streaming(server, identity, {"export": "fail", "args": [2, 5]}, "text/event-stream") as answer:
        found = list(events(answer.read().decode()))
    assert [name for name, _ in found] == ["chunk", "chunk", "error"]
    assert found[-1][1]["error"]["kind"] == "trap"
    with streaming(server, identity, {"export": "fail", "args": [2, 5]}, "application/octet-stream") as answer:
        assert answer.status == 200
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()


def test_bytes_alone_need_chunked_encoding(server):
    identity = server.deploy(wasm=emitter())
    body = b'{"export":"emit","args":[1,1]}'
    head = (
        f"POST /functions/{identity}/invoke-stream HTTP/1.0\r\nHost: {server.host}\r\nAuthorization: Bearer one\r\n"
        f"Accept: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert server.raw(head.encode() + body).startswith(b"HTTP/1.1 400")


def test_nothing_to_emit_is_an_empty_whole_stream(server):
    identity = server.deploy(wasm=emitter())
    with streaming(server, identity, {"export": "emit", "args": [0, 0]}, "application/octet-stream") as answer:
        assert (answer.status, answer.read()) == (200, b"")


def test_limits_of_a_stream_and_a_plain_invocation_has_none(server):
    identity = server.deploy(wasm=emitter())
    with streaming(server, identity, {"export": "emit", "args": [1, CHUNK + 1]}, "text/event-stream") as answer:
        assert list(events(answer.read().decode()))[-1][1]["result"] == [-2]
    with streaming(server, identity, {"export": "emit", "args": [2000, CHUNK]}, "application/octet-stream") as answer:
        assert len(answer.read()) == 64 << 20
    answer = server.call("POST", f"/functions/{identity}/invoke", {"export": "emit", "args": [1, 1]}, who="one")
    assert answer.json["result"] == [-1]


def read_slowly(server, identity, request):
    """A connection that has asked for a stream and reads nothing more of it than its head."""
    body = json.dumps(request).encode()
    connection = socket.create_connection((server.host, server.port), timeout=30)
    connection.sendall(
        f"POST /functions/{identity}/invoke-stream HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Bearer one\r\n"
        f"Accept: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def live(server):
    return server.call("GET", "/admin/instances").json["instances"]


def test_a_guest_waits_for_a_slow_client_and_goes_when_that_leaves(server):
    identity = server.deploy(wasm=emitter())
    with read_slowly(server, identity, {"export": "emit", "args": [1000, CHUNK]}):
        time.sleep(0.2)
        (waiting,) = live(server)
        assert waiting["memory_bytes"] == 3 << 16
    until(lambda: not live(server))


def test_a_guest_that_writes_to_a_slow_client_can_be_terminated(server):
    identity = server.deploy(wasm=emitter())
    with read_slowly(server, identity, {"export": "emit", "args": [1000, CHUNK]}) as connection:
        time.sleep(0.2)
        (waiting,) = live(server)
        answer = server.call("POST", f"/admin/instances/{waiting['id']}/terminate")
        assert answer.json["ended"]
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received += piece
        assert not received.endswith(b"0\r\n\r\n"), "a cut stream is not a whole one"


def test_a_deadline_ends_a_stream(server):
    identity = server.deploy(wasm=emitter())
    request = {"export": "emit", "args": [1000, CHUNK], "deadline_ms": 300}
    with read_slowly(server, identity, request):
        until(lambda: not live(server))


def test_kept_instances_stream_too(server):
    identity = server.deploy(wasm=emitter())
    kept = server.call("POST", "/instances", {"function_id": identity}, who="one").json["id"]
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer one", "Accept": "text/event-stream"}
    connection.request("POST", f"/instances/{kept}/invoke", json.dumps({"export": "emit", "args": [2, 3]}), headers)
    found = list(events(connection.getresponse().read().decode()))
    assert [name for name, _ in found] == ["chunk", "chunk", "done"]
    assert found[-1][1]["instance_id"] == kept
    connection.close()
