"""Metrics of a node: read from its ledger and its statistics when somebody asks, never counted twice."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from tensor_wasm.device.protocol import COMPILE_BUCKETS_S, LOAD_BUCKETS_S
from tensor_wasm.dispatch.layout import BUCKETS, COUNTERS, HISTOGRAM_SUM
from tensor_wasm.dispatch.ledger import LATENCY_BUCKETS_S, LedgerTable
from tensor_wasm.errors import Ending
from tensor_wasm.node.statistics import QUOTAS, RATE, SNAPSHOT_BUCKETS_S, SPAWN_BUCKETS_S
from tensor_wasm.telemetry.build import build
from tensor_wasm.telemetry.families import Family, Metric, histogram, labels_text, sample
from tensor_wasm.telemetry.sheet import Sheet
from tensor_wasm.telemetry.tenants import OTHER, Tenant, TenantLabels

if TYPE_CHECKING:
    from tensor_wasm.device.protocol import Device
    from tensor_wasm.node import Distribution, Node, StatisticsView

_TENANT = ("tenant",)
_ON_DEVICE = ("tenant", "device")

DISPATCHES = Family("kernel_dispatches_total", "counter", "Kernel launches completed.", _ON_DEVICE)
LATENCY = Family(
    "kernel_latency_seconds", "histogram", "From a launch call to its kernel: checks and permit.", _TENANT,
    LATENCY_BUCKETS_S,
)  # fmt: skip
EXECUTION = Family("kernel_execution_seconds", "histogram", "Time in the kernel itself.", _ON_DEVICE, LATENCY_BUCKETS_S)
PERMIT_WAIT = Family(
    "dispatch_permit_wait_seconds", "histogram", "Time that launches waited for a permit.", _TENANT, LATENCY_BUCKETS_S
)
PERMITS = Family("dispatch_permits", "gauge", "Launches that may be in flight at once.")
PERMITS_USED = Family("dispatch_permits_used", "gauge", "Launches in flight.")
WAITING = Family("dispatch_waiting", "gauge", "Launches that wait for a permit.", _TENANT)
REJECTIONS = Family("dispatch_rejections_total", "counter", "Launches refused, by reason.", ("tenant", "reason"))
FAULTS = Family("kernel_faults_total", "counter", "Kernels that faulted.", _TENANT)
COMPILE = Family("kernel_compile_seconds", "histogram", "Time to compile one kernel from PTX.", (), COMPILE_BUCKETS_S)
LOAD = Family(
    "kernel_load_seconds",
    "histogram",
    "Time that a guest waited for a kernel that was not in memory: from the disk, or compiled.",
    (),
    LOAD_BUCKETS_S,
)
CACHE_HITS = Family("kernel_cache_hits_total", "counter", "Kernels found compiled, by tier of the cache.", ("tier",))
CACHE_MISSES = Family("kernel_cache_misses_total", "counter", "Kernels not found in a tier of the cache.", ("tier",))
ACTIVE = Family("active_instances", "gauge", "Instances that live now.", _TENANT)
SPAWNS = Family("instance_spawns_total", "counter", "Instances started.", _TENANT)
TERMINATIONS = Family(
    "instance_terminations_total", "counter", "Instances ended, by how they ended.", ("tenant", "outcome")
)
SPAWN = Family("instance_spawn_seconds", "histogram", "Time to make an instance ready to call.", (), SPAWN_BUCKETS_S)
CAPTURE = Family(
    "snapshot_capture_seconds", "histogram", "Time to put an instance's state on the disk.", (), SNAPSHOT_BUCKETS_S
)
RESTORE = Family(
    "snapshot_restore_seconds", "histogram", "Time to make an instance from a snapshot.", (), SNAPSHOT_BUCKETS_S
)
SNAPSHOTS = Family("snapshots_in_progress", "gauge", "Snapshots that are being written, captures and imports.")
CHUNKS = Family("streaming_chunks_emitted_total", "counter", "Chunks that guests emitted to whoever invoked them.")
QUEUED = Family("queued_invocations", "gauge", "Invocations that wait for a worker.", _TENANT)
QUOTA_REJECTIONS = Family(
    "quota_rejections_total", "counter", "What tenants were refused, by the quota that was full.", ("tenant", "quota")
)
RATE_LIMITED = Family("rate_limited_total", "counter", "Requests refused because they came too often.", _TENANT)
JOBS_ACTIVE = Family("jobs_active", "gauge", "Background jobs that have begun and not ended.")
JOBS_PENDING = Family("jobs_pending", "gauge", "Background jobs that wait for their turn.")
FUNCTIONS = Family("functions", "gauge", "Functions deployed.")
GUEST_MEMORY = Family("guest_memory_bytes", "gauge", "Memory of live instances.", _TENANT)
GPU_MEMORY = Family("gpu_memory_used_bytes", "gauge", "Device memory that guests allocated.", _ON_DEVICE)
RESTARTS = Family(
    "device_restarts_total",
    "counter",
    "How often a GPU lost everything that was on it and started anew; on a node whose device is one.",
    ("device",),
)
BUILD_INFO = Family(
    "build_info", "gauge", "Always 1; the labels say what runs.",
    ("version", "git_sha", "python", "wasmtime", "device"),
)  # fmt: skip

#: Why launches are refused.
REJECTION_REASONS = ("saturated", "deadline", "quota")
_FULL_QUOTAS = tuple(quota for quota in QUOTAS if quota != RATE)
_OUTCOMES = tuple(ending.value for ending in Ending)
_WORD_BYTES = 8
_WORDS = COUNTERS.size // _WORD_BYTES


class Collector:
    """Reads a node's metrics. May be called from any thread; holds up neither launches nor invocations."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._labels = TenantLabels()
        self._lock = threading.Lock()
        self._sheet = Sheet()
        self._series = _Series.of((), "")

    def collect(self) -> list[Metric]:
        """Every family of the node, with its samples at this moment."""
        device = self._node.device.name
        with self._lock:
            ledger, statistics = self._node.ledger.table(), self._node.statistics.read()
            dispatches = ledger.counts[:, COUNTERS.dispatches // _WORD_BYTES].tolist()
            busy: dict[Tenant, int] = dict(zip(ledger.tenants, dispatches, strict=True))
            for tenant, count in statistics.spawns.items():  # who was only ever refused is among them, with 0
                busy[tenant] = busy.get(tenant, 0) + count
            labels = self._labels.choose(busy)
            # ``other`` always, so that every family has a series from the first scrape.
            shown = tuple(dict.fromkeys((OTHER, *labels.values())))
            if self._series.shown != shown:
                self._series = _Series.of(shown, device)
            series = self._series
        sheet = self._sheet
        return [
            *_dispatch(ledger, labels, sheet, series),
            *_kernels(statistics),
            *_instances(statistics, labels, sheet, series),
            *_snapshots(statistics),
            *_refusals(statistics, self._node.intake.queued(), labels, sheet, series),
            Metric(JOBS_ACTIVE, sample(JOBS_ACTIVE, "", self._node.job_queue.busy)),
            Metric(JOBS_PENDING, sample(JOBS_PENDING, "", self._node.job_queue.waiting)),
            _restarts(self._node.device),
            Metric(BUILD_INFO, sample(BUILD_INFO, _build_labels(device), 1)),
        ]


@dataclass(frozen=True, slots=True)
class _Series:
    """The labels of the families that have a series for each of ``shown``, the values of the label ``tenant``."""

    shown: tuple[str, ...]
    tenants: tuple[str, ...]
    on_device: tuple[str, ...]
    reasons: tuple[str, ...]
    outcomes: tuple[str, ...]
    quotas: tuple[str, ...]

    @classmethod
    def of(cls, shown: tuple[str, ...], device: str) -> _Series:
        """Those of some tenants on a node with that device."""
        return cls(
            shown,
            tuple(labels_text(tenant=label) for label in shown),
            tuple(labels_text(tenant=label, device=device) for label in shown),
            tuple(labels_text(tenant=label, reason=reason) for label in shown for reason in REJECTION_REASONS),
            tuple(labels_text(tenant=label, outcome=outcome) for label in shown for outcome in _OUTCOMES),
            tuple(labels_text(tenant=label, quota=quota) for label in shown for quota in _FULL_QUOTAS),
        )


def _restarts(device: Device) -> Metric:
    count = device.restarts
    return Metric(RESTARTS, "" if count is None else sample(RESTARTS, labels_text(device=device.name), count))


def _build_labels(device: str) -> str:
    made = build()
    return labels_text(
        version=made.version, git_sha=made.git_sha, python=made.python, wasmtime=made.wasmtime, device=device
    )


# --- launches ---------------------------------------------------------------------------------------------


def _dispatch(table: LedgerTable, labels: Mapping[Tenant, str], sheet: Sheet, series: _Series) -> list[Metric]:
    row_of = {label: row for row, label in enumerate(series.shown)}
    rows = [row_of[labels[tenant]] for tenant in table.tenants]
    counts = np.zeros((len(series.shown), _WORDS), np.int64)
    np.add.at(counts, rows, table.counts)  # several have the row of ``other``
    waiting = [0] * len(series.shown)
    for row, launches in zip(rows, table.waiting, strict=True):
        waiting[row] += launches

    def column(offset: int) -> list[int]:
        found: list[int] = counts[:, offset // _WORD_BYTES].tolist()
        return found

    def histograms(family: Family, texts: tuple[str, ...], offset: int) -> Metric:
        first = offset // _WORD_BYTES
        buckets = counts[:, first : first + BUCKETS].cumsum(axis=1).tolist()
        sums_s = (counts[:, (offset + HISTOGRAM_SUM) // _WORD_BYTES] / 1e9).tolist()
        return sheet.histograms(family, texts, zip(buckets, sums_s, strict=True))

    reasons = zip(
        column(COUNTERS.rejected_saturated),
        column(COUNTERS.rejected_deadline),
        column(COUNTERS.rejected_quota),
        strict=True,
    )
    return [
        sheet.samples(DISPATCHES, series.on_device, column(COUNTERS.dispatches)),
        histograms(LATENCY, series.tenants, COUNTERS.latency),
        histograms(EXECUTION, series.on_device, COUNTERS.execution),
        histograms(PERMIT_WAIT, series.tenants, COUNTERS.permit_wait),
        Metric(PERMITS, sample(PERMITS, "", table.permits)),
        Metric(PERMITS_USED, sample(PERMITS_USED, "", table.used)),
        sheet.samples(WAITING, series.tenants, waiting),
        sheet.samples(REJECTIONS, series.reasons, chain.from_iterable(reasons)),
        sheet.samples(FAULTS, series.tenants, column(COUNTERS.faults)),
    ]


# --- kernels and instances --------------------------------------------------------------------------------


def _distribution(family: Family, measured: Distribution) -> Metric:
    return Metric(family, histogram(family, "", measured.bounds_s, measured.counts, measured.sum_s))


def _kernels(view: StatisticsView) -> list[Metric]:
    def tiers(family: Family, counts: Mapping[str, int]) -> Metric:
        return Metric(family, "".join(sample(family, labels_text(tier=tier), n) for tier, n in counts.items()))

    return [
        _distribution(COMPILE, view.kernel_compile),
        _distribution(LOAD, view.kernel_load),
        tiers(CACHE_HITS, view.cache_hits),
        tiers(CACHE_MISSES, view.cache_misses),
    ]


def _snapshots(view: StatisticsView) -> list[Metric]:
    return [
        _distribution(CAPTURE, view.snapshot_capture),
        _distribution(RESTORE, view.snapshot_restore),
        Metric(SNAPSHOTS, sample(SNAPSHOTS, "", view.snapshots_in_progress)),
        Metric(CHUNKS, sample(CHUNKS, "", view.stream_chunks)),
    ]


def _refusals(
    view: StatisticsView, queued: Mapping[int, int], labels: Mapping[Tenant, str], sheet: Sheet, series: _Series
) -> list[Metric]:
    waiting = dict.fromkeys(series.shown, 0)
    for who, count in queued.items():
        waiting[labels.get(who, OTHER)] += count
    counts: dict[tuple[str, str], int] = {}
    for (tenant, quota), count in view.refusals.items():
        key = labels.get(tenant, OTHER), quota
        counts[key] = counts.get(key, 0) + count
    of_quotas = [counts.get((label, quota), 0) for label in series.shown for quota in _FULL_QUOTAS]
    return [
        sheet.samples(QUOTA_REJECTIONS, series.quotas, of_quotas),
        sheet.samples(RATE_LIMITED, series.tenants, [counts.get((label, RATE), 0) for label in series.shown]),
        sheet.samples(QUEUED, series.tenants, waiting.values()),
    ]


def _instances(view: StatisticsView, labels: Mapping[Tenant, str], sheet: Sheet, series: _Series) -> list[Metric]:
    def by_tenant(family: Family, texts: tuple[str, ...], counts: Mapping[Tenant, int]) -> Metric:
        sums = dict.fromkeys(series.shown, 0)
        for tenant, count in counts.items():
            sums[labels.get(tenant, OTHER)] += count
        return sheet.samples(family, texts, sums.values())

    endings: dict[tuple[str, str], int] = {}
    for (tenant, ending), count in view.terminations.items():
        key = labels.get(tenant, OTHER), ending
        endings[key] = endings.get(key, 0) + count
    terminations = [endings.get((label, outcome), 0) for label in series.shown for outcome in _OUTCOMES]
    return [
        by_tenant(ACTIVE, series.tenants, view.active),
        by_tenant(SPAWNS, series.tenants, view.spawns),
        sheet.samples(TERMINATIONS, series.outcomes, terminations),
        _distribution(SPAWN, view.spawn),
        Metric(FUNCTIONS, sample(FUNCTIONS, "", view.functions)),
        by_tenant(GUEST_MEMORY, series.tenants, view.guest_memory_bytes),
        by_tenant(GPU_MEMORY, series.on_device, view.gpu_memory_bytes),
    ]
