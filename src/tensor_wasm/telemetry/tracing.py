"""Tracing as a server has it: which requests are traced, and where their traces go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec

from tensor_wasm.config import Config
from tensor_wasm.errors import ConfigurationError
from tensor_wasm.host.trace import Trace
from tensor_wasm.telemetry.families import Metric
from tensor_wasm.telemetry.sampling import Sampler
from tensor_wasm.telemetry.span_export import OUTCOMES, SpanExport, metric
from tensor_wasm.telemetry.trace_context import TraceContext

_DISABLED = "OTEL_SDK_DISABLED"
_TRACES_PATH = "/v1/traces"
_MODULES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
_ROOT = "http.request"


class Tracing:
    """Traces requests of one node. :func:`tracing_for` makes it."""

    def __init__(self, endpoint: str, environ: Mapping[str, str], asked_qps: float) -> None:
        self._sampler = Sampler(environ, asked_qps)
        self._export = SpanExport(endpoint, environ)
        self.start = self._export.start
        self.close = self._export.close
        self.counts = self._export.counts

    @property
    def is_idle(self) -> bool:
        """Whether every trace so far was exported or given up."""
        return self._export.is_idle

    def begin(self, context: TraceContext | None, tenant: int | None, age_s: float) -> Trace | None:
        """The trace of a request that came ``age_s`` ago, None when it is not traced.

        ``tenant`` is None for an administrator's. It must be somebody's who may call this node: what is refused before
        that is known is never traced.
        """
        decision = self._sampler.decide(context, tenant)
        if decision is None:
            return None
        started_ns = time.monotonic_ns() - round(age_s * 1e9)
        return Trace.of_request(
            decision.trace_id, decision.parent_id, decision.state, self._export.put, _ROOT, started_ns
        )

    def collect(self) -> list[Metric]:
        """The families."""
        return self._export.collect()


class NoTracing:
    """Where no endpoint is set: nothing is traced; the metric is there, so that a ratio has data."""

    is_idle = True

    def start(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def begin(self, _context: TraceContext | None, _tenant: int | None, _age_s: float) -> None:
        """Never."""

    def collect(self) -> list[Metric]:
        """The families, with zeros."""
        return [metric(dict.fromkeys(OUTCOMES, 0))]


def tracing_for(config: Config, environ: Mapping[str, str]) -> Tracing | NoTracing:
    """The tracing that settings and OpenTelemetry's environment variables ask for.

    Raises :class:`ConfigurationError` when they cannot be read, and when the packages that an endpoint needs are not
    installed.
    """
    endpoint = config.otlp_endpoint
    if endpoint is None or environ.get(_DISABLED, "").strip().lower() == "true":
        return NoTracing()
    if not all(map(_is_installed, _MODULES)):
        raise ConfigurationError(
            "TENSOR_WASM_OTLP_ENDPOINT is set and OpenTelemetry is not installed: install tensor-wasm[otlp],"
            " or unset it"
        )
    url = endpoint.rstrip("/")
    return Tracing(url if url.endswith(_TRACES_PATH) else url + _TRACES_PATH, environ, config.trace_qps)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
