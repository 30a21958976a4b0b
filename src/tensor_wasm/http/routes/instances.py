"""Kept instances: make one, call it many times, end it."""

from __future__ import annotations

from tensor_wasm.errors import (
    BodyTooLarge,
    Busy,
    Cancelled,
    CapacityExhausted,
    DeadlineExceeded,
    GuestTrap,
    InvalidDeadline,
    InvalidJson,
    NotFound,
    NotReady,
    QuotaExceeded,
    RequestError,
    Terminated,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, streaming, wire, wire_instances
from tensor_wasm.http.media import JSON, accepts, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter, StreamedAnswer
from tensor_wasm.http.routes.invocations import CALL_ERRORS, EVENTS_EXAMPLE, Watch, read_request, seconds
from tensor_wasm.node import Node


class KeptInstances:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def spawn(self, call: Call) -> Answer:
        """POST /instances."""
        media_type(call.headers, JSON)
        request = wire_instances.decode_spawn(await call.body(_SPAWN_BYTES_MAX))
        kept = await self._node.spawner.spawn_async(
            request.function_id,
            tenant=call.tenant,
            idle_timeout_s=request.idle_timeout_s,
            deadline_s=seconds(request.deadline_ms),
        )
        call.resource, call.detail = kept.id, {"function_id": kept.function_id}
        location = f"/instances/{kept.id}".encode()
        return Answer(wire.encode(wire_instances.Spawned(kept.id)), headers=((b"location", location),))

    async def list(self, call: Call) -> Answer:
        """GET /instances."""
        found = [wire_instances.describe(kept) for kept in self._node.kept.list(call.tenant)]
        return Answer(wire.encode(wire_instances.KeptList(found)))

    async def show(self, call: Call) -> Answer:
        """GET /instances/:id."""
        kept = self._node.kept.show(call.parameters["id"], call.tenant)
        return Answer(wire.encode(wire_instances.describe(kept)))

    async def delete(self, call: Call) -> Answer:
        """DELETE /instances/:id."""
        call.resource = call.parameters["id"]
        await self._node.intake.in_background(call.tenant, self._node.kept.delete, call.resource, call.tenant)
        return Answer(b"", 204)

    async def invoke(self, call: Call) -> Answer | StreamedAnswer:
        """POST /instances/:id/invoke."""
        call.resource = identity = call.parameters["id"]
        request, guest_input, deadline_s = await read_request(self._node, call)
        if accepts(call.headers, _PLAIN, streaming.EVENT_STREAM) == streaming.EVENT_STREAM:
            return await streaming.answer(
                call,
                lambda stream: self._node.kept.call_async(
                    identity,
                    request.export,
                    request.args,
                    tenant=call.tenant,
                    input=guest_input,
                    deadline_s=deadline_s,
                    stream=stream,
                ),
            )
        with Watch(call.receive):
            result = await self._node.kept.call_async(
                identity, request.export, request.args, tenant=call.tenant, input=guest_input, deadline_s=deadline_s
            )
        streaming.note(call, result)
        return Answer(wire.encode_invoked(result))


_SPAWN_BYTES_MAX = 4096
_PLAIN = b"application/json"
_EXAMPLE = wire_instances.KeptDescription(
    id=examples.INSTANCE_ID,
    tenant=1,
    function_id=examples.FUNCTION_ID,
    function_name="counter",
    state="idle",
    created_at=examples.MOMENT,
    calls=3,
    idle_timeout_s=120.0,
    idle_left_s=108.12,
    memory_bytes=1 << 20,
    gpu_memory_bytes=0,
)


def operations(node: Node) -> list[Operation]:
    """The operations on kept instances."""
    handlers = KeptInstances(node)
    return [
        Operation(
            method="POST",
            path="/instances",
            handler=handlers.spawn,
            audience=Audience.TENANT,
            summary="Make an instance of a function and keep it between calls",
            request=wire_instances.SpawnRequest,
            response=wire_instances.Spawned,
            errors=(
                NotFound, InvalidJson, RequestError, InvalidDeadline, UnsupportedMediaType, BodyTooLarge, GuestTrap,
                DeadlineExceeded, Terminated, QuotaExceeded, Cancelled, CapacityExhausted, NotReady,
            ),
            response_headers=(Parameter("Location", "The path of the new instance.", {"type": "string"}),),
            examples=(
                Example(
                    summary="For two minutes after the last call",
                    request=wire_instances.SpawnRequest(examples.FUNCTION_ID, idle_timeout_s=120.0),
                    answer=wire_instances.Spawned(examples.INSTANCE_ID),
                ),
            ),
            event="instance.spawn",
        ),
        Operation(
            method="GET",
            path="/instances",
            handler=handlers.list,
            audience=Audience.TENANT,
            summary="List the tenant's kept instances, oldest first",
            response=wire_instances.KeptList,
            examples=(Example(summary="One instance", answer=wire_instances.KeptList([_EXAMPLE])),),
        ),
        Operation(
            method="GET",
            path="/instances/{id}",
            handler=handlers.show,
            audience=Audience.TENANT,
            summary="Describe a kept instance",
            response=wire_instances.KeptDescription,
            examples=(Example(summary="An instance", parameters={"id": examples.INSTANCE_ID}, answer=_EXAMPLE),),
            errors=(NotFound,),
        ),
        Operation(
            method="DELETE",
            path="/instances/{id}",
            handler=handlers.delete,
            audience=Audience.TENANT,
            summary="End a kept instance, also while it answers a call",
            status=204,
            errors=(NotFound, CapacityExhausted, DeadlineExceeded),
            examples=(Example(summary="An instance", parameters={"id": examples.INSTANCE_ID}),),
            event="instance.delete",
        ),
        Operation(
            method="POST",
            path="/instances/{id}/invoke",
            handler=handlers.invoke,
            audience=Audience.TENANT,
            summary="Call an export of a kept instance; its state stays",
            request=wire.InvokeRequest,
            response=wire.Invoked,
            other_types=("text/event-stream",),
            examples=(
                Example(
                    summary="A sum",
                    parameters={"id": examples.INSTANCE_ID},
                    request=wire.InvokeRequest("add", [2, 40]),
                    answer=wire.Invoked([42], examples.FUNCTION_ID, examples.INSTANCE_ID, 0.021, 0),
                ),
                Example(summary="Events", answer=EVENTS_EXAMPLE, answer_type="text/event-stream"),
            ),
            errors=(NotFound, Busy, *CALL_ERRORS),
            event="instance.invoke",
            is_routine=True,
        ),
    ]  # fmt: skip
