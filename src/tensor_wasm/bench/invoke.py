"""What the whole node serves: invocations over HTTP, a fresh instance each, and /healthz meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensor_wasm.bench.background import serving
from tensor_wasm.bench.load import HttpLoad, HttpResult
from tensor_wasm.bench.plain import plain_application
from tensor_wasm.bench.report import Case, Report
from tensor_wasm.bench.sandbox import guest_wasm

_CONNECTIONS = 16
_BODY = b'{"export":"noop","args":[]}'


def measure(home: Path, duration_s: float) -> Report:
    """Load each server for ``duration_s`` seconds from another process on the same machine."""
    report = Report("invoke")
    with serving(home) as (node, url):
        function = node.functions.deploy("noop", guest_wasm("noop"))
        target = f"{url}/functions/{function.id}/invoke"
        _add(
            report,
            "POST /functions/:id/invoke, 16 connections",
            HttpLoad(target, _CONNECTIONS, duration_s, _BODY).run(),
            bar=">= 5,000/s, P99 <= 15 ms",
            peer="plain server",
        )
        load = HttpLoad(target, _CONNECTIONS, duration_s + 1, _BODY)
        process = load.start()
        health = HttpLoad(f"{url}/healthz", 1, duration_s).run()
        load.finish(process)
        _add(report, "GET /healthz while invocations saturate the node", health, bar="P95 <= 10 ms")
    with _plain_server() as url:
        _add(report, "plain server", HttpLoad(f"{url}/functions/x/invoke", _CONNECTIONS, duration_s, _BODY).run())
    return report


def _add(report: Report, name: str, found: HttpResult, *, bar: str | None = None, peer: str | None = None) -> None:
    label = f"{name} ({found.client})" if found.failures == 0 else f"{name} ({found.failures} failures)"
    report.cases.append(
        Case(
            label,
            "ms",
            0,
            found.p50_ms,
            found.p95_ms,
            found.p99_ms,
            found.rate,
            bar,
            peer and f"{peer} ({found.client})",
        )
    )


@contextmanager
def _plain_server() -> Iterator[str]:
    import uvicorn

    application = plain_application(guest_wasm("noop"), "noop", [], 2 * (os.cpu_count() or 2))
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
