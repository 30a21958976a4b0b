"""A document as a node at work gives it, for the API's description and for who builds on it."""

from __future__ import annotations

from tensor_wasm.telemetry import slo
from tensor_wasm.telemetry.observation import (
    FORMAT,
    DiskLoad,
    EventLoopState,
    HttpLoad,
    InstanceLoad,
    JobLoad,
    KernelLoad,
    Latency,
    NodeState,
    Observation,
    PermitState,
    PreviousRelease,
    Release,
    SnapshotLoad,
    TenantLoad,
    WorkerLoad,
)

_SHA = "8c2f6f0f5d1f4d1b9a4f0c7a3e5b6d7f8091a2b3"
_DISPATCH = Latency(count=192_000, per_s=640.0, p50_s=3.1e-7, p95_s=8.2e-7, p99_s=2.2e-6)
_INVOKE = Latency(count=1500, per_s=5.0, p50_s=0.0031, p95_s=0.0092, p99_s=0.021)

EXAMPLE = Observation(
    schema=FORMAT,
    taken_at="2026-05-04T10:20:30.123Z",
    window_s=300.0,
    covered_s=300.0,
    node=NodeState(
        version="0.2.0",
        git_sha=_SHA,
        device="cpu",
        deployment="host",
        pid=4711,
        uptime_s=86_400.5,
        draining=False,
        url=None,
    ),
    release=Release(
        version="0.2.0",
        git_sha=_SHA,
        started_at="2026-05-03T10:20:29.623Z",
        previous=PreviousRelease(
            version="0.1.0", git_sha="unknown", until="2026-05-03T10:20:11.040Z", dispatch_p95_s=7.9e-7
        ),
    ),
    dispatch=_DISPATCH,
    execution=Latency(count=192_000, per_s=640.0, p50_s=0.0008, p95_s=0.0022, p99_s=0.0042),
    permit_wait=Latency(count=192_000, per_s=640.0, p50_s=2.5e-7, p95_s=4.8e-7, p99_s=5.0e-7),
    permits=PermitState(total=64, used=1, utilization=0.012, waiting=0, held_without_launch=0),
    tenants=[
        TenantLoad(
            tenant=1,
            dispatches_per_s=640.0,
            dispatch_share=1.0,
            execution_share=1.0,
            held=1,
            waiting=0,
            permit_wait_p95_s=4.8e-7,
            invocations_per_s=5.0,
            instances=1,
            refused_per_s=0.0,
        )
    ],
    instances=[
        InstanceLoad(
            id="0b1c2d3e-4f50-4a61-8b72-93a4b5c6d7e8",
            tenant=1,
            function="train",
            export="run",
            state="in_kernel",
            age_s=12.5,
            deadline_left_s=17.5,
            launches=8012,
            launches_per_s=640.0,
            held_permits=1,
            memory_bytes=1 << 20,
        )
    ],
    instance_count=1,
    http=HttpLoad(
        requests_per_s=5.0,
        errors_5xx_ratio=0.0,
        in_flight=2,
        healthz=Latency(count=60, per_s=0.2, p50_s=0.00025, p95_s=0.00048, p99_s=0.0005),
        invoke=_INVOKE,
        all=_INVOKE,
    ),
    event_loop=EventLoopState(lag_p95_s=0.00095, lag_max_s=0.0021, stalled_s=0.0),
    workers=WorkerLoad(total=8, busy=1, queued=0),
    kernels=KernelLoad(
        compiles_per_s=0.01, compile_p95_s=0.09, cache_hits_per_s=4.99, cache_misses_per_s=0.01, load_p95_s=0.11
    ),
    snapshots=SnapshotLoad(in_progress=0, captures_per_s=0.0, capture_p95_s=None, same_disk_as_cache=True),
    disk=DiskLoad(busy_ratio=0.02, read_bytes_per_s=0.0, write_bytes_per_s=40_960.0, free_bytes=41_943_040_000),
    gpus=[],
    jobs=JobLoad(active=0, pending=0),
    slo=[
        slo.AVAILABILITY.state(1.0, slo.Deployment.HOST),
        slo.HEALTHZ.state(0.00048, slo.Deployment.HOST),
        slo.INVOKE.state(0.0092, slo.Deployment.HOST),
        slo.DISPATCH.state(_DISPATCH.p95_s, slo.Deployment.HOST),
        slo.INVOKE_ERRORS.state(0.0, slo.Deployment.HOST),
    ],
    unread=[],
)
