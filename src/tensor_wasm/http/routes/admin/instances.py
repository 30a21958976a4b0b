"""Live instances: list them, end one."""

from __future__ import annotations

from tensor_wasm.errors import InvalidTenant, NotFound
from tensor_wasm.http import examples, wire, wire_admin
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.query import read_query
from tensor_wasm.node import Node
from tensor_wasm.tenancy import TENANT_MAX, parse_tenant

_EXAMPLE = wire_admin.InstanceDescription(
    id=examples.INSTANCE_ID,
    tenant=1,
    function_id=examples.FUNCTION_ID,
    function_name="train",
    export="run",
    age_s=12.5,
    deadline_left_s=17.5,
    state="in_kernel",
    launches=8012,
    launches_per_s=640.0,
    held_permits=1,
    memory_bytes=1 << 20,
    gpu_memory_bytes=4 << 20,
    is_ending=False,
)


class Instances:
    """The handlers. They touch no disk and wait for no thread: an operator comes when those are taken."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list(self, call: Call) -> Answer:
        """GET /admin/instances."""
        text = read_query(call, "tenant").get("tenant")
        tenant = None if text is None else parse_tenant(text)
        if text is not None and tenant is None:
            raise InvalidTenant("tenant must be a decimal number from 0 to 18446744073709551615")
        found = self._node.administration.instances(tenant)
        return Answer(wire.encode(wire_admin.InstanceList([wire_admin.describe_instance(view) for view in found])))

    async def terminate(self, call: Call) -> Answer:
        """POST /admin/instances/:id/terminate."""
        call.resource = call.parameters["id"]
        done = await self._node.administration.terminate(call.resource)
        call.subject = done.tenant
        answer = wire_admin.describe_termination(done)
        call.detail = {"function_id": done.function_id, "ended": done.ended, "took_ms": answer.took_ms}
        return Answer(wire.encode(answer))


def operations(node: Node) -> list[Operation]:
    """The operations on live instances."""
    handlers = Instances(node)
    tenant = {"type": "integer", "format": "uint64", "minimum": 0, "maximum": TENANT_MAX}
    return [
        Operation(
            method="GET",
            path="/admin/instances",
            handler=handlers.list,
            audience=Audience.ADMIN,
            summary="List live instances, oldest first",
            response=wire_admin.InstanceList,
            query=(Parameter("tenant", "Only this tenant's.", tenant),),
            errors=(InvalidTenant,),
            examples=(
                Example(summary="One tenant's", parameters={"tenant": 1}, answer=wire_admin.InstanceList([_EXAMPLE])),
            ),
        ),
        Operation(
            method="POST",
            path="/admin/instances/{id}/terminate",
            handler=handlers.terminate,
            audience=Audience.ADMIN,
            summary="End a live instance, wherever it is",
            response=wire_admin.Terminated,
            errors=(NotFound,),
            examples=(
                Example(
                    summary="It has ended",
                    parameters={"id": examples.INSTANCE_ID},
                    answer=wire_admin.Terminated(
                        examples.INSTANCE_ID, 1, examples.FUNCTION_ID, ended=True, took_ms=8.1
                    ),
                ),
            ),
            event="instance.terminate",
        ),
    ]
