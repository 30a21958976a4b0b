"""What a request waited before the event loop read it counts as its time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from tensor_wasm.http.arrival import connection_of, waited_s

STALL_S = 0.4


class Transport:
    def __init__(self, connection):
        self._connection = connection

    def get_extra_info(self, _name):
        return self._connection


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


def seconds_of(text, route):
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["tensor_wasm_http_request_duration_seconds"].samples
    return sum(s.value for s in samples if s.name.endswith("_sum") and s.labels["route"] == route)


def test_a_stalled_loop_makes_the_requests_slow_that_it_did_not_read(server):
    def spent_s():
        return seconds_of(server.get("/metrics").body.decode(), "/healthz")

    before_s = spent_s()
    stalled, done = threading.Event(), threading.Event()

    def block():
        stalled.set()
        time.sleep(STALL_S)
        done.set()

    server.server._loop.call_soon_threadsafe(block)
    assert stalled.wait(10)
    assert server.get("/healthz").status == 200
    assert done.is_set()
    # Asked for somewhere in the stall, and read at its end.
    assert spent_s() - before_s > STALL_S / 4


def test_an_idle_connection_does_not_make_its_next_request_slow(pair):
    client, server = pair
    client.sendall(b"one")
    time.sleep(0.05)
    assert server.recv(3) == b"one"
    client.sendall(b"two")
    assert server.recv(3) == b"two"
    assert waited_s(connection_of(Transport(server))) < 0.05


def test_what_lies_in_the_socket_gets_old(pair):
    client, server = pair
    connection = connection_of(Transport(server))
    client.sendall(b"one")
    time.sleep(0.05)
    assert waited_s(connection) >= 0.04


def test_where_nobody_knows_nothing_is_added():
    one, two = socket.socketpair()
    with one, two:
        assert connection_of(Transport(one)) is None
    assert connection_of(Transport(None)) is None
    assert waited_s(None) == 0.0
    closed = socket.socket()
    closed.close()
    assert waited_s(closed) == 0.0


def test_a_stall_counts_under_tls_too(serve, tmp_path):
    issued = trustme.CA().issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    server = serve(tls_cert=str(cert), tls_key=str(key))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(server.host, server.port, timeout=10, context=context)

    def ask(path):
        connection.request("GET", path)
        return connection.getresponse().read()

    ask("/healthz")
    stalled = threading.Event()
    server.server._loop.call_soon_threadsafe(lambda: (stalled.set(), time.sleep(STALL_S)))
    assert stalled.wait(10)
    ask("/healthz")
    text = ask("/metrics").decode()
    connection.close()
    assert seconds_of(text, "/healthz") > STALL_S / 4
