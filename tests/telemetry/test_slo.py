from __future__ import annotations

import pytest

from tensor_wasm.telemetry import slo
from tensor_wasm.telemetry.slo import Deployment


@pytest.mark.parametrize(
    ("objective", "deployment", "value", "state"),
    [
        (slo.DISPATCH, Deployment.HOST, None, "no_data"),
        (slo.DISPATCH, Deployment.HOST, 5e-5, "ok"),
        (slo.DISPATCH, Deployment.HOST, 5.1e-5, "breached"),
        (slo.INVOKE, Deployment.HOST, 0.2, "breached"),
        (slo.INVOKE, Deployment.CUDA, 0.2, "ok"),
        (slo.AVAILABILITY, Deployment.HOST, 0.995, "ok"),
        (slo.AVAILABILITY, Deployment.HOST, 0.994, "breached"),
        (slo.INVOKE_ERRORS, Deployment.HOST, 0.011, "breached"),
    ],
)
def test_an_objective_holds_or_does_not(objective, deployment, value, state):
    assert objective.state(value, deployment).state == state


def test_every_alert_is_of_an_objective():
    names = {objective.name for objective in slo.OBJECTIVES}
    assert {spike.objective for spike in slo.SPIKES} <= names
    alerts = [alert.alert for alert in (*slo.BURNS, *slo.SPIKES)]
    assert len(set(alerts)) == len(alerts) == 6
