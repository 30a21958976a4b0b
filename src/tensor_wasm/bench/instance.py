"""What a fresh sandbox costs: made, called once, dropped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tensor_wasm.bench.plain import PlainInstances
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import Workshop, guest_wasm

_WARM_UP = 200


def measure(home: Path, count: int) -> Report:
    """Time ``count`` fresh instances of each kind."""
    report = Report("instance")
    for name, guest, bar in (
        ("fresh instance, no CUDA import", "noop", "P50 <= 20 us"),
        ("fresh instance, CUDA import", "bench", "P50 <= 60 us"),
    ):
        workshop = Workshop(home, guest_wasm(guest))

        def once(workshop: Workshop = workshop) -> None:
            with workshop.guest() as kept:
                kept.call("noop")

        report.add(name, _times(once, count), "us", bar=bar, peer="public API, no CUDA import")
        workshop.close()
    plain = PlainInstances(guest_wasm("noop"))
    report.add("public API, no CUDA import", _times(lambda: plain.invoke("noop"), count), "us")
    return report


def _times(once: Callable[[], object], count: int) -> list[float]:
    for _ in range(_WARM_UP):
        once()
    samples = []
    clock = time.perf_counter
    for _ in range(count):
        began = clock()
        once()
        samples.append((clock() - began) * 1e6)
    return samples
