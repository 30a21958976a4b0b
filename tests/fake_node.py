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


class FakeJobs:
    busy = 0
    waiting = 0

    def start(self, on_end):
        pass


class FakeNode:
    """``behaviour`` is what an invocation does: a function of (export, args, input) that returns values or raises."""

    def __init__(self, config):
        self.config = config
        self.device = FakeDevice()
        self.ledger = FakeLedger(LedgerView(64, 0, ()))
        self.statistics = Counting(no_statistics())
        self.tokens = TokenBook(config.api_tokens, NoStore())
        self.tenants = Tenants(NoStore())
        self.administration = None
        self.jobs = FakeJobs()
        self.deployed = {}
        self.behaviour = lambda export, args, input: list(args)
        self.calls = []
        self.slow_s = 0.0
        self.cancelled = 0
        self.ended = False
        self.draining = False
        self.output = (b"", b"", 0)

    def deploy(self, name, wasm, tenant=0, prewarm=None):
        if self.draining:
            raise NotReady("the node is draining and takes no more work")
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

    def functions(self, tenant=0, limit=100, after=None):
        mine = [function for function, _ in self.deployed.values() if function.tenant == tenant]
        start = 0
        if after is not None:
            start = [function.id for function in mine].index(after) + 1
        items = mine[start : start + limit]
        return Page(items, items[-1].id if len(mine) > start + limit else None)

    def function(self, id, tenant=0):
        function, _ = self.deployed.get(id, (None, None))
        if function is None or function.tenant != tenant:
            raise NotFound("no such function for this tenant")
        return function

    def delete(self, id, tenant=0):
        self.function(id, tenant)
        del self.deployed[id]

    async def invoke_async(self, id, export=None, args=(), *, tenant=0, input=b"", deadline_s=None):
        if self.draining:
            raise NotReady("the node is draining and takes no more work")
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
            if self.ended:
                raise Terminated("an operator ended the instance")
            await asyncio.sleep(0.01)

    async def in_background(self, tenant, function, *args):
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    def queued(self):
        return {}

    @property
    def is_draining(self):
        return self.draining

    def readiness(self):
        return ["draining"] if self.draining else []

    def concerns(self):
        return []

    def begin_drain(self):
        self.draining = True

    def drain(self, timeout_s):
        self.draining = self.ended = True
        return True
