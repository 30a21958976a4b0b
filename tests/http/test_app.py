from __future__ import annotations

import http.client

import pytest


def test_every_answer_has_an_id_of_its_own(server):
    identities = {server.get(path).headers["x-request-id"] for path in ("/healthz", "/healthz", "/nowhere", "/docs")}
    assert len(identities) == 4


def test_a_plain_id_of_the_client_is_kept_and_any_other_is_not(server):
    assert server.get("/healthz", X_Request_Id="deploy-42.a_b").headers["x-request-id"] == "deploy-42.a_b"
    for nasty in ("a b", "x" * 65, "<script>", "a;b", "", "é"):
        got = server.request("GET", "/healthz", headers={"X-Request-Id": nasty.encode("latin-1")})
        assert got.headers["x-request-id"] != nasty
        assert got.headers["x-request-id"]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/nowhere", "/functions/", "/functions/a/b", "/functions/a/invoke/", "//healthz", "/functions//invoke",
        "/%2e%2e/etc/passwd", "/healthz/", "/functions/a%2Fb", "/HEALTHZ", "/%ff",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_route_is_a_404_of_the_contract(server, method, path):
    answer = server.request(method, path)
    assert (answer.status, answer.kind) == (404, "route_not_found")


def test_an_id_is_whatever_stands_in_its_place(server):
    for identity in ("%00", "..", "a%20b", "%F0%9F%98%80", "x" * 4000):
        assert server.get(f"/functions/{identity}").kind == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/functions", "GET, HEAD, POST"),
        ("PATCH", "/functions/abc", "DELETE, GET, HEAD"),
        ("GET", "/functions/abc/invoke", "POST"),
        ("OPTIONS", "/functions", "GET, HEAD, POST"),
        ("TRACE", "/metrics", "GET, HEAD"),
    ],
)
def test_another_method_is_a_405_with_those_there_are(server, method, path, allowed):
    answer = server.request(method, path)
    assert (answer.status, answer.kind) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_head_is_get_without_the_body(server):
    answer = server.request("HEAD", "/healthz")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(b'{"status":"ok"}')


def test_one_connection_serves_many_requests_refusals_included(server):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    for path, status in [("/healthz", 200), ("/nowhere", 404), ("/functions/x", 404), ("/healthz", 200)]:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    socket_before = connection.sock
    connection.request("POST", "/functions", b"x" * 5000, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    assert response.status == 413
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b'{"status":"ok"}'
    assert connection.sock is socket_before
    connection.close()


def test_every_answer_is_counted_and_no_client_can_invent_a_label(serve):
    running = serve(max_body_bytes=4096)

    def defect(export, args, input):
        raise RuntimeError("defect")

    running.get("/healthz")
    running.get("/nowhere/12345")
    running.request("BREW", "/healthz")
    running.request("PROPFIND", "/nowhere")
    running.request("PUT", "/functions/abc")
    running.get("/functions/abc")
    running.post("/functions", b"{")
    running.post("/functions", b"x" * 5000)
    running.get("/functions", Host="evil.example")
    running.invoke()
    running.node.invocations.behaviour = defect
    running.invoke()
    running.raw(b"NOT HTTP AT ALL\r\n\r\n")
    counted = {key: count for key, count in running.counted().items() if count}
    assert counted == {
        ("/healthz", "GET", "200"): 1,
        ("other", "GET", "404"): 1,
        ("/functions/:id", "PUT", "405"): 1,
        ("/functions/:id", "GET", "404"): 1,
        ("/functions", "POST", "400"): 1,
        ("/functions", "POST", "413"): 1,
        ("/functions", "GET", "421"): 1,
        ("/functions/:id/invoke", "POST", "200"): 1,
        ("/functions/:id/invoke", "POST", "500"): 1,
        ("other", "other", "400"): 2,  # BREW is no method that the parser knows, and the last is no HTTP
        ("other", "other", "404"): 1,
    }


def test_all_routes_are_there_from_the_first_scrape(serve):
    counted = serve().counted()
    routes = {(route, method) for route, method, _ in counted}
    assert {(route, method) for route, method, status in counted if status == "500"} == routes
    assert set(counted.values()) == {0}
    # A deadline's and a full node's: a first failure whose series begins with it would be none to a query.
    assert counted.keys() >= {("/functions/:id/invoke", "POST", status) for status in ("503", "504")}
    assert routes >= {
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
        ("/functions", "GET"),
        ("/functions", "POST"),
        ("/functions/:id", "GET"),
        ("/functions/:id", "DELETE"),
        ("/functions/:id/invoke", "POST"),
        ("/openapi.json", "GET"),
        ("/docs", "GET"),
    }


@pytest.mark.parametrize("name", ["Host", "X-TensorWasm-Tenant", "Authorization", "Content-Type", "Origin"])
def test_a_header_that_decides_may_come_once_only(server, name):
    lines = ["Host: 127.0.0.1"] if name != "Host" else []
    head = "\r\n".join(["GET /functions HTTP/1.1", *lines, f"{name}: 1", f"{name}: 2", "Connection: close", "", ""])
    received = server.raw(head.encode())
    assert received.startswith(b"HTTP/1.1 400")
    assert b"invalid_request" in received
    assert name.lower().encode() in received
