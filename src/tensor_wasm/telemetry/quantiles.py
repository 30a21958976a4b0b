"""Percentiles of histograms, as Prometheus' ``histogram_quantile`` reckons them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub

from tensor_wasm.telemetry.observation import Latency


def quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """The value that ``part`` (0 to 1) of the observations do not exceed; None without observations.

    ``counts`` are per bucket, not cumulative, one more than ``bounds``. Within a bucket values count as spread evenly,
    from 0 in the first; what is above every bound counts as the highest.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank = part * total
    below = 0
    for index, bound in enumerate(bounds):
        count = counts[index]
        if below + count >= rank and count:
            low = bounds[index - 1] if index else 0.0
            return low + (bound - low) * (rank - below) / count
        below += count
    return bounds[-1]


def since(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    """What counters have grown by. Never below zero: one that is read while it is written may seem to shrink."""
    return tuple(max(count, 0) for count in map(sub, now, before))


def latency(bounds: Sequence[float], counts: Sequence[int], duration_s: float) -> Latency:
    """How often and how long, from the counts of a time of ``duration_s``."""
    count = sum(counts)
    return Latency(
        count=count,
        per_s=rounded(count / duration_s) if duration_s > 0 else 0.0,
        p50_s=figure(quantile(bounds, counts, 0.5)),
        p95_s=figure(quantile(bounds, counts, 0.95)),
        p99_s=figure(quantile(bounds, counts, 0.99)),
    )


def rounded(value: float) -> float:
    """Six digits that count: nobody reads more."""
    return float(f"{value:.6g}")


def figure(value: float | None) -> float | None:
    """As :func:`rounded`; None stays."""
    return None if value is None else rounded(value)
