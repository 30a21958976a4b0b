"""From the one document of ``tensor-wasm observe --once`` to a hypothesis of the dispatch runbook, by a table of rules.

The first rule that fits names it. What cannot be mistaken comes first: a permit that nobody uses. The event loop comes
last: on a machine that is short of cores it is late whatever else goes on, and no launch needs it. A rule sees nothing
but the document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Document = Mapping[str, Any]

NONE = "none"
#: A loop that is this late for most of what it has to do, or does not come at all.
_LATE_S, _STALLED_S = 0.05, 1.0
#: Of the launches, or of the time in kernels, that make a tenant the one.
_MOST = 0.6
#: Permits are short above this.
_FULL = 0.9
#: A kernel that is through so soon does nothing, and an instance with so many of them a second does nothing else.
_IDLE_KERNEL_S, _TIGHT_PER_S = 2e-5, 1000.0
#: A release is to blame when launches take so many times as long as before it.
_SLOWER = 2.0
#: From here on who needs a disk waits for it.
_BUSY_DISK = 0.7


def diagnose(document: Document) -> str:
    """The hypothesis, or ``none``."""
    return next((name for name, applies in RULES if applies(document)), NONE)


def wedged_permit(document: Document) -> bool:
    """A permit is held for a second and longer by who launches nothing."""
    return bool(document["permits"]["held_without_launch"] > 0)


def event_loop_stalled(document: Document) -> bool:
    """The loop does not come, or comes late again and again; not because launches are in each other's way."""
    loop = document["event_loop"]
    if _number(loop["stalled_s"]) >= _STALLED_S:
        return True
    return _number(loop["lag_p95_s"]) >= _LATE_S and not _waits(document)


def gpu_degraded(document: Document) -> bool:
    """Launches are slow on a GPU that is slowed down or has memory errors, and not for want of permits."""
    is_hurt = any(gpu["throttle_reasons"] or _number(gpu["ecc_errors"]) > 0 for gpu in document["gpus"])
    return document["node"]["deployment"] == "cuda" and is_hurt and _is_slow(document) and not _is_full(document)


def tight_launch_loop(document: Document) -> bool:
    """One tenant makes most launches, its instances thousands a second, and the kernels do nothing."""
    kernel_s = document["execution"]["p50_s"]
    if kernel_s is None or kernel_s > _IDLE_KERNEL_S:
        return False
    return any(
        _number(tenant["dispatch_share"]) >= _MOST
        and sum(one["launches_per_s"] for one in document["instances"] if one["tenant"] == tenant["tenant"])
        >= _TIGHT_PER_S
        for tenant in document["tenants"]
    )


def saturated_by_one_tenant(document: Document) -> bool:
    """Permits are short, launches wait, and one tenant has most of the time in kernels or of the permits."""
    if not (_is_full(document) and _waits(document)):
        return False
    total = document["permits"]["total"]
    return any(
        _number(tenant["execution_share"]) >= _MOST or tenant["held"] >= _MOST * total for tenant in document["tenants"]
    )


def snapshot_io(document: Document) -> bool:
    """Snapshots are captured, and keep the disk busy that kernels come from."""
    snapshots, disk = document["snapshots"], document["disk"]
    is_capturing = snapshots["in_progress"] > 0 or snapshots["captures_per_s"] > 0
    return bool(is_capturing and snapshots["same_disk_as_cache"] is True and _number(disk["busy_ratio"]) >= _BUSY_DISK)


def added_work(document: Document) -> bool:
    """Launches are slow without a wait for permits, and were not before this release."""
    previous = document["release"]["previous"]
    if previous is None or previous["dispatch_p95_s"] is None or not _is_slow(document) or _waits(document):
        return False
    return bool(document["dispatch"]["p95_s"] >= _SLOWER * previous["dispatch_p95_s"])


def _objective(document: Document) -> Mapping[str, Any]:
    (found,) = [row for row in document["slo"] if row["name"] == "latency_dispatch_serial_P95"]
    objective: Mapping[str, Any] = found
    return objective


def _is_slow(document: Document) -> bool:
    return bool(_objective(document)["state"] == "breached")


def _waits(document: Document) -> bool:
    """Whether the waits for permits alone are longer than a launch may take."""
    return _number(document["permit_wait"]["p95_s"]) > float(_objective(document)["target"])


def _is_full(document: Document) -> bool:
    permits = document["permits"]
    return _number(permits["utilization"]) >= _FULL or permits["waiting"] > 0


def _number(value: float | None) -> float:
    return 0.0 if value is None else value


#: Hypotheses in the order they are tried in.
RULES: tuple[tuple[str, Callable[[Document], bool]], ...] = tuple(
    (rule.__name__, rule)
    for rule in (
        wedged_permit,
        tight_launch_loop,
        saturated_by_one_tenant,
        gpu_degraded,
        added_work,
        snapshot_io,
        event_loop_stalled,
    )
)
