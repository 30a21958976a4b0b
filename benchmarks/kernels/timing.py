"""Runs in turn, each timed by the clock on the wall and by the processor's time of the whole process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: However quick a case is, it is not run more often than this.
_MOST_ROUNDS = 300


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a case is measured: at least that many rounds, and that many seconds for each who takes part."""

    rounds: int
    seconds: float


@dataclass(slots=True)
class Samples:
    """What runs took, in milliseconds, in the order of the rounds."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def time(self, run: Callable[[], object]) -> None:
        """Add a run."""
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        run()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        self.wall_ms.append(wall / 1e6)
        self.cpu_ms.append(cpu / 1e6)

    def of(self, clock: str) -> list[float]:
        """The samples by ``wall`` or ``cpu``."""
        return self.wall_ms if clock == "wall" else self.cpu_ms


def in_turn(runs: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, Samples]:
    """Time all runs, one after the other in each round, so that a slow moment of the machine meets everybody."""
    samples = {name: Samples() for name in runs}
    end = time.monotonic() + effort.seconds * len(runs)
    count = 0
    while count < effort.rounds or (time.monotonic() < end and count < _MOST_ROUNDS):
        for name, run in runs.items():
            samples[name].time(run)
        count += 1
    return samples


def ratio(ours: Samples, other: Samples, clock: str) -> float:
    """How many times as fast ours is as another: the median over the rounds' pairs."""
    return statistics.median(b / a for a, b in zip(ours.of(clock), other.of(clock), strict=True))
