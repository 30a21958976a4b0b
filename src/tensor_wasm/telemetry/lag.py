"""How late the event loop comes to what is due: whatever blocks it shows here."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left

from tensor_wasm.telemetry.families import Family, Metric, histogram

LAG_BUCKETS_S: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LAG = Family(
    "event_loop_lag_seconds", "histogram", "How late a timer of the event loop came, ten times a second.", (),
    LAG_BUCKETS_S,
)  # fmt: skip
INTERVAL_S = 0.1


class LagMonitor:
    """A timer on one event loop and the histogram of its delays. Read from any thread."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LAG_BUCKETS_S) + 1)
        self._sum_s = 0.0
        self._max_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Begin on the running loop."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """End; to be called on the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> tuple[tuple[int, ...], float, float | None]:
        """Counts of delays in the buckets of ``LAG_BUCKETS_S``, the longest since the last call, and how late the loop
        is now: None when none runs.
        """
        late_s = None if self._timer is None else max(0.0, time.monotonic() - self._due_s)
        longest_s, self._max_s = self._max_s, 0.0
        return tuple(self._counts), max(longest_s, late_s or 0.0), late_s

    def collect(self) -> list[Metric]:
        """The family."""
        return [Metric(LAG, histogram(LAG, "", LAG_BUCKETS_S, self._counts.copy(), self._sum_s))]

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = time.monotonic() + INTERVAL_S
        self._timer = loop.call_later(INTERVAL_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not the loop's own clock: uvloop's stands still while the loop is busy, which is what is measured here.
        late_s = max(0.0, time.monotonic() - self._due_s)
        self._counts[bisect_left(LAG_BUCKETS_S, late_s)] += 1
        self._sum_s += late_s
        self._max_s = max(self._max_s, late_s)
        self._schedule(loop)
