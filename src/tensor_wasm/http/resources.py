"""Resources as the API's description groups and names them: a tag each, and the parameters in their paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensor_wasm.http.operations import Parameter
from tensor_wasm.node import MODEL_NAME_PATTERN
from tensor_wasm.tenancy import TENANT_MAX

#: What operations are grouped by, in the order of the description: the beginning of their paths, and what it is about.
#: The longest beginning counts.
TAGS: Mapping[str, tuple[str, str]] = {
    "/functions": ("functions", "Deployed WebAssembly modules, and calls of their exports."),
    "/jobs": ("jobs", "Background jobs: calls that are kept until their turn comes, and their results."),
    "/instances": ("instances", "Instances of functions that are kept between calls."),
    "/snapshots": ("snapshots", "Captured instances: restored here, or carried to another node as a file."),
    "/kernels": ("kernels", "Signed PTX that guests load by name and version."),
    "/v1": ("openai", "OpenAI's API, over functions that are bound to names of models. Errors have its shape."),
    "/admin/models": ("admin: models", "Which function answers a name of a model. Needs `role=admin`."),
    "/admin/instances": ("admin: instances", "Every live instance of the node. Needs `role=admin`."),
    "/admin/tenants": ("admin: tenants", "Quotas, and what tenants hold. Needs `role=admin`."),
    "/admin/tokens": ("admin: tokens", "Who may call. Needs `role=admin`."),
    "/admin": ("admin: node", "The node itself. Needs `role=admin`."),
    "/console": ("console", "The operator's page. Its files are for anyone; what it shows needs `role=admin`."),
    "/": ("node", "Probes, metrics, and this description."),
}

_UUID: Mapping[str, Any] = {"type": "string", "format": "uuid"}
_MODEL: Mapping[str, Any] = {"type": "string", "pattern": f"^{MODEL_NAME_PATTERN}$"}
_TENANT: Mapping[str, Any] = {"type": "integer", "format": "uint64", "minimum": 0, "maximum": TENANT_MAX}

#: The parameter that ends a path, by that path.
PATH_PARAMETERS: Mapping[str, Parameter] = {
    "/functions/{id}": Parameter("id", "The function's id, as deploying it answered.", _UUID),
    "/jobs/{id}": Parameter("id", "The job's id, as the call that made it answered.", _UUID),
    "/instances/{id}": Parameter("id", "The instance's id, as making it answered.", _UUID),
    "/snapshots/{id}": Parameter("id", "The snapshot's id: as capturing answered, or a new one to upload to.", _UUID),
    "/kernels/{name}": Parameter(
        "name", "The kernel's name.", {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}
    ),
    "/kernels/{name}/{version}": Parameter(
        "version", "Its version.", {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
    ),
    "/v1/models/{model}": Parameter("model", "The model's name; it may have slashes.", _MODEL),
    "/admin/models/{tenant}": Parameter("tenant", "The tenant, an unsigned 64-bit number.", _TENANT),
    "/admin/models/{tenant}/{model}": Parameter("model", "The model's name; it may have slashes.", _MODEL),
    "/admin/instances/{id}": Parameter("id", "The instance's id, as the list of instances shows it.", _UUID),
    "/admin/tenants/{tenant}": Parameter(
        "tenant",
        "The tenant, an unsigned 64-bit number; or `default`, what holds for tenants without quotas of their own.",
        {"anyOf": [{"const": "default"}, {"type": "integer", "format": "uint64", "minimum": 0, "maximum": TENANT_MAX}]},
    ),
    "/console/{file}": Parameter("file", "The part's name.", {"type": "string", "pattern": "^[a-z.]{1,32}$"}),
    "/admin/tokens/{id}": Parameter("id", "The token's id, as making or listing it answered.", _UUID),
}


def tag(path: str) -> str:
    """The tag of an operation by its path."""
    return TAGS[max((start for start in TAGS if (path + "/").startswith(start)), key=len)][0]


def path_parameter(path: str) -> Parameter:
    """The parameter that ends a path: ``/functions/{id}``. One that nobody described is any text."""
    name = path.rpartition("{")[2].rstrip("}")
    return PATH_PARAMETERS.get(path) or Parameter(name, "", {"type": "string"})
