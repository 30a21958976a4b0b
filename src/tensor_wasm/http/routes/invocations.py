"""Invocations: call an export of a function. The hot way of the API."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from tensor_wasm.errors import (
    BodyTooLarge,
    Cancelled,
    CapacityExhausted,
    DeadlineExceeded,
    GuestTrap,
    InvalidArguments,
    InvalidBase64,
    InvalidDeadline,
    InvalidJson,
    MissingExport,
    NotFound,
    NotReady,
    QuotaExceeded,
    Saturated,
    Terminated,
    TooManyArguments,
    UnsupportedMediaType,
)
from tensor_wasm.http import wire
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Operation
from tensor_wasm.node import Node

#: Bodies up to this are decoded on the event loop, larger ones by another thread.
_SMALL_BYTES = 64 * 1024

#: An invocation that takes longer is ended when its client goes away; watching every short one would cost more.
_WATCH_AFTER_S = 0.1


class Invocations:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def invoke(self, call: Call) -> Answer:
        """POST /functions/:id/invoke."""
        call.resource = call.parameters["id"]
        media_type(call.headers, JSON)
        body = await call.body()
        if len(body) <= _SMALL_BYTES:
            request, guest_input, deadline_s = _decode(body)
        else:
            request, guest_input, deadline_s = await self._node.in_background(call.tenant, _decode, body)
        watch = Watch(call.receive)
        try:
            result = await self._node.invoke_async(
                call.resource,
                request.export,
                request.args,
                tenant=call.tenant,
                input=guest_input,
                deadline_s=deadline_s,
            )
        except asyncio.CancelledError:
            if watch.is_gone:
                raise Cancelled("the client went away") from None
            raise
        finally:
            watch.stop()
        call.detail = {
            "export": result.export,
            "instance_id": result.instance_id,
            "duration_ms": round(result.duration_s * 1e3, 3),
            "launches": result.launches,
        }
        return Answer(wire.encode_invoked(result))


class Watch:
    """Cancels the current task when its client goes away, from ``_WATCH_AFTER_S`` on."""

    __slots__ = ("_reader", "_receive", "_task", "_timer", "is_gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._reader: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._start)
        self.is_gone = False

    def stop(self) -> None:
        """End watching."""
        self._timer.cancel()
        if self._reader is not None:
            self._reader.cancel()
        if self.is_gone and self._task is not None:
            self._task.uncancel()
        self._task = None

    def _start(self) -> None:
        self._reader = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self.is_gone = True
            self._task.cancel()


def _decode(body: bytes) -> tuple[wire.InvokeRequest, bytes, float | None]:
    """The request, its input decoded, its deadline in seconds (the node checks the rest of its range)."""
    request = wire.decode_invoke(body)
    guest_input = b"" if request.input_b64 is None else wire.decode_base64(request.input_b64, "input_b64")
    milliseconds = request.deadline_ms
    if milliseconds is None:
        return request, guest_input, None
    if not 1 <= milliseconds < 1 << 53:
        raise InvalidDeadline("deadline_ms must be at least 1, and at most the node's TENSOR_WASM_INVOKE_DEADLINE_S")
    return request, guest_input, milliseconds / 1e3


def operations(node: Node) -> list[Operation]:
    """The operations on invocations."""
    return [
        Operation(
            method="POST",
            path="/functions/{id}/invoke",
            handler=Invocations(node).invoke,
            audience=Audience.TENANT,
            summary="Call an export of a function in a fresh instance",
            request=wire.InvokeRequest,
            response=wire.Invoked,
            errors=(
                NotFound, MissingExport, InvalidArguments, TooManyArguments, InvalidDeadline, InvalidBase64,
                InvalidJson, UnsupportedMediaType, BodyTooLarge, GuestTrap, DeadlineExceeded, Terminated,
                QuotaExceeded, Cancelled, Saturated, CapacityExhausted, NotReady,
            ),
            event="function.invoke",
            is_routine=True,
        )
    ]  # fmt: skip
