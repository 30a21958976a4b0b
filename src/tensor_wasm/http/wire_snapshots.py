"""What requests and answers about snapshots look like as JSON. The API's description is generated from these."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tensor_wasm.http import wire
from tensor_wasm.node import Snapshot

_SnapshotId = Annotated[str, wire.told("The snapshot's id.", format="uuid")]
_Sha = Annotated[str, wire.told("BLAKE3 of the captured memories, in hexadecimal.", pattern="^[0-9a-f]{64}$")]
_Bytes = Annotated[int, wire.told("Bytes of the captured memories.", minimum=0)]


class Captured(msgspec.Struct):
    """A snapshot that was made."""

    snapshot_id: _SnapshotId
    bytes: _Bytes
    sha: _Sha


class SnapshotDescription(msgspec.Struct):
    """A captured instance. `function_id` is that of its function, which may be gone, on this node or another."""

    id: _SnapshotId
    tenant: wire.Tenant
    function_id: wire.FunctionId
    function_name: wire.FunctionName
    module_digest: Annotated[str, wire.told("BLAKE3 of its module, in hexadecimal.", pattern="^[0-9a-f]{64}$")]
    bytes: _Bytes
    sha: _Sha
    created_at: wire.Seconds


class SnapshotList(msgspec.Struct):
    """The tenant's snapshots, oldest first."""

    snapshots: Annotated[list[SnapshotDescription], wire.told("The snapshots.")]


class RestoreRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How long the restored instance may be idle; the node's longest when left out."""

    idle_timeout_s: Annotated[float | None, wire.told("Seconds without a call after which it ends.")] = None


class Restored(msgspec.Struct):
    """An instance that was made from a snapshot."""

    instance_id: wire.InstanceId


#: Raises :class:`~tensor_wasm.errors.InvalidJson` which says where.
decode_restore = wire.decoder(RestoreRequest, b"{}")


def captured(snapshot: Snapshot) -> Captured:
    """A new snapshot as the API answers it."""
    return Captured(snapshot.id, snapshot.size_bytes, snapshot.sha)


def describe(snapshot: Snapshot) -> SnapshotDescription:
    """A snapshot as the API shows it."""
    return SnapshotDescription(
        id=snapshot.id,
        tenant=snapshot.tenant,
        function_id=snapshot.function_id,
        function_name=snapshot.function_name,
        module_digest=snapshot.module_digest,
        bytes=snapshot.size_bytes,
        sha=snapshot.sha,
        created_at=snapshot.created_at,
    )
