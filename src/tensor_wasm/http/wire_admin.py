"""What the operator's requests and answers look like as JSON. The API's description is generated from these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from tensor_wasm.errors import InvalidJson
from tensor_wasm.http.wire import FunctionId, FunctionName, InstanceId, Tenant, decoder, told
from tensor_wasm.node import MODEL_NAME_PATTERN, InstanceView, Model, TenantView, Termination
from tensor_wasm.store import TokenRecord
from tensor_wasm.tenancy import NAME_MAX, QUOTA_FIELDS, SCOPE_TEXT_MAX, Quotas, QuotaValue, TokenInfo

#: Longest time for running work to finish when the node drains.
DRAIN_MAX_S = 3600.0


class InstanceDescription(msgspec.Struct):
    """A live instance."""

    id: InstanceId
    tenant: Tenant
    function_id: FunctionId
    function_name: FunctionName
    export: Annotated[str, told("The export that was called.")]
    age_s: Annotated[float, told("Seconds since it began.", minimum=0)]
    deadline_left_s: Annotated[float | None, told("Seconds to its deadline; null when it has none.")]
    state: Annotated[
        str,
        told(
            "Runs, is in a kernel, waits for a permit, or does nothing.",
            enum=["running", "in_kernel", "waiting", "idle"],
        ),
    ]
    launches: Annotated[int, told("Kernels it launched.", minimum=0)]
    launches_per_s: Annotated[float, told("The same over the last second.", minimum=0)]
    held_permits: Annotated[int, told("Permits of the device that it holds.", minimum=0)]
    memory_bytes: Annotated[int, told("Its memory.", minimum=0)]
    gpu_memory_bytes: Annotated[int, told("Its memory on the device.", minimum=0)]
    is_ending: Annotated[bool, told("Whether its end was ordered.")]


class InstanceList(msgspec.Struct):
    """Live instances, oldest first."""

    instances: Annotated[list[InstanceDescription], told("The live instances.")]


class Terminated(msgspec.Struct):
    """An instance whose end was ordered."""

    id: InstanceId
    tenant: Tenant
    function_id: FunctionId
    ended: Annotated[bool, told("Whether the end had come when this was written.")]
    took_ms: Annotated[float, told("After how many milliseconds.", minimum=0)]


def _quota(name: str) -> msgspec.Meta:
    field = QUOTA_FIELDS[name]
    bounds = {} if field.type == "boolean" else {"minimum": field.low, "maximum": field.high}
    return told(f"{field.description} {field.range[0].upper()}{field.range[1:]}.", **bounds)


class QuotaValues(msgspec.Struct):
    """Quotas; null where there is no limit."""

    weight: Annotated[int, _quota("weight")]
    permits: Annotated[int | None, _quota("permits")]
    instances: Annotated[int | None, _quota("instances")]
    guest_memory_bytes: Annotated[int | None, _quota("guest_memory_bytes")]
    gpu_memory_bytes: Annotated[int | None, _quota("gpu_memory_bytes")]
    functions: Annotated[int | None, _quota("functions")]
    stored_bytes: Annotated[int | None, _quota("stored_bytes")]
    rate_qps: Annotated[float | None, _quota("rate_qps")]
    rate_burst: Annotated[int | None, _quota("rate_burst")]
    cuda: Annotated[bool, _quota("cuda")]


class QuotaChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Quotas to change; null takes the default again, what is left out stays."""

    #: More of what the API's description says: a request that changes nothing is refused.
    SCHEMA: ClassVar[dict[str, object]] = {"minProperties": 1}

    weight: Annotated[int | msgspec.UnsetType | None, _quota("weight")] = msgspec.UNSET
    permits: Annotated[int | msgspec.UnsetType | None, _quota("permits")] = msgspec.UNSET
    instances: Annotated[int | msgspec.UnsetType | None, _quota("instances")] = msgspec.UNSET
    guest_memory_bytes: Annotated[int | msgspec.UnsetType | None, _quota("guest_memory_bytes")] = msgspec.UNSET
    gpu_memory_bytes: Annotated[int | msgspec.UnsetType | None, _quota("gpu_memory_bytes")] = msgspec.UNSET
    functions: Annotated[int | msgspec.UnsetType | None, _quota("functions")] = msgspec.UNSET
    stored_bytes: Annotated[int | msgspec.UnsetType | None, _quota("stored_bytes")] = msgspec.UNSET
    rate_qps: Annotated[float | msgspec.UnsetType | None, _quota("rate_qps")] = msgspec.UNSET
    rate_burst: Annotated[int | msgspec.UnsetType | None, _quota("rate_burst")] = msgspec.UNSET
    cuda: Annotated[bool | msgspec.UnsetType | None, _quota("cuda")] = msgspec.UNSET


class TenantUsage(msgspec.Struct):
    """What a tenant holds now, and what of it waits."""

    instances: Annotated[int, told("Live instances.", minimum=0)]
    queued: Annotated[int, told("Invocations that wait for a worker.", minimum=0)]
    permits_held: Annotated[int, told("Kernel launches in flight.", minimum=0)]
    launches_waiting: Annotated[int, told("Kernel launches that wait for a permit.", minimum=0)]
    guest_memory_bytes: Annotated[int, told("Memory of its live instances together.", minimum=0)]
    gpu_memory_bytes: Annotated[int, told("Device memory of its live instances together.", minimum=0)]
    functions: Annotated[int, told("Deployed functions.", minimum=0)]
    stored_bytes: Annotated[int, told("What it keeps on the node's disk.", minimum=0)]


class TenantDescription(msgspec.Struct):
    """A tenant, or the defaults."""

    tenant: Annotated[Tenant | None, told("The tenant; null for the defaults.")]
    quotas: Annotated[QuotaValues, told("The quotas that hold.")]
    overrides: Annotated[list[str], told("Names of the quotas that are its own, and not the defaults'.")]
    usage: Annotated[TenantUsage | None, told("What it holds now; null for the defaults.")]


class TenantList(msgspec.Struct):
    """The defaults, and every tenant that has quotas of its own, functions or something live."""

    defaults: Annotated[QuotaValues, told("What holds for tenants without quotas of their own.")]
    tenants: Annotated[list[TenantDescription], told("The tenants.")]


_Scope = Annotated[
    str,
    told(
        "What a token allows: `tenant=1,2`, `tenant=*` or `role=admin`.",
        pattern=r"^(role=admin|tenant=(\*| *[0-9]{1,20} *(, *[0-9]{1,20} *)*))$",
    ),
]


class CreateTokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make."""

    scope: Annotated[_Scope, told("What it will allow.", maxLength=SCOPE_TEXT_MAX)]
    name: Annotated[str, told("Printable text for people.", maxLength=NAME_MAX)] = ""


class CreatedToken(msgspec.Struct):
    """A new token."""

    id: Annotated[str, told("The token's id.", format="uuid")]
    token: Annotated[str, told("The secret. It is shown this once.")]
    name: Annotated[str, told("Text for people.")]
    scope: _Scope
    created_at: Annotated[float, told("When it was made, in seconds since 1970.")]


class TokenDescription(msgspec.Struct):
    """A token without its secret."""

    id: Annotated[str, told("Its id: a UUID, or `settings-` and its place in `TENSOR_WASM_API_TOKENS`.")]
    name: Annotated[str, told("Text for people.")]
    scope: _Scope
    source: Annotated[str, told("Where it comes from.", enum=["settings", "database"])]
    created_at: Annotated[float | None, told("When it was made, in seconds since 1970; null for one of the settings.")]
    last_used_at: Annotated[float | None, told("When it was last used, to the minute; null when never.")]


class TokenList(msgspec.Struct):
    """Every token of the node."""

    tokens: Annotated[list[TokenDescription], told("The tokens.")]


class BindModelRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What is to answer a model."""

    function_id: FunctionId
    export: Annotated[
        str | None, told("The export to call, which takes no parameters; `run`, else `_start`, when null.")
    ] = None


class ModelDescription(msgspec.Struct):
    """A name of a model, and what answers it."""

    name: Annotated[str, told("The model's name.", pattern=f"^{MODEL_NAME_PATTERN}$")]
    tenant: Tenant
    function_id: FunctionId
    function_name: Annotated[
        str | None, told("The function's name; null when it was deleted, and nothing answers the model.")
    ]
    export: Annotated[str | None, told("The export that is called; null for `run`, else `_start`.")]
    created_at: Annotated[float, told("When it was bound, in seconds since 1970.")]


class ModelList(msgspec.Struct):
    """Models, by tenant and name."""

    models: Annotated[list[ModelDescription], told("The models.")]


class DrainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How long running work may go on; default: the node's `TENSOR_WASM_DRAIN_S`."""

    timeout_s: Annotated[
        float | None,
        told("Seconds until what still runs is ended; null for `TENSOR_WASM_DRAIN_S`.", minimum=0, maximum=DRAIN_MAX_S),
    ] = None


class Drained(msgspec.Struct):
    """The node takes no more work."""

    drained: Annotated[bool, told("Whether all of it finished by itself.")]
    ended: Annotated[int, told("Instances that were ended.", minimum=0)]
    waited_s: Annotated[float, told("How many seconds that took.", minimum=0)]


#: Each raises :class:`InvalidJson` which says where.
decode_quota_changes = decoder(QuotaChanges, b"{}")
decode_create_token = decoder(CreateTokenRequest, b"{}")
decode_drain = decoder(DrainRequest, b"{}")
decode_bind_model = decoder(BindModelRequest, b"{}")


def changes(request: QuotaChanges) -> dict[str, QuotaValue | None]:
    """What is to change, by name. Raises :class:`InvalidJson` when that is nothing."""
    found: dict[str, Any] = {
        name: value for name in request.__struct_fields__ if (value := getattr(request, name)) is not msgspec.UNSET
    }
    if not found:
        raise InvalidJson(f"the body names no quota; the quotas are {', '.join(request.__struct_fields__)}")
    return found


def describe_model(model: Model) -> ModelDescription:
    """A model as the API shows it."""
    return ModelDescription(
        model.name, model.tenant, model.function_id, model.function_name, model.export, model.created_at
    )


def describe_instance(view: InstanceView) -> InstanceDescription:
    """An instance as the API shows it."""
    return InstanceDescription(
        id=view.id,
        tenant=view.tenant,
        function_id=view.function_id,
        function_name=view.function_name,
        export=view.export,
        age_s=round(view.age_s, 3),
        deadline_left_s=None if view.deadline_left_s is None else round(view.deadline_left_s, 3),
        state=view.state,
        launches=view.launches,
        launches_per_s=round(view.launches_per_s, 1),
        held_permits=view.held_permits,
        memory_bytes=view.memory_bytes,
        gpu_memory_bytes=view.gpu_memory_bytes,
        is_ending=view.is_ending,
    )


def describe_termination(done: Termination) -> Terminated:
    """A termination as the API shows it."""
    return Terminated(done.id, done.tenant, done.function_id, done.ended, round(done.took_s * 1e3, 1))


def describe_tenant(view: TenantView) -> TenantDescription:
    """A tenant as the API shows it."""
    usage = None if view.usage is None else TenantUsage(**_fields(view.usage))
    return TenantDescription(view.tenant, describe_quotas(view.quotas), list(view.overrides), usage)


def describe_quotas(quotas: Quotas) -> QuotaValues:
    """Quotas as the API shows them."""
    return QuotaValues(**_fields(quotas))


def describe_created(record: TokenRecord, secret: str) -> CreatedToken:
    """A new token, with its secret."""
    return CreatedToken(record.id, secret, record.name, record.scope, record.created_at)


def describe_token(info: TokenInfo) -> TokenDescription:
    """A token as the API shows it."""
    return TokenDescription(info.id, info.name, info.scope, info.source, info.created_at, info.last_used_at)


def _fields(value: Any) -> Mapping[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
