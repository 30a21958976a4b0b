"""Live instances: list them, end one."""

from __future__ import annotations

from tensor_wasm.errors import InvalidTenant, NotFound
from tensor_wasm.http import wire, wire_admin
from tensor_wasm.http.operations import Answer, Audience, Call, Operation, Parameter
from tensor_wasm.http.query import read_query
from tensor_wasm.node import Node
from tensor_wasm.tenancy import parse_tenant


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
    tenant = {"type": "integer", "format": "uint64", "minimum": 0}
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
        ),
        Operation(
            method="POST",
            path="/admin/instances/{id}/terminate",
            handler=handlers.terminate,
            audience=Audience.ADMIN,
            summary="End a live instance, wherever it is",
            response=wire_admin.Terminated,
            errors=(NotFound,),
            event="instance.terminate",
        ),
    ]
