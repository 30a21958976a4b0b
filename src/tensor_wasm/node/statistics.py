"""Counts of what the node did since it started: instances, endings, memory. Launches are the ledger's to count."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass

from tensor_wasm.device import COMPILE_BUCKETS_S, KernelStatistics
from tensor_wasm.errors import Ending
from tensor_wasm.runtime import Budget

#: Upper bounds, in seconds, of the histogram of instance starts.
SPAWN_BUCKETS_S: tuple[float, ...] = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip

#: What tenants are refused for: a quota, a rate, or their queue in front of the workers.
RATE = "rate"
QUOTAS = ("instances", "guest_memory", "gpu_memory", "functions", "stored_bytes", "queue", RATE)

#: Tenants counted by themselves; those that come later share the key None. A flood of numbers costs no memory.
_TENANTS_MAX = 1024

Tenant = int | None


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram: ``counts`` per bucket (not cumulative), the last above every bound; bounds and sum in seconds."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class StatisticsView:
    """The counts at one moment. The tenant None stands for all that are not counted by themselves."""

    kernel_compile: Distribution
    spawn: Distribution
    cache_hits: dict[str, int]
    cache_misses: dict[str, int]
    spawns: dict[Tenant, int]
    active: dict[Tenant, int]
    terminations: dict[tuple[Tenant, str], int]
    guest_memory_bytes: dict[Tenant, int]
    gpu_memory_bytes: dict[Tenant, int]
    refusals: dict[tuple[Tenant, str], int]
    functions: int


class Statistics:
    """Counters that worker threads raise and scrapes read."""

    def __init__(self, kernels: KernelStatistics) -> None:
        self._kernels = kernels
        self._lock = threading.Lock()
        self._spawns: defaultdict[Tenant, int] = defaultdict(int)
        self._active: defaultdict[Tenant, int] = defaultdict(int)
        self._terminations: defaultdict[tuple[Tenant, str], int] = defaultdict(int)
        self._refusals: defaultdict[tuple[Tenant, str], int] = defaultdict(int)
        self._device_bytes: defaultdict[Tenant, int] = defaultdict(int)
        self._spawn_counts = [0] * (len(SPAWN_BUCKETS_S) + 1)
        self._spawn_sum_s = 0.0
        self._live: dict[int, tuple[Tenant, Budget]] = {}
        self.functions = 0

    @property
    def active_count(self) -> int:
        """Instances that live now."""
        with self._lock:
            return sum(self._active.values())

    def begin(self, tenant: int) -> Tenant:
        """Count an instance that is being made; the key to pass to the other calls."""
        with self._lock:
            key = self._key(tenant)
            self._spawns[key] += 1
            self._active[key] += 1
        return key

    def refused(self, tenant: int, quota: str) -> None:
        """Count what a tenant was refused for one of ``QUOTAS``."""
        with self._lock:
            self._refusals[self._key(tenant), quota] += 1

    def spawned(self, key: Tenant, duration_s: float, index: int, memory: Budget) -> None:
        """Note that the instance in ledger slot ``index`` is ready, after ``duration_s``."""
        with self._lock:
            self._spawn_counts[bisect_left(SPAWN_BUCKETS_S, duration_s)] += 1
            self._spawn_sum_s += duration_s
            self._live[index] = (key, memory)

    def end(self, key: Tenant, ending: Ending, index: int) -> None:
        """Count an instance's end."""
        with self._lock:
            self._active[key] -= 1
            self._terminations[key, ending.value] += 1
            self._live.pop(index, None)

    def device_bytes_changed(self, key: Tenant, change: int) -> None:
        """Note that a tenant's device memory grew or shrank."""
        with self._lock:
            self._device_bytes[key] += change

    def _key(self, tenant: int) -> Tenant:
        if tenant in self._spawns:
            return tenant
        if len(self._spawns) >= _TENANTS_MAX:
            return None
        self._spawns[tenant] = 0
        return tenant

    def read(self) -> StatisticsView:
        """All counts at this moment."""
        kernels = self._kernels
        with self._lock:
            memory: defaultdict[Tenant, int] = defaultdict(int, dict.fromkeys(self._spawns, 0))
            for key, live in self._live.values():
                memory[key] += live.used_bytes
            return StatisticsView(
                kernel_compile=Distribution(COMPILE_BUCKETS_S, tuple(kernels.compile_counts), kernels.compile_sum_s),
                spawn=Distribution(SPAWN_BUCKETS_S, tuple(self._spawn_counts), self._spawn_sum_s),
                cache_hits=dict(kernels.hits),
                cache_misses=dict(kernels.misses),
                spawns=dict(self._spawns),
                active=dict(self._active),
                terminations=dict(self._terminations),
                guest_memory_bytes=dict(memory),
                gpu_memory_bytes=dict(self._device_bytes),
                refusals=dict(self._refusals),
                functions=self.functions,
            )
