"""Functions: deploy, list, describe, delete."""

from __future__ import annotations

from tensor_wasm.errors import (
    BodyTooLarge,
    CapacityExhausted,
    DeadlineExceeded,
    DeviceRestarting,
    GuestTrap,
    IdempotencyConflict,
    InvalidArguments,
    InvalidBase64,
    InvalidJson,
    InvalidName,
    InvalidSnapshot,
    InvalidWasm,
    MissingExport,
    NotFound,
    NotReady,
    QuotaExceeded,
    RequestError,
    Terminated,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, wire
from tensor_wasm.http.idempotency import KEY_HEADER, REPLAYED, REPLAYED_HEADER, bind_key, read_key
from tensor_wasm.http.media import JSON, WASM, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.query import read_limit, read_query
from tensor_wasm.node import Function, Node

_PAGE = 100
_PAGE_MAX = 1000
_PAGE_BYTES = 2 << 20
_EXAMPLE = wire.FunctionDescription(
    id=examples.FUNCTION_ID,
    name="hello",
    tenant=1,
    digest=examples.EMPTY_MODULE_DIGEST,
    size_bytes=len(examples.EMPTY_MODULE),
    created_at=examples.MOMENT,
    exports=[],
    imports=[],
    memory_pages=0,
    settings=wire.FunctionSettings(),
)


class Functions:
    """The handlers; each leaves what may block to the node's background threads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def deploy(self, call: Call) -> Answer:
        """POST /functions."""
        kind = media_type(call.headers, JSON, WASM)
        query = read_query(call)
        name, prewarm = query.get("name"), query.get("prewarm")
        if kind == WASM and not name:
            raise InvalidName("name the function in the query: POST /functions?name=NAME")
        if kind == JSON and (name is not None or prewarm is not None):
            raise RequestError("the body has the function's name and settings: leave them out of the query")
        given = read_key(call)
        body = await call.body()
        identity, function = await self._node.intake.in_background(
            call.tenant, self._deploy, call, name, prewarm, body, given
        )
        call.resource = identity
        headers = [(b"location", f"/functions/{identity}".encode())]
        if function is None:
            headers.append(REPLAYED)
        else:
            call.detail = {"name": function.name, "size_bytes": function.size_bytes}
        return Answer(wire.encode(wire.Deployed(identity)), 201, headers=headers)

    def _deploy(
        self, call: Call, name: str | None, prewarm: str | None, body: bytes, given: bytes | None
    ) -> tuple[str, Function | None]:
        """The id of the function, and the function unless an earlier request with the same key made it."""
        key = None
        if given is not None:
            key = bind_key(given, call, body)
            before = self._node.functions.made_before(key)
            if before is not None:
                return before, None
        if name is None:
            request = wire.decode_deploy(body)
            name, body = request.name, wire.decode_base64(request.wasm_b64, "wasm_b64")
            prewarm = None if request.settings is None else request.settings.prewarm
        if key is None:
            function = self._node.functions.deploy(name, body, call.tenant, prewarm)
            return function.id, function
        made = self._node.functions.deploy_once(name, body, call.tenant, key, prewarm)
        return made.function.id, None if made.is_replay else made.function

    async def list(self, call: Call) -> Answer:
        """GET /functions."""
        query = read_query(call)
        limit = read_limit(query.get("limit"), _PAGE, _PAGE_MAX)
        return Answer(
            await self._node.intake.in_background(call.tenant, self._page, call.tenant, limit, query.get("after"))
        )

    def _page(self, tenant: int, limit: int, after: str | None) -> bytes:
        """A page as JSON, cut short where it gets too large: a function's exports may take a megabyte."""
        page = self._node.functions.list(tenant, limit, after)
        texts: list[bytes] = []
        size_bytes = 0
        for item in page.items:
            text = wire.encode(wire.describe(item))
            size_bytes += len(text)
            if texts and size_bytes > _PAGE_BYTES:
                following: str | None = page.items[len(texts) - 1].id
                break
            texts.append(text)
        else:
            following = page.next
        return b'{"functions":[%b],"next":%b}' % (b",".join(texts), wire.encode(following))

    async def show(self, call: Call) -> Answer:
        """GET /functions/:id."""
        function = await self._node.intake.in_background(
            call.tenant, self._node.functions.show, call.parameters["id"], call.tenant
        )
        return Answer(wire.encode(wire.describe(function)))

    async def delete(self, call: Call) -> Answer:
        """DELETE /functions/:id."""
        call.resource = call.parameters["id"]
        await self._node.intake.in_background(
            call.tenant, self._node.functions.delete, call.parameters["id"], call.tenant
        )
        return Answer(b"", 204)


def operations(node: Node) -> list[Operation]:
    """The operations on functions."""
    handlers = Functions(node)
    text = {"type": "string"}
    name = {"type": "string", "pattern": wire.NAME_PATTERN}
    identity = {"type": "string", "format": "uuid"}
    limit = {"type": "integer", "minimum": 1, "maximum": _PAGE_MAX, "default": _PAGE}
    return [
        Operation(
            method="POST",
            path="/functions",
            handler=handlers.deploy,
            audience=Audience.TENANT,
            summary="Deploy a WebAssembly module as a new function",
            status=201,
            request=wire.DeployRequest,
            response=wire.Deployed,
            query=(
                Parameter("name", "The function's name, when the body is the module itself; else refused.", name),
                Parameter("prewarm", "As in the body's `settings`, when the body is the module itself.", text),
            ),
            errors=(
                RequestError, InvalidName, InvalidBase64, InvalidWasm, InvalidJson, UnsupportedMediaType, BodyTooLarge,
                NotReady, QuotaExceeded, CapacityExhausted, DeadlineExceeded, IdempotencyConflict, MissingExport,
                InvalidArguments, GuestTrap, Terminated, InvalidSnapshot, DeviceRestarting,
            ),
            accepts_wasm=True,
            request_headers=(KEY_HEADER,),
            response_headers=(Parameter("Location", "The path of the new function.", text), REPLAYED_HEADER),
            examples=(
                Example(
                    summary="The smallest module, in JSON",
                    request=wire.DeployRequest("hello", examples.EMPTY_MODULE_B64),
                    answer=wire.Deployed(examples.FUNCTION_ID),
                ),
                Example(
                    summary="The same as it is",
                    parameters={"name": "hello"},
                    request=examples.EMPTY_MODULE,
                    answer=wire.Deployed(examples.FUNCTION_ID),
                ),
            ),
            event="function.deploy",
        ),
        Operation(
            method="GET",
            path="/functions",
            handler=handlers.list,
            audience=Audience.TENANT,
            summary="List the tenant's functions, oldest first",
            response=wire.FunctionList,
            query=(
                Parameter("limit", "Functions of a page.", limit),
                Parameter("after", "The id that the page before gave as `next`.", identity),
            ),
            examples=(
                Example(
                    summary="A page that is the last",
                    parameters={"limit": 10, "after": examples.TOKEN_ID},
                    answer=wire.FunctionList([_EXAMPLE], None),
                ),
            ),
            errors=(RequestError, NotFound, CapacityExhausted, DeadlineExceeded),
        ),
        Operation(
            method="GET",
            path="/functions/{id}",
            handler=handlers.show,
            audience=Audience.TENANT,
            summary="Describe a function: exports, imports, sizes",
            response=wire.FunctionDescription,
            examples=(
                Example(summary="A function", parameters={"id": examples.FUNCTION_ID}, answer=_EXAMPLE),
            ),
            errors=(NotFound, CapacityExhausted, DeadlineExceeded),
        ),
        Operation(
            method="DELETE",
            path="/functions/{id}",
            handler=handlers.delete,
            audience=Audience.TENANT,
            summary="Delete a function; its running invocations finish",
            status=204,
            errors=(NotFound, CapacityExhausted, DeadlineExceeded),
            examples=(Example(summary="A function", parameters={"id": examples.FUNCTION_ID}),),
            event="function.delete",
        ),
    ]  # fmt: skip
