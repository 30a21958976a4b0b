"""Models: which function of a tenant's answers a name."""

from __future__ import annotations

import asyncio

from tensor_wasm.errors import (
    BodyTooLarge,
    InvalidJson,
    InvalidName,
    InvalidTenant,
    MissingExport,
    ModelNotFound,
    NotFound,
    QuotaExceeded,
    RequestError,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, wire, wire_admin
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.query import read_query
from tensor_wasm.http.routes.admin.bodies import BODY_BYTES_MAX
from tensor_wasm.node import Node
from tensor_wasm.tenancy import TENANT_MAX, parse_tenant

_EXAMPLE = wire_admin.ModelDescription(
    name="storyteller",
    tenant=1,
    function_id=examples.FUNCTION_ID,
    function_name="language_model",
    export=None,
    created_at=examples.MOMENT,
)
_PLACE: dict[str, str | int] = {"tenant": 1, "model": "storyteller"}


class Models:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list(self, call: Call) -> Answer:
        """GET /admin/models."""
        text = read_query(call, "tenant").get("tenant")
        found = self._node.models.list(None if text is None else _number(text))
        return Answer(wire.encode(wire_admin.ModelList([wire_admin.describe_model(model) for model in found])))

    async def show(self, call: Call) -> Answer:
        """GET /admin/models/:tenant/:model."""
        model = self._node.models.show(_number(call.parameters["tenant"]), call.parameters["model"])
        return Answer(wire.encode(wire_admin.describe_model(model)))

    async def set(self, call: Call) -> Answer:
        """PUT /admin/models/:tenant/:model."""
        tenant, name = self._place(call)
        media_type(call.headers, JSON)
        request = wire_admin.decode_bind_model(await call.body(BODY_BYTES_MAX))
        call.detail = {"function_id": request.function_id, "export": request.export}
        model = await asyncio.to_thread(self._node.models.bind, tenant, name, request.function_id, request.export)
        return Answer(wire.encode(wire_admin.describe_model(model)))

    async def delete(self, call: Call) -> Answer:
        """DELETE /admin/models/:tenant/:model."""
        tenant, name = self._place(call)
        await asyncio.to_thread(self._node.models.unbind, tenant, name)
        return Answer(b"", 204)

    def _place(self, call: Call) -> tuple[int, str]:
        call.resource = call.parameters["model"]
        call.subject = tenant = _number(call.parameters["tenant"])
        return tenant, call.resource


def _number(text: str) -> int:
    tenant = parse_tenant(text)
    if tenant is None:
        raise InvalidTenant("a tenant is a decimal number from 0 to 18446744073709551615")
    return tenant


def operations(node: Node) -> list[Operation]:
    """The operations on models."""
    handlers = Models(node)
    tenant = {"type": "integer", "format": "uint64", "minimum": 0, "maximum": TENANT_MAX}
    return [
        Operation(
            method="GET",
            path="/admin/models",
            handler=handlers.list,
            audience=Audience.ADMIN,
            summary="List models, of one tenant or of all",
            response=wire_admin.ModelList,
            query=(Parameter("tenant", "Only this tenant's.", tenant),),
            errors=(InvalidTenant,),
            examples=(Example(summary="One model", answer=wire_admin.ModelList([_EXAMPLE])),),
        ),
        Operation(
            method="GET",
            path="/admin/models/{tenant}/{model}",
            handler=handlers.show,
            audience=Audience.ADMIN,
            summary="Show a model of a tenant",
            response=wire_admin.ModelDescription,
            errors=(InvalidTenant, ModelNotFound),
            has_open_end=True,
            examples=(Example(summary="A model", parameters=_PLACE, answer=_EXAMPLE),),
        ),
        Operation(
            method="PUT",
            path="/admin/models/{tenant}/{model}",
            handler=handlers.set,
            audience=Audience.ADMIN,
            summary="Have a function of a tenant's answer a model, in the place of what did before",
            request=wire_admin.BindModelRequest,
            response=wire_admin.ModelDescription,
            errors=(
                InvalidTenant, InvalidName, NotFound, MissingExport, QuotaExceeded, RequestError, InvalidJson,
                UnsupportedMediaType, BodyTooLarge,
            ),
            has_open_end=True,
            examples=(
                Example(
                    summary="A model",
                    parameters=_PLACE,
                    request=wire_admin.BindModelRequest(examples.FUNCTION_ID),
                    answer=_EXAMPLE,
                ),
            ),
            event="model.set",
        ),
        Operation(
            method="DELETE",
            path="/admin/models/{tenant}/{model}",
            handler=handlers.delete,
            audience=Audience.ADMIN,
            summary="Unbind a model; its function stays",
            status=204,
            errors=(InvalidTenant, ModelNotFound),
            has_open_end=True,
            examples=(Example(summary="A model", parameters=_PLACE),),
            event="model.delete",
        ),
    ]  # fmt: skip
