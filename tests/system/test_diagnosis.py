"""The rules from the observer's document to a hypothesis: a document of each kind, and near misses."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from system.drills.diagnosis import NONE, RULES, diagnose
from tensor_wasm.telemetry.observe_example import EXAMPLE

WELL: dict[str, Any] = json.loads(msgspec.json.encode(EXAMPLE))


def slow(*, waits: bool) -> dict[str, Any]:
    """What a breach of the objective looks like."""
    rows = [row | {"state": "breached", "value": 4e-4} if "dispatch" in row["name"] else row for row in WELL["slo"]]
    found = {"slo": rows, "dispatch": WELL["dispatch"] | {"p95_s": 4e-4}}
    return found | ({"permit_wait": WELL["permit_wait"] | {"p95_s": 4e-4}} if waits else {})


def changed(**parts: Any) -> dict[str, Any]:
    """The document of a node that is well, with these parts of it changed."""
    document = deepcopy(WELL)
    for name, part in parts.items():
        document[name] = document[name] | part if isinstance(part, dict) else part
    return document


FULL = {"used": 64, "utilization": 1.0, "waiting": 40}
CAPTURING = {"in_progress": 4, "captures_per_s": 2.0, "same_disk_as_cache": True}
HOT = [
    {
        "device": "cuda:0", "temperature_celsius": 97.0, "utilization_ratio": 1.0,
        "throttle_reasons": ["hw_thermal_slowdown"], "ecc_errors": 0,
    }
]  # fmt: skip
TIGHT = [WELL["instances"][0] | {"launches_per_s": 900_000.0}]
BEFORE = {"version": "0.1.0", "git_sha": "unknown", "until": WELL["taken_at"], "dispatch_p95_s": 1e-6}

DOCUMENTS = {
    "well": (changed(), NONE),
    "busy": (changed(permits={"used": 64, "utilization": 1.0}), NONE),
    "wedged": (changed(permits={"used": 64, "held_without_launch": 64}), "wedged_permit"),
    "wedged under load": (changed(permits=FULL | {"held_without_launch": 63}, **slow(waits=True)), "wedged_permit"),
    "saturated": (changed(permits=FULL, **slow(waits=True)), "saturated_by_one_tenant"),
    "tight": (changed(instances=TIGHT, execution={"p50_s": 3e-7}), "tight_launch_loop"),
    "tight and waiting": (
        changed(instances=TIGHT, execution={"p50_s": 3e-7}, permits=FULL, **slow(waits=True)),
        "tight_launch_loop",
    ),
    "many launches that work": (changed(instances=TIGHT, execution={"p50_s": 1e-3}), NONE),
    "more work": (changed(release={"previous": BEFORE}, **slow(waits=False)), "added_work"),
    "no slower than before": (
        changed(release={"previous": BEFORE | {"dispatch_p95_s": 4e-4}}, **slow(waits=False)),
        NONE,
    ),
    "hot": (changed(node={"deployment": "cuda"}, gpus=HOT, **slow(waits=False)), "gpu_degraded"),
    "hot and quick": (changed(node={"deployment": "cuda"}, gpus=HOT), NONE),
    "captures": (changed(snapshots=CAPTURING, disk={"busy_ratio": 0.95}), "snapshot_io"),
    "captures on a fast disk": (changed(snapshots=CAPTURING, disk={"busy_ratio": 0.3}), NONE),
    "captures elsewhere": (
        changed(snapshots=CAPTURING | {"same_disk_as_cache": False}, disk={"busy_ratio": 0.95}),
        NONE,
    ),
    "late": (changed(event_loop={"lag_p95_s": 0.2}), "event_loop_stalled"),
    "stalled": (changed(event_loop={"lag_p95_s": None, "stalled_s": 3.0}), "event_loop_stalled"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_alone_says_what_it_is(name: str):
    document, hypothesis = DOCUMENTS[name]
    assert diagnose(document) == hypothesis


def test_every_rule_has_a_document():
    assert {hypothesis for _, hypothesis in DOCUMENTS.values()} == {name for name, _ in RULES} | {NONE}


@pytest.mark.parametrize(
    "name", [name for name, (_, found) in DOCUMENTS.items() if found in ("added_work", "saturated_by_one_tenant")]
)
def test_a_machine_short_of_cores_makes_the_loop_late_and_hides_nothing(name: str):
    document, hypothesis = DOCUMENTS[name]
    late = document | {"event_loop": document["event_loop"] | {"lag_p95_s": 0.2, "lag_max_s": 0.4}}
    assert diagnose(late) == hypothesis
