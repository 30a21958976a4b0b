"""What a soak came to, for people."""

from __future__ import annotations

from collections.abc import Iterator

from system.soak.gauges import Reading
from system.soak.soak import Outcome

_ROWS = (
    "functions", "artifacts", "snapshots", "stored_bytes", "tokens", "connections", "threads", "descriptors",
    "compilers", "mappings", "resident_bytes", "anonymous_bytes", "compilers_resident_bytes", "files", "files_bytes",
)  # fmt: skip


def lines(outcome: Outcome) -> Iterator[str]:
    """The report."""
    yield f"seed {outcome.seed}, {outcome.seconds:.0f} s of mixed traffic, at rest after {outcome.rest_s:.1f} s"
    yield ""
    yield f"{'':28}{'start':>14}{'end':>14}{'most':>14}"
    if outcome.start is not None and outcome.end is not None:
        yield from _readings(outcome.start, outcome.end, outcome)
    yield ""
    yield f"resident MiB over time: {_over_time(outcome)}"
    yield ""
    yield f"{'deed':36}{'P50 ms':>9}{'P95 ms':>9}{'max ms':>9}  outcomes"
    for deed, counts in outcome.outcomes.items():
        spread = outcome.latencies[deed]
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
        yield f"{deed:36}{spread.p50 * 1e3:9.1f}{spread.p95 * 1e3:9.1f}{spread.max * 1e3:9.1f}  {shown}"
    if outcome.health:
        took, late = outcome.health["took"], outcome.health["late"]
        yield ""
        yield (
            f"/healthz: {took['count']} answers, P50 {took['p50'] * 1e3:.1f} ms, P95 {took['p95'] * 1e3:.1f} ms,"
            f" max {took['max'] * 1e3:.1f} ms, {outcome.health['missed']} missed; the watcher itself was late by P95"
            f" {late['p95'] * 1e3:.1f} ms, max {late['max'] * 1e3:.1f} ms"
        )
    yield ""
    for what, details in outcome.findings.items():
        yield f"FOUND: {what}"
        yield from (f"    {line}" for detail in details for line in detail.splitlines())
    yield f"{len(outcome.findings)} findings" if outcome.findings else "nothing found"


def _over_time(outcome: Outcome) -> str:
    samples = outcome.samples
    step = max(len(samples) // 20, 1)
    return " ".join(str(sample[1] >> 20) for sample in samples[::step])


def _readings(start: Reading, end: Reading, outcome: Outcome) -> Iterator[str]:
    samples = outcome.samples
    most = {
        "resident_bytes": max((sample[1] for sample in samples), default=0),
        "threads": max((sample[2] for sample in samples), default=0),
        "descriptors": max((sample[3] for sample in samples), default=0),
    }
    for name in _ROWS:
        before, after = getattr(start, name), getattr(end, name)
        yield (
            f"{name:28}{before:14,}{after:14,}{most.get(name, ''):>14,}"
            if name in most
            else (f"{name:28}{before:14,}{after:14,}")
        )
    for name, value in end.busy.items():
        yield f"{name:28}{start.busy.get(name, 0):14,.0f}{value:14,.0f}"
