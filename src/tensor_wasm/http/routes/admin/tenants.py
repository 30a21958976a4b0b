"""Tenants: their quotas, and what they hold."""

from __future__ import annotations

import asyncio

from tensor_wasm.errors import BodyTooLarge, Conflict, InvalidJson, InvalidTenant, RequestError, UnsupportedMediaType
from tensor_wasm.http import wire, wire_admin
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation
from tensor_wasm.http.routes.admin.bodies import BODY_BYTES_MAX
from tensor_wasm.node import Node
from tensor_wasm.tenancy import Quotas, parse_tenant

_DEFAULT = "default"
_DEFAULTS = wire_admin.describe_quotas(Quotas())
_EXAMPLE = wire_admin.TenantDescription(
    tenant=7,
    quotas=wire_admin.describe_quotas(Quotas(weight=4, permits=8)),
    overrides=["weight", "permits"],
    usage=wire_admin.TenantUsage(
        instances=2,
        queued=0,
        permits_held=1,
        launches_waiting=0,
        guest_memory_bytes=2 << 20,
        gpu_memory_bytes=4 << 20,
        functions=3,
        stored_bytes=120_000,
    ),
)


class Tenants:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._administration = node.administration

    async def list(self, _: Call) -> Answer:
        """GET /admin/tenants."""
        views = await asyncio.to_thread(self._administration.tenants)
        defaults = wire_admin.describe_quotas(self._administration.tenant(None).quotas)
        return Answer(wire.encode(wire_admin.TenantList(defaults, [wire_admin.describe_tenant(v) for v in views])))

    async def show(self, call: Call) -> Answer:
        """GET /admin/tenants/:tenant."""
        view = await asyncio.to_thread(self._administration.tenant, _tenant(call))
        return Answer(wire.encode(wire_admin.describe_tenant(view)))

    async def change(self, call: Call) -> Answer:
        """PATCH /admin/tenants/:tenant."""
        tenant = _tenant(call)
        call.resource, call.subject = call.parameters["tenant"], tenant
        media_type(call.headers, JSON)
        changes = wire_admin.changes(wire_admin.decode_quota_changes(await call.body(BODY_BYTES_MAX)))
        call.detail = dict(changes)
        view = await asyncio.to_thread(self._administration.change_tenant, tenant, changes)
        return Answer(wire.encode(wire_admin.describe_tenant(view)))


def _tenant(call: Call) -> int | None:
    text = call.parameters["tenant"]
    tenant = None if text == _DEFAULT else parse_tenant(text)
    if tenant is None and text != _DEFAULT:
        raise InvalidTenant("a tenant is a decimal number from 0 to 18446744073709551615, or `default`")
    return tenant


def operations(node: Node) -> list[Operation]:
    """The operations on tenants."""
    handlers = Tenants(node)
    return [
        Operation(
            method="GET",
            path="/admin/tenants",
            handler=handlers.list,
            audience=Audience.ADMIN,
            summary="List tenants with their quotas and what they hold",
            response=wire_admin.TenantList,
            examples=(Example(summary="One tenant", answer=wire_admin.TenantList(_DEFAULTS, [_EXAMPLE])),),
        ),
        Operation(
            method="GET",
            path="/admin/tenants/{tenant}",
            handler=handlers.show,
            audience=Audience.ADMIN,
            summary="Show a tenant, or `default`: what holds for tenants without quotas of their own",
            response=wire_admin.TenantDescription,
            errors=(InvalidTenant,),
            examples=(Example(summary="A tenant", parameters={"tenant": 7}, answer=_EXAMPLE),),
        ),
        Operation(
            method="PATCH",
            path="/admin/tenants/{tenant}",
            handler=handlers.change,
            audience=Audience.ADMIN,
            summary="Change quotas of a tenant, or of `default`, from now on",
            request=wire_admin.QuotaChanges,
            response=wire_admin.TenantDescription,
            errors=(InvalidTenant, RequestError, InvalidJson, UnsupportedMediaType, BodyTooLarge, Conflict),
            examples=(
                Example(
                    summary="A larger share and a bound on permits",
                    parameters={"tenant": 7},
                    request=wire_admin.QuotaChanges(weight=4, permits=8),
                    answer=_EXAMPLE,
                ),
                Example(
                    summary="No bound of its own any more",
                    parameters={"tenant": 7},
                    request=wire_admin.QuotaChanges(permits=None),
                ),
            ),
            event="tenant.change",
        ),
    ]
