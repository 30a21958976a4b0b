"""Guests that launch again and again and let their kernels do nothing."""

from __future__ import annotations

import pytest

from system.drills.drill import CULPRIT, NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, Drill
from system.drills.guests import FOR_EVER, LONG, SHORT

pytestmark = pytest.mark.slow

LOOPS = 8


def test_the_loops_are_ended(drill: Drill):
    drill.start(TENSOR_WASM_DISPATCH_PERMITS="1", TENSOR_WASM_WORKERS="16")
    work = drill.deploy(NEIGHBOUR)
    drill.call(1, NEIGHBOUR, drill.launching(work, LONG, 2), pause_s=0.05)
    usual = drill.usual_rate()
    loop = drill.deploy(CULPRIT)
    first = drill.call(1, CULPRIT, drill.launching(loop, SHORT, FOR_EVER), again=False)
    drill.brings_about(f"tenant {CULPRIT} has a loop that launches a kernel which does nothing")
    drill.until(lambda: drill.now(2) > 10 * usual, "the loop makes most launches")
    assert next(iter(drill.by_tenant(3))) == CULPRIT
    assert drill.value(1) < OBJECTIVE_S, "its quick launches outvote the others'"
    (instance,) = drill.instances(CULPRIT)
    assert instance["launches_per_s"] > 10 * usual
    drill.diagnoses(drill.observes(), "tight_launch_loop")

    more = drill.call(LOOPS - 1, CULPRIT, drill.launching(loop, SHORT, FOR_EVER), again=False)
    drill.brings_about(f"{LOOPS} such loops, and one permit")
    drill.fires(SLOW_DISPATCH, "page")
    assert drill.value(1) > OBJECTIVE_S
    assert drill.value(2) > 10 * usual
    launches = drill.by_tenant(3)
    assert launches[CULPRIT] > 10 * launches.get(NEIGHBOUR, 0)
    drill.by_tenant(3, which=2)
    assert drill.value(5) > OBJECTIVE_S
    drill.diagnoses(drill.observes(), "tight_launch_loop")
    drill.pauses()

    drill.does("tensor-wasm admin instance list --tenant 7")
    ids = [instance["id"] for instance in drill.instances(CULPRIT)]
    drill.does("tensor-wasm admin instance terminate", *ids)
    drill.recovers()
    for loops in (first, more):
        loops.join()
        assert set(loops.outcomes) == {"terminated"}
