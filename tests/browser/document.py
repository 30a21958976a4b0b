"""What a busy node says of itself: for tests of the page that need more than a real node has to show at once."""

from __future__ import annotations

import math
import uuid
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

WINDOW_S = 300.0
INTERVAL_S = 5.0
NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
TARGET_S = 50e-6
#: More than a number of JavaScript can hold.
LARGE_TENANT = 18_446_744_073_709_551_615


def observed(now: datetime = NOW, **changes: Any) -> dict[str, Any]:
    """A node that one tenant floods: permits taken, an objective breached. ``changes`` are top-level fields."""
    p95_s = 180e-6
    busy = {"p50_s": 21e-6, "p95_s": p95_s, "p99_s": 2.4e-3, "count": 2_716_200, "per_s": 9054.0}
    document = {
        "schema": "tensor-wasm/observe/1",
        "taken_at": _text(now),
        "window_s": WINDOW_S,
        "covered_s": WINDOW_S,
        "node": {
            "version": "0.1.0", "git_sha": "4f2c9a1b7d3e", "device": "cpu", "deployment": "host", "pid": 4711,
            "uptime_s": 93_784.2, "draining": False, "url": "http://127.0.0.1:8080",
        },
        "release": {
            "version": "0.1.0", "git_sha": "4f2c9a1b7d3e", "started_at": _text(now - timedelta(seconds=93_784)),
            "previous": {
                "version": "0.0.9", "git_sha": "91be02d6c5aa", "until": _text(now - timedelta(seconds=93_790)),
                "dispatch_p95_s": 11e-6,
            },
        },
        "dispatch": busy,
        "execution": busy | {"p50_s": 8e-6, "p95_s": 41e-6, "p99_s": 96e-6},
        "permit_wait": busy | {"p50_s": 0.4e-6, "p95_s": 131e-6, "p99_s": 2.2e-3},
        "permits": {"total": 64, "used": 64, "utilization": 0.97, "waiting": 23, "held_without_launch": 0},
        "tenants": [
            _tenant(7, 8210.0, 0.907, held=51, waiting=21, instances=12, refused_per_s=3.2),
            _tenant(LARGE_TENANT, 611.0, 0.067, held=9, waiting=2, instances=3),
            _tenant(3, 233.0, 0.026, held=4, waiting=0, instances=2),
        ],
        "instances": [
            _instance(1, 7, "train", "run", "in_kernel", 734.2),
            _instance(2, 7, "train", "run", "waiting", 702.9),
            _instance(3, 7, "train", "run", "in_kernel", 688.0),
            _instance(4, LARGE_TENANT, "rank-documents", "score", "running", 203.5),
            _instance(5, 3, "thumbnails", "resize_many", "idle", 0.0, deadline_left_s=None),
        ],
        "instance_count": 17,
        "http": {
            "requests_per_s": 83.4, "errors_5xx_ratio": 0.0, "in_flight": 17,
            "healthz": busy | {"p95_s": 0.9e-3}, "invoke": busy | {"p95_s": 86e-3}, "all": busy | {"p95_s": 71e-3},
        },
        "event_loop": {"lag_p95_s": 1.1e-3, "lag_max_s": 8.7e-3, "stalled_s": 0.0},
        "workers": {"total": 32, "busy": 17, "queued": 0},
        "kernels": {
            "compiles_per_s": 0.02, "compile_p95_s": 0.41, "cache_hits_per_s": 16.8, "cache_misses_per_s": 0.02,
            "load_p95_s": 180e-6,
        },
        "snapshots": {
            "in_progress": 0, "captures_per_s": 0.0, "capture_p95_s": None, "same_disk_as_cache": True,
        },
        "disk": {
            "busy_ratio": 0.04, "read_bytes_per_s": 0.0, "write_bytes_per_s": 412_000.0, "free_bytes": 81 << 30,
        },
        "gpus": [],
        "jobs": {"active": 2, "pending": 5},
        "slo": [
            _slo("latency_dispatch_serial_P95", TARGET_S, p95_s, "breached", "dispatch-latency-spike"),
            _slo("latency_http_healthz_P95", 0.01, 0.9e-3, "ok", "healthz-slow"),
            _slo("latency_http_invoke_P95", 0.1, 86e-3, "ok", "invoke-latency-spike"),
            _slo("error_rate_invoke", 0.01, None, "no_data", "availability-fast-burn", "ratio"),
        ],
        "history": history(now),
        "unread": [],
    }  # fmt: skip
    return deepcopy(document | changes)


def quiet(now: datetime = NOW) -> dict[str, Any]:
    """A node that just started: nothing has happened, most is not known."""
    nothing = {"count": 0, "per_s": 0.0, "p50_s": None, "p95_s": None, "p99_s": None}
    document = observed(now)
    for one in document["slo"]:
        one.update(value=None, state="no_data")
    return document | {
        "covered_s": 0.0, "dispatch": nothing, "execution": nothing, "permit_wait": nothing,
        "permits": {"total": 64, "used": 0, "utilization": None, "waiting": 0, "held_without_launch": 0},
        "tenants": [], "instances": [], "instance_count": 0, "history": [], "jobs": {"active": 0, "pending": 0},
        "http": {"requests_per_s": 0.0, "errors_5xx_ratio": None, "in_flight": 0, "healthz": nothing,
                 "invoke": nothing, "all": nothing},
        "event_loop": {"lag_p95_s": None, "lag_max_s": None, "stalled_s": 0.0},
        "disk": {"busy_ratio": None, "read_bytes_per_s": None, "write_bytes_per_s": None, "free_bytes": None},
        "release": document["release"] | {"previous": None},
    }  # fmt: skip


def history(now: datetime = NOW) -> list[dict[str, Any]]:
    """15 minutes: calm, then a tenant that takes the permits; one sample could not be taken, and four are missing."""
    samples = []
    count = int(3 * WINDOW_S / INTERVAL_S)
    for index in range(count):
        if 52 <= index < 56:
            continue
        flood = 1 / (1 + math.exp((105 - index) / 4))
        ripple = math.sin(index / 3) + math.sin(index / 7.3)
        p95_s = 11e-6 * (1 + 0.08 * ripple) * (1 + 16 * flood)
        known = index != 80
        samples.append(
            {
                "at": _text(now - timedelta(seconds=INTERVAL_S * (count - 1 - index))),
                "dispatch_p50_s": p95_s / (4 + 4 * flood) if known else None,
                "dispatch_p95_s": p95_s if known else None,
                "dispatch_p99_s": p95_s * (2.2 + 11 * flood) if known else None,
                "permits_used": round(9 + 3 * ripple + (55 - 3 * ripple) * flood),
                "permits_total": 64,
                "permits_waiting": round(flood * (22 + 4 * ripple)),
                "dispatches_per_s": 820 + 8200 * flood,
                "http_p95_s": 0.014 * (1 + 0.1 * ripple) * (1 + 4 * flood),
                "requests_per_s": 31 + 50 * flood,
                "loop_lag_max_s": 0.0011 * (1.6 + 0.5 * ripple) * (1 + 2 * flood),
            }
        )
    return samples


def _tenant(
    tenant: int, per_s: float, share: float, *, held: int, waiting: int, instances: int, refused_per_s: float = 0.0
) -> dict[str, Any]:
    return {
        "tenant": tenant, "dispatches_per_s": per_s, "dispatch_share": share, "execution_share": share * 0.9,
        "held": held, "waiting": waiting, "permit_wait_p95_s": 131e-6 if waiting else None,
        "invocations_per_s": instances * 1.7, "instances": instances, "refused_per_s": refused_per_s,
    }  # fmt: skip


def _instance(
    number: int, tenant: int, function: str, export: str, state: str, launches_per_s: float,
    deadline_left_s: float | None = 17.4,
) -> dict[str, Any]:  # fmt: skip
    return {
        "id": str(uuid.UUID(int=0x4A6B_77DC_19F3_4E21_8C55_0000_0000_0000 + (number << 96 | number), version=4)),
        "tenant": tenant, "function": function, "export": export, "state": state, "age_s": 12.6 * number,
        "deadline_left_s": deadline_left_s, "launches": int(launches_per_s * 12.6 * number),
        "launches_per_s": launches_per_s, "held_permits": int(state == "in_kernel"), "memory_bytes": number << 20,
    }  # fmt: skip


def _slo(
    name: str, target: float, value: float | None, state: str, runbook: str, unit: str = "s"
) -> dict[str, Any]:  # fmt: skip
    return {"name": name, "target": target, "value": value, "unit": unit, "state": state, "runbook": runbook}


def _text(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
