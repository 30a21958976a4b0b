"""One engine's host functions, and a guest module made ready: its imports resolved once, instantiated many times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.abi import CUDA_MODULES, SCHEDULER_MODULE, TENSOR_MODULES, WASI_MODULE, Signature, signatures
from tensor_wasm.dispatch.gate import GuestLink
from tensor_wasm.dispatch.link_module import LinkedImport
from tensor_wasm.errors import InvalidWasm
from tensor_wasm.host import cuda, scheduler, tensor, wasi
from tensor_wasm.host.guest import Guest
from tensor_wasm.runtime import Engine, Instance, Linker, Module, Store, Template

_MODULES = (*CUDA_MODULES, SCHEDULER_MODULE, *TENSOR_MODULES, WASI_MODULE)


@dataclass(frozen=True, slots=True)
class GuestImports:
    """A guest module with its imports resolved.

    ``link`` is there when it asks for the CUDA module, ``template`` otherwise.
    """

    module: Module
    template: Template | None
    link: GuestLink | None
    has_imports: bool
    uses_wasi: bool
    has_start: bool
    has_unbounded_table: bool

    def instantiate(self, store: Store, guest: Guest) -> Instance:
        """Make the guest's instance in a new store. Raises as :meth:`Store.start`."""
        guest.store = store
        if self.has_unbounded_table:
            store.limit_tables()
        if self.uses_wasi:
            guest.clock_started_ns = time.monotonic_ns()
            store.enable_wasi()
        if self.link is None:
            assert self.template is not None
            instance = store.start(self.template)
        else:
            guest.link = self.link.start(store)
            instance = store.instantiate(self.module, self.link.externs(guest.link), self.has_start)
        if self.has_imports:
            guest.memory = instance.extern("memory")
        return instance


class HostLinker:
    """The host functions of one engine. ``has_gpu`` is whether guests launch on one."""

    def __init__(self, engine: Engine, *, has_gpu: bool = False) -> None:
        self._engine = engine
        self._linker = Linker(engine)
        self._more: Sequence[LinkedImport] = ()
        self._linker.define_wasi()
        for interface in (cuda, scheduler, tensor, wasi):
            self._linker.define(interface.functions())
        if has_gpu:
            from tensor_wasm.host import gpu  # only here: a node whose device is the CPU loads nothing of this

            self._more = gpu.IMPORTS
            self._linker.define(gpu.functions())

    def resolve(
        self, module: Module, imports: Sequence[LinkedImport], *, has_start: bool, has_unbounded_table: bool
    ) -> GuestImports:
        """Resolve a guest's imports. Raises :class:`InvalidWasm` naming one that is not provided or of a wrong type."""
        uses_cuda = any(item.module in CUDA_MODULES for item in imports)
        for item in imports:
            _check(item)
        if uses_cuda:
            link, template = GuestLink(self._engine, self._linker, imports, self._more), None
        else:
            link, template = None, self._linker.template(module, runs_code=has_start)
        # The gate's clock is WASI's, so a guest of CUDA has a WASI context whether it asks for one or not.
        uses_wasi = uses_cuda or any(item.module == WASI_MODULE for item in imports)
        return GuestImports(module, template, link, bool(imports), uses_wasi, has_start, has_unbounded_table)


def _check(item: LinkedImport) -> None:
    """Refuse an import that guests may not have, or of another type than the contract's."""
    if item.module == WASI_MODULE:
        return  # Wasmtime knows its names and types
    known = signatures(item.module)
    if not known:
        raise InvalidWasm(f"unknown import module {item.module!r}: a guest may import from {', '.join(_MODULES)}")
    expected = known.get(item.name)
    if expected is None:
        raise InvalidWasm(f"unknown import: {item.module} has no function {item.name!r}; it has {', '.join(known)}")
    if expected != item.signature:
        found, wanted = _shown(item.signature), _shown(expected)
        raise InvalidWasm(f"the import {item.module} {item.name} has the type {found}, it must be {wanted}")


def _shown(signature: Signature) -> str:
    return f"({' '.join(signature.parameters)}) -> ({' '.join(signature.results)})"
