from __future__ import annotations

import contextlib
import json
import random
import socket
import time

import pytest

from tensor_wasm.http import protocol


def error_of(received):
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert f"x-request-id: {error['request_id']}".encode() in head
    return error["kind"]


@pytest.mark.parametrize(
    "data",
    [
        b"NOT HTTP\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_of_the_contract_and_the_end(server, data, caplog):
    assert error_of(server.raw(data)) == "invalid_request"
    assert not any(record.exc_info for record in caplog.records)
    assert server.get("/healthz").status == 200


def test_a_head_may_not_grow_for_ever(server):
    filler = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"a" * (protocol.HEAD_BYTES_MAX + 100_000)
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        received = b""
        try:
            connection.sendall(filler)
            while piece := connection.recv(65_536):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert received == b"" or error_of(received) == "invalid_request"
    assert server.get("/healthz").status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:", b"\r\n"])
def test_a_head_that_does_not_come_is_given_up(serve, monkeypatch, sent):
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    running = serve()
    started = time.monotonic()
    assert running.raw(sent, timeout=5) == b""
    assert 0.15 < time.monotonic() - started < 2


def test_a_connection_that_waits_between_requests_is_kept(serve, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    running = serve()
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.create_connection((running.host, running.port), timeout=5) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            time.sleep(0.3)
        connection.sendall(request[:20])
        assert connection.recv(65_536) == b""


def test_a_slow_answer_is_not_taken_for_a_slow_head(serve, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_S", 0.1)
    running = serve()
    running.node.slow_s = 0.4
    assert running.invoke({"args": [3]}).json["result"] == [3]


def test_requests_in_one_packet_are_answered_in_order(server):
    paths = [b"/healthz", b"/nowhere", b"/functions/x", b"/healthz"]
    requests = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" for path in paths[:-1])
    last = b"GET " + paths[-1] + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    received = server.raw(requests + last)
    parts = received.split(b"HTTP/1.1 ")[1:]
    assert [part[:3] for part in parts] == [b"200", b"404", b"404", b"200"]


def test_http_1_0_is_answered(server):
    received = server.raw(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(b'{"status":"ok"}')


def test_a_request_without_a_host_is_refused(server):
    received = server.raw(b"GET /functions HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 421")


def test_random_bytes_harm_nobody(server, caplog):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    whole = (
        b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 14\r\nConnection: close\r\n\r\n{"args":[1,2]}'
    )
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(generator.randrange(1, 6)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        with socket.create_connection((server.host, server.port), timeout=5) as connection:
            connection.sendall(data[: generator.randrange(1, len(data) + 1)])
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.02)
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                connection.recv(65_536)
    assert server.get("/healthz").status == 200
    assert server.invoke({"args": [1]}).status == 200
    assert not [record for record in caplog.records if record.exc_info]
