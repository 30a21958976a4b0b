"""Probes: is it alive, is it ready, what does it count.

They run on asyncio's own threads, not the node's: deploys must not keep an operator from seeing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tensor_wasm.errors import NotReady, Unauthorized
from tensor_wasm.http import wire
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation
from tensor_wasm.node import Node
from tensor_wasm.telemetry import render
from tensor_wasm.telemetry.exposition import OPENMETRICS, PROMETHEUS, Source

_EXAMPLE = """\
# HELP tensor_wasm_dispatch_permits Launches that may be in flight at once.
# TYPE tensor_wasm_dispatch_permits gauge
tensor_wasm_dispatch_permits 64
"""
_HEALTHY = wire.encode(wire.Health("ok"))


class Probes:
    """The handlers."""

    def __init__(self, node: Node, sources: Sequence[Source]) -> None:
        self._node = node
        self._sources = sources

    async def health(self, _: Call) -> Answer:
        """GET /healthz: touches no lock, no disk, no thread."""
        return Answer(_HEALTHY)

    async def ready(self, _: Call) -> Answer:
        """GET /readyz."""
        reasons = await asyncio.to_thread(self._node.health.readiness)
        if reasons:
            raise NotReady("not ready: " + "; ".join(reasons))
        # A node that cannot write still serves what is deployed: it stays ready, and says so here.
        concerns = await asyncio.to_thread(self._node.health.concerns)
        return Answer(wire.encode(wire.Readiness("ready", concerns)))

    async def metrics(self, call: Call) -> Answer:
        """GET /metrics: read and written by a background thread."""
        accept = call.headers.get(b"accept", b"").decode("latin-1")
        body, content_type = await asyncio.to_thread(render, self._sources, accept)
        return Answer(body, media_type=content_type.encode())


def operations(node: Node, sources: Sequence[Source]) -> list[Operation]:
    """The probes. ``sources`` are what has metrics."""
    handlers = Probes(node, sources)
    return [
        Operation(
            method="GET",
            path="/healthz",
            handler=handlers.health,
            audience=Audience.ANYONE,
            summary="Whether the process answers",
            response=wire.Health,
            examples=(Example(summary="It does", answer=wire.Health("ok")),),
        ),
        Operation(
            method="GET",
            path="/readyz",
            handler=handlers.ready,
            audience=Audience.ANYONE,
            summary="Whether the node should get work",
            response=wire.Readiness,
            examples=(Example(summary="It should", answer=wire.Readiness("ready", [])),),
            errors=(NotReady,),
        ),
        Operation(
            method="GET",
            path="/metrics",
            handler=handlers.metrics,
            audience=Audience.SCRAPER,
            summary="Metrics in Prometheus' text, or OpenMetrics when Accept asks for it",
            response_type=PROMETHEUS.partition(";")[0],
            other_types=(OPENMETRICS.partition(";")[0],),
            examples=(
                Example(summary="One family", answer=_EXAMPLE),
                Example(
                    summary="The same in OpenMetrics",
                    answer=f"{_EXAMPLE}# EOF\n",
                    answer_type=OPENMETRICS.partition(";")[0],
                ),
            ),
            errors=(Unauthorized,),
        ),
    ]
