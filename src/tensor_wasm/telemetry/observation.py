"""The node's whole state as one document: what ``GET /admin/observe`` answers and ``tensor-wasm observe`` shows.

Rates and percentiles are over the window, never since the start; a number that has no data is null. ``unread`` says
what could not be read in time: the rest of the document is then true all the same. ``python -m
tensor_wasm.telemetry.observation > docs/observe.schema.json`` writes the schema.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import msgspec

#: Changes when a reader of the document before would misread one of now. New fields do not change it.
FORMAT = "tensor-wasm/observe/1"
TENANTS_MAX = 10
INSTANCES_MAX = 20

_U64_MAX = (1 << 64) - 1


def _told(description: str, **schema: object) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra_json_schema=schema)


def _count(description: str) -> msgspec.Meta:
    return _told(description, minimum=0)


def _ratio(description: str) -> msgspec.Meta:
    return _told(description, minimum=0, maximum=1)


Tenant = Annotated[
    int | None,
    _told(
        "The tenant, an unsigned 64-bit number; null for all together that came when the node counted as many by"
        " themselves as it can. Some JSON readers round it.",
        minimum=0,
        maximum=_U64_MAX,
    ),
]
_Seconds = Annotated[float | None, _told("Seconds; null without data.", minimum=0)]


class NodeState(msgspec.Struct, kw_only=True):
    """Which node this is."""

    version: Annotated[str, _told("Its version.")]
    git_sha: Annotated[str, _told("The commit it was built from, or `unknown`.")]
    device: Annotated[str, _told("The device that runs kernels.")]
    deployment: Annotated[
        str, _told("What the objectives are chosen by: kernels run on this host, or on a GPU.", enum=["host", "cuda"])
    ]
    pid: Annotated[int, _count("Its process.")]
    uptime_s: Annotated[float, _count("Seconds since it started.")]
    draining: Annotated[bool, _told("Whether it takes no more work.")]
    url: Annotated[str | None, _told("Where its API listens; null before it does.")]


class PreviousRelease(msgspec.Struct, kw_only=True):
    """The release that ran on this home before this one."""

    version: Annotated[str, _told("Its version.")]
    git_sha: Annotated[str, _told("The commit it was built from, or `unknown`.")]
    until: Annotated[str, _told("When it was last known to run: RFC 3339, UTC.", format="date-time")]
    dispatch_p95_s: Annotated[
        float | None, _told("95th percentile of its dispatch latency over all its launches; null without any.")
    ]


class Release(msgspec.Struct, kw_only=True):
    """The release that runs, and the one before it."""

    version: Annotated[str, _told("Its version.")]
    git_sha: Annotated[str, _told("The commit it was built from, or `unknown`.")]
    started_at: Annotated[str, _told("When this release first ran on this home: RFC 3339, UTC.", format="date-time")]
    previous: Annotated[PreviousRelease | None, _told("The one before; null when there was none.")]


class Latency(msgspec.Struct, kw_only=True):
    """How often something happened in the window, and how long it took. Percentiles are null without data."""

    count: Annotated[int, _count("How often.")]
    per_s: Annotated[float, _count("The same for a second.")]
    p50_s: _Seconds
    p95_s: _Seconds
    p99_s: _Seconds


class PermitState(msgspec.Struct, kw_only=True):
    """The device's permits: how many launches may be in flight, and are."""

    total: Annotated[int, _count("Launches that may be in flight at once.")]
    used: Annotated[int, _count("Launches in flight now.")]
    utilization: Annotated[float | None, _ratio("Part of the permits in use, the mean of the window's samples.")]
    waiting: Annotated[int, _count("Launches that wait for a permit now.")]
    held_without_launch: Annotated[
        int,
        _count(
            "Permits that have been held for a second or longer by instances that are in no launch, or by none at all:"
            " above zero, a permit is wedged."
        ),
    ]


class TenantLoad(msgspec.Struct, kw_only=True):
    """What a tenant does."""

    tenant: Tenant
    dispatches_per_s: Annotated[float, _count("Kernels launched a second.")]
    dispatch_share: Annotated[float | None, _ratio("Its part of all launches; null when there were none.")]
    execution_share: Annotated[float | None, _ratio("Its part of the time in kernels; null when there was none.")]
    held: Annotated[int, _count("Permits it holds now.")]
    waiting: Annotated[int, _count("Launches of it that wait for a permit now.")]
    permit_wait_p95_s: _Seconds
    invocations_per_s: Annotated[
        float, _count("Instances begun for it a second: one for each call that is not of a kept instance.")
    ]
    instances: Annotated[int, _count("Live instances.")]
    refused_per_s: Annotated[float, _count("Requests and launches refused a second: rate, queue, quotas, permits.")]


class InstanceLoad(msgspec.Struct, kw_only=True):
    """A live instance."""

    id: Annotated[str, _told("Its id, to end it by.", format="uuid")]
    tenant: Annotated[int, _told("Its tenant, an unsigned 64-bit number.", minimum=0, maximum=_U64_MAX)]
    function: Annotated[str, _told("The name of its function.")]
    export: Annotated[str, _told("The export that was called.")]
    state: Annotated[
        str,
        _told(
            "Runs, is in a kernel, waits for a permit, or does nothing.",
            enum=["running", "in_kernel", "waiting", "idle"],
        ),
    ]
    age_s: Annotated[float, _count("Seconds since it began.")]
    deadline_left_s: Annotated[float | None, _told("Seconds to its deadline; null when it has none.")]
    launches: Annotated[int, _count("Kernels it launched.")]
    launches_per_s: Annotated[float, _count("The same over the last second.")]
    held_permits: Annotated[int, _count("Permits it holds.")]
    memory_bytes: Annotated[int, _count("Its memory.")]


class HttpLoad(msgspec.Struct, kw_only=True):
    """Requests to the API."""

    requests_per_s: Annotated[float, _count("Answers a second.")]
    errors_5xx_ratio: Annotated[float | None, _ratio("Part of the answers that were 5xx; null without any.")]
    in_flight: Annotated[int, _count("Requests without an answer yet, now.")]
    healthz: Annotated[Latency, _told("GET /healthz.")]
    invoke: Annotated[Latency, _told("POST /functions/:id/invoke.")]
    all: Annotated[Latency, _told("All requests.")]


class EventLoopState(msgspec.Struct, kw_only=True):
    """The event loop, on which all of the API depends."""

    lag_p95_s: _Seconds
    lag_max_s: Annotated[float | None, _told("How late it came at most in the window; null without data.")]
    stalled_s: Annotated[
        float | None, _told("For how long it has not come to what is due, now; null when no loop runs.")
    ]


class WorkerLoad(msgspec.Struct, kw_only=True):
    """Threads that run guests."""

    total: Annotated[int, _count("Calls that may run at once; a tenant of which nothing runs gets one besides.")]
    busy: Annotated[int, _count("Calls that run now.")]
    queued: Annotated[int, _count("Calls that wait now.")]


class KernelLoad(msgspec.Struct, kw_only=True):
    """Kernels compiled, and found compiled."""

    compiles_per_s: Annotated[float, _count("Kernels compiled a second.")]
    compile_p95_s: _Seconds
    cache_hits_per_s: Annotated[float, _count("Kernels found compiled a second, in memory or on the disk.")]
    cache_misses_per_s: Annotated[float, _count("Kernels found nowhere a second.")]
    load_p95_s: Annotated[float | None, _told("95th percentile of the wait for a kernel not in memory; null for none.")]


class SnapshotLoad(msgspec.Struct, kw_only=True):
    """Snapshots captured."""

    in_progress: Annotated[int, _count("Snapshots that are written now, or wait to be.")]
    captures_per_s: Annotated[float, _count("Snapshots captured a second.")]
    capture_p95_s: _Seconds
    same_disk_as_cache: Annotated[
        bool | None, _told("Whether they are written to the disk of the kernel cache; null when not known.")
    ]


class DiskLoad(msgspec.Struct, kw_only=True):
    """The disk of the kernel cache. Null where the system does not say."""

    busy_ratio: Annotated[float | None, _ratio("Part of the window in which it was busy.")]
    read_bytes_per_s: Annotated[float | None, _count("Bytes read a second.")]
    write_bytes_per_s: Annotated[float | None, _count("Bytes written a second.")]
    free_bytes: Annotated[int | None, _count("Bytes that are free.")]


class GpuState(msgspec.Struct, kw_only=True):
    """A GPU, as its driver tells."""

    device: Annotated[str, _told("Its name.")]
    temperature_celsius: Annotated[float | None, _told("How hot it is.")]
    utilization_ratio: Annotated[float | None, _ratio("Part of the time in which it computed.")]
    throttle_reasons: Annotated[list[str], _told("Why its clock is held back; empty when it is not.")]
    ecc_errors: Annotated[int | None, _count("Memory errors that could not be corrected.")]


class JobLoad(msgspec.Struct, kw_only=True):
    """Background jobs."""

    active: Annotated[int, _count("Jobs that have begun and not ended.")]
    pending: Annotated[int, _count("Jobs that wait for their turn.")]


class SloState(msgspec.Struct, kw_only=True):
    """An objective, and whether it holds over the window."""

    name: Annotated[str, _told("Its name, as docs/SLO.md has it.")]
    target: Annotated[float, _told("What is aimed for.")]
    value: Annotated[float | None, _told("What was measured; null without data.")]
    unit: Annotated[str, _told("Of both.", enum=["s", "ratio"])]
    state: Annotated[str, _told("Whether it holds.", enum=["ok", "breached", "no_data"])]
    runbook: Annotated[str, _told("The runbook for when it does not: its file's name without the end.")]


class HistoryPoint(msgspec.Struct, kw_only=True):
    """One sample: gauges of its moment, and rates and percentiles since the sample before."""

    at: Annotated[str, _told("When: RFC 3339, UTC.", format="date-time")]
    dispatch_p50_s: _Seconds
    dispatch_p95_s: _Seconds
    dispatch_p99_s: _Seconds
    permits_used: Annotated[int | None, _count("Launches in flight.")]
    permits_total: Annotated[int | None, _count("Launches that may be.")]
    permits_waiting: Annotated[int | None, _count("Launches that wait for a permit.")]
    dispatches_per_s: Annotated[float | None, _count("Kernels launched a second.")]
    http_p95_s: _Seconds
    requests_per_s: Annotated[float | None, _count("Answers a second.")]
    loop_lag_max_s: _Seconds


class Observation(msgspec.Struct, kw_only=True):
    """The node's whole state."""

    schema: Annotated[str, _told("The form of this document.", const=FORMAT)]
    taken_at: Annotated[str, _told("When: RFC 3339, UTC.", format="date-time")]
    window_s: Annotated[float, _told("The window that rates and percentiles are over, in seconds.")]
    covered_s: Annotated[float, _count("How much of it is there: less after a start.")]
    node: Annotated[NodeState, _told("Which node this is.")]
    release: Annotated[Release, _told("What was deployed, and what before.")]
    dispatch: Annotated[Latency, _told("From a launch call to its kernel: checks and permit.")]
    execution: Annotated[Latency, _told("In the kernel itself.")]
    permit_wait: Annotated[Latency, _told("Waits for a permit; most launches wait not at all.")]
    permits: Annotated[PermitState, _told("Permits of the device.")]
    tenants: Annotated[list[TenantLoad], _told("The tenants with the most launches.", maxItems=TENANTS_MAX)]
    instances: Annotated[
        list[InstanceLoad], _told("The instances with the most launches a second.", maxItems=INSTANCES_MAX)
    ]
    instance_count: Annotated[int, _count("Live instances.")]
    http: Annotated[HttpLoad, _told("Requests.")]
    event_loop: Annotated[EventLoopState, _told("The event loop.")]
    workers: Annotated[WorkerLoad, _told("Threads that run guests.")]
    kernels: Annotated[KernelLoad, _told("Compiled kernels.")]
    snapshots: Annotated[SnapshotLoad, _told("Snapshots.")]
    disk: Annotated[DiskLoad, _told("The disk of the kernel cache.")]
    gpus: Annotated[list[GpuState], _told("GPUs.")]
    jobs: Annotated[JobLoad, _told("Background jobs.")]
    slo: Annotated[list[SloState], _told("The objectives over the window.")]
    history: Annotated[
        list[HistoryPoint] | msgspec.UnsetType, _told("Samples of three windows, oldest first; only when asked for.")
    ] = msgspec.UNSET
    unread: Annotated[
        list[str],
        _told("What could not be read, and why. What stands in its place is of an earlier reading, or nothing."),
    ]


_ENCODER = msgspec.json.Encoder()
encode = _ENCODER.encode


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the document."""
    described = msgspec.json.schema(Observation)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The state of a TensorWasm node",
        **described,
    }


def schema_text() -> str:
    """The text of ``docs/observe.schema.json``."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
