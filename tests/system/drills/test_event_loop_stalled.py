"""A handler blocks the event loop: every request waits, and no launch does."""

from __future__ import annotations

import pytest

from system.drills.drill import (
    NEIGHBOUR,
    OBJECTIVE_S,
    SLOW_DISPATCH,
    SLOW_HEALTHZ,
    Drill,
)
from system.drills.guests import SHORT
from system.drills.service import FAULTY, GOOD
from tensor_wasm.cli.client import Client

pytestmark = pytest.mark.slow

#: Enough calls at once that the loop answers nobody for seconds.
MANY = 20


def probe(client: Client) -> None:
    """What a load balancer asks."""
    client.json("GET", "/healthz")


def list_functions(client: Client) -> None:
    """What blocks the loop in the faulty release."""
    client.json("GET", "/functions")


def test_the_handler_goes_with_its_release(drill: Drill):
    drill.start()
    drill.service.install(FAULTY, "blocking_handler")
    function = drill.deploy(NEIGHBOUR)
    drill.call(1, NEIGHBOUR, probe, pause_s=0.1)
    drill.call(1, NEIGHBOUR, drill.launching(function, SHORT, 5), pause_s=0.05)
    drill.releases("switch", FAULTY)
    drill.call(1, NEIGHBOUR, list_functions, pause_s=0.2)
    drill.brings_about(f"release {FAULTY}, whose GET /functions blocks the event loop, and somebody who calls it")
    drill.fires(SLOW_HEALTHZ, "ticket")

    (lag,) = drill.evaluate(drill.runbook.step_query(3))
    assert lag.value > 0.01
    assert drill.value(1) < OBJECTIVE_S, "launches do not need the loop"
    assert drill.value(5) < OBJECTIVE_S
    drill.is_quiet(SLOW_DISPATCH)
    drill.diagnoses(drill.observes(), "event_loop_stalled")
    crowd = drill.call(MANY, NEIGHBOUR, list_functions)
    drill.brings_about(f"{MANY} such calls at once: the loop answers nobody")
    drill.diagnoses(drill.observes(), "event_loop_stalled")
    crowd.join()
    drill.pauses()

    drill.releases("rollback")
    assert drill.releases("current").strip() == GOOD
    drill.resolves(SLOW_HEALTHZ)
