"""A stand-in for a node: answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tensor_wasm.cli import main


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeNode:
    """``answers`` maps "METHOD path" (query left out) to (status, body); a list is given out one after another."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, route: str, body: object, status: int = 200) -> None:
        self.answers.setdefault(route, []).append((status, body))


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node() as fake:
        yield fake


@contextlib.contextmanager
def fake_node(tls: ssl.SSLContext | None = None) -> Iterator[FakeNode]:
    fake = FakeNode()
    failures: list[BaseException | None] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            fake.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            waiting = fake.answers.get(f"{self.command} {self.path.partition('?')[0]}")
            if not waiting:
                error = {"kind": "route_not_found", "message": "no such route", "request_id": "r"}
                status, content = 404, {"error": error}
            else:
                status, content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # else one would outlive its test, and write into the next one's output

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client may leave when it likes
                failures.append(sys.exception())

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls is None:
                super().finish_request(request, client_address)
                return
            with contextlib.suppress(OSError), tls.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not failures, failures


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the CLI in this process, with none of the environment's settings."""
    import os

    for name in list(os.environ):
        if name.startswith("TENSOR_WASM_"):
            monkeypatch.delenv(name)

    def run(*arguments: str) -> Result:
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def remote(cli: Any, node: FakeNode) -> Any:
    """As ``cli``, talking to the fake node."""
    return lambda *arguments: cli("--server", node.url, *arguments)
