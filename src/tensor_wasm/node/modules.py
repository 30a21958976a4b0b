"""Modules that are ready to be instantiated: read, checked and compiled once, and kept in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from blake3 import blake3

from tensor_wasm.abi import CUDA_MODULES, Signature
from tensor_wasm.dispatch.link_module import LinkedImport
from tensor_wasm.errors import InvalidWasm
from tensor_wasm.host import GuestImports, HostLinker
from tensor_wasm.node.model import Export
from tensor_wasm.runtime import KEPT_CODE_BYTES, TABLE_ELEMENTS, ModuleCache, Recent
from tensor_wasm.store import SharedArtifacts
from tensor_wasm.wasm.inspector import ModuleInfo, inspect
from tensor_wasm.wasm.observable import ObservableModule, observable

#: Modules kept ready in memory.
_KEPT_MODULES = 256
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


class Modules:
    """The modules of a node, by the BLAKE3 (hex) of their bytes. Safe for threads.

    All calls but :meth:`peek` and :meth:`forget` may touch the disk or compile. An instance may have
    ``memory_limit_bytes``.
    """

    def __init__(
        self, artifacts: SharedArtifacts, cache: ModuleCache, linker: HostLinker, memory_limit_bytes: int
    ) -> None:
        self._artifacts = artifacts
        self._cache = cache
        self._linker = linker
        self._memory_limit_bytes = memory_limit_bytes
        self._ready: Recent[str, ReadyModule] = Recent(_KEPT_MODULES, KEPT_CODE_BYTES, _code_bytes)
        self._lock = threading.Lock()

    def ready(self, digest: str) -> ReadyModule:
        """A module, ready to instantiate.

        Raises :class:`~tensor_wasm.errors.StoreError` when its bytes are gone or damaged.
        """
        ready = self._ready.peek(digest)
        return ready if ready is not None else self._prepare(digest, None, digest)

    def observable(self, digest: str) -> ReadyModule:
        """As :meth:`ready`, of the same module rewritten so that its instances' whole state can be captured."""
        key = _observable_key(digest)
        ready = self._ready.peek(key)
        return ready if ready is not None else self._prepare(digest, None, key)

    def peek(self, digest: str) -> ReadyModule | None:
        """As :meth:`ready` when that takes neither the disk nor a compiler; else None."""
        return self._ready.peek(digest)

    def prepare(self, digest: str, wasm: bytes, *, is_observable: bool = False) -> ReadyModule:
        """As :meth:`ready`, or :meth:`observable`, of a module that need not be on the disk yet.

        Raises :class:`InvalidWasm` for one that could never run here.
        """
        return self._prepare(digest, wasm, _observable_key(digest) if is_observable else digest)

    def check(self, wasm: bytes) -> None:
        """Raises :class:`InvalidWasm` for a module that could never run here."""
        self.prepare(blake3(wasm).hexdigest(), wasm)

    def forget(self, digest: str) -> None:
        """Drop what is kept ready of a module whose bytes are gone."""
        for key in (digest, _observable_key(digest)):
            with self._lock:
                self._ready.drop(key)
            self._cache.forget(key)

    def _prepare(self, digest: str, wasm: bytes | None, key: str) -> ReadyModule:
        """Have a module ready under ``key``: its digest, or what the rewritten one is kept under."""
        with self._lock:
            ready = self._ready.get(key)
            if ready is not None:
                return ready
        data = self._artifacts.get(digest) if wasm is None else wasm
        info = inspect(data)
        self._check(info)
        rewritten: ObservableModule | None = None
        if key != digest:
            rewritten = observable(data)
            data, info = rewritten.wasm, replace(info, has_start=False)
            rewritten = replace(rewritten, wasm=b"")
        module = self._cache.get(key, data)
        linked = [LinkedImport(i.module, i.name, Signature(i.parameters, i.results)) for i in info.imports]
        unbounded = any(table.maximum is None or table.maximum > TABLE_ELEMENTS for table in info.tables)
        imports = self._linker.resolve(module, linked, has_start=info.has_start, has_unbounded_table=unbounded)
        exports = {e.name: Export(e.name, e.parameters, e.results) for e in info.exports}
        ready = ReadyModule(imports, exports, info, rewritten)
        with self._lock:
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
