"""The API's description (OpenAPI 3.1), from the same operations and wire types that serve it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tensor_wasm.errors import (
    BodyTooLarge,
    Cancelled,
    CapacityError,
    Forbidden,
    InternalError,
    InvalidTenant,
    MethodNotAllowed,
    Misdirected,
    RateLimited,
    RequestError,
    RequestTimeout,
    RouteNotFound,
    StoreError,
    TensorWasmError,
    Unauthorized,
)
from tensor_wasm.http import resources, wire, wire_openai
from tensor_wasm.http.operations import Audience, Example, Operation, Parameter
from tensor_wasm.telemetry.build import build
from tensor_wasm.tenancy import TENANT_MAX

Document = dict[str, Any]
_Errors = Sequence[type[TensorWasmError]]

_DESCRIPTION = """\
Run WebAssembly functions that may launch CUDA kernels.

Bodies are JSON unless an operation says otherwise. Every answer outside 2xx is an `ErrorAnswer`, whose `error.kind` \
is for programs; each operation lists the kinds it may answer. A path that there is not is 404 `route_not_found`, a \
method that a path has not is 405 `method_not_allowed`; every GET can be asked as HEAD.

Each answer has `X-Request-Id`: the request's own when it gave one of 1 to 64 characters of `A-Z a-z 0-9 . _ -`, \
else one that the node makes. A `traceparent` (W3C trace context) is taken; an answer that belongs to a trace has its \
id in `X-Trace-Id`. While the node has no tokens, it listens on loopback only and asks for none."""

_PARAMETER = re.compile(r"\{(\w+)\}")
_REFERENCE = "#/components/schemas/{name}"
_JSON, _EVENTS = "application/json", "text/event-stream"
_EXAMPLE_REQUEST_ID = "5f0c6b1d3a9e4c27-1a"
#: What an operation may answer besides its own errors.
_OF_AUDIENCE: dict[Audience, _Errors] = {
    Audience.ANYONE: (RequestError, InternalError),
    Audience.SCRAPER: (RequestError, Misdirected, InternalError),
    Audience.TENANT: (
        RequestError, Unauthorized, Forbidden, InvalidTenant, Misdirected, RateLimited, StoreError, InternalError,
    ),
    Audience.ADMIN: (RequestError, Unauthorized, Forbidden, Misdirected, StoreError, InternalError),
}  # fmt: skip
#: And those that read a body.
_OF_BODY: _Errors = (RequestTimeout, BodyTooLarge, Cancelled)
_TENANT = Parameter(
    "X-TensorWasm-Tenant",
    "For whom the call is; default: the token's only tenant, else 0.",
    {"type": "integer", "format": "uint64", "minimum": 0, "maximum": TENANT_MAX},
)
_REQUEST_ID = Parameter(
    "X-Request-Id",
    "The request's id; the node's log has it.",
    {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
)
_RETRY_AFTER = Parameter(
    "Retry-After", "Seconds after which the same request may be accepted.", {"type": "integer", "minimum": 1}
)
_AUTHENTICATE = Parameter("WWW-Authenticate", "How to authenticate: `Bearer`.", {"type": "string", "const": "Bearer"})
_ALLOW = Parameter("Allow", "The methods that the path has, with commas between them.", {"type": "string"})
_HEADERS = (_REQUEST_ID, _RETRY_AFTER, _AUTHENTICATE, _ALLOW)
#: Where a thing is that an answer names in its first field. `id` alone is of what was posted to.
_MADE = {"job_id": "/jobs/{id}", "instance_id": "/instances/{id}", "snapshot_id": "/snapshots/{id}"}


def describe(operations: Sequence[Operation], *, has_tokens: bool = False) -> Document:
    """The document. ``has_tokens`` says that calls need one: without any, nobody does."""
    bodies = dict.fromkeys(kind for o in operations for kind in (o.request, o.response) if kind is not None)
    streams: list[type] = (
        [wire.StreamEvent] if any(_EVENTS in (o.response_type, *o.other_types) for o in operations) else []
    )
    if any(wire_openai.speaks(operation.path) for operation in operations):
        streams += [wire_openai.OpenAIErrorAnswer, wire_openai.DataEvent]
    types = [wire.ErrorAnswer, *streams, *bodies]
    references, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    for kind in types:
        components[_name(kind)].update(getattr(kind, "SCHEMA", {}))
    writer = _Writer(operations, dict(zip(types, references, strict=True)), has_tokens=has_tokens)
    paths: defaultdict[str, Document] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = writer.operation(operation)
    used = {resources.tag(operation.path) for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TensorWasm",
            "version": build().version,
            "summary": _DESCRIPTION.partition("\n")[0],
            "description": _DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node that this document comes from."}],
        "tags": [{"name": name, "description": about} for name, about in resources.TAGS.values() if name in used],
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "headers": {header.name: _header(header) for header in _HEADERS},
            "responses": writer.responses,
            "examples": writer.examples,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the node. None is needed while the node has no tokens.",
                },
                "metrics": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The value of `TENSOR_WASM_API_METRICS_TOKEN`. None is needed when it is not set.",
                },
            },
        },
    }


class _Writer:
    """Writes the operations of one document."""

    def __init__(
        self, operations: Sequence[Operation], references: Mapping[type, Document], *, has_tokens: bool
    ) -> None:
        self._operations = operations
        self._references = references
        self._has_tokens = has_tokens
        #: What several operations share, filled as they are written.
        self.examples: Document = {}
        self.responses: Document = {
            error.__name__: self.refusal((error,), f"Any {what} that there is not.")
            for error, what in ((RouteNotFound, "path"), (MethodNotAllowed, "method of a path"))
        }

    def operation(self, operation: Operation) -> Document:
        document: Document = {
            "tags": [resources.tag(operation.path)],
            "summary": operation.summary,
            "operationId": _identity(operation),
            "parameters": _parameters(operation),
            "responses": self._responses(operation),
        }
        security = self._security(operation.audience)
        if security is not None:
            document["security"] = security
        if operation.request is not None or operation.accepts_files:
            document["requestBody"] = self._body(operation)
        return document

    def refusal(self, errors: _Errors, description: str | None = None, *, is_openai: bool = False) -> Document:
        """An answer that is an error, of these kinds; ``is_openai``: in OpenAI's shape."""
        kinds = {error.kind: _told(error) for error in errors}
        lines = [f"`{kind}`: {text}" for kind, text in kinds.items()]
        headers = {_REQUEST_ID.name: True}
        if any(issubclass(error, CapacityError) for error in errors):
            headers[_RETRY_AFTER.name] = all(issubclass(error, CapacityError) for error in errors)
        if Unauthorized in errors:
            headers[_AUTHENTICATE.name] = True
        if MethodNotAllowed in errors:
            headers[_ALLOW.name] = True
        kind_is = {"properties": {"error": {"properties": {"kind": {"enum": list(kinds)}}}}}
        body = {
            "schema": {"allOf": [self._references[wire.ErrorAnswer], kind_is]},
            "examples": {
                kind: self._example(kind, wire.ErrorAnswer(wire.ErrorBody(kind, text, _EXAMPLE_REQUEST_ID)))
                for kind, text in kinds.items()
            },
        }
        if is_openai:
            body = {
                "schema": self._references[wire_openai.OpenAIErrorAnswer],
                "examples": {
                    error.kind: self._example(
                        f"openai_{error.kind}", wire_openai.error(error.kind, _told(error), error.http_status)
                    )
                    for error in errors
                },
            }
        return {
            "description": "\n\n".join(([description] if description else []) + lines),
            "headers": {
                name: {"$ref": f"#/components/headers/{name}"}
                if always
                else _header(next(header for header in _HEADERS if header.name == name), always=False)
                for name, always in headers.items()
            },
            "content": {_JSON: body},
        }

    def _refusal(self, errors: _Errors, *, is_openai: bool) -> Document:
        """The same, by reference when it has one kind only: many operations have that."""
        if len(errors) > 1:
            return self.refusal(errors, is_openai=is_openai)
        name = f"{'OpenAI' if is_openai else ''}{errors[0].__name__}"
        self.responses[name] = self.refusal(errors, is_openai=is_openai)
        return {"$ref": f"#/components/responses/{name}"}

    def _example(self, name: str, value: object) -> Document:
        """A reference to the example of an error: many answers have the same."""
        self.examples[name] = {"value": _plain(value)}
        return {"$ref": f"#/components/examples/{name}"}

    def _security(self, audience: Audience) -> list[Document] | None:
        if audience is Audience.ANYONE:
            return None
        if audience is Audience.SCRAPER:
            return [{"metrics": []}, {}]
        return [{"bearer": []}] if self._has_tokens else [{"bearer": []}, {}]

    def _body(self, operation: Operation) -> Document:
        if operation.accepts_files:
            shown = _examples([e for e in operation.examples if e.request is not None], "request", of_text=True)
            files = {
                name: {"schema": {"type": "string", "contentMediaType": name}, "examples": shown}
                for name in operation.accepts_files
            }
            return {"content": files, "required": True}
        assert operation.request is not None
        given = [example for example in operation.examples if example.request is not None]
        content: Document = {
            _JSON: {
                "schema": self._references[operation.request],
                "examples": _examples(given, "request", of_text=False),
            }
        }
        if operation.accepts_wasm:
            content["application/wasm"] = {
                "schema": {"type": "string", "contentMediaType": "application/wasm"},
                "examples": _examples(given, "request", of_text=True),
            }
        needed = operation.accepts_wasm or not _may_be_empty(operation.request)
        return {"content": content, "required": needed}

    def _responses(self, operation: Operation) -> Document:
        success: Document = {"description": "Done.", "headers": {_REQUEST_ID.name: {"$ref": _header_reference()}}}
        success["headers"] |= {
            header.name: _header(header, always=not header.is_optional) for header in operation.response_headers
        }
        answered = [example for example in operation.examples if example.answer is not None]
        if operation.status != 204:
            success["content"] = {
                name: {
                    "schema": self._schema(operation, name),
                    "examples": _examples([e for e in answered if _type(e, operation) == name]),
                }
                for name in (operation.response_type, *operation.other_types)
            }
        links = self._links(operation)
        if links:
            success["links"] = links
        responses: Document = {str(operation.status): success}
        statuses: defaultdict[int, list[type[TensorWasmError]]] = defaultdict(list)
        body = _OF_BODY if operation.request is not None or operation.accepts_files else ()
        for error in (*operation.errors, *body, *_OF_AUDIENCE[operation.audience]):
            if error not in statuses[error.http_status]:
                statuses[error.http_status].append(error)
        for status, errors in sorted(statuses.items()):
            responses[str(status)] = self._refusal(errors, is_openai=wire_openai.speaks(operation.path))
        return responses

    def _schema(self, operation: Operation, media: str) -> Document:
        """What an answer of a content type is. Of a stream of events it is said of each."""
        if media == _EVENTS:
            return self._references[wire_openai.DataEvent if wire_openai.speaks(operation.path) else wire.StreamEvent]
        if media != _JSON:
            return {"type": "string"}
        return {"type": "object"} if operation.response is None else self._references[operation.response]

    def _links(self, operation: Operation) -> Document:
        """What can be done with the thing that an answer names: its id goes into the paths of other operations."""
        if operation.method != "POST" or operation.response is None:
            return {}
        field = msgspec.structs.fields(operation.response)[0].encode_name
        start = f"{operation.path}/{{id}}" if field == "id" else _MADE.get(field)
        return {
            _identity(other): {"operationId": _identity(other), "parameters": {"id": f"$response.body#/{field}"}}
            for other in self._operations
            if start is not None and (other.path + "/").startswith(start + "/") and other.path.count("{") == 1
        }


def _identity(operation: Operation) -> str:
    words = _PARAMETER.sub("one", operation.path).translate(str.maketrans("/-.", "___"))
    return f"{operation.method.lower()}{words}"


def _parameters(operation: Operation) -> list[Document]:
    values: dict[str, Any] = {}
    for example in operation.examples:
        for name, value in example.parameters.items():
            values.setdefault(name, value)
    found: list[Document] = []

    def add(parameter: Parameter, place: str) -> None:
        document: Document = {"name": parameter.name, "in": place, "description": parameter.description}
        if place == "path":
            document["required"] = True
        document["schema"] = dict(parameter.schema)
        if parameter.name in values:
            document["example"] = values[parameter.name]
        found.append(document)

    for match in _PARAMETER.finditer(operation.path):
        add(resources.path_parameter(operation.path[: match.end()]), "path")
    for parameter in operation.query:
        add(parameter, "query")
    for parameter in (*((_TENANT,) if operation.audience is Audience.TENANT else ()), *operation.request_headers):
        add(parameter, "header")
    return found


def _examples(examples: Sequence[Example], of: str = "answer", *, of_text: bool | None = None) -> Document:
    """The examples' requests or answers by names; with ``of_text`` only those that are text, or are not."""
    found: Document = {}
    for example in examples:
        value = getattr(example, of)
        if of_text is None or isinstance(value, str | bytes) is of_text:
            name = re.sub(r"[^a-z0-9]+", "-", example.summary.lower()).strip("-")
            found[name] = {"summary": example.summary, "value": _plain(value) if of == "answer" else _short(value)}
    return found


def _plain(value: object) -> Any:
    """A value as JSON has it. A module as text of its bytes, which are ASCII in examples."""
    return value.decode("ascii") if isinstance(value, bytes) else msgspec.to_builtins(value)


def _short(value: object) -> Any:
    """A request without the fields that are as if left out."""
    plain = _plain(value)
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            usual = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            if getattr(value, field.name) == usual:
                plain.pop(field.encode_name, None)
    return plain


def _type(example: Example, operation: Operation) -> str:
    return example.answer_type or operation.response_type


def _header(header: Parameter, *, always: bool = True) -> Document:
    return {"description": header.description, "required": always, "schema": dict(header.schema)}


def _header_reference() -> str:
    return f"#/components/headers/{_REQUEST_ID.name}"


def _told(error: type[TensorWasmError]) -> str:
    """What an error says of itself, in Markdown."""
    text = " ".join((error.__doc__ or error.kind).partition("\n\n")[0].split())
    return re.sub(r":class:`(?:~[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")


def _name(kind: type) -> str:
    return kind.__name__


def _may_be_empty(request: type) -> bool:
    """Whether no body at all is one: no field must be there, and none is as good."""
    return not any(field.required for field in msgspec.structs.fields(request)) and not hasattr(request, "SCHEMA")
