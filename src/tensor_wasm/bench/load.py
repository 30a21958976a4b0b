"""Load in the background: HTTP requests from another process, and a Python thread that never rests.

``wrk`` makes the requests when it is installed; else a client of ours, bounded to one process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HttpResult:
    """Requests per second, latency percentiles in milliseconds, and answers that were not 2xx."""

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failures: int
    client: str


@dataclass(frozen=True, slots=True)
class HttpLoad:
    """Requests for a tenant to one URL over ``connections`` kept-alive connections for ``duration_s``."""

    url: str
    connections: int
    duration_s: float
    body: bytes | None = None
    tenant: int = 0

    def start(self) -> subprocess.Popen[str]:
        """Begin; pass the process to :meth:`finish`."""
        return subprocess.Popen(self._command(), stdout=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str]) -> HttpResult:
        """Wait for the end and read what the client found."""
        output, _ = process.communicate()
        return _read_wrk(output) if shutil.which("wrk") else HttpResult(**json.loads(output))

    def run(self) -> HttpResult:
        """Begin and finish."""
        return self.finish(self.start())

    def _command(self) -> list[str]:
        if not shutil.which("wrk"):
            body = "" if self.body is None else self.body.decode()
            numbers = [str(self.connections), str(self.duration_s)]
            return [sys.executable, "-m", "tensor_wasm.bench.client", self.url, *numbers, body, str(self.tenant)]
        script = Path(tempfile.mkdtemp(prefix="tensor-wasm-bench-")) / "load.lua"
        script.write_text(_lua(self.body, self.tenant))
        seconds = f"{max(round(self.duration_s), 1)}s"
        return ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}", "-s", str(script), self.url]


def _lua(body: bytes | None, tenant: int) -> str:
    lines = ['wrk.headers["Content-Type"] = "application/json"', f'wrk.headers["X-TensorWasm-Tenant"] = "{tenant}"']
    if body is not None:
        lines += ['wrk.method = "POST"', f"wrk.body = {json.dumps(body.decode())}"]
    lines.append(
        "done = function(summary, latency, requests)\n"
        '  io.write(string.format("JSON {\\"p50\\": %f, \\"p95\\": %f, \\"p99\\": %f, \\"failures\\": %d, '
        '\\"requests\\": %d, \\"us\\": %d}\\n", latency:percentile(50), latency:percentile(95), '
        "latency:percentile(99), summary.errors.status + summary.errors.connect + summary.errors.read + "
        "summary.errors.timeout, summary.requests, summary.duration))\nend"
    )
    return "\n".join(lines)


def _read_wrk(output: str) -> HttpResult:
    found = json.loads(next(line[5:] for line in output.splitlines() if line.startswith("JSON ")))
    rate = found["requests"] / (found["us"] / 1e6)
    return HttpResult(rate, found["p50"] / 1e3, found["p95"] / 1e3, found["p99"] / 1e3, found["failures"], "wrk")


@contextmanager
def spinning_thread() -> Iterator[None]:
    """A Python thread that computes without rest while the context lasts."""
    stop = False

    def spin() -> None:
        count = 0
        while not stop:
            count += 1

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()
