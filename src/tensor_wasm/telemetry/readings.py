"""What a sample of the node is made of: each part read from where it is counted, as small as a history can keep it.

Each part is read by a function of its own, which may wait for a lock or a disk: :class:`~.bounded.Bounded` calls them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.config import Config
from tensor_wasm.dispatch.layout import State
from tensor_wasm.dispatch.ledger import LATENCY_BUCKETS_S, Ledger, LedgerView, Slot
from tensor_wasm.node import Distribution, InstanceView, Node, StatisticsView
from tensor_wasm.telemetry.disk import Disk, DiskCounters, share_a_disk
from tensor_wasm.telemetry.http_metrics import DURATION_BUCKETS_S, HttpMetrics
from tensor_wasm.telemetry.lag import LagMonitor
from tensor_wasm.telemetry.nvml import Gpu, GpuReader
from tensor_wasm.telemetry.tenants import Tenant

#: A permit that is held outside of a launch for so long is wedged; between two steps of a launch are microseconds.
WEDGED_S = 1.0
#: How often permits that nobody holds are counted in one reading: launches begin and end meanwhile.
_LOOKS = 4
_IN_LAUNCH = (State.IN_KERNEL, State.WAITING)

_HEALTHZ = ("/healthz", "GET")
_INVOKE = ("/functions/:id/invoke", "POST")
_SERVER_ERROR = 500
_BUCKETS = len(LATENCY_BUCKETS_S) + 1


@dataclass(frozen=True, slots=True)
class DispatchMark:
    """The ledger at one moment: gauges, and what counts up.

    The histograms have their counts alone. ``tenants`` names the rows of ``counters``, whose columns are
    dispatches, refusals and the time in kernels in ns, and of ``waits``, whose columns are the buckets of permit waits.
    """

    permits: int
    used: int
    waiting: int
    latency: tuple[int, ...]
    execution: tuple[int, ...]
    permit_wait: tuple[int, ...]
    held: Mapping[Tenant, tuple[int, int]]
    tenants: tuple[Tenant, ...]
    counters: NDArray[np.int64]
    waits: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HttpMark:
    """Requests: counts of durations of three kinds, what failed of all and of invocations, and what has no answer."""

    healthz: tuple[int, ...]
    invoke: tuple[int, ...]
    all: tuple[int, ...]
    errors: int
    invoke_errors: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class LagMark:
    """The event loop: counts of its lag, the longest since the reading before, and how late it is now."""

    counts: tuple[int, ...]
    max_s: float
    late_s: float | None


@dataclass(frozen=True, slots=True)
class WorkMark:
    """What the node counts: by tenant instances begun, requests refused, live instances; kernels and snapshots."""

    spawns: Mapping[Tenant, int]
    refusals: Mapping[Tenant, int]
    active: Mapping[Tenant, int]
    compile: Distribution
    load: Distribution
    cache_hits: int
    cache_misses: int
    capture: Distribution
    snapshots_in_progress: int


@dataclass(frozen=True, slots=True)
class QueueMark:
    """Calls on the workers: running, waiting."""

    busy: int
    queued: int


@dataclass(frozen=True, slots=True)
class JobMark:
    """Background jobs: begun, waiting."""

    active: int
    pending: int


@dataclass(frozen=True, slots=True)
class DiskMark:
    """The disk of the kernel cache, and whether snapshots are on it too."""

    counters: DiskCounters
    is_shared: bool


class Readings:
    """The functions that read a node's parts, by the parts' names."""

    def __init__(
        self, node: Node, config: Config, http: HttpMetrics, lag: LagMonitor | None, gpus: GpuReader | None
    ) -> None:
        self._node = node
        self._http = http
        self._lag = lag
        self._gpus = gpus
        self._cache = config.kernel_cache_dir or config.home / "cache" / "kernels"
        self._snapshots = config.snapshot_dir or config.home / "snapshots"
        self._disk = Disk(self._cache)
        self._wedged = _WedgedPermits()

    def parts(self) -> dict[str, Callable[[], Any]]:
        """In the order they are read in: what an incident is told by comes first."""
        return {
            "event loop": self.event_loop,
            "permits": self.wedged,
            "dispatch": self.dispatch,
            "workers": self.workers,
            "instances": self.instances,
            "http": self.http,
            "statistics": self.work,
            "jobs": self.jobs,
            "gpus": self.gpus,
            "disk": self.disk,
        }

    def event_loop(self) -> LagMark | None:
        """The event loop; None where none is watched."""
        return None if self._lag is None else LagMark(*self._lag.read())

    def wedged(self) -> int:
        """Permits that are held without a launch."""
        return self._wedged.count(self._node.ledger, time.monotonic())

    def dispatch(self) -> DispatchMark:
        """The ledger."""
        return mark_dispatch(self._node.ledger.read())

    def workers(self) -> QueueMark:
        """The workers."""
        return QueueMark(self._node.intake.running, self._node.intake.waiting)

    def instances(self) -> list[InstanceView]:
        """Live instances."""
        return self._node.administration.instances()

    def http(self) -> HttpMark:
        """Requests."""
        return mark_http(self._http.read(), self._http.in_flight)

    def work(self) -> WorkMark:
        """What the node counts."""
        return mark_work(self._node.statistics.read())

    def jobs(self) -> JobMark:
        """Background jobs."""
        return JobMark(self._node.job_queue.busy, self._node.job_queue.waiting)

    def gpus(self) -> tuple[Gpu, ...]:
        """GPUs."""
        return () if self._gpus is None else self._gpus.read()

    def disk(self) -> DiskMark:
        """The disk of the kernel cache."""
        return DiskMark(self._disk.read(), share_a_disk(self._cache, self._snapshots))


def mark_dispatch(view: LedgerView) -> DispatchMark:
    """What is kept of the ledger."""
    rows = view.tenants

    def total(histograms: list[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(np.array(histograms, dtype=np.int64).reshape(-1, _BUCKETS).sum(axis=0).tolist())

    return DispatchMark(
        permits=view.permits,
        used=view.used,
        waiting=sum(row.waiting for row in rows),
        latency=total([row.latency.counts for row in rows]),
        execution=total([row.execution.counts for row in rows]),
        permit_wait=total([row.permit_wait.counts for row in rows]),
        held={row.tenant: (row.held, row.waiting) for row in rows if row.held or row.waiting},
        tenants=tuple(row.tenant for row in rows),
        counters=np.array(
            [
                (
                    row.dispatches,
                    row.rejected_saturated + row.rejected_deadline + row.rejected_quota,
                    row.execution.sum_ns,
                )
                for row in rows
            ],
            dtype=np.int64,
        ).reshape(-1, 3),
        waits=np.array([row.permit_wait.counts for row in rows], dtype=np.int64).reshape(-1, _BUCKETS),
    )


def mark_http(rows: Mapping[tuple[str, str, int], tuple[int, ...]], in_flight: int) -> HttpMark:
    """What is kept of the requests; ``rows`` are counts of durations by route, method and status."""
    healthz, invoke, every = ([0] * (len(DURATION_BUCKETS_S) + 1) for _ in range(3))
    errors = invoke_errors = 0
    for (route, method, status), counts in rows.items():
        _add(every, counts)
        if (route, method) == _HEALTHZ:
            _add(healthz, counts)
        elif (route, method) == _INVOKE:
            _add(invoke, counts)
            invoke_errors += sum(counts) if status >= _SERVER_ERROR else 0
        errors += sum(counts) if status >= _SERVER_ERROR else 0
    return HttpMark(tuple(healthz), tuple(invoke), tuple(every), errors, invoke_errors, in_flight)


def mark_work(view: StatisticsView) -> WorkMark:
    """What is kept of the node's counts."""
    refusals: dict[Tenant, int] = {}
    for (tenant, _), count in view.refusals.items():
        refusals[tenant] = refusals.get(tenant, 0) + count
    return WorkMark(
        spawns={tenant: count for tenant, count in view.spawns.items() if count},
        refusals=refusals,
        active={tenant: count for tenant, count in view.active.items() if count},
        compile=view.kernel_compile,
        load=view.kernel_load,
        cache_hits=sum(view.cache_hits.values()),
        # What is not in memory is looked for on the disk: only what is not there either is missed.
        cache_misses=view.cache_misses.get("disk", 0),
        capture=view.snapshot_capture,
        snapshots_in_progress=view.snapshots_in_progress,
    )


class _WedgedPermits:
    """Which permits are held outside of launches, and since when. For one thread."""

    def __init__(self) -> None:
        self._since_s: dict[Slot, tuple[int, float]] = {}
        self._missing: deque[tuple[float, int]] = deque()

    def count(self, ledger: Ledger, now_s: float) -> int:
        """Permits that were held outside of launches at every reading of the last ``WEDGED_S`` or longer.

        Held by an instance that is in no launch and has begun none meanwhile, or by none: taken, and in nobody's slot.
        """
        held: dict[Slot, tuple[int, float]] = {}
        missing = permits_missing(ledger)
        for slot in ledger.live:
            if slot.held and slot.state not in _IN_LAUNCH:
                launches, since_s = self._since_s.get(slot, (-1, now_s))
                held[slot] = (launches, since_s) if launches == slot.dispatches else (slot.dispatches, now_s)
        self._since_s = held
        self._missing.append((now_s, missing))
        while len(self._missing) > 1 and self._missing[1][0] <= now_s - WEDGED_S:
            self._missing.popleft()
        for _ in range(_LOOKS):
            missing = min(missing, permits_missing(ledger))
        wedged = sum(slot.held for slot, (_, since_s) in held.items() if now_s - since_s >= WEDGED_S)
        if now_s - self._missing[0][0] >= WEDGED_S:
            wedged += min(missing, *(count for _, count in self._missing))
        return wedged


def permits_missing(ledger: Ledger) -> int:
    """Permits that are taken and held by no instance. Launches begin and end meanwhile: it may be some too many."""
    before = ledger.used
    held = sum(slot.held for slot in ledger.live)
    return max(min(before, ledger.used) - held, 0)


def _add(sums: list[int], counts: tuple[int, ...]) -> None:
    for index, count in enumerate(counts):
        sums[index] += count
