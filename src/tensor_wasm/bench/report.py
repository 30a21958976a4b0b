"""What a benchmark found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from tensor_wasm import __version__
from tensor_wasm.device.processor import processor_name


@dataclass(frozen=True, slots=True)
class Case:
    """One measured case: ``unit`` of the percentiles, ``rate`` per second where that is what is measured.

    ``bar`` says what the case should reach, ``peer`` names the case it is to be compared with; ``highest`` is the
    highest sample, where samples were kept.
    """

    name: str
    unit: str
    count: int
    p50: float
    p95: float
    p99: float
    rate: float | None = None
    bar: str | None = None
    peer: str | None = None
    highest: float | None = None


@dataclass(slots=True)
class Report:
    """A benchmark's cases in the order they were measured."""

    benchmark: str
    cases: list[Case] = field(default_factory=list)

    def add(
        self,
        name: str,
        samples: Iterable[float],
        unit: str,
        *,
        rate: float | None = None,
        bar: str | None = None,
        peer: str | None = None,
    ) -> Case:
        """Summarise samples as a case."""
        values = np.fromiter(samples, float)
        p50, p95, p99 = (float(value) for value in np.percentile(values, [50, 95, 99]))
        case = Case(name, unit, len(values), p50, p95, p99, rate, bar, peer, float(values.max()))
        self.cases.append(case)
        return case

    def add_value(
        self, name: str, value: float, unit: str, *, rate: float | None = None, bar: str | None = None
    ) -> Case:
        """Add a case that is one number."""
        return self.add(name, [value], unit, rate=rate, bar=bar)

    def ratio(self, case: Case) -> float | None:
        """How many times better a case is than its peer: by rate where both have one, else by P50."""
        peer = next((other for other in self.cases if other.name == case.peer), None)
        if peer is None:
            return None
        if case.rate is not None and peer.rate:
            return case.rate / peer.rate
        return peer.p50 / case.p50 if case.p50 else None

    def as_dict(self) -> dict[str, object]:
        """For ``--json``: the machine, then the cases with their ratios."""
        return {
            "benchmark": self.benchmark,
            "version": __version__,
            "machine": {
                "processor": processor_name(),
                "cores": len(os.sched_getaffinity(0)),
                "system": platform.platform(),
                "python": platform.python_version(),
            },
            "cases": [{**asdict(case), "ratio_to_peer": self.ratio(case)} for case in self.cases],
        }
