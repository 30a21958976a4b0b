"""The benchmarks' own HTTP client, for machines without ``wrk``: keep-alive connections on one event loop.

Run as ``python -m tensor_wasm.bench.client URL CONNECTIONS SECONDS BODY``; prints one JSON object. It costs more than
``wrk`` per request, so rates read with it are lower: compare them with the peer's of the same run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import numpy as np


async def _connection(url: str, body: str, until: float, samples: list[float], failures: list[int]) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"{'POST' if body else 'GET'} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    request = head.encode() + body.encode()
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        samples.append((time.perf_counter() - began) * 1e3)
        if not answer.startswith(b"HTTP/1.1 2"):
            failures[0] += 1
    writer.close()


async def _run(url: str, connections: int, duration_s: float, body: str) -> dict[str, object]:
    samples: list[float] = []
    failures = [0]
    began = time.perf_counter()
    until = began + duration_s
    await asyncio.gather(*(_connection(url, body, until, samples, failures) for _ in range(connections)))
    p50, p95, p99 = (float(value) for value in np.percentile(samples, [50, 95, 99]))
    rate = len(samples) / (time.perf_counter() - began)
    return {"rate": rate, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "failures": failures[0], "client": "own"}


if __name__ == "__main__":
    target, count, seconds, text = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(_run(target, int(count), float(seconds), text))) + "\n")
