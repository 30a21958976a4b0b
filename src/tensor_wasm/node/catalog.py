"""Deployed functions: what is on disk, and what is ready to run in memory."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from typing import Protocol

from blake3 import blake3

from tensor_wasm.abi import CUDA_MODULES, Signature
from tensor_wasm.dispatch.link_module import LinkedImport
from tensor_wasm.errors import InvalidName, InvalidWasm, NotFound, QuotaExceeded, StoreError
from tensor_wasm.host import GuestImports, HostLinker
from tensor_wasm.node.accounts import Refused
from tensor_wasm.node.model import Export, Function, Import, Page
from tensor_wasm.node.storage import Storage
from tensor_wasm.runtime import KEPT_CODE_BYTES, TABLE_ELEMENTS, ModuleCache, Recent
from tensor_wasm.store import FunctionRecord, IdempotencyKey, Registry, SharedArtifacts
from tensor_wasm.tenancy import Tenants
from tensor_wasm.wasm.inspector import ModuleInfo, inspect
from tensor_wasm.wasm.observable import ObservableModule, observable

_log = logging.getLogger("tensor_wasm.node")

#: Modules kept ready in memory.
_KEPT_MODULES = 256
_NAME_MAX = 128
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_PAGE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ReadyModule:
    """A module that can be instantiated, and what it exports by name.

    ``observable`` is there for one that was rewritten so that its instances' whole state can be captured; without its
    bytes.
    """

    imports: GuestImports
    exports: dict[str, Export]
    info: ModuleInfo
    observable: ObservableModule | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A function that was deployed. ``is_replay``: by an earlier request with the same key."""

    function: Function
    is_replay: bool


class Warmth(Protocol):
    """Where the states are that functions start from."""

    def image(self, function: FunctionRecord) -> object:
        """Make a function's state."""

    def drop(self, function_id: str) -> None:
        """Forget it."""


class Catalog:
    """The functions of a node. All calls but :meth:`find` may touch the disk or compile."""

    def __init__(
        self,
        registry: Registry,
        artifacts: SharedArtifacts,
        storage: Storage,
        modules: ModuleCache,
        linker: HostLinker,
        memory_limit_bytes: int,
        tenants: Tenants,
        refused: Refused,
    ) -> None:
        self._registry = registry
        self._tenants = tenants
        self._refused = refused
        self._artifacts = artifacts
        self._storage = storage
        self._modules = modules
        self._linker = linker
        self._memory_limit_bytes = memory_limit_bytes
        self._lock = threading.Lock()  # deploy and delete, so that no artifact goes while a function comes to need it
        self._records = {record.id: record for record in registry.all()}
        self._counts: Counter[int] = Counter()
        for record in self._records.values():
            self._count(record.tenant, 1)
            storage.count(record.tenant, record.size_bytes)
        artifacts.hold(record.digest for record in self._records.values())
        self._ready: Recent[str, ReadyModule] = Recent(_KEPT_MODULES, KEPT_CODE_BYTES, _code_bytes)
        self._ready_lock = threading.Lock()

    @property
    def count(self) -> int:
        """Functions deployed, of all tenants."""
        return len(self._records)

    def check(self) -> None:
        """Raises :class:`~tensor_wasm.errors.StoreError` when the registry cannot be read."""
        self._registry.check()

    def find(self, identity: str, tenant: int) -> FunctionRecord:
        """A tenant's function. Raises :class:`NotFound`, for another tenant's as well."""
        record = self._records.get(identity)
        if record is None or record.tenant != tenant:
            raise NotFound("no such function for this tenant")
        return record

    def owner_of(self, identity: str) -> int | None:
        """The tenant whose function this is; None when there is none."""
        record = self._records.get(identity)
        return None if record is None else record.tenant

    @property
    def tenants(self) -> list[int]:
        """Who has functions."""
        return list(self._counts.copy())

    def count_of(self, tenant: int) -> int:
        """How many functions a tenant has."""
        return self._counts.get(tenant, 0)

    def deploy(
        self,
        name: str,
        wasm: bytes,
        tenant: int,
        key: IdempotencyKey | None = None,
        prewarm: str | None = None,
        warmth: Warmth | None = None,
    ) -> Deployment:
        """Check, compile and keep a module, unless ``key`` made one before. Then the function survives a crash.

        ``warmth`` gets a function that has a ``prewarm`` before it is kept: when that raises, it is not.
        Raises :class:`InvalidName`, :class:`InvalidWasm`, :class:`QuotaExceeded`.
        """
        if not 0 < len(name) <= _NAME_MAX or not _NAME_CHARACTERS.issuperset(name):
            raise InvalidName(f"a function's name has 1 to {_NAME_MAX} characters of A-Z a-z 0-9 . _ -")
        # Before the work as well as after it: the work is what an attacker wants.
        self._check_count(tenant)
        self._storage.check(tenant, len(wasm))
        digest = blake3(wasm).hexdigest()
        ready = self._prepare(digest, wasm)
        record = FunctionRecord(str(uuid.uuid4()), tenant, name, digest, len(wasm), time.time(), prewarm)
        if prewarm is None or warmth is None:
            return self._add(record, wasm, ready, key)
        self._prepare(digest, wasm, _observable_key(digest))
        warmth.image(record)
        deployment: Deployment | None = None
        try:
            deployment = self._add(record, wasm, ready, key)
        finally:
            if deployment is None or deployment.is_replay:
                warmth.drop(record.id)
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

    def describe(self, identity: str, tenant: int) -> Function:
        """A function with its exports and imports. Raises :class:`NotFound`."""
        record = self.find(identity, tenant)
        return _describe(record, self.ready(record))

    def list(self, tenant: int, limit: int, after: str | None) -> Page:
        """A page of a tenant's functions. One whose module cannot be used any more has no exports and imports."""
        records = self._registry.list(tenant, limit + 1, after)
        items = [_describe(record, self._usable(record)) for record in records[:limit]]
        return Page(items, items[-1].id if len(records) > limit else None)

    def delete(self, identity: str, tenant: int) -> None:
        """Forget a function; its running invocations go on. Raises :class:`NotFound`."""
        with self._lock:
            record = self.find(identity, tenant)
            if not self._registry.delete(identity, tenant):
                raise NotFound("no such function for this tenant")
            del self._records[identity]
            self._count(tenant, -1)
            self._storage.give(tenant, record.size_bytes)
            if self._artifacts.release(record.digest):
                self.forget(record.digest)

    def ready(self, record: FunctionRecord) -> ReadyModule:
        """The function's module, ready to instantiate.

        Raises :class:`~tensor_wasm.errors.StoreError` when its bytes are gone or damaged.
        """
        ready = self._ready.peek(record.digest)
        return ready if ready is not None else self._prepare(record.digest, None)

    def observable(self, digest: str) -> ReadyModule:
        """As :meth:`ready`, of the same module rewritten so that its instances' whole state can be captured."""
        key = _observable_key(digest)
        ready = self._ready.peek(key)
        return ready if ready is not None else self._prepare(digest, None, key)

    def check_module(self, wasm: bytes) -> None:
        """Raises :class:`InvalidWasm` for a module that could never run here."""
        self._prepare(blake3(wasm).hexdigest(), wasm)

    def forget(self, digest: str) -> None:
        """Drop what is kept ready of a module whose bytes are gone."""
        for key in (digest, _observable_key(digest)):
            with self._ready_lock:
                self._ready.drop(key)
            self._modules.forget(key)

    def peek(self, record: FunctionRecord) -> ReadyModule | None:
        """As :meth:`ready` when that takes neither the disk nor a compiler; else None."""
        return self._ready.peek(record.digest)

    def _usable(self, record: FunctionRecord) -> ReadyModule | None:
        try:
            return self.ready(record)
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
            self._refused(tenant, "functions")
            raise QuotaExceeded(f"the tenant has {count} functions, as many as it may: delete one first")

    def _prepare(self, digest: str, wasm: bytes | None, observable_key: str | None = None) -> ReadyModule:
        key = observable_key or digest
        with self._ready_lock:
            ready = self._ready.get(key)
            if ready is not None:
                return ready
        data = self._artifacts.get(digest) if wasm is None else wasm
        info = inspect(data)
        self._check(info)
        rewritten: ObservableModule | None = None
        if observable_key is not None:
            rewritten = observable(data)
            data, info = rewritten.wasm, replace(info, has_start=False)
            rewritten = replace(rewritten, wasm=b"")
        module = self._modules.get(key, data)
        linked = [LinkedImport(i.module, i.name, Signature(i.parameters, i.results)) for i in info.imports]
        unbounded = any(table.maximum is None or table.maximum > TABLE_ELEMENTS for table in info.tables)
        imports = self._linker.resolve(module, linked, has_start=info.has_start, has_unbounded_table=unbounded)
        exports = {e.name: Export(e.name, e.parameters, e.results) for e in info.exports}
        ready = ReadyModule(imports, exports, info, rewritten)
        with self._ready_lock:
            self._ready.put(key, ready)
        return ready

    def _check(self, info: ModuleInfo) -> None:
        """Refuse what could never run here."""
        memory = info.memory
        if memory is not None and memory.minimum_pages * _PAGE_BYTES > self._memory_limit_bytes:
            raise InvalidWasm(
                f"the module starts with {memory.minimum_pages * _PAGE_BYTES} bytes of memory;"
                f" an instance may have {self._memory_limit_bytes}"
            )
        if any(table.minimum > TABLE_ELEMENTS for table in info.tables):
            raise InvalidWasm(f"a table has more than {TABLE_ELEMENTS} entries")
        if any(item.module in CUDA_MODULES for item in info.imports) and not info.exports_memory:
            raise InvalidWasm("a module that imports wasi:cuda must export its memory as `memory`")


def _observable_key(digest: str) -> str:
    """What the rewritten module of one with that digest is kept under, in memory and on disk."""
    return blake3(f"observable 1 {digest}".encode()).hexdigest()


def _code_bytes(ready: ReadyModule) -> int:
    return ready.imports.module.code_bytes


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
