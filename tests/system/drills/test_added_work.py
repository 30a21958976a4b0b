"""A release does more on the way of each launch: the same launches, no wait for a permit, and all of them slow."""

from __future__ import annotations

import pytest

from system.drills.drill import CULPRIT, NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, Drill
from system.drills.guests import SHORT
from system.drills.service import FAULTY, GOOD

pytestmark = pytest.mark.slow


def test_the_release_is_rolled_back(drill: Drill):
    drill.start()
    drill.service.install(FAULTY, "added_work")
    for tenant in (CULPRIT, NEIGHBOUR):
        function = drill.deploy(tenant)
        drill.call(1, tenant, drill.launching(function, SHORT, 5), pause_s=0.05)
    usual = drill.usual_rate()
    assert drill.value(1) < OBJECTIVE_S
    drill.releases("switch", FAULTY)
    drill.brings_about(f"release {FAULTY}, in which each launch does more; the tenants do what they did before")
    drill.fires(SLOW_DISPATCH, "page")

    p95_s = drill.value(1)
    assert p95_s > OBJECTIVE_S
    assert drill.value(2) < 2 * usual, "no more launches than usual"
    assert drill.value(5) < OBJECTIVE_S, "it is the path, not the wait"
    by_tenant = drill.by_tenant(6)
    assert min(by_tenant[CULPRIT], by_tenant[NEIGHBOUR]) > OBJECTIVE_S, "every tenant is affected"
    drill.ask(4)
    versions = {s.labels["version"] for s in drill.evaluate("count by (version, git_sha) (tensor_wasm_build_info)")}
    assert FAULTY in versions
    drill.diagnoses(drill.observes(), "added_work")
    drill.pauses()

    drill.releases("rollback")
    assert drill.releases("current").strip() == GOOD
    drill.recovers()
