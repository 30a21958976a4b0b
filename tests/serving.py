"""A server over a fake node, and a client for it."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from fake_node import FakeNode
from tensor_wasm.config import load
from tensor_wasm.http import Server


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def kind(self):
        """The error's kind, after a check that the answer is a whole error of the contract."""
        assert self.headers["content-type"] == "application/json"
        error = self.json["error"]
        assert self.json.keys() == {"error"}
        assert error.keys() == {"kind", "message", "request_id"}
        assert error["message"]
        assert error["request_id"] == self.headers["x-request-id"]
        return error["kind"]

    @property
    def message(self):
        return self.json["error"]["message"]


class Running:
    """A server over a fake node, and requests to it."""

    def __init__(self, node, server):
        self.node = node
        self.server = server
        self.host, self.port = server.address

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def post(self, path, value, headers=None):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json"} | (headers or {}))

    def invoke(self, value=b"", headers=None):
        return self.post("/functions/abc/invoke", value, headers)

    def raw(self, data, timeout=10):
        """What comes back for these bytes until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as connection:
            connection.sendall(data)
            received = b""
            while piece := connection.recv(65_536):
                received += piece
            return received

    def counted(self):
        """http_requests_total by (route, method, status)."""
        families = text_string_to_metric_families(self.get("/metrics").body.decode())
        (family,) = [family for family in families if family.name == "tensor_wasm_http_requests"]
        return {(s.labels["route"], s.labels["method"], s.labels["status"]): int(s.value) for s in family.samples}


@contextmanager
def running(home, **overrides):
    config = load({}, {"home": home, "listen_addr": "127.0.0.1:0", "drain_s": 5, **overrides}).config
    node = FakeNode(config)
    server = Server(node, config)
    server.start_in_thread()
    try:
        yield Running(node, server)
    finally:
        server.stop()
