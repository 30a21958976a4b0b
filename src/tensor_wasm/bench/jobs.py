"""Background jobs over HTTP: all of them queued and drained, with the database as durable as a node's is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tensor_wasm.bench.background import serving
from tensor_wasm.bench.client import Connection
from tensor_wasm.bench.report import Case, Report
from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.errors import InternalError

_CONNECTIONS = 64
_BODY = b'{"export":"noop","args":[]}'
_PAGE = 1000
_POLL_S = 0.02
_PATIENCE_S = 120.0


def measure(home: Path, count: int) -> Report:
    """Queue ``count`` jobs from another process on the same machine, and wait until all have completed."""
    report = Report("jobs")
    with serving(home, job_queue_depth=max(count, 1)) as (node, url):
        function = node.functions.deploy("noop", guest_wasm("noop"))
        command = [sys.executable, "-m", "tensor_wasm.bench.jobs", f"{url}/functions/{function.id}", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=2 * _PATIENCE_S)
        if done.returncode != 0:
            raise InternalError("the jobs did not all complete")
        found = json.loads(done.stdout)
    _add(report, f"accepted (202), {_CONNECTIONS} connections", found["acknowledged"], found["accept_s"])
    name = f"queued and drained, {found['completed']:,} of {count:,} completed"
    _add(report, name, found["completed"], found["all_s"], bar=">= 1,500/s, none lost")
    report.add("from accepted to ended", found["latencies_ms"], "ms")
    return report


def _add(report: Report, name: str, count: int, elapsed_s: float, bar: str | None = None) -> None:
    report.cases.append(Case(name, "s", 1, elapsed_s, elapsed_s, elapsed_s, count / elapsed_s, bar, None, elapsed_s))


class _Client:
    """Makes the jobs and waits for them."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._path = urlsplit(url).path
        self._left = count
        self._ids: set[str] = set()

    async def run(self) -> dict[str, object]:
        """What a report is made from."""
        count = self._left
        began_s = time.perf_counter()
        await asyncio.gather(*(self._submit() for _ in range(_CONNECTIONS)))
        accepted_s = time.perf_counter()
        connection = await Connection.open(self._url)
        while not await self._is_drained(connection):
            if time.perf_counter() - began_s > _PATIENCE_S:
                break
            await asyncio.sleep(_POLL_S)
        drained_s = time.perf_counter()
        jobs = await self._jobs(connection)
        connection.close()
        ended = [job for job in jobs if job["status"] == "completed" and job["id"] in self._ids]
        if len(self._ids) != count or len(ended) != count:
            raise SystemExit(1)
        return {
            "acknowledged": len(self._ids),
            "completed": len(ended),
            "accept_s": accepted_s - began_s,
            "all_s": drained_s - began_s,
            "latencies_ms": [(job["finished_at"] - job["created_at"]) * 1e3 for job in ended],
        }

    async def _submit(self) -> None:
        connection = await Connection.open(self._url)
        while self._left > 0:
            self._left -= 1
            status, body = await connection.request("POST", f"{self._path}/invoke-async", _BODY)
            if status == 202:
                self._ids.add(json.loads(body)["job_id"])
        connection.close()

    async def _is_drained(self, connection: Connection) -> bool:
        for status in ("pending", "running"):
            _, body = await connection.request("GET", f"/jobs?status={status}&limit=1")
            if json.loads(body)["jobs"]:
                return False
        return True

    async def _jobs(self, connection: Connection) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = []
        after = ""
        while True:
            _, body = await connection.request("GET", f"/jobs?limit={_PAGE}{after}")
            page = json.loads(body)
            jobs += page["jobs"]
            if page["next"] is None:
                return jobs
            after = f"&after={page['next']}"


if __name__ == "__main__":
    target, number = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(_Client(target, int(number)).run())) + "\n")
