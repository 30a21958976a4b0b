"""The benchmarks' guest, kept alive between calls, with direct access to its memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from tensor_wasm.abi import Signature
from tensor_wasm.device.selection import open_device
from tensor_wasm.dispatch import GateFactory, Ledger
from tensor_wasm.dispatch.link_module import LinkedImport
from tensor_wasm.errors import InternalError
from tensor_wasm.host import Guest, GuestImports, HostLinker, HostServices
from tensor_wasm.runtime import Budget, Engine, ModuleCache, Output, SealedFiles, Store
from tensor_wasm.wasm.inspector import inspect

_MEMORY_BYTES = 1 << 30
_SAMPLE_BYTES = 8
_PERMITS = 64
_KEY_BYTES = 32


def guest_wasm(name: str = "bench") -> bytes:
    """The bytes of a benchmark guest."""
    return resources.files("tensor_wasm.bench").joinpath(f"guests/{name}.wasm").read_bytes()


class Workshop:
    """An engine with ledger and device; makes guests of one module. ``home`` is where caches go."""

    def __init__(self, home: Path, wasm: bytes, permits: int = _PERMITS) -> None:
        self.engine = Engine()
        self.engine.start()
        key = bytes(_KEY_BYTES)
        modules = ModuleCache(self.engine, SealedFiles(home / "modules", key))
        device = open_device("cpu", modules, SealedFiles(home / "kernels", key))
        self.ledger = Ledger(self.engine, permits)
        self.services = HostServices(device, GateFactory(self.engine, self.ledger), self.ledger)
        info = inspect(wasm)
        imports = [LinkedImport(i.module, i.name, Signature(i.parameters, i.results)) for i in info.imports]
        self.module: GuestImports = HostLinker(self.engine).resolve(
            self.engine.compile(wasm), imports, has_start=info.has_start, has_unbounded_table=False
        )

    @contextmanager
    def guest(self, tenant: int = 0) -> Iterator[KeptGuest]:
        """A new instance, ended with the context."""
        kept = KeptGuest(self, tenant)
        try:
            yield kept
        finally:
            kept.close()

    def close(self) -> None:
        """End the engine."""
        self.engine.close()


class KeptGuest:
    """One instance of the workshop's module, of a tenant."""

    def __init__(self, workshop: Workshop, tenant: int = 0) -> None:
        self._workshop = workshop
        self.slot = workshop.ledger.open(tenant, True)
        self.guest = Guest(workshop.services, self.slot, None)
        self._store = Store(workshop.engine, Budget(_MEMORY_BYTES), self.guest, self.guest.check, Output(1 << 16))
        self._instance = workshop.module.instantiate(self._store, self.guest)

    def call(self, export: str, *args: int) -> int:
        """Call an export that takes i32s and gives one."""
        function = self._instance.function(export)
        if function is None:
            raise InternalError(f"the guest has no export {export}")
        (result,) = self._store.call(function, ["i32"] * len(args), args, ["i32"])
        return int(result)

    def run(self, export: str, *args: int) -> int:
        """As :meth:`call`; raises :class:`InternalError` when the result is a code."""
        code = self.call(export, *args)
        if code < 0:
            raise InternalError(f"{export} gave {code}: {self.guest.error_text.decode()}")
        return code

    def samples(self, count: int) -> tuple[int, ...]:
        """The first ``count`` samples, nanoseconds, of the last timed loop."""
        memory: Any = self._instance.memory()
        start = self.call("samples_ptr")
        with self._store.memory_view(memory) as view:
            return struct.unpack_from(f"<{count}Q", view, start)

    def close(self) -> None:
        """End the instance."""
        self.guest.close()
        self._store.close()
        self._workshop.ledger.close(self.slot, self.guest.gate is not None)
