"""Snapshots: the whole state of a kept instance on disk, and instances made from it in milliseconds."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tensor_wasm.errors import Conflict, InvalidName, InvalidSnapshot, NotFound, QuotaExceeded
from tensor_wasm.node.instances import new_id
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.kept import KeptInstances
from tensor_wasm.node.model import Snapshot
from tensor_wasm.node.sandbox import Image, Sandbox
from tensor_wasm.node.snapshot_state import decode_state, encode_state
from tensor_wasm.node.statistics import Statistics
from tensor_wasm.node.storage import Storage
from tensor_wasm.runtime import asleep
from tensor_wasm.runtime.image import ImageWriter
from tensor_wasm.store import FunctionRecord, SharedArtifacts, SnapshotRecord, SnapshotStore

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NO_SNAPSHOT = "no such snapshot for this tenant"
#: Most snapshots of one tenant: a list has them all.
SNAPSHOTS_MAX = 1000


class Snapshots:
    """The snapshots of a node. All calls but :meth:`show` and :meth:`list` touch the disk. Safe for threads.

    Each counts as stored bytes of its tenant with all that it needs: its file, its state, its module. At most
    ``concurrency`` are written at once: they share the disk with everything else.
    """

    def __init__(
        self,
        store: SnapshotStore,
        artifacts: SharedArtifacts,
        storage: Storage,
        kept: KeptInstances,
        statistics: Statistics,
        intake: Intake,
        concurrency: int,
    ) -> None:
        self._kept = kept
        self._intake = intake
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

    # --- use cases --------------------------------------------------------------------------------------

    def capture(self, instance_id: str, tenant: int = 0) -> Snapshot:
        """Keep the whole state of a kept instance, between its calls. It survives ``kill -9`` once this has returned.

        Raises :class:`NotFound`, :class:`~tensor_wasm.errors.Busy` while it answers a call, :class:`InvalidSnapshot`
        when its state cannot be told, :class:`QuotaExceeded` when the tenant may not store so much or so many,
        :class:`~tensor_wasm.errors.StoreError` when the disk takes it not.
        """
        self._intake.check_open()
        claim = self._kept.claim(instance_id, tenant)
        try:
            return self._capture(claim.sandbox, claim.live.function)
        finally:
            claim.release()

    def list(self, tenant: int = 0) -> list[Snapshot]:
        """A tenant's snapshots, oldest first."""
        return [view for view in self._known.copy().values() if view.tenant == tenant]

    def show(self, id: str, tenant: int = 0) -> Snapshot:  # noqa: A002 - the field's word
        """A tenant's snapshot as the API shows it. Raises :class:`NotFound`, for another tenant's as well."""
        view = self._known.get(id)
        if view is None or view.tenant != tenant:
            raise NotFound(_NO_SNAPSHOT)
        return view

    def delete(self, id: str, tenant: int = 0) -> None:  # noqa: A002
        """Forget a snapshot; instances made from it go on. Raises :class:`NotFound`."""
        with self._lock:
            view = self.show(id, tenant)
            self._store.delete(id)
            del self._known[id]
            stored_bytes = self._stored_bytes.pop(id)
            self._counts[tenant] -= 1
        self._storage.give(tenant, stored_bytes)
        self._artifacts.release(view.module_digest)

    # --- the node's side --------------------------------------------------------------------------------

    def check_new(self, identity: str, tenant: int) -> None:
        """Raises what is in the way of a new snapshot of that id.

        That is :class:`InvalidName` for none, :class:`Conflict` for one that is taken, and :class:`QuotaExceeded`.
        """
        if not _ID.fullmatch(identity):
            raise InvalidName("a snapshot's id is a UUID in lower case: 8-4-4-4-12 hexadecimal digits")
        if identity in self._known:
            raise Conflict("there is a snapshot of that id: choose another")
        self._check_count(tenant)

    def add(
        self, record: SnapshotRecord, function_id: str, stored_bytes: int, keep: Callable[[SnapshotRecord], None]
    ) -> Snapshot:
        """Take on a snapshot that came from elsewhere, once ``keep`` has put it on the disk.

        Raises :class:`Conflict` when its id was taken meanwhile.
        """
        view = _describe(record, function_id)
        with self._lock:
            if record.id in self._known:
                raise Conflict("there is a snapshot of that id: choose another")
            keep(record)
            self._add(view, stored_bytes)
        return view

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

    def _capture(self, sandbox: Sandbox, function: FunctionRecord) -> Snapshot:
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
                view = _describe(record, function.id)
                stored_bytes = record.size_bytes + len(record.state) + module_bytes
                self._keep(record, view, stored_bytes, keep)
            self._storage.count(function.tenant, stored_bytes - taken_bytes)
        return view

    def _check_count(self, tenant: int) -> None:
        if self._counts[tenant] >= SNAPSHOTS_MAX:
            raise QuotaExceeded(f"the tenant has {SNAPSHOTS_MAX} snapshots, as many as it may: delete one first")

    def _add(self, view: Snapshot, stored_bytes: int) -> None:
        self._known[view.id] = view
        self._stored_bytes[view.id] = stored_bytes
        self._counts[view.tenant] += 1

    def _keep(
        self, record: SnapshotRecord, view: Snapshot, stored_bytes: int, keep: Callable[[SnapshotRecord], None]
    ) -> None:
        self._artifacts.hold([record.module_digest])
        try:
            keep(record)
        except BaseException:
            self._artifacts.release(record.module_digest)
            raise
        with self._lock:
            self._add(view, stored_bytes)


def _describe(record: SnapshotRecord, function_id: str) -> Snapshot:
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
