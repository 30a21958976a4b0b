"""Which requests are traced: OpenTelemetry's samplers by their environment variables, and a bound on clients' wishes.

``OTEL_TRACES_SAMPLER`` has the names and meanings of OpenTelemetry's specification, and its default. One thing is
added. A ``traceparent`` is a client's wish: what the sampler takes of requests without one is the operator's, and what
it takes beyond that, because a client says so or has chosen a trace id that lies well, is bounded for each tenant.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tensor_wasm.errors import ConfigurationError
from tensor_wasm.telemetry.trace_context import TraceContext
from tensor_wasm.tenancy import Rate, RateLimiter

SAMPLER = "OTEL_TRACES_SAMPLER"
ARGUMENT = "OTEL_TRACES_SAMPLER_ARG"
_DEFAULT = "parentbased_always_on"
#: Without the part that says whether the parent decides: the ratio, None for the one that is in the argument.
_ROOTS: dict[str, float | None] = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
_PARENT_BASED = "parentbased_"
#: A ratio is compared with the last 8 bytes of a trace id, as OpenTelemetry's own sampler does.
_BITS = 64
_LOW = (1 << _BITS) - 1


@dataclass(frozen=True, slots=True)
class Decision:
    """A request is to be traced, as ``trace_id``, below ``parent_id`` (empty for none)."""

    trace_id: str
    parent_id: str
    state: str


class Sampler:
    """Decides for each request. ``asked_qps`` is how often a second clients of one tenant have their way, 0 for never.

    Raises :class:`ConfigurationError` for variables that cannot be read.
    """

    def __init__(self, environ: Mapping[str, str], asked_qps: float) -> None:
        name = environ.get(SAMPLER, "").strip().lower() or _DEFAULT
        root = name.removeprefix(_PARENT_BASED)
        if root not in _ROOTS:
            names = ", ".join(prefix + other for prefix in ("", _PARENT_BASED) for other in _ROOTS)
            raise ConfigurationError(f"{SAMPLER}={name[:80]!r}: must be one of {names}")
        ratio = _ROOTS[root]
        self._ratio = _read_ratio(environ) if ratio is None else ratio
        self._bound = round(self._ratio * (1 << _BITS))
        self._is_parent_based = name != root
        self._asked = Rate.of(asked_qps, None) if asked_qps else None
        self._limiter = RateLimiter()

    def decide(self, context: TraceContext | None, tenant: int | None) -> Decision | None:
        """What becomes of a tenant's request, or an administrator's (None); None when it is not traced."""
        if context is None:
            number = random.getrandbits(128) or 1
            return Decision(f"{number:032x}", "", "") if number & _LOW < self._bound else None
        wanted = context.is_sampled if self._is_parent_based else self._takes(context.trace_id)
        if not wanted:
            return None
        # Not by its trace id, which the client chose.
        if random.random() >= self._ratio and not self._may_ask(tenant):
            return None
        return Decision(context.trace_id, context.span_id, context.state)

    def _takes(self, trace_id: str) -> bool:
        return int(trace_id, 16) & _LOW < self._bound

    def _may_ask(self, tenant: int | None) -> bool:
        return self._asked is not None and self._limiter.check(time.monotonic(), [(tenant, self._asked)]) == 0


def _read_ratio(environ: Mapping[str, str]) -> float:
    text = environ.get(ARGUMENT, "").strip()
    if not text:
        return 1.0
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        raise ConfigurationError(f"{ARGUMENT}={text[:80]!r}: must be a ratio; range: 0 to 1")
    return ratio
