"""Functions: deployed code, kept on the disk for its tenant."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace

from blake3 import blake3

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.errors import InvalidName, InvalidWasm, NotFound, QuotaExceeded, StoreError
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.model import Function, Import, Page
from tensor_wasm.node.modules import Modules, ReadyModule
from tensor_wasm.node.sandbox import Image
from tensor_wasm.node.statistics import Statistics
from tensor_wasm.node.storage import Storage
from tensor_wasm.node.warm import WarmStarts
from tensor_wasm.store import FunctionRecord, IdempotencyKey, IdempotencyStore, Registry, SharedArtifacts
from tensor_wasm.tenancy import Tenants

_log = logging.getLogger("tensor_wasm.node")

_NAME_MAX = 128
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A function that was deployed. ``is_replay``: by an earlier request with the same key."""

    function: Function
    is_replay: bool


class Functions:
    """The functions of a node. Safe for threads; all calls but :meth:`find` may touch the disk or compile."""

    def __init__(
        self,
        registry: Registry,
        keys: IdempotencyStore,
        artifacts: SharedArtifacts,
        storage: Storage,
        modules: Modules,
        warm: WarmStarts,
        compilers: Compilers,
        tenants: Tenants,
        statistics: Statistics,
        intake: Intake,
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._artifacts = artifacts
        self._storage = storage
        self._modules = modules
        self._warm = warm
        self._compilers = compilers
        self._tenants = tenants
        self._statistics = statistics
        self._intake = intake
        self._lock = threading.Lock()  # deploy and delete, so that no artifact goes while a function comes to need it
        self._records = {record.id: record for record in registry.all()}
        self._counts: Counter[int] = Counter()
        for record in self._records.values():
            self._count(record.tenant, 1)
            storage.count(record.tenant, record.size_bytes)
        artifacts.hold(record.digest for record in self._records.values())
        statistics.functions = len(self._records)

    # --- use cases --------------------------------------------------------------------------------------

    def deploy(self, name: str, wasm: bytes, tenant: int = 0, prewarm: str | None = None) -> Function:
        """Keep a module as a new function. It survives ``kill -9`` once this has returned.

        ``prewarm`` names an export that is run once, now; every instance starts from the state at its end. Raises
        :class:`InvalidName`, :class:`InvalidWasm`, :class:`QuotaExceeded`; with ``prewarm`` what an invocation of that
        may come to.
        """
        return self.deploy_once(name, wasm, tenant, None, prewarm).function

    def deploy_once(
        self, name: str, wasm: bytes, tenant: int, key: IdempotencyKey | None, prewarm: str | None = None
    ) -> Deployment:
        """As :meth:`deploy`, unless the same request with the same key has deployed it: then that function.

        Raises :class:`~tensor_wasm.errors.IdempotencyConflict` when the key came with another request.
        """
        self._intake.check_open()
        with self._compilers.acting_for(tenant):
            deployment = self._deploy(name, wasm, tenant, key, prewarm)
        self._statistics.functions = len(self._records)
        return deployment

    def made_before(self, key: IdempotencyKey) -> str | None:
        """The id of what a request with this key made, None for a new key.

        Raises :class:`~tensor_wasm.errors.IdempotencyConflict`, :class:`~tensor_wasm.errors.CapacityExhausted`.
        """
        return self._keys.find(key)

    def show(self, id: str, tenant: int = 0) -> Function:  # noqa: A002 - the field's word
        """A function with its exports and imports. Raises :class:`NotFound`."""
        record = self.find(id, tenant)
        return _describe(record, self._modules.ready(record.digest))

    def list(self, tenant: int = 0, limit: int = 100, after: str | None = None) -> Page:
        """A page of a tenant's functions, oldest first.

        One whose module cannot be used any more has no exports and imports.
        """
        records = self._registry.list(tenant, limit + 1, after)
        items = [_describe(record, self._usable(record)) for record in records[:limit]]
        return Page(items, items[-1].id if len(records) > limit else None)

    def delete(self, id: str, tenant: int = 0) -> None:  # noqa: A002
        """Forget a function; its running invocations go on. Raises :class:`NotFound`."""
        with self._lock:
            record = self.find(id, tenant)
            if not self._registry.delete(id, tenant):
                raise NotFound("no such function for this tenant")
            del self._records[id]
            self._count(tenant, -1)
            self._storage.give(tenant, record.size_bytes)
            if self._artifacts.release(record.digest):
                self._modules.forget(record.digest)
        self._warm.drop(id)
        self._statistics.functions = len(self._records)

    # --- the node's side --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises :class:`~tensor_wasm.errors.StoreError` when the registry cannot be read."""
        self._registry.check()

    def find(self, identity: str, tenant: int) -> FunctionRecord:
        """A tenant's function. Raises :class:`NotFound`, for another tenant's as well."""
        record = self._records.get(identity)
        if record is None or record.tenant != tenant:
            raise NotFound("no such function for this tenant")
        return record

    def image(self, record: FunctionRecord) -> Image:
        """The state that a function's instances start from, of one with ``prewarm``.

        Raises :class:`NotFound` when it was deleted meanwhile, and what :meth:`WarmStarts.image` raises.
        """
        image = self._warm.image(record)
        try:
            self.find(record.id, record.tenant)
        except NotFound:  # deleted while its state was made, which nobody would ever drop
            self._warm.drop(record.id)
            raise
        return image

    def owner_of(self, identity: str) -> int | None:
        """The tenant whose function this is; None when there is none."""
        record = self._records.get(identity)
        return None if record is None else record.tenant

    def count_of(self, tenant: int) -> int:
        """How many functions a tenant has."""
        return self._counts.get(tenant, 0)

    @property
    def tenants(self) -> set[int]:
        """Who has functions."""
        return set(self._counts.copy())

    # --- deploys ----------------------------------------------------------------------------------------

    def _deploy(
        self, name: str, wasm: bytes, tenant: int, key: IdempotencyKey | None, prewarm: str | None
    ) -> Deployment:
        """Check, compile and keep a module, unless ``key`` made one before.

        One with ``prewarm`` gets its state before it is kept: when that cannot be made, it is not.
        """
        if not 0 < len(name) <= _NAME_MAX or not _NAME_CHARACTERS.issuperset(name):
            raise InvalidName(f"a function's name has 1 to {_NAME_MAX} characters of A-Z a-z 0-9 . _ -")
        # Before the work as well as after it: the work is what an attacker wants.
        self._check_count(tenant)
        self._storage.check(tenant, len(wasm))
        digest = blake3(wasm).hexdigest()
        ready = self._modules.prepare(digest, wasm)
        record = FunctionRecord(str(uuid.uuid4()), tenant, name, digest, len(wasm), time.time(), prewarm)
        if prewarm is None:
            return self._add(record, wasm, ready, key)
        self._modules.prepare(digest, wasm, is_observable=True)
        self._warm.image(record)
        deployment: Deployment | None = None
        try:
            deployment = self._add(record, wasm, ready, key)
        finally:
            if deployment is None or deployment.is_replay:
                self._warm.drop(record.id)
        return deployment

    def _add(self, record: FunctionRecord, wasm: bytes, ready: ReadyModule, key: IdempotencyKey | None) -> Deployment:
        tenant = record.tenant
        with self._lock:
            self._check_count(tenant)
            with self._storage.taking(tenant, len(wasm)), self._artifacts.putting(wasm):
                kept = self._registry.add(record, key)
            if kept == record.id:
                self._records[record.id] = record
                self._count(tenant, 1)
            else:
                self._storage.give(tenant, len(wasm))
                self._artifacts.release(record.digest)
        return Deployment(_describe(replace(record, id=kept), ready), is_replay=kept != record.id)

    def _usable(self, record: FunctionRecord) -> ReadyModule | None:
        try:
            return self._modules.ready(record.digest)
        except (StoreError, InvalidWasm) as error:  # an artifact is gone; a limit is lower than at the deploy
            _log.warning("function %s cannot be used: %s", record.id, error)
            return None

    def _count(self, tenant: int, change: int) -> None:
        self._counts[tenant] += change
        if self._counts[tenant] == 0:
            del self._counts[tenant]

    def _check_count(self, tenant: int) -> None:
        most, count = self._tenants.quotas(tenant).functions, self.count_of(tenant)
        if most is not None and count >= most:
            self._statistics.refused(tenant, "functions")
            raise QuotaExceeded(f"the tenant has {count} functions, as many as it may: delete one first")


def _describe(record: FunctionRecord, ready: ReadyModule | None) -> Function:
    memory = None if ready is None else ready.info.memory
    return Function(
        id=record.id,
        name=record.name,
        tenant=record.tenant,
        digest=record.digest,
        size_bytes=record.size_bytes,
        created_at=record.created_at,
        exports=() if ready is None else tuple(ready.exports.values()),
        imports=() if ready is None else tuple(Import(item.module, item.name) for item in ready.info.imports),
        memory_pages=0 if memory is None else memory.minimum_pages,
        prewarm=record.prewarm,
    )
