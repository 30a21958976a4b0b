"""Snapshots: capture a kept instance, restore it, carry it to another node."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator

from tensor_wasm.errors import (
    BodyTooLarge,
    Busy,
    Cancelled,
    CapacityExhausted,
    Conflict,
    DeadlineExceeded,
    InvalidJson,
    InvalidName,
    InvalidSnapshot,
    InvalidWasm,
    NotFound,
    NotReady,
    QuotaExceeded,
    RequestError,
    RequestTimeout,
    SnapshotDamaged,
    SnapshotSignatureInvalid,
    SnapshotTruncated,
    SnapshotVersion,
    StoreError,
    Terminated,
    UnsupportedMediaType,
)
from tensor_wasm.http import examples, wire, wire_snapshots
from tensor_wasm.http.body import receive_parts
from tensor_wasm.http.media import JSON, media_type
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter, StreamedAnswer
from tensor_wasm.node import Node, Snapshot

#: The media type of snapshot files.
SNAPSHOT = "application/vnd.tensor-wasm.snapshot"
_OCTETS = "application/octet-stream"
_SMALL_BYTES = 4096
#: Pieces of a file are put together up to this, for each costs a hop to another thread.
_PART_BYTES = 1 << 20
#: Files of one tenant that come or go at once: one that comes is on the disk as it grows, in no quota yet; for one that
#: goes its module is in memory.
TRANSFERS_MAX = 4


class Transfers:
    """Counts the files of each tenant that are on their way. Used on the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def begin(self, tenant: int) -> None:
        """Raises :class:`CapacityExhausted` when as many are on their way as may."""
        if self._counts[tenant] >= TRANSFERS_MAX:
            raise CapacityExhausted(f"{TRANSFERS_MAX} snapshot files of the tenant are on their way: try again later")
        self._counts[tenant] += 1

    def end(self, tenant: int) -> None:
        """One has come, gone or broken off."""
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]


class Snapshots:
    """The handlers; each leaves what may block to the node's threads."""

    def __init__(self, node: Node, limit_bytes: int) -> None:
        self._node = node
        self._limit_bytes = limit_bytes
        self._transfers = Transfers()

    async def capture(self, call: Call) -> Answer:
        """POST /instances/:id/snapshot."""
        call.resource = call.parameters["id"]
        snapshot = await self._node.intake.in_background(
            call.tenant, self._node.snapshots.capture, call.resource, call.tenant
        )
        call.detail = {"snapshot_id": snapshot.id, "size_bytes": snapshot.size_bytes}
        return Answer(wire.encode(wire_snapshots.captured(snapshot)))

    async def restore(self, call: Call) -> Answer:
        """POST /snapshots/:id/restore."""
        call.resource = call.parameters["id"]
        media_type(call.headers, JSON)
        request = wire_snapshots.decode_restore(await call.body(_SMALL_BYTES))
        kept = await self._node.spawner.restore_async(
            call.resource, tenant=call.tenant, idle_timeout_s=request.idle_timeout_s
        )
        call.detail = {"instance_id": kept.id}
        return Answer(wire.encode(wire_snapshots.Restored(kept.id)))

    async def list(self, call: Call) -> Answer:
        """GET /snapshots."""
        found = [wire_snapshots.describe(snapshot) for snapshot in self._node.snapshots.list(call.tenant)]
        return Answer(wire.encode(wire_snapshots.SnapshotList(found)))

    async def download(self, call: Call) -> StreamedAnswer:
        """GET /snapshots/:id."""
        call.resource = call.parameters["id"]
        self._transfers.begin(call.tenant)
        try:
            parts = await self._node.intake.in_background(
                call.tenant, self._node.snapshot_files.export, call.resource, call.tenant
            )
        except BaseException:
            self._transfers.end(call.tenant)
            raise

        async def close() -> None:
            self._transfers.end(call.tenant)
            await self._node.intake.in_background(call.tenant, _close, parts)

        return StreamedAnswer(self._read(call.tenant, parts), SNAPSHOT.encode(), (), close)

    async def _read(self, tenant: int, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while part := await self._node.intake.in_background(tenant, _join, parts):
            yield part

    async def upload(self, call: Call) -> Answer:
        """PUT /snapshots/:id."""
        call.resource = identity = call.parameters["id"]
        media_type(call.headers, SNAPSHOT, _OCTETS)
        self._transfers.begin(call.tenant)
        try:
            snapshot = await self._take(call, identity)
        finally:
            self._transfers.end(call.tenant)
        call.detail = {"size_bytes": snapshot.size_bytes}
        return Answer(
            wire.encode(wire_snapshots.describe(snapshot)),
            201,
            headers=((b"location", b"/snapshots/" + identity.encode()),),
        )

    async def _take(self, call: Call, identity: str) -> Snapshot:
        tenant = call.tenant
        file = await self._node.intake.in_background(tenant, self._node.snapshot_files.upload, identity, tenant)
        try:

            async def keep(part: bytes) -> None:
                await self._node.intake.in_background(tenant, file.write, part)

            await receive_parts(call.receive, call.headers, self._limit_bytes, _PART_BYTES, keep)

            def take() -> Snapshot:
                file.seek(0)
                return self._node.snapshot_files.import_(identity, file, tenant)

            return await self._node.intake.in_background(tenant, take)
        finally:
            await self._node.intake.in_background(tenant, file.close)

    async def delete(self, call: Call) -> Answer:
        """DELETE /snapshots/:id."""
        call.resource = call.parameters["id"]
        await self._node.intake.in_background(call.tenant, self._node.snapshots.delete, call.resource, call.tenant)
        return Answer(b"", 204)


def _join(parts: Iterator[bytes]) -> bytes:
    """The next parts, together about ``_PART_BYTES``; nothing at the end."""
    joined = bytearray()
    for part in parts:
        joined += part
        if len(joined) >= _PART_BYTES:
            break
    return bytes(joined)


def _close(parts: Iterator[bytes]) -> None:
    close = getattr(parts, "close", None)
    if close is not None:
        close()


_WAITING = (CapacityExhausted, DeadlineExceeded, StoreError)
_EXAMPLE = wire_snapshots.SnapshotDescription(
    id=examples.SNAPSHOT_ID,
    tenant=1,
    function_id=examples.FUNCTION_ID,
    function_name="counter",
    module_digest=examples.EMPTY_MODULE_DIGEST,
    bytes=1 << 20,
    sha=examples.EMPTY_MODULE_DIGEST,
    created_at=examples.MOMENT,
)


def operations(node: Node) -> list[Operation]:
    """The operations on snapshots."""
    handlers = Snapshots(node, node.config.snapshot_file_bytes)
    one = {"id": examples.SNAPSHOT_ID}
    return [
        Operation(
            method="POST",
            path="/instances/{id}/snapshot",
            handler=handlers.capture,
            audience=Audience.TENANT,
            summary="Keep the whole state of a kept instance, between its calls",
            response=wire_snapshots.Captured,
            examples=(
                Example(
                    summary="An instance of one mebibyte",
                    parameters={"id": examples.INSTANCE_ID},
                    answer=wire_snapshots.Captured(examples.SNAPSHOT_ID, 1 << 20, examples.EMPTY_MODULE_DIGEST),
                ),
            ),
            errors=(NotFound, Busy, InvalidSnapshot, QuotaExceeded, NotReady, *_WAITING),
            event="snapshot.create",
        ),
        Operation(
            method="POST",
            path="/snapshots/{id}/restore",
            handler=handlers.restore,
            audience=Audience.TENANT,
            summary="Make a kept instance with the state of a snapshot",
            request=wire_snapshots.RestoreRequest,
            response=wire_snapshots.Restored,
            examples=(
                Example(
                    summary="Restore it",
                    parameters=one,
                    request=wire_snapshots.RestoreRequest(idle_timeout_s=60.0),
                    answer=wire_snapshots.Restored(examples.INSTANCE_ID),
                ),
            ),
            errors=(
                NotFound, InvalidJson, RequestError, UnsupportedMediaType, BodyTooLarge, InvalidSnapshot,
                SnapshotVersion, InvalidWasm, QuotaExceeded, Terminated, Cancelled, NotReady, *_WAITING,
            ),
            event="snapshot.restore",
        ),
        Operation(
            method="GET",
            path="/snapshots",
            handler=handlers.list,
            audience=Audience.TENANT,
            summary="List the tenant's snapshots, oldest first",
            response=wire_snapshots.SnapshotList,
            examples=(Example(summary="One snapshot", answer=wire_snapshots.SnapshotList([_EXAMPLE])),),
        ),
        Operation(
            method="GET",
            path="/snapshots/{id}",
            handler=handlers.download,
            audience=Audience.TENANT,
            summary="Download a snapshot as one file: compressed, signed by the node, with its module",
            response_type=SNAPSHOT,
            examples=(Example(summary="A file", parameters=one, answer="TWSNAP …"),),
            errors=(NotFound, *_WAITING),
        ),
        Operation(
            method="PUT",
            path="/snapshots/{id}",
            handler=handlers.upload,
            audience=Audience.TENANT,
            summary="Upload a snapshot file, of this node or one whose key it trusts, under a new id",
            status=201,
            response=wire_snapshots.SnapshotDescription,
            accepts_files=(SNAPSHOT, _OCTETS),
            response_headers=(Parameter("Location", "The path of the new snapshot.", {"type": "string"}),),
            examples=(Example(summary="A file", parameters=one, request="TWSNAP …", answer=_EXAMPLE),),
            errors=(
                InvalidName, Conflict, InvalidSnapshot, SnapshotTruncated, SnapshotDamaged, SnapshotVersion,
                SnapshotSignatureInvalid, InvalidWasm, UnsupportedMediaType, BodyTooLarge, RequestTimeout, Cancelled,
                QuotaExceeded, NotReady, *_WAITING,
            ),
            event="snapshot.import",
        ),
        Operation(
            method="DELETE",
            path="/snapshots/{id}",
            handler=handlers.delete,
            audience=Audience.TENANT,
            summary="Delete a snapshot; instances made from it go on",
            status=204,
            examples=(Example(summary="A snapshot", parameters=one),),
            errors=(NotFound, *_WAITING),
            event="snapshot.delete",
        ),
    ]  # fmt: skip
