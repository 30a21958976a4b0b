"""Chunks of a guest on their way to a client: how long one takes, and how many bytes a second one connection carries.

The client is a process of its own on the same machine. Run as
``python -m tensor_wasm.bench.stream URL STREAMS COUNT BYTES``; it
prints one JSON object.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tensor_wasm.bench.background import serving
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.stateful_guest import emitting_guest
from tensor_wasm.errors import InternalError

_CHUNK_BYTES = 65_536
_CHUNKS = 1000
_STREAMS = 5
_FIRST_CHUNKS = 300
_STAMP_BYTES = 8
_READ_BYTES = 1 << 20


def measure(home: Path) -> Report:
    """Measure both."""
    report = Report("stream")
    with serving(home) as (node, url):
        function = node.functions.deploy("emit", emitting_guest()).id
        target = f"{url}/functions/{function}/invoke-stream"
        delays = _client(target, _FIRST_CHUNKS, 1, _STAMP_BYTES)["delays_ms"]
        report.add("from emitted to read, first chunk", delays, "ms", bar="<= 5")
        rates = _client(target, _STREAMS, _CHUNKS, _CHUNK_BYTES)["rates"]
        report.add("raw chunks of 64 KiB through one connection", rates, "MB/s", bar=">= 200")
    return report


def _client(url: str, streams: int, count: int, size: int) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "tensor_wasm.bench.stream", url, str(streams), str(count), str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise InternalError("a stream was not read to its end")
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _read(url: str, streams: int, count: int, size: int) -> dict[str, list[float]]:
    """Read so many streams, one after the other."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    body = json.dumps({"export": "emit", "args": [count, size]})
    headers = {"Content-Type": "application/json", "Accept": "application/octet-stream"}
    delays_ms, rates = [], []
    for _ in range(streams):
        began_s = time.perf_counter()
        connection.request("POST", parts.path, body, headers)
        answer = connection.getresponse()
        stamp = answer.read(_STAMP_BYTES)
        delays_ms.append((time.time_ns() - int.from_bytes(stamp, "little")) / 1e6)
        received = len(stamp)
        while piece := answer.read(_READ_BYTES):
            received += len(piece)
        if received != count * size:
            raise InternalError("a stream was not read to its end")
        rates.append(received / 1e6 / (time.perf_counter() - began_s))
    return {"delays_ms": delays_ms, "rates": rates}


def main(arguments: list[str]) -> None:
    """Read streams and print what was found."""
    url, *numbers = arguments
    sys.stdout.write(json.dumps(_read(url, *map(int, numbers))))


if __name__ == "__main__":
    main(sys.argv[1:])
