"""Launches that lost their permits: permits are held and nobody works, until the node is started again."""

from __future__ import annotations

import pytest

from system.drills.drill import CULPRIT, NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, SLOW_INVOKE, Drill
from system.drills.guests import LONG, SHORT
from tensor_wasm.cli.client import Client

pytestmark = pytest.mark.slow

PERMITS = 4


def lose_a_permit(drill: Drill, client: Client, function: str) -> None:
    """Have a kept instance make the launch that the faulty release does not get to the end of."""
    instance = client.spawn(function, 300, None)["id"]
    assert client.call(instance, {"export": "launch_tall", "args": [SHORT, 1]}, None)["result"] == [0]


def begin(drill: Drill, clients: int) -> tuple[Client, str]:
    """The faulty release with few permits, and a tenant with work for all of them."""
    drill.start(faulty="lost_permit", TENSOR_WASM_DISPATCH_PERMITS=str(PERMITS), TENSOR_WASM_WORKERS="16")
    function = drill.deploy(NEIGHBOUR)
    request = {"export": "launch", "args": [LONG, 20], "deadline_ms": 3000}
    drill.call(clients, NEIGHBOUR, lambda client: client.invoke(function, request, None))
    return drill.tenant(CULPRIT), drill.deploy(CULPRIT)


def test_all_but_one_are_lost(drill: Drill):
    client, function = begin(drill, PERMITS)
    for _ in range(PERMITS - 1):
        lose_a_permit(drill, client, function)
    drill.brings_about(
        f"{PERMITS - 1} launches that do not give their permits back, and {PERMITS} clients who need them"
    )
    drill.fires(SLOW_DISPATCH, "page")

    assert drill.value(1) > OBJECTIVE_S
    assert drill.value(5) > OBJECTIVE_S
    assert drill.value(7) > (PERMITS - 1) / PERMITS - 0.01
    held = [instance for instance in drill.instances(CULPRIT) if instance["held_permits"]]
    assert len(held) == PERMITS - 1
    assert {instance["state"] for instance in held} == {"idle"}, "they hold permits and launch nothing"
    drill.diagnoses(drill.observes(), "wedged_permit")
    drill.pauses()

    drill.restarts()
    drill.recovers()


def test_all_are_lost(drill: Drill):
    client, function = begin(drill, 2)
    drill.until(lambda: drill.now(2) > 0, "launches are counted")
    for _ in range(PERMITS):
        lose_a_permit(drill, client, function)
    drill.brings_about("every permit is lost: no launch gets through, so none has a latency")
    drill.fires(SLOW_INVOKE, "page")
    drill.resolves(SLOW_DISPATCH)
    assert drill.value(2) == 0
    drill.ask(1)
    assert drill.value(7) == 1
    drill.diagnoses(drill.observes(), "wedged_permit")

    drill.restarts()
    drill.resolves(SLOW_INVOKE)
    drill.until(lambda: drill.now(2) > 0, "launches get through")
    drill.value(1)
