"""What requests and answers about kept instances look like as JSON. The API's description is generated from these."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tensor_wasm.http import wire
from tensor_wasm.node import KeptInstance


class SpawnRequest(msgspec.Struct, forbid_unknown_fields=True):
    """An instance to make and keep."""

    function_id: wire.FunctionId
    idle_timeout_s: Annotated[
        float | None,
        wire.told("It ends when it was idle for so many seconds; the node's longest when null.", exclusiveMinimum=0),
    ] = None
    deadline_ms: Annotated[
        int | None, wire.told("Milliseconds for the module's start function; null for the node's longest.", minimum=1)
    ] = None


class Spawned(msgspec.Struct):
    """An instance that is kept."""

    id: wire.InstanceId


class KeptDescription(msgspec.Struct):
    """A kept instance."""

    id: wire.InstanceId
    tenant: wire.Tenant
    function_id: wire.FunctionId
    function_name: wire.FunctionName
    state: Annotated[str, wire.told("Whether it answers a call.", enum=["idle", "busy"])]
    created_at: Annotated[float, wire.told("When it was made, in seconds since 1970.")]
    calls: Annotated[int, wire.told("Calls it has answered.", minimum=0)]
    idle_timeout_s: Annotated[float, wire.told("It ends when it was idle for so many seconds.")]
    idle_left_s: Annotated[float | None, wire.told("Seconds that are left of them; null while it is busy.")]
    memory_bytes: Annotated[int, wire.told("Its memory.", minimum=0)]
    gpu_memory_bytes: Annotated[int, wire.told("Its memory on the device.", minimum=0)]


class KeptList(msgspec.Struct):
    """The tenant's kept instances, oldest first."""

    instances: Annotated[list[KeptDescription], wire.told("The kept instances.")]


#: Raises :class:`~tensor_wasm.errors.InvalidJson` which says where.
decode_spawn = wire.decoder(SpawnRequest)


def describe(kept: KeptInstance) -> KeptDescription:
    """A kept instance as the API shows it."""
    return KeptDescription(
        id=kept.id,
        tenant=kept.tenant,
        function_id=kept.function_id,
        function_name=kept.function_name,
        state=kept.state,
        created_at=kept.created_at,
        calls=kept.calls,
        idle_timeout_s=kept.idle_timeout_s,
        idle_left_s=None if kept.idle_left_s is None else round(kept.idle_left_s, 3),
        memory_bytes=kept.memory_bytes,
        gpu_memory_bytes=kept.gpu_memory_bytes,
    )


__all__ = ["KeptDescription", "KeptList", "SpawnRequest", "Spawned", "decode_spawn", "describe"]
