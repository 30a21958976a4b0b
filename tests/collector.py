"""A collector's stand-in: takes spans by OTLP over HTTP and keeps them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_S = 60.0


class Span:
    """A span as it came: ids in hexadecimal, ``parent`` empty for none, times in ns since 1970."""

    def __init__(self, resource: dict[str, Any], scope: str, raw: Any) -> None:
        self.resource = resource
        self.scope = scope
        self.name: str = raw.name
        self.trace = raw.trace_id.hex()
        self.id = raw.span_id.hex()
        self.parent = raw.parent_span_id.hex()
        self.state = raw.trace_state
        self.kind = raw.kind
        self.start = raw.start_time_unix_nano
        self.end = raw.end_time_unix_nano
        self.attributes = _attributes(raw.attributes)
        self.is_error = raw.status.code == 2
        self.status = raw.status.message

    def __repr__(self) -> str:
        return f"<{self.name} {self.attributes}>"


def _attributes(pairs: Any) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
    assert len(found) == len(pairs)
    return found


class Collector:
    """Serves until :meth:`close`. ``status`` is what it answers, ``delay_s`` how long it takes for that."""

    def __init__(self, status: int = 200, delay_s: float = 0.0) -> None:
        self.status = status
        self.delay_s = delay_s
        self.paths: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with collector._lock:
                    collector.paths.add(self.path)
                    collector.headers.append(dict(self.headers))
                    if collector.status == 200:
                        collector.bodies.append(body)
                collector._closing.wait(collector.delay_s)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def spans(self) -> list[Span]:
        """All spans so far."""
        with self._lock:
            bodies = list(self.bodies)
        return [
            Span(_attributes(of_resource.resource.attributes), of_scope.scope.name, raw)
            for body in bodies
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for raw in of_scope.spans
        ]

    def trace(self, trace_id: str, count: int = 1) -> Tree:
        """A trace once so many spans of it are here."""
        until = time.monotonic() + PATIENCE_S
        while True:
            found = [span for span in self.spans if span.trace == trace_id]
            if len(found) >= count:
                return Tree(found)
            assert time.monotonic() < until, f"{len(found)} of {count} spans came: {Counter(s.name for s in found)}"
            time.sleep(0.05)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Tree:
    """The spans of one trace."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans
        self.by_id = {span.id: span for span in spans}
        assert len(self.by_id) == len(spans), "two spans have one id"

    def one(self, name: str) -> Span:
        (found,) = self.named(name)
        return found

    def named(self, name: str) -> list[Span]:
        """Those of a name in the order of their start."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: (span.start, span.end))

    def check_nesting(self) -> None:
        """Every span lies within the one above it, by time."""
        for span in self.spans:
            assert 0 < span.start <= span.end, span
            above = self.by_id.get(span.parent)
            if above is not None:
                assert above.start <= span.start <= span.end <= above.end, (above, span)
