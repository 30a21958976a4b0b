"""What a scrape of ``/metrics`` takes on a node with 200 tenants, and what it costs the launches beside it.

The scraper asks as Prometheus does, from a process of its own on the same machine, and so does the load. How long the
node itself was at an answer is what its own histogram of requests has grown by. As
``python -m tensor_wasm.bench.scrape scrape URL`` this scrapes once for each line that it reads, and prints what it
found; as ``… load URL`` it makes the calls of the JSON that it reads, again and again.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.bench.background import serving
from tensor_wasm.bench.client import Connection
from tensor_wasm.bench.dispatch import EMPTY
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.errors import InternalError
from tensor_wasm.node import Node

_TENANTS = 200
_SCRAPES = 60
_PAUSE_S = 0.05
_CONNECTIONS = 8
#: Calls a second of all tenants together where they are busy and the node is not at its limit.
_CALLS_PER_S = 1000
_LAUNCHES = 500
_SETTLE_S = 0.5
_WINDOW_S = 1.0
#: A timed loop of the guest, and how many of its samples are read: one in so many.
_ROUND = 100_000
_STRIDE = 100
#: What Prometheus sends.
_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
)
_OWN_TIME = re.compile(
    rb'^tensor_wasm_http_request_duration_seconds_sum\{route="/metrics",method="GET",status="200"\} (\S+)$',
    re.MULTILINE,
)


class Scrape(NamedTuple):
    """One scrape: what the client waited, and what the node had been at its answers to ``/metrics`` until then."""

    client_s: float
    server_total_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Tenant:
    """A tenant with a function and a kept instance of it that is ready to launch."""

    number: int
    function: str
    instance: str


def measure(home: Path, duration_s: float) -> Report:
    """Measure scrapes, and then launches for ``duration_s`` with and as long without a scraper."""
    report = Report("scrape")
    with serving(home) as (node, url):
        tenants = [_tenant(node, number) for number in range(1, _TENANTS + 1)]
        with _scraper(url) as scraper:
            _scrapes(report, scraper, f"{_TENANTS} idle tenants")
            with _busy(url, tenants, _CALLS_PER_S):
                name = f"{_TENANTS} busy tenants, {_CALLS_PER_S:,} calls/s"
                _scrapes(report, scraper, name, bar="P95 <= 20 ms")
            with _busy(url, tenants):
                _scrapes(report, scraper, f"{_TENANTS} busy tenants, as fast as {_CONNECTIONS} connections can")
            _launches(report, node, tenants[0], scraper, duration_s)
    return report


def _tenant(node: Node, number: int) -> _Tenant:
    function = node.functions.deploy("bench", guest_wasm(), number).id
    instance = node.spawner.spawn(function, tenant=number).id
    for export, argument in (("prepare", EMPTY), ("launch_loop", _LAUNCHES)):
        if node.kept.call(instance, export, [argument], tenant=number).results != [0]:
            raise InternalError(f"the guest's {export} failed")
    node.invocations.invoke(function, "noop", tenant=number)
    return _Tenant(number, function, instance)


# --- scrapes -----------------------------------------------------------------------------------------------


class _Scraper:
    """The process that scrapes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def scrape(self) -> Scrape:
        """Scrape once. Raises :class:`InternalError` when that fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise InternalError("the scraper ended")
        return Scrape(*json.loads(line))


@contextmanager
def _scraper(url: str) -> Iterator[_Scraper]:
    command = [sys.executable, "-m", "tensor_wasm.bench.scrape", "scrape", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _Scraper(process)
        finally:
            process.kill()


def _scrapes(report: Report, scraper: _Scraper, name: str, bar: str | None = None) -> None:
    found = []
    for _ in range(_SCRAPES + 1):
        found.append(scraper.scrape())
        time.sleep(_PAUSE_S)
    own_s = [later.server_total_s - one.server_total_s for one, later in itertools.pairwise(found)]
    size_kib = found[-1].size_bytes / 1024
    report.add(f"a scrape of {size_kib:,.0f} KiB, {name}: the node's own time", np.multiply(own_s, 1e3), "ms", bar=bar)
    waited_ms = [scrape.client_s * 1e3 for scrape in found[1:]]
    report.add(f"a scrape of {size_kib:,.0f} KiB, {name}: the scraper's wait", waited_ms, "ms", bar=bar)


@contextmanager
def _busy(url: str, tenants: list[_Tenant], calls_per_s: int | None = None) -> Iterator[None]:
    """All tenants' instances launch in turns, and their functions are invoked, while the context lasts.

    ``calls_per_s`` is how many calls are made, as many as possible without.
    """
    calls: list[tuple[str, str, int]] = []
    for tenant in tenants:
        launch = json.dumps({"export": "launch_loop", "args": [_LAUNCHES]})
        calls.append((f"/instances/{tenant.instance}/invoke", launch, tenant.number))
        calls.append((f"/functions/{tenant.function}/invoke", '{"export":"noop","args":[]}', tenant.number))
    command = [sys.executable, "-m", "tensor_wasm.bench.scrape", "load", url]
    pause_s = 0.0 if calls_per_s is None else _CONNECTIONS / calls_per_s
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps([pause_s, calls]) + "\n")
        process.stdin.flush()
        try:
            time.sleep(_SETTLE_S)
            yield
            if process.poll() is not None:
                raise InternalError("the load ended: an invocation failed")
        finally:
            process.kill()


# --- launches ----------------------------------------------------------------------------------------------


def _launches(report: Report, node: Node, tenant: _Tenant, scraper: _Scraper, duration_s: float) -> None:
    """Time launches in windows of a second: with no scrape, with one, and with one after the other."""
    guest = _Launcher(node, tenant)
    found: dict[str, list[NDArray[np.float64]]] = {
        "not scraped": [],
        "scraped each second": [],
        "scraped all the time": [],
    }
    windows = max(round(duration_s / _WINDOW_S), 1)
    guest.window()  # warms up
    for number in range(windows):
        # The order turns around, so that what else the machine does meanwhile meets both alike.
        for kind in list(found)[:2] if number % 2 else list(found)[1::-1]:
            with _scraping(scraper, 0 if kind == "not scraped" else 1):
                found[kind].append(guest.window())
    for _ in range(max(windows // 4, 1)):
        with _scraping(scraper, None):
            found["scraped all the time"].append(guest.window())
    cases = {
        kind: report.add(f"a launch, {kind}", np.concatenate(samples), "us", peer="a launch, not scraped")
        for kind, samples in found.items()
    }
    for kind, bar in (("scraped each second", "<= 1.05"), ("scraped all the time", None)):
        report.add_value(f"P95 {kind} to not scraped", cases[kind].p95 / cases["not scraped"].p95, "x", bar=bar)


class _Launcher:
    """A kept instance that launches and times it."""

    def __init__(self, node: Node, tenant: _Tenant) -> None:
        self._node = node
        self._tenant = tenant
        self._call("clock_loop", _ROUND)
        self._clock_ns = float(np.median(self._samples()))

    def window(self) -> NDArray[np.float64]:
        """Launch for a second. Microseconds of some of the launches, the clock's own cost taken off."""
        found: list[int] = []
        until_s = time.monotonic() + _WINDOW_S
        while time.monotonic() < until_s:
            self._call("time_loop", _ROUND)
            found += self._samples()
        return np.maximum(np.array(found, dtype=float) - self._clock_ns, 0) / 1e3

    def _samples(self) -> list[int]:
        return [self._call("sample", index) for index in range(0, _ROUND, _STRIDE)]

    def _call(self, export: str, argument: int) -> int:
        (result,) = self._node.kept.call(self._tenant.instance, export, [argument], tenant=self._tenant.number).results
        if result < 0:
            raise InternalError(f"the guest's {export} gave {result}")
        return int(result)


@contextmanager
def _scraping(scraper: _Scraper, count: int | None) -> Iterator[None]:
    """Scrape so many times in the midst of a window, in a thread; without ``count`` again and again until its end."""
    is_over = threading.Event()

    def run() -> None:
        if count is not None:
            for _ in range(count):
                if not is_over.wait(_WINDOW_S / (count + 1)):
                    scraper.scrape()
        while count is None and not is_over.is_set():
            scraper.scrape()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


# --- the processes -----------------------------------------------------------------------------------------


def _run_scraper(url: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    while sys.stdin.readline():
        began_s = time.perf_counter()
        connection.request("GET", "/metrics", headers={"Accept": _ACCEPT})
        answer = connection.getresponse()
        body = answer.read()
        client_s = time.perf_counter() - began_s
        found = _OWN_TIME.search(body)
        if answer.status != 200 or found is None:
            raise SystemExit(1)
        sys.stdout.write(json.dumps([client_s, float(found[1]), len(body)]) + "\n")
        sys.stdout.flush()


async def _run_load(url: str, pause_s: float, calls: list[tuple[str, str, int]]) -> None:
    turns = itertools.cycle(calls)
    loop = asyncio.get_running_loop()

    async def work() -> None:
        connection = await Connection.open(url)
        due_s = loop.time()
        while True:
            due_s = max(due_s + pause_s, loop.time())  # what was missed is not made up for
            await asyncio.sleep(due_s - loop.time())
            path, body, tenant = next(turns)
            status, _ = await connection.request("POST", path, body.encode(), tenant)
            if status not in (200, 409):  # an instance may still be at its last call
                raise SystemExit(1)

    await asyncio.gather(*(work() for _ in range(_CONNECTIONS)))


def main(arguments: list[str]) -> None:
    """Scrape, or make the load."""
    what, url = arguments
    if what == "scrape":
        _run_scraper(url)
    else:
        asyncio.run(_run_load(url, *json.loads(sys.stdin.readline())))


if __name__ == "__main__":
    main(sys.argv[1:])
