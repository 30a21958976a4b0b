"""One tenant takes the permits and keeps them busy: everybody's launches wait, its own most of all."""

from __future__ import annotations

import pytest

from system.drills.drill import CULPRIT, NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, Drill
from system.drills.guests import FOR_EVER, LONG, SHORT

pytestmark = pytest.mark.slow

PERMITS = 3
FLOOD = 8


def begin(drill: Drill) -> str:
    """A node with few permits, and a neighbour who launches now and then; the culprit's function."""
    drill.start(TENSOR_WASM_DISPATCH_PERMITS=str(PERMITS), TENSOR_WASM_WORKERS="16")
    function = drill.deploy(NEIGHBOUR)
    drill.call(1, NEIGHBOUR, drill.launching(function, SHORT, 5), pause_s=0.05)
    return drill.deploy(CULPRIT)


def test_its_instances_are_ended(drill: Drill):
    function = begin(drill)
    flood = drill.call(FLOOD, CULPRIT, drill.launching(function, LONG, FOR_EVER), again=False)
    drill.brings_about(f"tenant {CULPRIT} floods the node: {FLOOD} instances, each with one launch after the other")
    drill.fires(SLOW_DISPATCH, "page")

    p95_s = drill.value(1)
    assert p95_s > OBJECTIVE_S
    assert drill.value(2) > 0
    assert next(iter(drill.by_tenant(3))) == CULPRIT
    assert next(iter(drill.by_tenant(3, which=2))) == CULPRIT
    drill.ask(4)
    assert drill.value(5) > OBJECTIVE_S
    assert drill.by_tenant(6)[CULPRIT] > OBJECTIVE_S
    assert drill.value(7) > 0.9
    drill.diagnoses(drill.observes(), "saturated_by_one_tenant")
    drill.pauses()

    listed = drill.does("tensor-wasm admin instance list --tenant 7")
    ids = [instance["id"] for instance in drill.instances(CULPRIT)]
    assert len(ids) == FLOOD
    assert all(identity in listed for identity in ids)
    drill.does("tensor-wasm admin instance terminate", *ids)
    drill.recovers()
    flood.join()
    assert flood.outcomes == {"terminated": FLOOD}


def test_it_is_throttled_and_the_permits_are_raised(drill: Drill):
    function = begin(drill)
    drill.call(FLOOD, CULPRIT, drill.launching(function, LONG, FOR_EVER))
    drill.brings_about(f"tenant {CULPRIT} floods the node, and its {FLOOD} clients try again whatever they are told")
    drill.fires(SLOW_DISPATCH, "page")

    drill.runs(f"tensor-wasm admin tenant set {CULPRIT} --permits 1")
    drill.until(lambda: p95_of(drill, NEIGHBOUR) < OBJECTIVE_S, "its neighbour waits no longer")
    assert drill.by_tenant(6)[CULPRIT] > OBJECTIVE_S, "it waits for its own permit"
    assert drill.prometheus.firing(SLOW_DISPATCH), "and that counts"
    drill.runs(f"tensor-wasm admin tenant set {CULPRIT} --unset permits")

    drill.does("tensor-wasm admin tenant set 7")
    drill.does("tensor-wasm admin instance terminate", *(instance["id"] for instance in drill.instances(CULPRIT)))
    drill.recovers()
    drill.runs(f"tensor-wasm admin tenant set {CULPRIT} --unset rate-qps --unset instances")
    drill.brings_about("the limits are gone, and the flood is wanted: it comes back")
    drill.fires(SLOW_DISPATCH, "page")

    drill.restarts(TENSOR_WASM_DISPATCH_PERMITS="128")
    drill.recovers()
    assert drill.by_tenant(3)[CULPRIT] > 0, "it goes on, and nobody waits for a permit"
    assert drill.value(7) < 1


def p95_of(drill: Drill, tenant: int) -> float:
    """Query 6 for one tenant, without a word."""
    samples = drill.prometheus.query(drill.runbook.query(6))
    return next(sample.value for sample in samples if sample.labels["tenant"] == str(tenant))
