"""Counts of what the node did since it started: instances, endings, memory. Launches are the ledger's to count."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tensor_wasm.device.protocol import COMPILE_BUCKETS_S, LOAD_BUCKETS_S, KernelStatistics
from tensor_wasm.errors import Ending
from tensor_wasm.host import Stream
from tensor_wasm.runtime import Budget

#: Upper bounds, in seconds, of the histogram of instance starts.
SPAWN_BUCKETS_S: tuple[float, ...] = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip

#: The same of snapshots: a large one takes as long as the disk needs for it.
SNAPSHOT_BUCKETS_S: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
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
    kernel_load: Distribution
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
    snapshot_capture: Distribution
    snapshot_restore: Distribution
    snapshots_in_progress: int
    stream_chunks: int


class _Durations:
    """Durations that are counted in buckets; whoever uses it has a lock."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._sum_s += duration_s

    def read(self) -> Distribution:
        """All that were counted."""
        return Distribution(self._bounds_s, tuple(self._counts), self._sum_s)


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
        self._spawn = _Durations(SPAWN_BUCKETS_S)
        self._capture = _Durations(SNAPSHOT_BUCKETS_S)
        self._restore = _Durations(SNAPSHOT_BUCKETS_S)
        self._snapshots_in_progress = 0
        self._streams: set[Stream] = set()
        self._ended_stream_chunks = 0
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
            self._spawn.add(duration_s)
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

    @contextmanager
    def writing_snapshot(self, *, is_capture: bool) -> Iterator[None]:
        """A block in which an instance's state is put on the disk; how long it took counts when it is a ``capture``."""
        started_s = time.perf_counter()
        with self._lock:
            self._snapshots_in_progress += 1
        try:
            yield
        except BaseException:
            with self._lock:
                self._snapshots_in_progress -= 1
            raise
        with self._lock:
            self._snapshots_in_progress -= 1
            if is_capture:
                self._capture.add(time.perf_counter() - started_s)

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """A block in which an instance is made from a snapshot; counted when it is there."""
        started_s = time.perf_counter()
        yield
        with self._lock:
            self._restore.add(time.perf_counter() - started_s)

    @contextmanager
    def streaming(self, stream: Stream | None) -> Iterator[None]:
        """A block in which a guest emits to a stream, if there is one: its chunks are counted as they come."""
        if stream is None:
            yield
            return
        with self._lock:
            self._streams.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._streams.remove(stream)
                self._ended_stream_chunks += stream.emitted_chunks

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
                kernel_load=Distribution(LOAD_BUCKETS_S, tuple(kernels.load_counts), kernels.load_sum_s),
                spawn=self._spawn.read(),
                cache_hits=dict(kernels.hits),
                cache_misses=dict(kernels.misses),
                spawns=dict(self._spawns),
                active=dict(self._active),
                terminations=dict(self._terminations),
                guest_memory_bytes=dict(memory),
                gpu_memory_bytes=dict(self._device_bytes),
                refusals=dict(self._refusals),
                functions=self.functions,
                snapshot_capture=self._capture.read(),
                snapshot_restore=self._restore.read(),
                snapshots_in_progress=self._snapshots_in_progress,
                stream_chunks=self._ended_stream_chunks + sum(stream.emitted_chunks for stream in self._streams),
            )
