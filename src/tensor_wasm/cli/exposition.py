"""Reading a number out of a node's metrics: a quantile of a histogram, as PromQL's ``histogram_quantile`` gives it."""

from __future__ import annotations

import math
import re

_BUCKET = re.compile(r"(?P<name>[a-z_]+)_bucket\{(?P<labels>[^}]*)\} (?P<count>\S+)")
_BOUND = re.compile(r'(?:^|,)le="(?P<bound>[^"]+)"')


def quantile(text: str, histogram: str, fraction: float) -> float | None:
    """The quantile of a histogram over all its label sets, in its unit; None when it has no samples.

    ``text`` is Prometheus' text format. Within a bucket samples are taken as spread evenly, and what lies above the
    last bound is given as that bound.
    """
    counts: dict[float, float] = {}
    for match in _BUCKET.finditer(text):
        bound = _BOUND.search(match["labels"])
        if match["name"] == histogram and bound is not None:
            key = float(bound["bound"])
            counts[key] = counts.get(key, 0.0) + float(match["count"])
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    rank = fraction * counts[bounds[-1]]
    below_bound, below_count = 0.0, 0.0
    for bound_value in bounds:
        if counts[bound_value] >= rank:
            if math.isinf(bound_value):
                return below_bound
            inside = counts[bound_value] - below_count
            return below_bound + (bound_value - below_bound) * ((rank - below_count) / inside if inside else 1.0)
        below_bound, below_count = bound_value, counts[bound_value]
    return below_bound
