"""How fast an operator ends an instance over HTTP, wherever it is, and what a bystander notices of it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensor_wasm.bench.background import serving
from tensor_wasm.bench.client import Connection
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.bench.working_guest import working_guest
from tensor_wasm.errors import InternalError
from tensor_wasm.node import Node

#: Tenants: most instances are the first's; the second may hold one permit, so that its other instances wait for it; the
#: third is the bystander.
_MANY, _CAPPED, _BYSTANDER = 1, 2, 3
_LOOP, _KERNEL, _WAITING, _ASLEEP = "tight loop", "endless kernel", "waiting for a permit", "asleep in poll_oneoff"
_STATES = {
    _LOOP: ("spin", "running"),
    _KERNEL: ("kernel", "in_kernel"),
    _WAITING: ("kernel", "waiting"),
    _ASLEEP: ("sleep", "running"),
}
_DEADLINE_S = 600.0
_PATIENCE_S = 60.0
_POLL_S = 0.05
#: Until those that start have done so: a state says ``running`` also for who is about to sleep.
_SETTLE_S = 0.5
#: How often the bystander calls, and for how long before anything ends.
_PAUSE_S = 0.005
_BEFORE_S = 2.0


def measure(home: Path, count: int) -> Report:
    """End ``count`` instances, a quarter in each state, one after the other in random order."""
    report = Report("termination")
    settings = {"workers": count, "dispatch_permits": count, "invoke_deadline_s": _DEADLINE_S}
    with serving(home, **settings) as (node, url):
        node.administration.change_tenant(_CAPPED, {"permits": 1})
        asyncio.run(_Measurement(report, node, url, count).run())
    return report


@dataclass(slots=True)
class _Bystander:
    """A tenant that invokes a function which does nothing, again and again: when each began, and its milliseconds."""

    found: list[tuple[float, float]] = field(default_factory=list)
    is_over: bool = False

    async def run(self, connection: Connection, path: str) -> None:
        body = json.dumps({"export": "noop"}).encode()
        while not self.is_over:
            began_s = time.perf_counter()
            status, _ = await connection.request("POST", path, body, _BYSTANDER)
            if status != 200:
                raise InternalError(f"the bystander was answered {status}")
            self.found.append((began_s, (time.perf_counter() - began_s) * 1e3))
            await asyncio.sleep(_PAUSE_S)

    def since(self, start_s: float) -> list[float]:
        return [milliseconds for began_s, milliseconds in self.found if began_s >= start_s]


@dataclass(slots=True)
class _Measurement:
    """One run against one node."""

    report: Report
    node: Node
    url: str
    count: int
    answers: asyncio.Queue[tuple[float, str]] = field(default_factory=asyncio.Queue)

    async def run(self) -> None:
        bystander = _Bystander()
        admin = await Connection.open(self.url)
        function = self.node.functions.deploy("noop", guest_wasm("noop"), _BYSTANDER)
        path = f"/functions/{function.id}/invoke"
        calling = asyncio.create_task(bystander.run(await Connection.open(self.url), path))
        idle_s = time.perf_counter()
        await asyncio.sleep(_BEFORE_S)
        idle = bystander.since(idle_s)
        callers = await self._start()
        order = await self._settled(admin)
        before_s = time.perf_counter()
        await asyncio.sleep(_BEFORE_S)
        before = bystander.since(before_s)
        during_s = time.perf_counter()
        await self._end_all(admin, order)
        during = bystander.since(during_s)
        bystander.is_over = True
        await asyncio.gather(calling, *callers)
        self._report_rest(idle, before, during)

    # --- the instances ----------------------------------------------------------------------------------

    async def _start(self) -> list[asyncio.Task[None]]:
        """Invoke all, each over a connection of its own."""
        functions = {
            tenant: self.node.functions.deploy("work", working_guest(), tenant).id for tenant in (_MANY, _CAPPED)
        }
        quarter = self.count // 4
        holder = [(_CAPPED, "kernel")]  # holds the permit that those of its tenant wait for
        wanted = [
            *holder,
            *[(_MANY, "spin")] * (self.count - 3 * quarter),
            *[(_MANY, "kernel")] * (quarter - 1),
            *[(_CAPPED, "kernel")] * quarter,
            *[(_MANY, "sleep")] * quarter,
        ]
        callers = []
        for tenant, export in wanted:
            path = f"/functions/{functions[tenant]}/invoke"
            callers.append(asyncio.create_task(self._invoke(path, export, tenant)))
            if len(callers) == 1:
                await self._wait(
                    lambda: [v.state for v in self.node.administration.instances(_CAPPED)] == ["in_kernel"]
                )
        return callers

    async def _invoke(self, path: str, export: str, tenant: int) -> None:
        connection = await Connection.open(self.url)
        status, body = await connection.request("POST", path, json.dumps({"export": export}).encode(), tenant)
        answered_s = time.perf_counter()
        kind = "none" if status == 200 else json.loads(body)["error"]["kind"]
        await self.answers.put((answered_s, kind))
        connection.close()

    async def _settled(self, admin: Connection) -> list[tuple[str, str]]:
        """Wait until each instance is where it shall be; their ids and states, in the order of their ends."""
        found: list[tuple[str, str]] = []
        names = {place: state for state, place in _STATES.items()}
        expected = Counter(dict.fromkeys(_STATES, self.count // 4))
        expected[_LOOP] += self.count % 4
        last = ""
        until_s = time.perf_counter() + _PATIENCE_S
        while Counter(state for _, state in found) != expected:
            if time.perf_counter() >= until_s:
                raise InternalError(f"the instances are {dict(Counter(state for _, state in found))}")
            await asyncio.sleep(_POLL_S)
            _, body = await admin.request("GET", "/admin/instances")
            views: list[dict[str, Any]] = [v for v in json.loads(body)["instances"] if v["tenant"] != _BYSTANDER]
            found = [(v["id"], names.get((v["export"], v["state"]), v["state"])) for v in views]
            last = next((v["id"] for v in views if v["tenant"] == _CAPPED and v["state"] == "in_kernel"), "")
        await asyncio.sleep(_SETTLE_S)
        random.shuffle(found)
        # Whoever waits would take over the permit of the one that holds it.
        return sorted(found, key=lambda item: item[0] == last)

    async def _end_all(self, admin: Connection, order: list[tuple[str, str]]) -> None:
        """End each, and wait for the answer of its caller before the next."""
        took_ms: dict[str, list[float]] = {state: [] for state in _STATES}
        answered_ms: dict[str, list[float]] = {state: [] for state in _STATES}
        for identity, state in order:
            ordered_s = time.perf_counter()
            status, body = await admin.request("POST", f"/admin/instances/{identity}/terminate")
            answer = json.loads(body)
            if status != 200 or not answer["ended"]:
                raise InternalError(f"an instance did not end ({state}): {body.decode()}")
            answered_s, kind = await asyncio.wait_for(self.answers.get(), _PATIENCE_S)
            if kind != "terminated":
                raise InternalError(f"the caller of an instance that was ended ({state}) was answered {kind}")
            took_ms[state].append(answer["took_ms"])
            answered_ms[state].append((answered_s - ordered_s) * 1e3)
        for state in _STATES:
            self.report.add(f"{state}: ended", took_ms[state], "ms", bar="max <= 100 ms")
            self.report.add(f"{state}: its caller is answered", answered_ms[state], "ms", bar="max <= 100 ms")

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        until_s = time.perf_counter() + _PATIENCE_S
        while not is_so():
            if time.perf_counter() >= until_s:
                raise InternalError("an instance does not start")
            await asyncio.sleep(_POLL_S)

    # --- what else there is -----------------------------------------------------------------------------

    def _report_rest(self, idle: list[float], before: list[float], during: list[float]) -> None:
        report = self.report
        report.add("bystander: an idle node", idle, "ms")
        peer = report.add(f"bystander: {self.count} instances, none ended", before, "ms")
        report.add("bystander: while they are ended", during, "ms", bar="as before", peer=peer.name)
        held, left = self.node.ledger.read().used, len(self.node.administration.instances())
        report.add_value("permits held at the end", held, "", bar="0")
        report.add_value("instances at the end", left, "", bar="0")
