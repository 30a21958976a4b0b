"""The operator's listener: who may ask it, what it makes of what is no request, and that it is there when needed."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import ssl
import stat
import threading
import time
from pathlib import Path

import jsonschema
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from administered import TOKENS, administered
from serving import running
from tensor_wasm.errors import ConfigurationError
from tensor_wasm.http.operator import connection as connections
from tensor_wasm.http.operator.listener import CONNECTIONS_MAX
from tensor_wasm.sockets import OPERATOR_SOCKET, address_of
from tensor_wasm.telemetry import observation

PATIENCE_S = 20.0
GET = "GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("node") / "home", operator_addr="127.0.0.1:0") as served:
        yield served


def socket_of(node):
    return node.node.config.home / OPERATOR_SOCKET


def connected(path):
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE_S)
    with address_of(path) as address:
        made.connect(address)
    return made


def rest_of(connection):
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


def answer(received):
    """Status, headers and body of what came back."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body) or not body
    return int(first.split()[1]), headers, body


def ask(path, data):
    with connected(path) as connection:
        connection.sendall(data if isinstance(data, bytes) else data.encode())
        return answer(rest_of(connection))


def get(node, target, more=""):
    return ask(socket_of(node), GET.format(target, more))


def get_by_tcp(node, target, token=None, **headers):
    connection = http.client.HTTPConnection(*node.server.operator_address, timeout=PATIENCE_S)
    try:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def kind(body):
    error = json.loads(body)["error"]
    assert error.keys() == {"kind", "message", "request_id"}
    return error["kind"]


# --- what it has ------------------------------------------------------------------------------------------


def test_the_socket_is_the_operator_s_alone_and_asks_for_no_token(node):
    status = socket_of(node).lstat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    code, headers, body = get(node, "/admin/observe?history=true")
    assert (code, headers["content-type"]) == (200, "application/json")
    jsonschema.validate(json.loads(body), observation.schema())
    assert json.loads(body)["history"]


def test_metrics_are_those_of_the_api(node):
    code, headers, body = get(node, "/metrics")
    assert code == 200
    assert headers["content-type"].startswith("text/plain")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "tensor_wasm_http_requests" in names
    assert names == {family.name for family in text_string_to_metric_families(node.get("/metrics").body.decode())}
    _, headers, body = get(node, "/metrics", "Accept: application/openmetrics-text\r\n")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_it_answers_probes_and_nothing_else(node):
    assert get(node, "/healthz")[2] == b'{"status":"ok"}'
    for target in ("/", "/admin/tokens", "/functions", "/admin/observe/", "//healthz"):
        code, _, body = get(node, target)
        assert (code, kind(body)) == (404, "route_not_found")
    code, headers, body = ask(socket_of(node), "POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    assert (code, headers["allow"], kind(body)) == (405, "GET, HEAD", "method_not_allowed")
    code, headers, body = ask(socket_of(node), "HEAD /healthz HTTP/1.1\r\n\r\n")
    assert (code, headers["content-length"], body) == (200, "15", b"")
    assert get(node, "/admin/observe?history=maybe")[0] == 400


def test_a_request_s_id_comes_back(node):
    assert get(node, "/healthz", "X-Request-Id: mine-1\r\n")[1]["x-request-id"] == "mine-1"
    assert get(node, "/healthz", "X-Request-Id: a b\r\n")[1]["x-request-id"] != "a b"


# --- whom it answers over TCP -----------------------------------------------------------------------------


def test_over_tcp_the_api_s_tokens_hold(node):
    assert get_by_tcp(node, "/admin/observe", "boss")[0] == 200
    code, _, body = get_by_tcp(node, "/admin/observe", "one")
    assert (code, kind(body)) == (403, "forbidden")
    code, headers, body = get_by_tcp(node, "/admin/observe")
    assert (code, headers["www-authenticate"], kind(body)) == (401, "Bearer", "unauthorized")
    assert get_by_tcp(node, "/healthz")[0] == 200
    assert get_by_tcp(node, "/metrics")[0] == 200


def test_metrics_have_their_own_token_over_tcp(tmp_path):
    with running(tmp_path, operator_addr="127.0.0.1:0", api_metrics_token="seen", api_tokens=TOKENS) as node:
        assert get_by_tcp(node, "/metrics")[0] == 401
        assert get_by_tcp(node, "/metrics", "seen")[0] == 200


def test_a_node_without_tokens_does_not_answer_web_pages(tmp_path):
    with running(tmp_path, operator_addr="127.0.0.1:0") as node:
        assert get_by_tcp(node, "/admin/observe")[0] == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            for target in ("/admin/observe", "/metrics", "/healthz", "/nothing"):
                code, _, body = get_by_tcp(node, target, **headers)
                assert (code, kind(body)) == (421, "misdirected")


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"api_tokens": TOKENS}, "TENSOR_WASM_TLS_CERT"), ({"api_tokens": TOKENS, "dev_mode": True}, "TLS")],
)
def test_in_the_clear_it_listens_on_loopback_only(tmp_path, settings, word):
    with (
        pytest.raises(ConfigurationError, match=f"TENSOR_WASM_OPERATOR_ADDR=0.0.0.0:0 .*{word}"),
        running(tmp_path, operator_addr="0.0.0.0:0", **settings),
    ):
        pass


def test_an_address_that_is_taken_stops_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match="TENSOR_WASM_OPERATOR_ADDR"),
            running(tmp_path, operator_addr=f"127.0.0.1:{port}"),
        ):
            pass


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.cert_chain_pems[0].bytes())
    key.write_bytes(certificate.private_key_pem.bytes())
    return authority, {"tls_cert": cert, "tls_key": key}


def test_with_tls_it_is_reached_by_tls_and_may_be_anywhere(tmp_path, files):
    authority, settings = files
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with running(tmp_path, operator_addr="0.0.0.0:0", api_tokens=TOKENS, **settings) as node:
        port = node.server.operator_address[1]
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=context)
        connection.request("GET", "/metrics")
        assert b"tensor_wasm_build_info" in connection.getresponse().read()
        connection.close()
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
            plain.sendall(GET.format("/healthz", "").encode())
            with contextlib.suppress(ConnectionError):
                assert b"200 OK" not in rest_of(plain)
        assert get(node, "/healthz")[0] == 200


def test_with_tls_and_without_tokens_others_cannot_reach_it(tmp_path, files):
    _, settings = files
    with (
        pytest.raises(ConfigurationError, match="no tokens"),
        running(tmp_path, operator_addr="0.0.0.0:0", **settings),
    ):
        pass


def test_refusals_are_audited(tmp_path):
    from tensor_wasm.config import load
    from tensor_wasm.http import Server
    from tensor_wasm.node import Node
    from tensor_wasm.telemetry.audit import AuditLog

    log = tmp_path / "audit.log"
    overrides = {"home": tmp_path / "home", "listen_addr": "127.0.0.1:0", "operator_addr": "127.0.0.1:0"}
    config = load({}, overrides | {"api_tokens": TOKENS, "audit": f"file:{log}"}).config
    audit = AuditLog(config.audit)
    with Node(config) as node:
        server = Server(node, config, audit=audit)
        server.start_in_thread()
        try:
            connection = http.client.HTTPConnection(*server.operator_address, timeout=PATIENCE_S)
            connection.request("GET", "/admin/observe", headers={"Authorization": "Bearer one", "X-Request-Id": "q"})
            assert connection.getresponse().status == 403
            connection.close()
        finally:
            server.stop()
            audit.close()
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (line["event"], line["route"], line["status"], line["outcome"]) == (
        "request", "/admin/observe", 403, "forbidden",
    )  # fmt: skip
    assert (line["request_id"], line["token"], line["client"]) == ("q", "settings-2", "127.0.0.1")


# --- the socket's file ------------------------------------------------------------------------------------


def test_a_socket_that_a_killed_node_left_is_replaced_and_ours_is_removed(tmp_path):
    path = tmp_path / OPERATOR_SOCKET
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with running(tmp_path) as node:
        assert get(node, "/healthz")[0] == 200
    assert not path.exists()


@pytest.mark.parametrize("is_link", [False, True])
def test_what_is_no_socket_stays_and_the_node_serves_without_one(tmp_path, caplog, is_link):
    path = tmp_path / OPERATOR_SOCKET
    target = tmp_path / "precious"
    target.write_text("precious")
    if is_link:
        path.symlink_to(target)
    else:
        target.rename(path)
    with caplog.at_level(logging.WARNING, "tensor_wasm.http"), running(tmp_path) as node:
        assert node.get("/healthz").status == 200
    assert path.read_text() == "precious"
    assert "there is no operator's socket" in caplog.text


def test_a_home_with_a_long_path_has_a_socket_too(tmp_path):
    home = tmp_path / ("a" * 100) / ("b" * 100)
    home.mkdir(parents=True)
    with running(home) as node:
        assert get(node, "/healthz")[0] == 200
    assert list(home.glob("*.sock")) == []


def test_another_s_socket_is_not_removed_at_the_end(tmp_path):
    path = tmp_path / OPERATOR_SOCKET
    with running(tmp_path):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()


def test_the_home_s_checks_know_the_socket_and_the_file_of_releases(node):
    from tensor_wasm.store.repair import examine

    assert [finding for finding in examine(node.node.config.home).findings if finding.part == "other files"] == []


# --- attacks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET healthz HTTP/1.1\r\n\r\n",
        b"GET http://localhost/healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/2\r\n\r\n",
        b"get /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"x" * 40_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 20_000,
    ],
)
def test_what_is_no_request_is_refused(node, data):
    code, _, body = ask(socket_of(node), data)
    assert (code, kind(body)) == (400, "invalid_request")
    assert get(node, "/healthz")[0] == 200


def test_one_request_a_connection(node):
    received = b""
    with connected(socket_of(node)) as connection:
        connection.sendall(GET.format("/healthz", "").encode() * 3)
        received = rest_of(connection)
    assert received.count(b"HTTP/1.1") == 1


def test_a_request_in_pieces_is_a_request(node):
    with connected(socket_of(node)) as connection:
        for byte in GET.format("/healthz", "").encode():
            connection.sendall(bytes([byte]))
        assert answer(rest_of(connection))[0] == 200


def test_who_says_nothing_is_ended_and_holds_up_nobody(node, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    with connected(socket_of(node)) as silent, connected(socket_of(node)) as slow:
        slow.sendall(b"GET /healthz HT")
        assert get(node, "/healthz")[0] == 200
        assert rest_of(silent) == b""
        assert rest_of(slow) == b""


def test_who_does_not_read_is_ended_and_holds_up_nobody(node, monkeypatch):
    size_bytes = 16 << 20  # more than the system keeps on the way
    monkeypatch.setattr(connections, "ANSWER_S", 0.5)
    monkeypatch.setattr(observation, "encode", lambda _: b"x" * size_bytes)
    with connected(socket_of(node)) as deaf:
        deaf.sendall(GET.format("/admin/observe", "").encode())
        assert get(node, "/healthz")[0] == 200
        doors = node.server._operator._doors
        until = time.monotonic() + PATIENCE_S
        while any(door.connections for door in doors):
            assert time.monotonic() < until, "it is not ended"
            time.sleep(0.02)
        received = 0
        with contextlib.suppress(ConnectionError):
            while piece := deaf.recv(1 << 20):
                received += len(piece)
        assert received < size_bytes
        monkeypatch.undo()
        assert get(node, "/admin/observe")[0] == 200


def test_who_never_stops_sending_is_ended(node):
    with connected(socket_of(node)) as flood:
        flood.sendall(GET.format("/healthz", "").encode())
        until = time.monotonic() + PATIENCE_S
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                flood.sendall(b"x" * 65_536)
        assert time.monotonic() < until, "it goes on"
    assert get(node, "/healthz")[0] == 200


def test_with_too_many_connections_the_oldest_goes(node):
    many = [connected(socket_of(node)) for _ in range(CONNECTIONS_MAX)]
    try:
        assert get(node, "/healthz")[0] == 200
        assert rest_of(many[0]) == b""
        many[-1].sendall(GET.format("/healthz", "").encode())
        assert answer(rest_of(many[-1]))[0] == 200
    finally:
        for connection in many:
            connection.close()


def test_a_flood_on_the_address_does_not_reach_the_socket(node):
    stop = threading.Event()
    address = node.server.operator_address

    def flood():
        held = []
        while not stop.is_set():
            try:
                held.append(socket.create_connection(address, timeout=PATIENCE_S))
            except OSError:
                continue
            if len(held) > 64:
                held.pop(0).close()
        for connection in held:
            connection.close()

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert get(node, "/admin/observe")[0] == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_failure_of_ours_is_an_answer_and_not_the_end(node, monkeypatch, caplog):
    def broken(**_):
        raise ValueError("secret")

    monkeypatch.setattr(node.server._observer, "document", broken)
    code, _, body = get(node, "/admin/observe")
    assert (code, kind(body)) == (500, "internal")
    assert b"secret" not in body
    assert "a request to the operator's listener failed" in caplog.text
    monkeypatch.undo()
    assert get(node, "/admin/observe")[0] == 200


def test_metrics_that_hang_are_said_to(node):
    with node.node.statistics._lock:
        code, _, body = get(node, "/metrics")
        assert (code, kind(body)) == (503, "not_ready")
        assert get(node, "/healthz")[0] == 200
        assert get(node, "/admin/observe")[0] == 200
    until = time.monotonic() + PATIENCE_S
    while get(node, "/metrics")[0] != 200:
        assert time.monotonic() < until


def test_descriptors_and_threads_are_given_back(tmp_path):
    def held():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    with running(tmp_path, operator_addr="127.0.0.1:0") as node:
        get(node, "/metrics")
    before = held()
    for _ in range(3):
        with running(tmp_path, operator_addr="127.0.0.1:0") as node, connected(socket_of(node)):
            get(node, "/metrics")
            get(node, "/admin/observe")
    until = time.monotonic() + PATIENCE_S
    while held() > before:
        assert time.monotonic() < until, (before, held())
        time.sleep(0.02)
