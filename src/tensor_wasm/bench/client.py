"""The benchmarks' own HTTP client, for machines without ``wrk``: keep-alive connections on one event loop.

Run as ``python -m tensor_wasm.bench.client URL CONNECTIONS SECONDS BODY TENANT``; prints one JSON object. It costs more
than ``wrk`` per request, so rates read with it are lower: compare them with the peer's of the same run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Self
from urllib.parse import urlsplit

import numpy as np


class Connection:
    """A connection to a server, kept alive; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the server of a URL."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), parts.netloc)

    async def request(self, method: str, path: str, body: bytes = b"", tenant: int = 0) -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nX-TensorWasm-Tenant: {tenant}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = answer.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines if b": " in line)
        return int(status.split()[1]), await self._reader.readexactly(int(fields.get(b"content-length", b"0")))

    def close(self) -> None:
        """Close it."""
        self._writer.close()


async def _load(url: str, body: bytes, tenant: int, until: float, samples: list[float], failures: list[int]) -> None:
    connection = await Connection.open(url)
    method, path = "POST" if body else "GET", urlsplit(url).path
    while time.perf_counter() < until:
        began = time.perf_counter()
        status, _ = await connection.request(method, path, body, tenant)
        samples.append((time.perf_counter() - began) * 1e3)
        failures[0] += status // 100 != 2
    connection.close()


async def _run(url: str, connections: int, duration_s: float, body: bytes, tenant: int) -> dict[str, object]:
    samples: list[float] = []
    failures = [0]
    began = time.perf_counter()
    until = began + duration_s
    await asyncio.gather(*(_load(url, body, tenant, until, samples, failures) for _ in range(connections)))
    p50, p95, p99 = (float(value) for value in np.percentile(samples, [50, 95, 99]))
    rate = len(samples) / (time.perf_counter() - began)
    return {"rate": rate, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "failures": failures[0], "client": "own"}


if __name__ == "__main__":
    target, count, seconds, text, number = sys.argv[1:]
    found = asyncio.run(_run(target, int(count), float(seconds), text.encode(), int(number)))
    sys.stdout.write(json.dumps(found) + "\n")
