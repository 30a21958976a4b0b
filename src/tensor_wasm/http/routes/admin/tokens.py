"""Tokens: make, list, revoke."""

from __future__ import annotations

import asyncio

from tensor_wasm.errors import BodyTooLarge, Conflict, InvalidJson, NotFound, RequestError, UnsupportedMediaType
from tensor_wasm.http import examples, wire, wire_admin
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.routes.admin.bodies import BODY_BYTES_MAX
from tensor_wasm.node import Node
from tensor_wasm.tenancy import NAME_MAX

#: The answer holds a secret.
_NO_STORE = ((b"cache-control", b"no-store"),)


class Tokens:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._tokens = node.tokens

    async def list(self, _: Call) -> Answer:
        """GET /admin/tokens."""
        return Answer(wire.encode(wire_admin.TokenList([wire_admin.describe_token(t) for t in self._tokens.list()])))

    async def create(self, call: Call) -> Answer:
        """POST /admin/tokens."""
        media_type(call.headers, JSON)
        request = wire_admin.decode_create_token(await call.body(BODY_BYTES_MAX))
        call.detail = {"name": request.name[:NAME_MAX], "scope": request.scope[:NAME_MAX]}
        record, secret = await asyncio.to_thread(self._tokens.create, request.name, request.scope)
        call.resource = record.id
        return Answer(wire.encode(wire_admin.describe_created(record, secret)), 201, headers=_NO_STORE)

    async def revoke(self, call: Call) -> Answer:
        """DELETE /admin/tokens/:id."""
        call.resource = call.parameters["id"]
        known = next((token for token in self._tokens.list() if token.id == call.resource), None)
        if known is not None:
            call.detail = {"name": known.name, "scope": known.scope}
        await asyncio.to_thread(self._tokens.revoke, call.resource)
        return Answer(b"", 204)


def operations(node: Node) -> list[Operation]:
    """The operations on tokens."""
    handlers = Tokens(node)
    return [
        Operation(
            method="GET",
            path="/admin/tokens",
            handler=handlers.list,
            audience=Audience.ADMIN,
            summary="List tokens, without their secrets",
            response=wire_admin.TokenList,
            examples=(
                Example(
                    summary="One of each source",
                    answer=wire_admin.TokenList(
                        [
                            wire_admin.TokenDescription(
                                "settings-1", "", "role=admin", "settings", None, examples.MOMENT
                            ),
                            wire_admin.TokenDescription(
                                examples.TOKEN_ID, "ci", "tenant=1", "database", examples.MOMENT, None
                            ),
                        ]
                    ),
                ),
            ),
        ),
        Operation(
            method="POST",
            path="/admin/tokens",
            handler=handlers.create,
            audience=Audience.ADMIN,
            summary="Make a token; the answer shows it this once",
            status=201,
            request=wire_admin.CreateTokenRequest,
            response=wire_admin.CreatedToken,
            errors=(RequestError, InvalidJson, UnsupportedMediaType, BodyTooLarge, Conflict),
            response_headers=(Parameter("Cache-Control", "The answer holds a secret.", {"const": "no-store"}),),
            examples=(
                Example(
                    summary="An operator",
                    request=wire_admin.CreateTokenRequest("role=admin", "operator"),
                    answer=wire_admin.CreatedToken(
                        examples.TOKEN_ID, "tw_EXAMPLE", "operator", "role=admin", examples.MOMENT
                    ),
                ),
                Example(summary="For two tenants", request=wire_admin.CreateTokenRequest("tenant=1,2", "ci")),
            ),
            event="token.create",
        ),
        Operation(
            method="DELETE",
            path="/admin/tokens/{id}",
            handler=handlers.revoke,
            audience=Audience.ADMIN,
            summary="Revoke a token; from the next request on it is unknown",
            status=204,
            errors=(NotFound, Conflict),
            examples=(Example(summary="A token", parameters={"id": examples.TOKEN_ID}),),
            event="token.revoke",
        ),
    ]
