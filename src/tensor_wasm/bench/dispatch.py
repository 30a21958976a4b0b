"""What a launch of an empty kernel costs, alone and while the node is busy.

Each launch is timed by the guest itself with WASI's monotonic clock; what two reads of that clock cost with nothing
between them is measured in the same way and taken off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from tensor_wasm.bench.background import busy_node
from tensor_wasm.bench.plain import PlainGuest
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import Workshop, guest_wasm

EMPTY, VECTOR_ADD = range(2)
_WARM_UP = 10_000
#: The guest keeps this many samples a call.
_ROUND = 10_000


def measure(home: Path, count: int) -> Report:
    """Time ``count`` launches of each case."""
    report = Report("dispatch")
    wasm = guest_wasm()
    plain = PlainGuest(wasm, lambda _guest: None)
    plain.call("prepare", EMPTY)
    workshop = Workshop(home, wasm)
    with workshop.guest() as kept:
        kept.run("prepare", EMPTY)
        kept.run("launch_loop", _WARM_UP)
        report.add("empty kernel", timed(kept, count), "us", bar="P50 <= 0.5 us, P95 <= 1 us", peer="public API")
        report.add("public API", timed(plain, count // 10), "us")
        with busy_node(home):
            name = "empty kernel, spinning thread and HTTP load"
            peer = "public API, spinning thread and HTTP load"
            report.add(name, timed(kept, 10 * count), "us", bar="P95 <= 5 us", peer=peer)
            report.add(peer, timed(plain, max(count // 1000, 100)), "us")
    workshop.close()
    return report


class TimedGuest(Protocol):
    """An instance of the benchmarks' guest."""

    def call(self, export: str, *args: int) -> int:
        """Call an export that takes i32s and gives one."""

    def samples(self, count: int) -> tuple[int, ...]:
        """The first ``count`` samples, nanoseconds, of the last timed loop."""


def timed(guest: TimedGuest, count: int) -> np.ndarray:
    """Microseconds of each launch, the clock's own cost taken off."""
    guest.call("clock_loop", min(count, _ROUND))
    clock_ns = float(np.median(guest.samples(min(count, _ROUND))))
    found: list[np.ndarray] = []
    left = count
    while left > 0:
        round_count = min(left, _ROUND)
        guest.call("time_loop", round_count)
        found.append(np.asarray(guest.samples(round_count), dtype=float))
        left -= round_count
    return np.maximum(np.concatenate(found) - clock_ns, 0) / 1e3
