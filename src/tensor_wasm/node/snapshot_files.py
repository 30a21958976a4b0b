"""Snapshots as files: signed, compressed, with their module, for this node or another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.errors import InvalidSnapshot, SnapshotDamaged
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.model import Snapshot
from tensor_wasm.node.modules import Modules
from tensor_wasm.node.snapshot_state import decode_state
from tensor_wasm.node.snapshots import Snapshots
from tensor_wasm.node.storage import Storage
from tensor_wasm.runtime import image
from tensor_wasm.runtime.image import ImageWriter
from tensor_wasm.store import SharedArtifacts, SnapshotRecord, SnapshotStore, snapshot_file
from tensor_wasm.store.signing import PublicKey, SigningKey

_NAME_MAX = 128
#: What the kernels of a guest may take in a snapshot's file besides the instance's memory.
_KERNELS_MAX_BYTES = 1 << 30


class SnapshotFiles:
    """The way of snapshots out of a node and into it. Safe for threads; all calls touch the disk.

    Files are signed by ``key``; those signed by it or by one of ``trusted`` are taken, when their module could run here
    and has at most ``module_max_bytes``, and their content fits an instance of ``memory_max_bytes``.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        store: SnapshotStore,
        artifacts: SharedArtifacts,
        storage: Storage,
        modules: Modules,
        compilers: Compilers,
        intake: Intake,
        *,
        key: SigningKey,
        trusted: frozenset[str],
        module_max_bytes: int,
        memory_max_bytes: int,
    ) -> None:
        self._snapshots = snapshots
        self._store = store
        self._artifacts = artifacts
        self._storage = storage
        self._modules = modules
        self._compilers = compilers
        self._intake = intake
        self._key = key
        self._trusted = trusted | {key.public.text}
        self._module_max_bytes = module_max_bytes
        self._content_max_bytes = memory_max_bytes + _KERNELS_MAX_BYTES

    @property
    def public_key(self) -> str:
        """Whose signature files get."""
        return self._key.public.text

    def export(self, id: str, tenant: int = 0) -> Iterator[bytes]:  # noqa: A002 - the field's word
        """A snapshot as one file, piece by piece: signed by this node, compressed, with its module.

        Each piece takes some milliseconds. Raises :class:`~tensor_wasm.errors.NotFound`;
        :class:`~tensor_wasm.errors.StoreError`, also between pieces.
        """
        record = self._snapshots.find(id, tenant)
        module = self._artifacts.get(record.module_digest)
        header = snapshot_file.Header(
            function_name=record.function_name,
            module_digest=record.module_digest,
            module_bytes=len(module),
            sha=record.sha,
            size_bytes=record.size_bytes,
            state=record.state,
            created_at=record.created_at,
            key=self._key.public.text,
        )
        return snapshot_file.write(header, self._key, self._parts(record, module))

    def upload(self, id: str, tenant: int = 0) -> BinaryIO:  # noqa: A002
        """An empty file on the volume of the snapshots, for :meth:`import_`; it is gone when it is closed.

        Raises what that would raise whatever comes: for an id that is none or taken, for too many snapshots.
        """
        self._intake.check_open()
        self._snapshots.check_new(id, tenant)
        file = self._store.own_file()
        return os.fdopen(os.dup(file.descriptor), "w+b")

    def import_(self, id: str, file: BinaryIO, tenant: int = 0) -> Snapshot:  # noqa: A002
        """Keep what :meth:`export` gave, of this node or one whose key it trusts, under a new id.

        It survives ``kill -9`` once this has returned. Raises :class:`~tensor_wasm.errors.InvalidName` for an id that
        is none, :class:`~tensor_wasm.errors.Conflict` for one that is taken, :class:`InvalidSnapshot` for a file that
        cannot be used, :class:`~tensor_wasm.errors.InvalidWasm` for one whose module cannot run here,
        :class:`~tensor_wasm.errors.QuotaExceeded`.
        """
        self._intake.check_open()
        with self._compilers.acting_for(tenant):
            return self._import(id, file, tenant)

    def _import(self, identity: str, file: BinaryIO, tenant: int) -> Snapshot:
        self._snapshots.check_new(identity, tenant)
        reader = snapshot_file.SnapshotReader(file, self._is_trusted)
        header = reader.header
        state, _, function_id = decode_state(header.state)
        if header.module_bytes > self._module_max_bytes or state.memory_bytes > header.size_bytes:
            raise SnapshotDamaged("the snapshot's header has sizes that cannot be")
        if header.size_bytes > self._content_max_bytes:
            raise InvalidSnapshot("the snapshot has more memory than an instance of this node may have")
        stored_bytes = header.size_bytes + len(header.state) + header.module_bytes
        with self._snapshots.turn(is_capture=False), self._storage.taking(tenant, stored_bytes):
            module = reader.module()
            self._modules.check(module)
            with self._artifacts.putting(module) as digest, self._store.writing() as (descriptor, keep):
                writer = ImageWriter(descriptor)
                for piece in reader.content():
                    writer.write(piece)
                reader.check(writer.digest())
                record = SnapshotRecord(
                    identity, tenant, header.function_name[:_NAME_MAX], digest, header.size_bytes, header.sha,
                    header.state, header.created_at,
                )  # fmt: skip
                return self._snapshots.add(record, function_id, stored_bytes, keep)

    def _parts(self, record: SnapshotRecord, module: bytes) -> Iterator[bytes]:
        yield module
        descriptor = self._store.open(record)
        try:
            yield from image.blocks(descriptor, record.size_bytes)
        finally:
            os.close(descriptor)

    def _is_trusted(self, key: PublicKey) -> bool:
        return key.text in self._trusted
