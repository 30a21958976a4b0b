"""Metrics as text: Prometheus' format, or OpenMetrics for who asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tensor_wasm.telemetry.families import PREFIX, Metric

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Source(Protocol):
    """What has metrics: a :class:`Collector`, :class:`HttpMetrics`, a :class:`LagMonitor`."""

    def collect(self) -> list[Metric]:
        """Families with their samples at this moment."""


def render(sources: Iterable[Source], accept: str) -> tuple[bytes, str]:
    """All metrics of the sources in the format that the ``Accept`` header prefers, and its content type."""
    openmetrics = wants_openmetrics(accept)
    parts: list[bytes] = []
    for source in sources:
        for metric in source.collect():
            family = metric.family
            name = PREFIX + (family.name.removesuffix("_total") if openmetrics else family.name)
            unit = f"# UNIT {name} {family.unit}\n" if openmetrics and family.unit else ""
            parts.append(f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n{unit}".encode())
            parts += metric.text(with_exemplars=openmetrics)
    if openmetrics:
        parts.append(b"# EOF\n")
    return b"".join(parts), OPENMETRICS if openmetrics else PROMETHEUS


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header prefers OpenMetrics to plain text."""
    weights: dict[str, float] = {}
    for entry in accept[:1024].split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[media] = max(weight, weights.get(media, 0.0))
    asked = weights.get("application/openmetrics-text", 0.0)
    return asked > 0 and asked >= weights.get("text/plain", 0.0)
