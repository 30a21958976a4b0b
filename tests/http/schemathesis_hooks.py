"""What schemathesis needs to know of this API besides its description. It loads this file; see schemathesis.toml."""

from __future__ import annotations

import base64
import json

import schemathesis
from wasmtime import wat2wasm

#: A module: no schema can say what one is.
MODULE = bytes(wat2wasm('(module (func (export "run") (result i32) (i32.const 42)))'))
#: Whose things follow from each other: what one tenant makes, another does not see.
TENANT = "1"


@schemathesis.serializer("application/wasm", "application/vnd.tensor-wasm.snapshot", "application/octet-stream")
def file(context, value):
    """The bytes of a module or another file. Cases have them as text, as they should: bytes would count as wrong."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.check
def no_defect(context, response, case):
    """A node says of its own defects that they are: none may be found, whatever status a description lists."""
    if response.status_code >= 500:
        error = response.json()["error"]
        assert (error.get("kind") or error.get("code")) not in ("internal", "store_error"), "a defect of the node"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Make of a case that is right by its schema one that is right; leave those that are to be wrong as they are."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    _whole_numbers(case)
    if case.operation.label == "POST /functions":
        _deploy(case)
    tenant = str(case.path_parameters.get("tenant"))
    if case.operation.label == "PATCH /admin/tenants/{tenant}" and tenant in ("default", TENANT):
        # It would change what the rest may do: no deploys any more, one request in an hour.
        case.path_parameters["tenant"] = "7"
    if case.meta.phase.name == "stateful":
        if any(parameter.name == "X-TensorWasm-Tenant" for parameter in case.operation.headers):
            case.headers["X-TensorWasm-Tenant"] = TENANT
        # A key that was used before names what was made then, and has perhaps been deleted since.
        case.headers.pop("Idempotency-Key", None)
        if "/invoke" in case.operation.path and isinstance(case.body, dict):
            # What a function exports is not known to the description.
            case.body |= {"export": "run", "args": []}


def _deploy(case):
    """A module in the body instead of base64 of anything, and the name in the one place where it belongs."""
    is_example = case.meta.phase.name == "examples"
    if case.media_type == "application/wasm":
        case.query.setdefault("name", "hello")
        if not is_example:
            case.body = MODULE.decode("ascii")
            _its_export(case.query)
    elif isinstance(case.body, dict):
        case.query.clear()
        if not is_example:
            case.body["wasm_b64"] = base64.b64encode(MODULE).decode()
            _its_export(case.body.get("settings") or {})


def _its_export(settings):
    if settings.get("prewarm") is not None:
        settings["prewarm"] = "run"


def _whole_numbers(case):
    """JSON Schema takes 1.0 for an integer; the API wants it written as one."""
    if isinstance(case.body, dict):
        for name, value in case.body.items():
            if isinstance(value, float) and value.is_integer():
                case.body[name] = int(value)
