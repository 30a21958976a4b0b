from __future__ import annotations

import contextlib
import gc
import json
import random
import resource
import socket
import struct
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tensor_wasm.http import protocol
from tensor_wasm.telemetry import render


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
    running.node.invocations.slow_s = 0.4
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


# --- the number of connections --------------------------------------------------------------------------------------

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
INVOKE = b"POST /functions/abc/invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def crowded(serve, monkeypatch):
    """A server that has room for three connections, and a function that opens one, with what it says at first."""
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 3)
    running = serve()
    running.node.invocations.slow_s = 60
    opened = []

    def client(said=b"", name=""):
        connection = socket.create_connection((running.host, running.port), timeout=5)
        opened.append(connection)
        connection.sendall(said)
        if said == HEALTH:
            assert answer(connection) == b"200"
        else:
            time.sleep(0.05)
        return connection

    yield running, client
    running.node.invocations.slow_s = 0
    for connection in opened:
        connection.close()


def answer(connection):
    """The status of an answer that comes; nothing when the connection ends instead."""
    try:
        received = connection.recv(65_536)
        while received and b"}" not in received:
            received += connection.recv(65_536)
    except ConnectionError:
        return b""
    return received[9:12]


def is_open(connection):
    connection.settimeout(0.1)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False
    finally:
        connection.settimeout(5)


def closed(running):
    """http_connections and http_connections_closed_total by reason."""
    text, _ = render([running.server._limit.metrics], "")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    reasons = {s.labels["reason"]: int(s.value) for s in families["tensor_wasm_http_connections_closed"].samples}
    (count,) = families["tensor_wasm_http_connections"].samples
    return int(count.value), reasons


def test_the_connection_that_was_idle_for_longest_makes_room(crowded):
    running, client = crowded
    first, second, third = client(HEALTH), client(HEALTH), client(HEALTH)
    first.sendall(HEALTH)
    assert answer(first) == b"200"
    fourth = client(HEALTH)
    assert [is_open(connection) for connection in (first, second, third, fourth)] == [True, False, True, True]
    fifth = client(HEALTH)
    assert [is_open(connection) for connection in (first, third, fourth, fifth)] == [True, False, True, True]
    assert closed(running) == (3, {"idle": 2, "silent": 0, "refused": 0})


def test_idle_connections_go_before_those_that_asked_nothing_yet(crowded):
    running, client = crowded
    silent, idle, partial = client(), client(HEALTH), client(HEALTH[:20])
    new = client(HEALTH)
    assert [is_open(connection) for connection in (silent, idle, partial, new)] == [True, False, True, True]
    client(INVOKE)
    client(INVOKE)
    assert [is_open(connection) for connection in (silent, new)] == [False, False]
    assert is_open(partial)
    client(INVOKE)
    assert not is_open(partial)
    assert closed(running) == (3, {"idle": 2, "silent": 2, "refused": 0})


def test_a_request_that_began_to_come_is_not_idle(crowded):
    _, client = crowded
    first, second, _third = client(HEALTH), client(HEALTH), client(HEALTH)
    first.sendall(HEALTH[:20])
    time.sleep(0.05)
    client(HEALTH)
    client(HEALTH)
    assert [is_open(connection) for connection in (first, second)] == [True, False]
    first.sendall(HEALTH[20:])
    assert answer(first) == b"200"


def test_a_connection_over_the_limit_is_closed_at_once_and_counted(crowded):
    running, client = crowded
    busy = [client(INVOKE) for _ in range(3)]
    for _ in range(2):
        with socket.create_connection((running.host, running.port), timeout=5) as refused:
            assert answer(refused) == b""
    assert closed(running) == (3, {"idle": 0, "silent": 0, "refused": 2})
    running.node.invocations.slow_s = 0
    assert [answer(connection) for connection in busy] == [b"200"] * 3
    assert running.get("/healthz").status == 200


def test_a_pipelined_request_keeps_its_connection(crowded):
    running, client = crowded
    pipelined = client(INVOKE + INVOKE[:30])
    client(INVOKE), client(INVOKE)
    with socket.create_connection(pipelined.getpeername(), timeout=5) as refused:
        assert answer(refused) == b""
    running.node.invocations.slow_s = 0
    assert answer(pipelined) == b"200"
    pipelined.sendall(INVOKE[30:])
    assert answer(pipelined) == b"200"


def test_connections_that_end_make_room_however_they_end(crowded):
    running, client = crowded
    for said in (b"", HEALTH, INVOKE, b"NOT HTTP\r\n\r\n", HEALTH.replace(b"Host:", b"Connection: close\r\nHost:")):
        for _ in range(3):
            client(said).close()
    until = time.monotonic() + 5
    while closed(running)[0] and time.monotonic() < until:
        time.sleep(0.02)
    assert closed(running)[0] == 0
    assert running.node.invocations.cancelled == 3


def test_a_connection_that_was_reset_leaves_nothing_behind(server):
    def left():
        gc.collect()
        return sum(isinstance(thing, protocol.Protocol) for thing in gc.get_objects())

    for _ in range(10):
        with socket.create_connection((server.host, server.port), timeout=5) as connection:
            connection.sendall(HEALTH)
            assert answer(connection) == b"200"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until = time.monotonic() + 5
    while left() and time.monotonic() < until:
        time.sleep(0.1)
    assert left() == 0


def test_a_client_that_does_not_read_its_answer_makes_room(serve, monkeypatch):
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 1)
    running = serve()
    running.node.invocations.output = (b"x" * 8_000_000, b"", 0)
    with socket.create_connection((running.host, running.port), timeout=5) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(INVOKE)
        assert deaf.recv(12) == b"HTTP/1.1 200"
        time.sleep(0.1)
        assert running.get("/healthz").status == 200
        assert closed(running)[1] == {"idle": 1, "silent": 0, "refused": 0}


@pytest.mark.parametrize(
    ("files", "most"),
    [(20_000, 10_000), (10_256, 10_000), (1024, 768), (256, 16), (10, 16), (resource.RLIM_INFINITY, 10_000)],
)
def test_connections_leave_open_files_to_the_rest(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda which: {resource.RLIMIT_NOFILE: (files, 1 << 20)}[which])
    assert protocol.connections_max() == most
