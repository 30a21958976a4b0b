"""Drain: the node takes no more work, and finishes what it has."""

from __future__ import annotations

import asyncio
import math
import time

from tensor_wasm.config import Config
from tensor_wasm.errors import BodyTooLarge, InvalidJson, RequestError, UnsupportedMediaType
from tensor_wasm.http import wire, wire_admin
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation
from tensor_wasm.http.routes.admin.bodies import BODY_BYTES_MAX
from tensor_wasm.node import Node


class Drain:
    """The handler."""

    def __init__(self, node: Node, config: Config) -> None:
        self._node = node
        self._default_s = config.drain_s

    async def drain(self, call: Call) -> Answer:
        """POST /admin/drain."""
        media_type(call.headers, JSON)
        asked = wire_admin.decode_drain(await call.body(BODY_BYTES_MAX)).timeout_s
        timeout_s = self._default_s if asked is None else asked
        if not math.isfinite(timeout_s) or not 0 <= timeout_s <= wire_admin.DRAIN_MAX_S:
            raise RequestError(f"timeout_s must be a number from 0 to {wire_admin.DRAIN_MAX_S:g}")
        call.detail = {"timeout_s": timeout_s}
        started_s = time.monotonic()
        ended = await asyncio.to_thread(self._node.drain.finish, timeout_s)
        waited_s = round(time.monotonic() - started_s, 3)
        call.detail |= {"drained": ended == 0, "ended": ended, "waited_s": waited_s}
        return Answer(wire.encode(wire_admin.Drained(ended == 0, ended, waited_s)))


def operations(node: Node, config: Config) -> list[Operation]:
    """The operation."""
    return [
        Operation(
            method="POST",
            path="/admin/drain",
            handler=Drain(node, config).drain,
            audience=Audience.ADMIN,
            summary="Take no more work, let what runs finish, then end it; the node stays up until it is stopped",
            request=wire_admin.DrainRequest,
            response=wire_admin.Drained,
            errors=(RequestError, InvalidJson, UnsupportedMediaType, BodyTooLarge),
            examples=(
                Example(
                    summary="At most half a minute",
                    request=wire_admin.DrainRequest(30.0),
                    answer=wire_admin.Drained(drained=True, ended=0, waited_s=1.204),
                ),
            ),
            event="node.drain",
        )
    ]
