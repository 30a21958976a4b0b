"""The API's description (OpenAPI 3.1), from the same operations and wire types that serve it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from tensor_wasm.errors import (
    Forbidden,
    InternalError,
    InvalidTenant,
    Misdirected,
    RateLimited,
    TensorWasmError,
    Unauthorized,
)
from tensor_wasm.http import wire
from tensor_wasm.http.operations import Audience, Operation
from tensor_wasm.telemetry.build import build

Document = dict[str, Any]

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_REFERENCE = "#/components/schemas/{name}"
#: What an operation may answer besides its own errors.
_OF_AUDIENCE: dict[Audience, tuple[type[TensorWasmError], ...]] = {
    Audience.ANYONE: (InternalError,),
    Audience.SCRAPER: (Misdirected, InternalError),
    Audience.TENANT: (Unauthorized, Forbidden, InvalidTenant, Misdirected, RateLimited, InternalError),
    Audience.ADMIN: (Unauthorized, Forbidden, Misdirected, InternalError),
}


def describe(operations: Sequence[Operation]) -> Document:
    """The document."""
    types: list[type] = [wire.ErrorAnswer]
    for operation in operations:
        types += [kind for kind in (operation.request, operation.response) if kind is not None]
    _, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    paths: defaultdict[str, Document] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TensorWasm",
            "version": build().version,
            "description": "Run WebAssembly functions that may launch CUDA kernels.",
        },
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> Document:
    document: Document = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{_PATH_PARAMETER.sub('one', operation.path).replace('/', '_')}",
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.audience is not Audience.ANYONE:
        document["security"] = [{"bearer": []}, {}]
    if operation.request is not None:
        content: Document = {"application/json": {"schema": _schema(operation.request)}}
        if operation.accepts_wasm:
            content["application/wasm"] = {"schema": {"type": "string", "format": "binary"}}
        document["requestBody"] = {"content": content, "required": operation.accepts_wasm}
    return document


def _parameters(operation: Operation) -> list[Document]:
    parameters: list[Document] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(operation.path)
    ]
    parameters += [
        {"name": p.name, "in": "query", "description": p.description, "schema": dict(p.schema)} for p in operation.query
    ]
    if operation.audience is Audience.TENANT:
        parameters.append(
            {
                "name": "X-TensorWasm-Tenant",
                "in": "header",
                "description": "For whom the call is; default: the token's only tenant, else 0.",
                "schema": {"type": "integer", "format": "uint64", "minimum": 0},
            }
        )
    return parameters


def _responses(operation: Operation) -> Document:
    success: Document = {"description": "done"}
    if operation.response is not None:
        success["content"] = {operation.response_type: {"schema": _schema(operation.response)}}
    elif operation.status != 204:
        success["content"] = {operation.response_type: {}}
    responses: Document = {str(operation.status): success}
    kinds: defaultdict[int, list[str]] = defaultdict(list)
    for error in (*operation.errors, *_OF_AUDIENCE[operation.audience]):
        if error.kind not in kinds[error.http_status]:
            kinds[error.http_status].append(error.kind)
    for status, names in sorted(kinds.items()):
        responses[str(status)] = {
            "description": "error.kind is " + " or ".join(names),
            "content": {"application/json": {"schema": _schema(wire.ErrorAnswer)}},
        }
    return responses


def _schema(kind: type) -> Document:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}
