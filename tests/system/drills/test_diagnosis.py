"""Documents that were recorded in drills, and what each says; and pairs that are easily taken for each other."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from system.drills.diagnosis import NONE, RULES, diagnose
from system.front_door import ROOT

DOCUMENTS = Path(__file__).with_name("documents")
SCHEMA = json.loads((ROOT / "docs" / "observe.schema.json").read_text())

#: What each recorded document says by itself.
RECORDED = {
    "wedged_permit": "wedged_permit",
    "tight_launch_loop": "tight_launch_loop",
    "tight_launch_loops_without_permits": "tight_launch_loop",
    "saturated_by_one_tenant": "saturated_by_one_tenant",
    "event_loop_stalled": "event_loop_stalled",
    "event_loop_late": "event_loop_stalled",
    "added_work": "added_work",
    "none": NONE,
}


def recorded(name: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """A document; ``changes`` are of its sections."""
    document: dict[str, Any] = json.loads((DOCUMENTS / f"{name}.json").read_text())
    for section, change in changes.items():
        document[section] = document[section] | change
    jsonschema.validate(document, SCHEMA)
    return document


def hot(**changes: Any) -> list[dict[str, Any]]:
    gpu: dict[str, Any] = recorded("gpu_degraded")["gpus"][0]
    return [gpu | changes]


@pytest.mark.parametrize(("name", "hypothesis"), RECORDED.items())
def test_a_recorded_document_says_what_went_on(name: str, hypothesis: str) -> None:
    assert diagnose(recorded(name)) == hypothesis


def test_a_gpu_that_is_held_back_is_told_from_added_work() -> None:
    # The drills have a driver that stands in, and no device: the document says host.
    degraded = recorded("gpu_degraded", node={"deployment": "cuda"})
    assert diagnose(degraded) == "gpu_degraded"
    well = degraded | {"gpus": hot(throttle_reasons=[], ecc_errors=0)}
    assert diagnose(well) == NONE
    before = {"version": "0.0.9", "git_sha": "unknown", "until": "2026-01-01T00:00:00.000Z", "dispatch_p95_s": 1e-5}
    assert diagnose(well | {"release": well["release"] | {"previous": before}}) == "added_work"
    assert diagnose(degraded | {"gpus": hot(throttle_reasons=[])}) == "gpu_degraded", "memory errors alone"
    assert diagnose(degraded | {"node": degraded["node"] | {"deployment": "host"}}) == NONE, "no launch needs it there"


def test_added_work_is_told_from_a_release_that_was_as_slow_before() -> None:
    document = recorded("added_work")
    document["release"]["previous"]["dispatch_p95_s"] = document["dispatch"]["p95_s"]
    assert diagnose(document) != "added_work"
    document["release"]["previous"]["dispatch_p95_s"] = None
    assert diagnose(document) != "added_work"
    document["release"]["previous"] = None
    assert diagnose(document) != "added_work"


def test_added_work_is_told_from_permits_that_are_short() -> None:
    work, full = recorded("added_work"), recorded("saturated_by_one_tenant")
    full["release"] = work["release"]
    assert diagnose(full) == "saturated_by_one_tenant", "launches wait: that is enough to make them slow"
    assert diagnose(work | {"permits": full["permits"] | {"waiting": 0}}) == "added_work", "busy, and nobody waits"


def test_a_wedged_permit_is_told_from_permits_that_are_short() -> None:
    full = recorded("saturated_by_one_tenant")
    assert full["permits"]["utilization"] == recorded("wedged_permit")["permits"]["utilization"] == 1.0
    assert diagnose(full | {"permits": full["permits"] | {"held_without_launch": 1}}) == "wedged_permit"
    wedged = recorded("wedged_permit")
    assert diagnose(wedged | {"permits": wedged["permits"] | {"held_without_launch": 0}}) != "wedged_permit"


def test_a_tenant_who_saturates_is_told_from_one_in_a_tight_loop() -> None:
    loops, full = recorded("tight_launch_loops_without_permits"), recorded("saturated_by_one_tenant")
    assert loops["permits"]["waiting"] > 0, "both have launches that wait"
    assert diagnose(full | {"execution": loops["execution"]}) != "tight_launch_loop", "too few launches for a loop"
    assert diagnose(loops | {"execution": full["execution"]}) != "tight_launch_loop", "its kernels do something"


def test_one_who_saturates_is_told_from_many_who_do() -> None:
    full = recorded("saturated_by_one_tenant")
    shared = [row | {"execution_share": 0.5, "held": 1} for row in full["tenants"]]
    assert diagnose(full | {"tenants": shared}) == NONE


def test_a_stalled_loop_is_told_from_one_that_is_late_because_launches_wait() -> None:
    full = recorded("saturated_by_one_tenant", event_loop={"lag_p95_s": 0.2})
    assert diagnose(full) == "saturated_by_one_tenant"
    quiet = recorded("none")
    for lag_s, hypothesis in ((0.004, NONE), (0.2, "event_loop_stalled")):
        late = copy.deepcopy(quiet)
        late["event_loop"]["lag_p95_s"] = lag_s
        assert diagnose(late) == hypothesis
    assert diagnose(recorded("none", event_loop={"stalled_s": 3.0, "lag_p95_s": None})) == "event_loop_stalled"


def test_snapshots_are_to_blame_where_they_keep_the_cache_s_disk_busy() -> None:
    busy = recorded("snapshot_io", disk={"busy_ratio": 0.97})
    assert diagnose(busy) == "snapshot_io"
    assert diagnose(busy | {"disk": busy["disk"] | {"busy_ratio": 0.1}}) == NONE, "a disk that is quick enough"
    assert diagnose(busy | {"disk": busy["disk"] | {"busy_ratio": None}}) == NONE, "nobody says how busy it is"
    assert diagnose(busy | {"snapshots": busy["snapshots"] | {"same_disk_as_cache": False}}) == NONE
    assert diagnose(busy | {"snapshots": recorded("none")["snapshots"]}) == NONE, "something else keeps it busy"


def test_every_hypothesis_has_a_document() -> None:
    names = {name for name, _ in RULES}
    assert names == {*RECORDED.values(), "gpu_degraded", "snapshot_io"} - {NONE}
    assert {path.stem for path in DOCUMENTS.glob("*.json")} == {*RECORDED, "gpu_degraded", "snapshot_io"}


def test_a_document_without_data_says_nothing() -> None:
    nothing = {"count": 0, "per_s": 0.0, "p50_s": None, "p95_s": None, "p99_s": None}
    empty = recorded("none") | dict.fromkeys(("dispatch", "execution", "permit_wait"), nothing)
    empty |= {"tenants": [], "instances": [], "unread": ["dispatch: not readable in time"]}
    empty["event_loop"] = {"lag_p95_s": None, "lag_max_s": None, "stalled_s": None}
    assert diagnose(empty) == NONE
