"""What the operator's requests and answers look like as JSON. The API's description is generated from these types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from tensor_wasm.errors import InvalidJson
from tensor_wasm.http.wire import Tenant, invalid_json
from tensor_wasm.node import InstanceView, TenantView, Termination
from tensor_wasm.store import TokenRecord
from tensor_wasm.tenancy import Quotas, QuotaValue, TokenInfo

_Request = TypeVar("_Request")


class InstanceDescription(msgspec.Struct):
    """A live instance. `state` is `running`, `in_kernel`, `waiting` (for a permit) or `idle`.

    `launches_per_s` is over the last second; `is_ending` once its end was ordered.
    """

    id: str
    tenant: Tenant
    function_id: str
    function_name: str
    export: str
    age_s: float
    deadline_left_s: float | None
    state: str
    launches: int
    launches_per_s: float
    held_permits: int
    memory_bytes: int
    gpu_memory_bytes: int
    is_ending: bool


class InstanceList(msgspec.Struct):
    """Live instances, oldest first."""

    instances: list[InstanceDescription]


class Terminated(msgspec.Struct):
    """An instance whose end was ordered: whether it had come when this was written, and after how long."""

    id: str
    tenant: Tenant
    function_id: str
    ended: bool
    took_ms: float


class QuotaValues(msgspec.Struct):
    """Quotas; null where there is no limit."""

    weight: int
    permits: int | None
    instances: int | None
    guest_memory_bytes: int | None
    gpu_memory_bytes: int | None
    functions: int | None
    stored_bytes: int | None
    rate_qps: float | None
    rate_burst: int | None
    cuda: bool


class QuotaChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Quotas to change; null takes the default again, what is left out stays."""

    weight: int | msgspec.UnsetType | None = msgspec.UNSET
    permits: int | msgspec.UnsetType | None = msgspec.UNSET
    instances: int | msgspec.UnsetType | None = msgspec.UNSET
    guest_memory_bytes: int | msgspec.UnsetType | None = msgspec.UNSET
    gpu_memory_bytes: int | msgspec.UnsetType | None = msgspec.UNSET
    functions: int | msgspec.UnsetType | None = msgspec.UNSET
    stored_bytes: int | msgspec.UnsetType | None = msgspec.UNSET
    rate_qps: float | msgspec.UnsetType | None = msgspec.UNSET
    rate_burst: int | msgspec.UnsetType | None = msgspec.UNSET
    cuda: bool | msgspec.UnsetType | None = msgspec.UNSET


class TenantUsage(msgspec.Struct):
    """What a tenant holds now, and what of it waits."""

    instances: int
    queued: int
    permits_held: int
    launches_waiting: int
    guest_memory_bytes: int
    gpu_memory_bytes: int
    functions: int
    stored_bytes: int


class TenantDescription(msgspec.Struct):
    """A tenant: the quotas that hold, the names of those that are its own, what it holds.

    `tenant` and `usage` are null for the defaults.
    """

    tenant: Tenant | None
    quotas: QuotaValues
    overrides: list[str]
    usage: TenantUsage | None


class TenantList(msgspec.Struct):
    """The defaults, and every tenant that has quotas of its own, functions or something live."""

    defaults: QuotaValues
    tenants: list[TenantDescription]


class CreateTokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make. `scope` is `tenant=1,2`, `tenant=*` or `role=admin`."""

    scope: str
    name: str = ""


class CreatedToken(msgspec.Struct):
    """A new token. `token` is the secret: it is shown this once. `created_at` is in seconds since 1970."""

    id: str
    token: str
    name: str
    scope: str
    created_at: float


class TokenDescription(msgspec.Struct):
    """A token without its secret. `source` is `settings` or `database`; times are in seconds since 1970."""

    id: str
    name: str
    scope: str
    source: str
    created_at: float | None
    last_used_at: float | None


class TokenList(msgspec.Struct):
    """Every token of the node."""

    tokens: list[TokenDescription]


class DrainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How long running work may go on; default: the node's `TENSOR_WASM_DRAIN_S`."""

    timeout_s: float | None = None


class Drained(msgspec.Struct):
    """The node takes no more work. `drained` when all of it finished; else `ended` instances were ended."""

    drained: bool
    ended: int
    waited_s: float


def _decoder(kind: type[_Request]) -> Callable[[bytes], _Request]:
    decode = msgspec.json.Decoder(kind).decode

    def decoded(body: bytes) -> _Request:
        try:
            return decode(body or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_json(error) from None

    return decoded


#: Each raises :class:`InvalidJson` which says where.
decode_quota_changes = _decoder(QuotaChanges)
decode_create_token = _decoder(CreateTokenRequest)
decode_drain = _decoder(DrainRequest)


def changes(request: QuotaChanges) -> dict[str, QuotaValue | None]:
    """What is to change, by name. Raises :class:`InvalidJson` when that is nothing."""
    found: dict[str, Any] = {
        name: value for name in request.__struct_fields__ if (value := getattr(request, name)) is not msgspec.UNSET
    }
    if not found:
        raise InvalidJson(f"the body names no quota; the quotas are {', '.join(request.__struct_fields__)}")
    return found


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
