"""Snapshots are written to the disk of the kernel cache, many at a time. No launch is slower: none touches a disk.

How busy that makes a disk depends on the disk. Where it is a fast one, the document is given a slow one's.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest

from system.drills.drill import CULPRIT, NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, Drill
from system.drills.guests import SHORT
from system.guests import guest
from system.soak.guests import numbered_ptx
from tensor_wasm.bench.stateful_guest import stateful_guest
from tensor_wasm.cli.client import Client

pytestmark = pytest.mark.slow

WRITERS = 4
MEMORY_BYTES = 8 << 20
#: What stands in for another volume.
OTHER_VOLUME = Path("/dev/shm")
IN_PROGRESS = "max_over_time(tensor_wasm_snapshots_in_progress[10s])"
CAPTURE_P95 = "histogram_quantile(0.95, sum by (le) (rate(tensor_wasm_snapshot_capture_seconds_bucket[10s])))"
SPAWN_P95 = "histogram_quantile(0.95, sum by (le) (rate(tensor_wasm_instance_spawn_seconds_bucket[10s])))"
INVOKE_P95 = """histogram_quantile(0.95, sum by (le) (rate(
  tensor_wasm_http_request_duration_seconds_bucket{route="/functions/:id/invoke", method="POST"}[10s])))"""
LAG_P95 = "histogram_quantile(0.95, sum by (le) (rate(tensor_wasm_event_loop_lag_seconds_bucket[10s])))"
#: What tells of captures and what they cost others. How much that is depends on disk and cores.
TELLING = (CAPTURE_P95, SPAWN_P95, INVOKE_P95, LAG_P95)


def keep_capturing(drill: Drill, function: str) -> None:
    """So many kept instances whose memory is full, captured again and again."""
    client = drill.tenant(CULPRIT)
    for _ in range(WRITERS):
        instance = client.spawn(function, 300, None)["id"]
        client.call(instance, {"export": "fill"}, None)

        def capture(client: Client, instance: str = instance) -> None:
            client.delete_snapshot(client.capture(instance)["snapshot_id"])

        drill.call(1, CULPRIT, capture)


def keep_loading(drill: Drill, function: str) -> None:
    """Invocations that each load another kernel."""
    numbers = itertools.cycle(range(50))

    def load(client: Client) -> None:
        ptx = numbered_ptx(next(numbers))
        request = {"export": "load", "args": [len(ptx), 1], "input_b64": b64encode(ptx + b"k").decode()}
        assert client.invoke(function, request, None)["result"][0] >= 0

    drill.call(1, NEIGHBOUR, load, pause_s=0.05)


def test_snapshots_go_to_another_volume(drill: Drill):
    drill.start(TENSOR_WASM_SNAPSHOT_CONCURRENCY=str(WRITERS))
    large = drill.deploy(CULPRIT, stateful_guest(MEMORY_BYTES))
    work, loads = drill.deploy(NEIGHBOUR), drill.deploy(NEIGHBOUR, guest())
    drill.call(1, NEIGHBOUR, drill.launching(work, SHORT, 5), pause_s=0.05)
    keep_loading(drill, loads)
    drill.usual_rate()
    for expression in TELLING:
        drill.evaluate(expression)
    keep_capturing(drill, large)
    drill.brings_about(f"{WRITERS} instances are captured again and again, {WRITERS} at a time, on the cache's disk")
    drill.until(lambda: (drill.prometheus.value(IN_PROGRESS) or 0) > 1, "snapshots are written")
    drill.usual_rate()
    for expression in TELLING:
        drill.evaluate(expression)
    assert drill.value(1) < OBJECTIVE_S
    assert drill.value(5) < OBJECTIVE_S
    drill.is_quiet(SLOW_DISPATCH)
    drill.evaluate(IN_PROGRESS)
    document = drill.observes()
    assert document["snapshots"]["captures_per_s"] > 0
    assert document["snapshots"]["same_disk_as_cache"] is True
    busy = document["disk"]["busy_ratio"]
    drill.narrator.answered(f"busy_ratio of this disk: {busy}. A slower one is stood in for by 1.0 from here on")
    drill.diagnoses(document | {"disk": document["disk"] | {"busy_ratio": 1.0}}, "snapshot_io")
    drill.pauses()

    elsewhere = Path(tempfile.mkdtemp(dir=OTHER_VOLUME))
    try:
        drill.restarts(TENSOR_WASM_SNAPSHOT_DIR=str(elsewhere), TENSOR_WASM_SNAPSHOT_CONCURRENCY="1")
        keep_capturing(drill, large)
        drill.usual_rate()
        for expression in TELLING:
            drill.evaluate(expression)
        drill.evaluate(IN_PROGRESS)
        assert any(elsewhere.iterdir())
        assert drill.observes()["snapshots"]["same_disk_as_cache"] is False
    finally:
        drill.service.stop()
        shutil.rmtree(elsewhere)
