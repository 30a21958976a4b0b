"""Invocations: call an export of a function. The hot way of the API."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from tensor_wasm.errors import (
    BodyTooLarge,
    Cancelled,
    CapacityExhausted,
    DeadlineExceeded,
    DeviceRestarting,
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
    TensorWasmError,
    Terminated,
    TooManyArguments,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, streaming, wire
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, StreamedAnswer
from tensor_wasm.node import Node

#: A guest that emits a greeting and returns.
EVENTS_EXAMPLE = (
    'event: chunk\ndata: {"chunk_b64":"aGVsbG8="}\n\n'
    f'event: done\ndata: {{"result":"ok","function_id":"{examples.FUNCTION_ID}",'
    f'"instance_id":"{examples.INSTANCE_ID}","duration_ms":0.034,"launches":0}}\n\n'
)

#: Bodies up to this are decoded on the event loop, larger ones by another thread.
_SMALL_BYTES = 64 * 1024

#: An invocation that takes longer is ended when its client goes away; watching every short one would cost more.
_WATCH_AFTER_S = 0.1


#: What a call of an export may come to.
CALL_ERRORS: tuple[type[TensorWasmError], ...] = (
    MissingExport, InvalidArguments, TooManyArguments, InvalidDeadline, InvalidBase64, InvalidJson,
    UnsupportedMediaType, BodyTooLarge, GuestTrap, DeadlineExceeded, Terminated, QuotaExceeded, Cancelled, Saturated,
    CapacityExhausted, NotReady, DeviceRestarting,
)  # fmt: skip


class Invocations:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def invoke(self, call: Call) -> Answer:
        """POST /functions/:id/invoke."""
        call.resource = call.parameters["id"]
        request, guest_input, deadline_s = await read_request(self._node, call)
        with Watch(call.receive):
            result = await self._node.invocations.invoke_async(
                call.resource,
                request.export,
                request.args,
                tenant=call.tenant,
                input=guest_input,
                deadline_s=deadline_s,
            )
        streaming.note(call, result)
        return Answer(wire.encode_invoked(result))

    async def stream(self, call: Call) -> StreamedAnswer:
        """POST /functions/:id/invoke-stream."""
        call.resource = identity = call.parameters["id"]
        request, guest_input, deadline_s = await read_request(self._node, call)
        return await streaming.answer(
            call,
            lambda stream: self._node.invocations.invoke_async(
                identity,
                request.export,
                request.args,
                tenant=call.tenant,
                input=guest_input,
                deadline_s=deadline_s,
                stream=stream,
            ),
        )


class Watch:
    """A block in which the current task is cancelled when its client goes away, from ``_WATCH_AFTER_S`` on.

    It then raises :class:`Cancelled`.
    """

    __slots__ = ("_is_gone", "_reader", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._reader: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._start)
        self._is_gone = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._stop()
        if self._is_gone and isinstance(error, asyncio.CancelledError):
            raise Cancelled("the client went away") from None

    def _stop(self) -> None:
        self._timer.cancel()
        if self._reader is not None:
            self._reader.cancel()
        if self._is_gone and self._task is not None:
            self._task.uncancel()
        self._task = None

    def _start(self) -> None:
        self._reader = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._is_gone = True
            self._task.cancel()


async def read_request(node: Node, call: Call) -> tuple[wire.InvokeRequest, bytes, float | None]:
    """What is to be called: the request, its input decoded, its deadline in seconds."""
    media_type(call.headers, JSON)
    body = await call.body()
    if len(body) <= _SMALL_BYTES:
        return _decode(body)
    return await node.intake.in_background(call.tenant, _decode, body)


def _decode(body: bytes) -> tuple[wire.InvokeRequest, bytes, float | None]:
    """The request, its input decoded, its deadline in seconds (the node checks the rest of its range)."""
    request = wire.decode_invoke(body)
    guest_input = b"" if request.input_b64 is None else wire.decode_base64(request.input_b64, "input_b64")
    return request, guest_input, seconds(request.deadline_ms)


def seconds(deadline_ms: int | None) -> float | None:
    """A request's deadline in seconds. Raises :class:`InvalidDeadline`."""
    if deadline_ms is None:
        return None
    if not 1 <= deadline_ms < 1 << 53:
        raise InvalidDeadline("deadline_ms must be at least 1, and at most the node's TENSOR_WASM_INVOKE_DEADLINE_S")
    return deadline_ms / 1e3


def operations(node: Node) -> list[Operation]:
    """The operations on invocations."""
    handlers = Invocations(node)
    return [
        Operation(
            method="POST",
            path="/functions/{id}/invoke",
            handler=handlers.invoke,
            audience=Audience.TENANT,
            summary="Call an export of a function in a fresh instance",
            request=wire.InvokeRequest,
            response=wire.Invoked,
            errors=(NotFound, *CALL_ERRORS),
            examples=(
                Example(
                    summary="A sum",
                    parameters={"id": examples.FUNCTION_ID},
                    request=wire.InvokeRequest("add", [2, 40]),
                    answer=wire.Invoked([42], examples.FUNCTION_ID, examples.INSTANCE_ID, 0.021, 0),
                ),
                Example(
                    summary="Within a second",
                    parameters={"id": examples.FUNCTION_ID},
                    request=wire.InvokeRequest("nothing", input_b64="aGVsbG8=", deadline_ms=1000),
                    answer=wire.Invoked("ok", examples.FUNCTION_ID, examples.INSTANCE_ID, 0.018, 0),
                ),
            ),
            event="function.invoke",
            is_routine=True,
        ),
        Operation(
            method="POST",
            path="/functions/{id}/invoke-stream",
            handler=handlers.stream,
            audience=Audience.TENANT,
            summary="Call an export of a function and send what it emits while it runs",
            request=wire.InvokeRequest,
            response_type="text/event-stream",
            other_types=("application/octet-stream",),
            examples=(
                Example(
                    summary="Events",
                    parameters={"id": examples.FUNCTION_ID},
                    request=wire.InvokeRequest("greet"),
                    answer=EVENTS_EXAMPLE,
                ),
                Example(summary="The bytes alone", answer="hello", answer_type="application/octet-stream"),
            ),
            errors=(NotFound, *CALL_ERRORS),
            event="function.invoke",
            is_routine=True,
        ),
    ]
