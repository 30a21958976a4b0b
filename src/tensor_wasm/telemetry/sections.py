"""The sections of the document, each from two readings of a part: what has grown between them, and what is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.dispatch.ledger import LATENCY_BUCKETS_S
from tensor_wasm.node import InstanceView
from tensor_wasm.telemetry import slo
from tensor_wasm.telemetry.http_metrics import DURATION_BUCKETS_S
from tensor_wasm.telemetry.lag import LAG_BUCKETS_S
from tensor_wasm.telemetry.observation import (
    INSTANCES_MAX,
    TENANTS_MAX,
    DiskLoad,
    EventLoopState,
    GpuState,
    HistoryPoint,
    HttpLoad,
    InstanceLoad,
    JobLoad,
    KernelLoad,
    Latency,
    PermitState,
    SloState,
    SnapshotLoad,
    TenantLoad,
    WorkerLoad,
)
from tensor_wasm.telemetry.quantiles import figure, latency, quantile, rounded, since
from tensor_wasm.telemetry.readings import DiskMark, DispatchMark, HttpMark, JobMark, LagMark, QueueMark, WorkMark
from tensor_wasm.telemetry.tenants import Tenant

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a part gave, and when on the monotonic clock."""

    at_s: float
    value: Any


Parts = Mapping[str, Reading]


@dataclass(frozen=True, slots=True)
class Span:
    """A part at two moments; None where it was never read. With one moment alone nothing has grown."""

    before: Reading | None
    now: Reading | None

    @property
    def duration_s(self) -> float:
        """The time between."""
        return self.now.at_s - self.before.at_s if self.before is not None and self.now is not None else 0.0

    def both(self, kind: type[_Value]) -> tuple[_Value, _Value] | None:
        """The two values; None unless there are two, of that kind."""
        if self.before is None or self.now is None or self.duration_s <= 0:
            return None
        before, now = self.before.value, self.now.value
        return (before, now) if isinstance(before, kind) and isinstance(now, kind) else None

    def latest(self, kind: type[_Value]) -> _Value | None:
        """The value of now."""
        return self.now.value if self.now is not None and isinstance(self.now.value, kind) else None

    def per_s(self, before: int, now: int) -> float:
        """How fast a counter has grown."""
        return rounded(max(now - before, 0) / self.duration_s)


_NOTHING = Span(None, None)
_NO_LATENCY = Latency(count=0, per_s=0.0, p50_s=None, p95_s=None, p99_s=None)


def all_of(
    spans: Mapping[str, Span],
    utilization: Sequence[float],
    lag_max_s: float | None,
    workers: int,
    deployment: slo.Deployment,
) -> dict[str, Any]:
    """Every section by its name: ``spans`` are of the parts, ``utilization`` is the permits' at each sample."""

    def span(name: str) -> Span:
        return spans.get(name, _NOTHING)

    instances = span("instances").latest(list) or []
    work = span("statistics").latest(WorkMark)
    dispatch = _dispatch(span("dispatch"))
    http, ratios = _http(span("http"))
    return {
        **dispatch,
        "permits": _permits(span("dispatch"), span("permits").latest(int) or 0, utilization),
        "tenants": _tenants(span("dispatch"), span("statistics")),
        "instances": _instances(instances),
        "instance_count": sum(work.active.values()) if work is not None else len(instances),
        "http": http,
        "event_loop": _event_loop(span("event loop"), lag_max_s),
        "workers": _workers(span("workers"), workers),
        "kernels": _kernels(span("statistics")),
        "snapshots": _snapshots(span("statistics"), span("disk")),
        "disk": _disk(span("disk")),
        "gpus": _gpus(span("gpus")),
        "jobs": _jobs(span("jobs")),
        "slo": _slo(http, ratios, dispatch["dispatch"], deployment),
    }


def point(at: str, before: Parts, now: Parts) -> HistoryPoint:
    """A sample for the history, from it and the one before."""

    def span(name: str) -> Span:
        return Span(before.get(name), now.get(name))

    ledger = span("dispatch").latest(DispatchMark)
    dispatch, has_dispatch = _dispatch(span("dispatch"))["dispatch"], span("dispatch").both(DispatchMark) is not None
    http, has_http = _http(span("http"))[0].all, span("http").both(HttpMark) is not None
    loop = span("event loop").latest(LagMark)
    return HistoryPoint(
        at=at,
        dispatch_p50_s=dispatch.p50_s,
        dispatch_p95_s=dispatch.p95_s,
        dispatch_p99_s=dispatch.p99_s,
        permits_used=None if ledger is None else ledger.used,
        permits_total=None if ledger is None else ledger.permits,
        permits_waiting=None if ledger is None else ledger.waiting,
        dispatches_per_s=dispatch.per_s if has_dispatch else None,
        http_p95_s=http.p95_s,
        requests_per_s=http.per_s if has_http else None,
        loop_lag_max_s=None if loop is None else figure(loop.max_s),
    )


# --- launches ---------------------------------------------------------------------------------------------


def _dispatch(span: Span) -> dict[str, Latency]:
    both = span.both(DispatchMark)
    if both is None:
        return dict.fromkeys(("dispatch", "execution", "permit_wait"), _NO_LATENCY)
    before, now = both

    def over(name: str) -> Latency:
        return latency(LATENCY_BUCKETS_S, since(getattr(now, name), getattr(before, name)), span.duration_s)

    return {"dispatch": over("latency"), "execution": over("execution"), "permit_wait": over("permit_wait")}


def _permits(span: Span, wedged: int, utilization: Sequence[float]) -> PermitState:
    now = span.latest(DispatchMark)
    return PermitState(
        total=0 if now is None else now.permits,
        used=0 if now is None else now.used,
        utilization=min(rounded(sum(utilization) / len(utilization)), 1.0) if utilization else None,
        waiting=0 if now is None else now.waiting,
        held_without_launch=wedged,
    )


def _tenants(dispatch: Span, statistics: Span) -> list[TenantLoad]:
    ledger, work = dispatch.both(DispatchMark), statistics.both(WorkMark)
    now, active = dispatch.latest(DispatchMark), statistics.latest(WorkMark)
    loads: dict[Tenant, TenantLoad] = {}

    def load(tenant: Tenant) -> TenantLoad:
        if tenant not in loads:
            held, waiting = (0, 0) if now is None else now.held.get(tenant, (0, 0))
            loads[tenant] = TenantLoad(
                tenant=tenant,
                dispatches_per_s=0.0,
                dispatch_share=None,
                execution_share=None,
                held=held,
                waiting=waiting,
                permit_wait_p95_s=None,
                invocations_per_s=0.0,
                instances=0 if active is None else active.active.get(tenant, 0),
                refused_per_s=0.0,
            )
        return loads[tenant]

    if ledger is not None:
        _count_launches(ledger[0], ledger[1], dispatch.duration_s, load)
    if now is not None:
        for tenant in now.held:
            load(tenant)
    if work is not None:
        before, after = work
        for tenant, count in after.spawns.items():
            if count > before.spawns.get(tenant, 0):
                load(tenant).invocations_per_s = statistics.per_s(before.spawns.get(tenant, 0), count)
        for tenant, count in after.refusals.items():
            if count > before.refusals.get(tenant, 0):
                one = load(tenant)
                one.refused_per_s = rounded(one.refused_per_s + statistics.per_s(before.refusals.get(tenant, 0), count))
    if active is not None:
        for tenant in active.active:
            load(tenant)
    busiest = sorted(
        loads.values(),
        key=lambda one: (-one.dispatches_per_s, -one.held - one.waiting, -one.invocations_per_s, -one.instances),
    )
    return busiest[:TENANTS_MAX]


def _count_launches(before: DispatchMark, now: DispatchMark, duration_s: float, load: Any) -> None:
    counters, waits = _grown(now, before, "counters"), _grown(now, before, "waits")
    launches, _, busy_ns = counters.sum(axis=0).tolist() if len(counters) else (0, 0, 0)
    # The busiest alone are looked at: there may be a thousand.
    for row in np.argsort(-counters[:, 0], kind="stable")[: 2 * TENANTS_MAX].tolist():
        count, refused, execution_ns = counters[row].tolist()
        if not count and not refused:
            continue
        one = load(now.tenants[row])
        one.dispatches_per_s = rounded(count / duration_s)
        one.dispatch_share = rounded(count / launches) if launches else None
        one.execution_share = rounded(execution_ns / busy_ns) if busy_ns else None
        one.refused_per_s = rounded(refused / duration_s)
        one.permit_wait_p95_s = figure(quantile(LATENCY_BUCKETS_S, waits[row].tolist(), 0.95))


def _grown(now: DispatchMark, before: DispatchMark, name: str) -> NDArray[np.int64]:
    """What the rows of tenants have grown by, in the order of now: tenants that came meanwhile began at nothing."""
    rows: NDArray[np.int64] = getattr(now, name).copy()
    known: NDArray[np.int64] = getattr(before, name)
    if now.tenants[: len(before.tenants)] == before.tenants:  # the usual case: nobody's place changes
        rows[: len(known)] -= known
    else:
        place = {tenant: row for row, tenant in enumerate(now.tenants)}
        for row, tenant in enumerate(before.tenants):
            rows[place[tenant]] -= known[row]
    grown: NDArray[np.int64] = np.maximum(rows, 0)
    return grown


def _instances(views: Sequence[InstanceView]) -> list[InstanceLoad]:
    busiest = sorted(views, key=lambda view: (-view.launches_per_s, -view.held_permits, -view.age_s))
    return [
        InstanceLoad(
            id=view.id,
            tenant=view.tenant,
            function=view.function_name,
            export=view.export,
            state=view.state,
            age_s=rounded(view.age_s),
            deadline_left_s=figure(view.deadline_left_s),
            launches=view.launches,
            launches_per_s=rounded(view.launches_per_s),
            held_permits=view.held_permits,
            memory_bytes=view.memory_bytes,
        )
        for view in busiest[:INSTANCES_MAX]
    ]


# --- requests ---------------------------------------------------------------------------------------------


def _http(span: Span) -> tuple[HttpLoad, tuple[float | None, float | None]]:
    """The section; and which part failed of all requests, and of invocations."""
    both, latest = span.both(HttpMark), span.latest(HttpMark)
    in_flight = 0 if latest is None else latest.in_flight
    if both is None:
        nothing = HttpLoad(
            requests_per_s=0.0,
            errors_5xx_ratio=None,
            in_flight=in_flight,
            healthz=_NO_LATENCY,
            invoke=_NO_LATENCY,
            all=_NO_LATENCY,
        )
        return nothing, (None, None)
    before, now = both

    def over(name: str) -> Latency:
        return latency(DURATION_BUCKETS_S, since(getattr(now, name), getattr(before, name)), span.duration_s)

    def part(errors: int, count: int) -> float | None:
        return min(rounded(max(errors, 0) / count), 1.0) if count else None

    every, invoke = over("all"), over("invoke")
    failed = part(now.errors - before.errors, every.count)
    section = HttpLoad(
        requests_per_s=every.per_s,
        errors_5xx_ratio=failed,
        in_flight=in_flight,
        healthz=over("healthz"),
        invoke=invoke,
        all=every,
    )
    return section, (failed, part(now.invoke_errors - before.invoke_errors, invoke.count))


def _event_loop(span: Span, max_s: float | None) -> EventLoopState:
    both, latest = span.both(LagMark), span.latest(LagMark)
    p95_s = None if both is None else quantile(LAG_BUCKETS_S, since(both[1].counts, both[0].counts), 0.95)
    return EventLoopState(
        lag_p95_s=figure(p95_s),
        lag_max_s=figure(max_s),
        stalled_s=None if latest is None else figure(latest.late_s),
    )


def _workers(span: Span, total: int) -> WorkerLoad:
    now = span.latest(QueueMark)
    return WorkerLoad(total=total, busy=0 if now is None else now.busy, queued=0 if now is None else now.queued)


def _jobs(span: Span) -> JobLoad:
    now = span.latest(JobMark)
    return JobLoad(active=0 if now is None else now.active, pending=0 if now is None else now.pending)


# --- kernels, snapshots, disk, GPUs -----------------------------------------------------------------------


def _kernels(span: Span) -> KernelLoad:
    both = span.both(WorkMark)
    if both is None:
        return KernelLoad(
            compiles_per_s=0.0, compile_p95_s=None, cache_hits_per_s=0.0, cache_misses_per_s=0.0, load_p95_s=None
        )
    before, now = both
    compiled = latency(now.compile.bounds_s, since(now.compile.counts, before.compile.counts), span.duration_s)
    loaded = latency(now.load.bounds_s, since(now.load.counts, before.load.counts), span.duration_s)
    return KernelLoad(
        compiles_per_s=compiled.per_s,
        compile_p95_s=compiled.p95_s,
        cache_hits_per_s=span.per_s(before.cache_hits, now.cache_hits),
        cache_misses_per_s=span.per_s(before.cache_misses, now.cache_misses),
        load_p95_s=loaded.p95_s,
    )


def _snapshots(span: Span, disk: Span) -> SnapshotLoad:
    both, latest, mark = span.both(WorkMark), span.latest(WorkMark), disk.latest(DiskMark)
    captured = _NO_LATENCY
    if both is not None:
        before, now = both
        captured = latency(now.capture.bounds_s, since(now.capture.counts, before.capture.counts), span.duration_s)
    return SnapshotLoad(
        in_progress=0 if latest is None else latest.snapshots_in_progress,
        captures_per_s=captured.per_s,
        capture_p95_s=captured.p95_s,
        same_disk_as_cache=None if mark is None else mark.is_shared,
    )


def _disk(span: Span) -> DiskLoad:
    both, latest = span.both(DiskMark), span.latest(DiskMark)
    load = DiskLoad(
        busy_ratio=None,
        read_bytes_per_s=None,
        write_bytes_per_s=None,
        free_bytes=None if latest is None else latest.counters.free_bytes,
    )
    if both is not None:
        before, now = both[0].counters, both[1].counters
        if before.busy_ms is not None and now.busy_ms is not None:
            load.busy_ratio = min(span.per_s(before.busy_ms, now.busy_ms) / 1e3, 1.0)
        if before.read_bytes is not None and now.read_bytes is not None:
            load.read_bytes_per_s = span.per_s(before.read_bytes, now.read_bytes)
        if before.write_bytes is not None and now.write_bytes is not None:
            load.write_bytes_per_s = span.per_s(before.write_bytes, now.write_bytes)
    return load


def _gpus(span: Span) -> list[GpuState]:
    return [
        GpuState(
            device=gpu.device,
            temperature_celsius=gpu.temperature_celsius,
            utilization_ratio=gpu.utilization_ratio,
            throttle_reasons=list(gpu.throttle_reasons),
            ecc_errors=gpu.ecc_errors,
        )
        for gpu in span.latest(tuple) or ()
    ]


# --- objectives -------------------------------------------------------------------------------------------


def _slo(
    http: HttpLoad, ratios: tuple[float | None, float | None], dispatch: Latency, deployment: slo.Deployment
) -> list[SloState]:
    failed, invoke_failed = ratios
    values = {
        slo.AVAILABILITY.name: None if failed is None else rounded(1 - failed),
        slo.HEALTHZ.name: http.healthz.p95_s,
        slo.INVOKE.name: http.invoke.p95_s,
        slo.DISPATCH.name: dispatch.p95_s,
        slo.INVOKE_ERRORS.name: invoke_failed,
    }
    return [objective.state(values[objective.name], deployment) for objective in slo.OBJECTIVES]
