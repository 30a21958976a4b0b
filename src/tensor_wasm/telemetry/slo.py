"""The objectives: what is promised, from when on it is broken, and who is told. The one home of their numbers.

Alerting rules, runbooks and the pages about objectives are held to these tables by tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from tensor_wasm.telemetry.observation import SloState


class Deployment(Enum):
    """What kernels run on; objectives may differ."""

    HOST = "host"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about one number; ``targets`` by deployment.

    ``unit`` is "s" or "ratio". The value may be at most the target or, with ``is_floor``, at least. ``runbook`` is the
    file in ``docs/runbooks`` for when it is not, without its end.
    """

    name: str
    unit: str
    targets: Mapping[Deployment, float]
    runbook: str
    is_floor: bool = False

    def state(self, value: float | None, deployment: Deployment) -> SloState:
        """Whether a value that was measured holds the promise."""
        target = self.targets[deployment]
        if value is None:
            state = "no_data"
        else:
            state = "ok" if (value >= target if self.is_floor else value <= target) else "breached"
        return SloState(name=self.name, target=target, value=value, unit=self.unit, state=state, runbook=self.runbook)


@dataclass(frozen=True, slots=True)
class Burn:
    """An alert on the budget of failures: ``factor`` times the budget, over both windows, for ``for_``."""

    alert: str
    factor: float
    windows: tuple[str, str]
    for_: str
    severity: str


@dataclass(frozen=True, slots=True)
class Spike:
    """An alert on a percentile that is above an objective's target over all of the windows, for ``for_``.

    ``severities`` by deployment; one that is not there has no such alert.
    """

    alert: str
    objective: str
    windows: tuple[str, ...]
    for_: str
    severities: Mapping[Deployment, str]


def _both(target: float) -> dict[Deployment, float]:
    return {Deployment.HOST: target, Deployment.CUDA: target}


#: Part of the answers of 30 days that may be 5xx.
AVAILABILITY_BUDGET = 0.005
AVAILABILITY = Objective(
    "availability", "ratio", _both(1 - AVAILABILITY_BUDGET), "availability-fast-burn", is_floor=True
)
HEALTHZ = Objective("latency_http_healthz_P95", "s", _both(0.01), "healthz-slow")
INVOKE = Objective("latency_http_invoke_P95", "s", {Deployment.HOST: 0.1, Deployment.CUDA: 0.5}, "invoke-latency-spike")
#: On a GPU it is for information: a launch there has the driver in its way.
DISPATCH = Objective("latency_dispatch_serial_P95", "s", _both(5e-5), "dispatch-latency-spike")
INVOKE_ERRORS = Objective("error_rate_invoke", "ratio", _both(0.01), "availability-fast-burn")

OBJECTIVES: tuple[Objective, ...] = (AVAILABILITY, HEALTHZ, INVOKE, DISPATCH, INVOKE_ERRORS)

BURNS: tuple[Burn, ...] = (
    Burn("TensorWasmAvailabilityFastBurn", 14.4, ("1h", "5m"), "2m", "page"),
    Burn("TensorWasmAvailabilitySlowBurn", 6.0, ("6h", "30m"), "15m", "page"),
    Burn("TensorWasmAvailabilityVerySlowBurn", 1.0, ("3d", "6h"), "1h", "ticket"),
)
SPIKES: tuple[Spike, ...] = (
    Spike(
        "TensorWasmHealthzSlow", HEALTHZ.name, ("30m",), "30m", {Deployment.HOST: "ticket", Deployment.CUDA: "ticket"}
    ),
    Spike(
        "TensorWasmInvokeLatencySpike",
        INVOKE.name,
        ("5m", "1h"),
        "5m",
        {Deployment.HOST: "page", Deployment.CUDA: "page"},
    ),
    Spike(
        "TensorWasmDispatchLatencySpike",
        DISPATCH.name,
        ("5m", "1h"),
        "5m",
        {Deployment.HOST: "page", Deployment.CUDA: "info"},
    ),
)
