"""Operations: what the API can do, as data; and the way from a request's path to one of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from starlette.routing import Match, Route
from starlette.types import Receive, Scope

from tensor_wasm.errors import MethodNotAllowed, RouteNotFound, TensorWasmError
from tensor_wasm.http.body import read_body
from tensor_wasm.http.limits import HeldBodies
from tensor_wasm.node import Origin
from tensor_wasm.telemetry.trace_context import TraceContext
from tensor_wasm.tenancy import Principal

JSON = b"application/json"
_FUNCTIONS = "/functions/"
#: The extension of the server's by which a connection is cut.
CUT = "tensor_wasm.cut"


class Answer:
    """A whole answer: status, body, its content type, and more headers; the ``kind`` of an error."""

    __slots__ = ("body", "headers", "kind", "media_type", "status")

    def __init__(
        self,
        body: bytes,
        status: int = 200,
        media_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
        kind: str | None = None,
    ) -> None:
        self.kind = kind
        self.body = body
        self.status = status
        self.media_type = media_type
        self.headers = headers


class StreamedAnswer:
    """An answer that is made while it is sent: its parts, their content type, and more headers.

    When ``body`` raises, the connection is cut, so that no part is taken for the whole. ``close`` is awaited whatever
    happens.
    """

    __slots__ = ("body", "close", "headers", "kind", "media_type", "status")

    def __init__(
        self,
        body: AsyncIterator[bytes],
        media_type: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.status = 200
        self.kind: str | None = None
        self.body = body
        self.media_type = media_type
        self.headers = headers
        self.close = close


class Call:
    """One request on its way to its handler.

    ``principal`` is None until, and where, it is known; ``tenant`` is then 0. ``resource``, ``detail`` and the
    tenant it is about (``subject``) are for the audit log: handlers note them as they learn them, and in ``failure``
    what became of an answer that had begun. ``content`` is the body once it was read. ``origin`` is what the node's
    threads know of the request; ``context`` is its caller's trace; ``started_s`` when it came, on
    :func:`time.perf_counter`'s clock.
    """

    __slots__ = (
        "_bodies",
        "_held_bytes",
        "_limit_bytes",
        "content",
        "context",
        "detail",
        "failure",
        "headers",
        "id",
        "origin",
        "parameters",
        "principal",
        "receive",
        "resource",
        "scope",
        "started_s",
        "subject",
        "tenant",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        identity: str,
        limit_bytes: int,
        bodies: HeldBodies,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.headers = headers
        self.id = identity
        self.origin = Origin(identity)
        self.tenant = 0
        self.principal: Principal | None = None
        self.parameters: Mapping[str, str] = {}
        self.subject: int | None = None
        self.resource: str | None = None
        self.failure: TensorWasmError | None = None
        self.detail: dict[str, str | int | float | bool | None] | None = None
        self.content = b""
        self.context: TraceContext | None = None
        self.started_s = 0.0
        self._limit_bytes = limit_bytes
        self._bodies = bodies
        self._held_bytes = 0

    async def body(self, limit_bytes: int | None = None) -> bytes:
        """The request's body, of at most ``limit_bytes`` (the node's limit when None); it counts as held until
        :meth:`close`.

        Raises as :func:`~tensor_wasm.http.body.read_body`, and :class:`~tensor_wasm.errors.CapacityExhausted` when the
        node holds too much.
        """
        most_bytes = self._limit_bytes if limit_bytes is None else min(limit_bytes, self._limit_bytes)
        self.content = await read_body(self.receive, self.headers, most_bytes, self._hold)
        return self.content

    def cut(self) -> None:
        """End the connection at once, so that what was sent is not taken for a whole answer."""
        self.scope["extensions"][CUT]()

    def close(self) -> None:
        """Give back what was held for the call."""
        if self._held_bytes:
            self._bodies.give(self.tenant, self._held_bytes)
            self._held_bytes = 0

    def _hold(self, size_bytes: int) -> None:
        self._bodies.take(self.tenant, size_bytes)
        self._held_bytes += size_bytes


Handler = Callable[[Call], Awaitable[Answer | StreamedAnswer]]


class Audience(Enum):
    """Who may call an operation."""

    ANYONE = "anyone"
    SCRAPER = "scraper"
    TENANT = "tenant"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or a header, for the API's description; ``is_optional`` is for a header of answers."""

    name: str
    description: str
    schema: Mapping[str, object]
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One call as the API's description shows it; a test sends it.

    ``parameters`` are of the path, the query and the headers, by name. ``request`` is a value of the operation's
    request type, or the bytes of a module; None for a call without a body. ``answer`` is a value of the response type,
    or the text of an answer that is no JSON; ``answer_type`` is its content type when it is one of ``other_types``.
    """

    summary: str
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    request: object = None
    answer: object = None
    answer_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path, who may call it, and what the API's description says of it.

    ``request`` and ``response`` are wire types (None: no JSON); ``errors`` what it raises besides what all may.
    ``accepts_wasm`` says that the body may be a module itself, ``accepts_files`` which other files. ``event`` is
    its name in the audit log, None for what changes nothing; ``is_routine`` for what is written there only when the
    operator asks for it. ``request_headers`` and ``response_headers`` are those it takes and gives besides what all
    do. ``other_types`` are content types that it answers in when ``Accept`` asks for them. Every operation has
    ``examples``. ``has_open_end``: the parameter that ends the path may have slashes.
    """

    method: str
    path: str
    handler: Handler
    audience: Audience
    summary: str
    status: int = 200
    request: type | None = None
    response: type | None = None
    response_type: str = "application/json"
    other_types: tuple[str, ...] = ()
    query: tuple[Parameter, ...] = ()
    errors: tuple[type[TensorWasmError], ...] = ()
    accepts_wasm: bool = False
    accepts_files: tuple[str, ...] = ()
    request_headers: tuple[Parameter, ...] = ()
    response_headers: tuple[Parameter, ...] = ()
    examples: tuple[Example, ...] = ()
    event: str | None = None
    is_routine: bool = False
    has_open_end: bool = False

    @property
    def route(self) -> str:
        """The path as metrics label it: ``/functions/:id``."""
        return self.path.replace("{", ":").replace("}", "")


class Table:
    """All operations by method and path."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self._static = {(o.method, o.path): o for o in operations if "{" not in o.path}
        self._routes = [(_route(o), o) for o in operations]
        # The hot ways: what the router would find, in a fifth of its time.
        hot = {_FUNCTIONS + "{id}/" + end: end for end in ("invoke", "invoke-async")}
        self._hot = {hot[o.path]: o for o in operations if o.method == "POST" and o.path in hot}

    def find(self, scope: Scope) -> tuple[Operation, Mapping[str, str]]:
        """The operation a request asks for, and the parameters in its path.

        Raises :class:`RouteNotFound`; :class:`NoSuchMethod` when the path has other methods.
        """
        path: str = scope["path"]
        method: str = scope["method"]
        operation = self._static.get((method, path))
        if operation is not None:
            return operation, {}
        if method == "POST" and path.startswith(_FUNCTIONS):
            identity, _, end = path[len(_FUNCTIONS) :].partition("/")
            operation = self._hot.get(end)
            if operation is not None and identity:
                return operation, {"id": identity}
        return self._search(scope)

    def _search(self, scope: Scope) -> tuple[Operation, Mapping[str, str]]:
        others: dict[str, Operation] = {}
        for route, operation in self._routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                return operation, child["path_params"]
            if match is Match.PARTIAL:
                others[operation.method] = operation
        if others:
            raise NoSuchMethod(others)
        raise RouteNotFound("there is no such route; /docs lists those there are")


class NoSuchMethod(MethodNotAllowed):
    """The path has other methods: ``allowed``; ``route`` is its label."""

    def __init__(self, others: Mapping[str, Operation]) -> None:
        allowed = set(others) | ({"HEAD"} if "GET" in others else set())
        self.allowed = ", ".join(sorted(allowed))
        self.route = next(iter(others.values())).route
        super().__init__(f"this route takes {self.allowed}")


def _pattern(operation: Operation) -> str:
    """The path as the router writes it."""
    return operation.path.removesuffix("}") + ":path}" if operation.has_open_end else operation.path


def _route(operation: Operation) -> Route:
    route = Route(_pattern(operation), _unused, methods=[operation.method])
    # An open end takes a line feed too, as every other parameter does.
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return route


def _unused(_: object) -> None:
    """The router wants an endpoint; handlers are called by the application."""
