"""What a neighbour's flood does to a tenant that calls one function after the other, over HTTP.

The contrast is the same flood under the tenant's own number: within a tenant calls are served in order of arrival.
All clients are processes of their own on the same machine.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tensor_wasm.bench.background import serving
from tensor_wasm.bench.load import HttpLoad, HttpResult
from tensor_wasm.bench.report import Case, Report
from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.bench.working_guest import steps_for, working_guest
from tensor_wasm.errors import InternalError
from tensor_wasm.node import Node

_FLOOD, _ONE = 1, 2  # the tenants
_CONNECTIONS = 64
_WORK_S = 0.005
_LONGEST_S = 600.0
_PATIENCE_S = 30.0
_POLL_S = 0.01


def measure(home: Path, duration_s: float) -> Report:
    """Measure each case for ``duration_s`` seconds."""
    report = Report("admission")
    with serving(home) as (node, url):
        work = node.functions.deploy("work", working_guest(), _ONE).id
        noop = node.functions.deploy("noop", guest_wasm("noop"), _ONE).id
        steps = steps_for(lambda count: node.invocations.invoke(work, "work", [count], tenant=_ONE), _WORK_S)
        calls = [
            _Call(f"{url}/functions/{noop}/invoke", "noop"),
            _Call(f"{url}/functions/{work}/invoke", "work", steps),
        ]
        flood_urls = {
            _FLOOD: f"{url}/functions/{node.functions.deploy('flood', working_guest(), _FLOOD).id}/invoke",
            _ONE: f"{url}/functions/{node.functions.deploy('flood', working_guest(), _ONE).id}/invoke",
        }
        idle = {call: _add(report, call, duration_s, "idle") for call in calls}
        for tenant, beside in ((_FLOOD, "beside another's flood"), (_ONE, "beside its own flood, first come")):
            with _flooding(node, flood_urls[tenant], tenant, steps):
                before, began_s = node.statistics.read().spawns.get(tenant, 0), time.perf_counter()
                found = {call: _add(report, call, duration_s, beside, idle[call]) for call in calls}
                spawned = node.statistics.read().spawns[tenant] - before
                elapsed_s = time.perf_counter() - began_s
            for call, case in found.items():
                bar = "<= 2" if tenant == _FLOOD else None
                for name, value, usual in (("P50", case.p50, idle[call].p50), ("P95", case.p95, idle[call].p95)):
                    report.add_value(f"{call.name} {beside}: {name} to idle", value / usual, "x", bar=bar)
            report.add_value(f"invocations in all {beside}", spawned / elapsed_s, "/s")
    return report


@dataclass(frozen=True, slots=True)
class _Call:
    """What the tenant invokes, one at a time. ``steps`` of work, or none for a function that does nothing."""

    url: str
    export: str
    steps: int | None = None

    @property
    def name(self) -> str:
        return "noop" if self.steps is None else f"{_WORK_S * 1e3:g} ms"

    @property
    def body(self) -> bytes:
        return json.dumps({"export": self.export, "args": [] if self.steps is None else [self.steps]}).encode()


def _add(report: Report, call: _Call, duration_s: float, beside: str, peer: Case | None = None) -> Case:
    """Invoke one at a time for ``duration_s``, and report it."""
    found: HttpResult = HttpLoad(call.url, 1, duration_s, call.body, _ONE).run()
    failures = f", {found.failures} failures" if found.failures else ""
    name = f"{call.name} {beside} ({found.client}{failures})"
    count = round(found.rate * duration_s)
    percentiles = (found.p50_ms, found.p95_ms, found.p99_ms)
    case = Case(name, "ms", count, *percentiles, found.rate, peer=None if peer is None else peer.name)
    report.cases.append(case)
    return case


@contextmanager
def _flooding(node: Node, url: str, tenant: int, steps: int) -> Iterator[None]:
    """A tenant invokes over many connections while the context lasts; begins when its calls queue."""
    body = json.dumps({"export": "work", "args": [steps]}).encode()
    process = HttpLoad(url, _CONNECTIONS, _LONGEST_S, body, tenant).start()
    try:
        _wait_for_queue(node, process, tenant)
        yield
    finally:
        process.kill()
        process.communicate()
    _wait_until_served(node, tenant)


def _wait_for_queue(node: Node, process: subprocess.Popen[str], tenant: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not node.intake.queued().get(tenant):
        if process.poll() is not None or time.monotonic() >= until:
            raise InternalError("the load did not begin")
        time.sleep(_POLL_S)


def _wait_until_served(node: Node, tenant: int) -> None:
    """Wait for the end of what the load left behind."""
    until = time.monotonic() + _PATIENCE_S
    while node.intake.queued().get(tenant) or node.statistics.active_count:
        if time.monotonic() >= until:
            raise InternalError("invocations do not end")
        time.sleep(_POLL_S)
