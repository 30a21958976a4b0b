"""A node that runs no guest: what the HTTP room needs of one, quick and with every ending at hand."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass

import numpy as np

from tensor_wasm.dispatch.layout import COUNTERS
from tensor_wasm.dispatch.ledger import LedgerTable, LedgerView
from tensor_wasm.errors import NotFound, NotReady, Terminated
from tensor_wasm.node import Distribution, Export, Function, Import, InvocationResult, Page, StatisticsView
from tensor_wasm.tenancy import Tenants, TokenBook


@dataclass
class FakeDevice:
    name: str = "cpu"
    kind: str = "cpu"
    restarts: int | None = None
    gpu: None = None


class FakeRestarts:
    listener = None


class Reading:
    def __init__(self, view):
        self.view = view

    def read(self):
        return self.view


class FakeLedger(Reading):
    """A ledger that shows what it is told to."""

    def table(self):
        rows = self.view.tenants
        counts = np.zeros((len(rows), COUNTERS.size // 8), np.int64)
        for words, row in zip(counts, rows, strict=True):
            for name in ("dispatches", "rejected_saturated", "rejected_deadline", "rejected_quota", "faults"):
                words[getattr(COUNTERS, name) // 8] = getattr(row, name)
            for name in ("latency", "execution", "permit_wait"):
                values = (*getattr(row, name).counts, getattr(row, name).sum_ns)
                first = getattr(COUNTERS, name) // 8
                words[first : first + len(values)] = values
        return LedgerTable(
            self.view.permits,
            self.view.used,
            tuple(row.tenant for row in rows),
            tuple(row.held for row in rows),
            tuple(row.waiting for row in rows),
            counts,
        )


def no_statistics():
    nothing = Distribution((0.1, 1.0), (0, 0, 0), 0.0)
    return StatisticsView(
        kernel_compile=nothing,
        kernel_load=nothing,
        spawn=nothing,
        cache_hits={"memory": 0, "disk": 0},
        cache_misses={"memory": 0, "disk": 0},
        spawns={},
        active={},
        terminations={},
        guest_memory_bytes={},
        gpu_memory_bytes={},
        refusals={},
        functions=0,
        snapshot_capture=nothing,
        snapshot_restore=nothing,
        snapshots_in_progress=0,
        stream_chunks=0,
    )


class NoStore:
    """A database that forgets."""

    def all(self):
        return {}

    def add(self, record):
        pass

    def delete(self, id):
        return True

    def set(self, tenant, values):
        pass


class Counting(Reading):
    def refused(self, tenant, quota):
        pass


class FakeJobQueue:
    busy = 0
    waiting = 0

    def start(self, on_end):
        pass


class FakeDrain:
    def __init__(self):
        self.is_draining = False
        self.has_ended_all = False

    def begin(self):
        self.is_draining = True

    def finish(self, timeout_s):
        self.is_draining = self.has_ended_all = True
        return 0

    def check_open(self):
        if self.is_draining:
            raise NotReady("the node is draining and takes no more work")


class FakeHealth:
    def __init__(self, drain):
        self._drain = drain

    def readiness(self):
        return ["draining"] if self._drain.is_draining else []

    def concerns(self):
        return []


class FakeIntake:
    async def in_background(self, tenant, function, *args):
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    def queued(self):
        return {}


class FakeFunctions:
    def __init__(self, drain):
        self._drain = drain
        self.deployed = {}

    def deploy(self, name, wasm, tenant=0, prewarm=None):
        self._drain.check_open()
        function = Function(
            id=str(uuid.uuid4()),
            name=name,
            tenant=tenant,
            digest="ab" * 32,
            size_bytes=len(wasm),
            created_at=time.time(),
            exports=(Export("run", ("i32", "f64"), ("i64",)),),
            imports=(Import("wasi:cuda/host@0.2.0", "launch"),),
            memory_pages=17,
            prewarm=prewarm,
        )
        self.deployed[function.id] = (function, wasm)
        return function

    def list(self, tenant=0, limit=100, after=None):
        mine = [function for function, _ in self.deployed.values() if function.tenant == tenant]
        start = 0
        if after is not None:
            start = [function.id for function in mine].index(after) + 1
        items = mine[start : start + limit]
        return Page(items, items[-1].id if len(mine) > start + limit else None)

    def show(self, id, tenant=0):
        function, _ = self.deployed.get(id, (None, None))
        if function is None or function.tenant != tenant:
            raise NotFound("no such function for this tenant")
        return function

    def delete(self, id, tenant=0):
        self.show(id, tenant)
        del self.deployed[id]


class FakeInvocations:
    """``behaviour`` is what an invocation does: a function of (export, args, input) that returns values or raises."""

    def __init__(self, drain):
        self._drain = drain
        self.behaviour = lambda export, args, input: list(args)
        self.calls = []
        self.slow_s = 0.0
        self.cancelled = 0
        self.output = (b"", b"", 0)

    async def invoke_async(self, id, export=None, args=(), *, tenant=0, input=b"", deadline_s=None):
        self._drain.check_open()
        self.calls.append((id, export, list(args), tenant, input, deadline_s))
        if self.slow_s:
            try:
                await self._work()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        values = self.behaviour(export, args, input)
        return InvocationResult(values, export or "run", id, str(uuid.uuid4()), 0.0000125, 3, *self.output)

    async def _work(self):
        started_s = time.monotonic()
        while time.monotonic() - started_s < self.slow_s:  # a test may say in the middle that it is enough
            if self._drain.has_ended_all:
                raise Terminated("an operator ended the instance")
            await asyncio.sleep(0.01)


class FakeNode:
    def __init__(self, config):
        self.config = config
        self.device = FakeDevice()
        self.restarts = FakeRestarts()
        self.ledger = FakeLedger(LedgerView(64, 0, ()))
        self.statistics = Counting(no_statistics())
        self.tokens = TokenBook(config.api_tokens, NoStore())
        self.tenants = Tenants(NoStore())
        self.administration = None
        self.drain = FakeDrain()
        self.health = FakeHealth(self.drain)
        self.intake = FakeIntake()
        self.job_queue = FakeJobQueue()
        self.functions = FakeFunctions(self.drain)
        self.invocations = FakeInvocations(self.drain)
