"""Snapshots: the whole state of a kept instance on disk, and instances made from it in milliseconds."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from tensor_wasm.errors import Conflict, InvalidName, InvalidSnapshot, NotFound, QuotaExceeded, SnapshotDamaged
from tensor_wasm.node.instances import new_id
from tensor_wasm.node.model import Snapshot
from tensor_wasm.node.sandbox import Image, Sandbox
from tensor_wasm.node.statistics import Statistics
from tensor_wasm.node.storage import Storage
from tensor_wasm.runtime import asleep, image
from tensor_wasm.runtime.image import ImageWriter
from tensor_wasm.runtime.state import InstanceState, decode_places, encode_places
from tensor_wasm.store import FunctionRecord, SharedArtifacts, SnapshotRecord, SnapshotStore, snapshot_file
from tensor_wasm.store.signing import PublicKey, SigningKey

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NAME_MAX = 128
_NO_SNAPSHOT = "no such snapshot for this tenant"
#: The form of ``state`` in rows and files.
STATE_FORMAT = 1
#: Most snapshots of one tenant: a list has them all.
SNAPSHOTS_MAX = 1000
#: What the kernels of a guest may take in a snapshot's file besides the instance's memory.
_KERNELS_MAX_BYTES = 1 << 30


class Snapshots:
    """The snapshots of a node. All calls but :meth:`show` and :meth:`list` touch the disk. Safe for threads.

    Each counts as stored bytes of its tenant with all that it needs: its file, its state, its module.

    At most ``concurrency`` are written at once: they share the disk with everything else. Files are signed by ``key``;
    those signed by it or by one of ``trusted`` are taken, when ``check_module`` takes their module, which has at most
    ``module_max_bytes``, and their content fits an instance of ``memory_max_bytes``.
    """

    def __init__(
        self,
        store: SnapshotStore,
        artifacts: SharedArtifacts,
        storage: Storage,
        concurrency: int,
        key: SigningKey,
        trusted: frozenset[str],
        check_module: Callable[[bytes], object],
        module_max_bytes: int,
        memory_max_bytes: int,
        statistics: Statistics,
    ) -> None:
        self._key = key
        self._trusted = trusted | {key.public.text}
        self._check = check_module
        self._module_max_bytes = module_max_bytes
        self._content_max_bytes = memory_max_bytes + _KERNELS_MAX_BYTES
        self._store = store
        self._artifacts = artifacts
        self._storage = storage
        self._statistics = statistics
        self._turn = threading.Semaphore(concurrency)
        # Without their states, which may have a megabyte each: those are read when they are needed.
        self._known: dict[str, Snapshot] = {}
        self._stored_bytes: dict[str, int] = {}
        self._counts: Counter[int] = Counter()
        self._lock = threading.Lock()
        for one in store.all():
            view = Snapshot(
                one.id, one.tenant, one.function_id, one.function_name, one.module_digest, one.size_bytes, one.sha,
                one.created_at,
            )  # fmt: skip
            stored_bytes = one.size_bytes + one.state_bytes + artifacts.size_bytes(one.module_digest)
            self._add(view, stored_bytes)
            storage.count(one.tenant, stored_bytes)
        artifacts.hold(view.module_digest for view in self._known.values())

    def capture(self, sandbox: Sandbox, function: FunctionRecord) -> Snapshot:
        """Keep an instance's state, between calls. It survives ``kill -9`` once this has returned.

        Raises :class:`InvalidSnapshot` when its state cannot be told, :class:`QuotaExceeded` when its tenant may not
        store so much or so many, :class:`~tensor_wasm.errors.StoreError` when the disk takes it not.
        """
        self._check_count(function.tenant)
        module_bytes = self._artifacts.size_bytes(function.digest)
        taken_bytes = sandbox.memory_bytes + module_bytes  # there may be somewhat more, kernels and state, or less
        with self.turn(is_capture=True), self._storage.taking(function.tenant, taken_bytes):
            with self._store.writing() as (descriptor, keep):
                writer = ImageWriter(descriptor)
                state, device = sandbox.capture(writer)
                record = SnapshotRecord(
                    id=new_id(),
                    tenant=function.tenant,
                    function_name=function.name,
                    module_digest=function.digest,
                    size_bytes=writer.size_bytes,
                    sha=writer.digest(),
                    state=encode_state(state, device, function.id),
                    created_at=time.time(),
                )
                view = describe(record, function.id)
                stored_bytes = record.size_bytes + len(record.state) + module_bytes
                self._keep(record, view, stored_bytes, keep)
            self._storage.count(function.tenant, stored_bytes - taken_bytes)
        return view

    @contextmanager
    def turn(self, *, is_capture: bool) -> Iterator[None]:
        """Wait for a turn to write; what is written then is counted."""
        with asleep():
            self._turn.acquire()
        try:
            with self._statistics.writing_snapshot(is_capture=is_capture):
                yield
        finally:
            self._turn.release()

    # --- files --------------------------------------------------------------------------------------------

    def export(self, identity: str, tenant: int) -> Iterator[bytes]:
        """A snapshot as one file, piece by piece: signed, compressed, with its module.

        Raises :class:`NotFound`; :class:`~tensor_wasm.errors.StoreError`, also between pieces.
        """
        record = self.find(identity, tenant)
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

    def _parts(self, record: SnapshotRecord, module: bytes) -> Iterator[bytes]:
        yield module
        descriptor = self._store.open(record)
        try:
            yield from image.blocks(descriptor, record.size_bytes)
        finally:
            os.close(descriptor)

    def check_new(self, identity: str, tenant: int) -> None:
        """Raises what :meth:`import_` would raise whatever the file is: to be asked before a file is sent."""
        if not _ID.fullmatch(identity):
            raise InvalidName("a snapshot's id is a UUID in lower case: 8-4-4-4-12 hexadecimal digits")
        if identity in self._known:
            raise Conflict("there is a snapshot of that id: choose another")
        self._check_count(tenant)

    def import_(self, identity: str, file: BinaryIO, tenant: int) -> Snapshot:
        """Keep what :meth:`export` gave, also on another node, under a new id. It survives ``kill -9`` then.

        Raises :class:`InvalidName` for an id that is none, :class:`Conflict` for one that is taken,
        :class:`~tensor_wasm.errors.InvalidSnapshot` for a file that cannot be used, :class:`InvalidWasm` for one whose
        module cannot run here, :class:`QuotaExceeded`.
        """
        self.check_new(identity, tenant)
        reader = snapshot_file.SnapshotReader(file, self._is_trusted)
        header = reader.header
        state, _, function_id = decode_state(header.state)
        if header.module_bytes > self._module_max_bytes or state.memory_bytes > header.size_bytes:
            raise SnapshotDamaged("the snapshot's header has sizes that cannot be")
        if header.size_bytes > self._content_max_bytes:
            raise InvalidSnapshot("the snapshot has more memory than an instance of this node may have")
        stored_bytes = header.size_bytes + len(header.state) + header.module_bytes
        with self.turn(is_capture=False), self._storage.taking(tenant, stored_bytes):
            module = reader.module()
            self._check(module)
            with self._artifacts.putting(module) as digest, self._store.writing() as (descriptor, keep):
                writer = ImageWriter(descriptor)
                for piece in reader.content():
                    writer.write(piece)
                reader.check(writer.digest())
                record = SnapshotRecord(
                    identity, tenant, header.function_name[:_NAME_MAX], digest, header.size_bytes, header.sha,
                    header.state, header.created_at,
                )  # fmt: skip
                view = describe(record, function_id)
                with self._lock:
                    if identity in self._known:
                        raise Conflict("there is a snapshot of that id: choose another")
                    keep(record)
                    self._add(view, stored_bytes)
        return view

    # --- what there is ------------------------------------------------------------------------------------

    def find(self, identity: str, tenant: int) -> SnapshotRecord:
        """A tenant's snapshot with its state. Raises :class:`NotFound`, for another tenant's as well."""
        self.show(identity, tenant)
        record = self._store.get(identity)
        if record is None:
            raise NotFound(_NO_SNAPSHOT)
        return record

    def owner_of(self, identity: str) -> int | None:
        """The tenant whose snapshot this is; None when there is none."""
        view = self._known.get(identity)
        return None if view is None else view.tenant

    def show(self, identity: str, tenant: int) -> Snapshot:
        """A tenant's snapshot as the API shows it. Raises :class:`NotFound`, for another tenant's as well."""
        view = self._known.get(identity)
        if view is None or view.tenant != tenant:
            raise NotFound(_NO_SNAPSHOT)
        return view

    def list(self, tenant: int) -> list[Snapshot]:
        """A tenant's snapshots, oldest first."""
        return [view for view in self._known.copy().values() if view.tenant == tenant]

    def delete(self, identity: str, tenant: int) -> None:
        """Forget a snapshot; instances made from it go on. Raises :class:`NotFound`."""
        with self._lock:
            view = self.show(identity, tenant)
            self._store.delete(identity)
            del self._known[identity]
            stored_bytes = self._stored_bytes.pop(identity)
            self._counts[tenant] -= 1
        self._storage.give(tenant, stored_bytes)
        self._artifacts.release(view.module_digest)

    @contextmanager
    def opened(self, record: SnapshotRecord) -> Iterator[Image]:
        """What instances are made with. The file may be closed when they are: the system keeps it for them."""
        state, device, _ = decode_state(record.state)
        descriptor = self._store.open(record)
        try:
            if state.memory_bytes > record.size_bytes:
                raise InvalidSnapshot("the snapshot's memory is larger than its file")
            yield Image(state, device, descriptor)
        finally:
            os.close(descriptor)

    def upload(self) -> BinaryIO:
        """An empty file that nobody else can find; it is gone when it is closed."""
        file = self._store.own_file()
        return os.fdopen(os.dup(file.descriptor), "w+b")

    @property
    def public_key(self) -> str:
        """Whose signature files get."""
        return self._key.public.text

    def _is_trusted(self, key: PublicKey) -> bool:
        return key.text in self._trusted

    def _check_count(self, tenant: int) -> None:
        if self._counts[tenant] >= SNAPSHOTS_MAX:
            raise QuotaExceeded(f"the tenant has {SNAPSHOTS_MAX} snapshots, as many as it may: delete one first")

    def _add(self, view: Snapshot, stored_bytes: int) -> None:
        self._known[view.id] = view
        self._stored_bytes[view.id] = stored_bytes
        self._counts[view.tenant] += 1

    def _keep(self, record: SnapshotRecord, view: Snapshot, stored_bytes: int, keep: Any) -> None:
        self._artifacts.hold([record.module_digest])
        try:
            keep(record)
        except BaseException:
            self._artifacts.release(record.module_digest)
            raise
        with self._lock:
            self._add(view, stored_bytes)


def describe(record: SnapshotRecord, function_id: str) -> Snapshot:
    """A snapshot, of an instance of that function, as the API shows it."""
    return Snapshot(
        id=record.id,
        tenant=record.tenant,
        function_id=function_id,
        function_name=record.function_name,
        module_digest=record.module_digest,
        size_bytes=record.size_bytes,
        sha=record.sha,
        created_at=record.created_at,
    )


def function_of(record: SnapshotRecord) -> FunctionRecord:
    """The function that was captured, which may be gone by now."""
    _, _, function_id = decode_state(record.state)
    return FunctionRecord(function_id, record.tenant, record.function_name, record.module_digest, 0, record.created_at)


def encode_state(state: InstanceState, device: Mapping[str, Any] | None, function_id: str) -> str:
    """What is in no memory, as JSON."""
    return json.dumps(
        {
            "format": STATE_FORMAT,
            "function_id": function_id,
            "memory_bytes": state.memory_bytes,
            "variables": [bits.hex() for bits in state.variables],
            "tables": encode_places(state.tables),
            "device": device,
        },
        separators=(",", ":"),
    )


def decode_state(text: str) -> tuple[InstanceState, Mapping[str, Any] | None, str]:
    """The state, what the guest has on the device, and the id of the function. Raises :class:`InvalidSnapshot`."""
    try:
        fields = json.loads(text)
        if fields["format"] != STATE_FORMAT:
            raise InvalidSnapshot("the snapshot's state is of another form than this release writes")
        variables = tuple(bytes.fromhex(bits) for bits in fields["variables"])
        memory_bytes, function_id = int(fields["memory_bytes"]), str(fields["function_id"])
        if not 0 <= memory_bytes <= 1 << 32:
            raise InvalidSnapshot("the snapshot's memory has a size that no memory has")
        device = fields["device"]
        if device is not None and not isinstance(device, dict):
            raise InvalidSnapshot("the snapshot's device state cannot be read")
        return InstanceState(memory_bytes, variables, decode_places(fields["tables"])), device, function_id
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidSnapshot("the snapshot's state cannot be read") from None


__all__ = ["Snapshots", "decode_state", "describe", "encode_state", "function_of"]
