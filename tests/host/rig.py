"""A guest that exports every host function under its own name, so that a test can call each as a guest would."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

from tensor_wasm.abi import CUDA_MODULES, SCHEDULER_MODULE, TENSOR_MODULE, WASI_MODULE, Signature, signatures
from tensor_wasm.abi.limits import KERNELS_MAX
from tensor_wasm.device.cuda.device import CudaDevice
from tensor_wasm.device.selection import open_device
from tensor_wasm.dispatch import GateFactory, Ledger, scratch
from tensor_wasm.dispatch.link_module import LinkedImport
from tensor_wasm.host import Guest, HostLinker, HostServices
from tensor_wasm.runtime import Budget, Engine, ModuleCache, Output, SealedFiles, Store
from tensor_wasm.wasm import Module, ValType

_TYPES = {"i32": ValType.I32, "i64": ValType.I64}
WASI = {
    "poll_oneoff": Signature(("i32",) * 4, ("i32",)),
    "fd_write": Signature(("i32",) * 4, ("i32",)),
    "clock_time_get": Signature(("i32", "i64", "i32"), ("i32",)),
    "random_get": Signature(("i32", "i32"), ("i32",)),
    "environ_sizes_get": Signature(("i32", "i32"), ("i32",)),
    "fd_prestat_get": Signature(("i32", "i32"), ("i32",)),
    "proc_exit": Signature(("i32",), ()),
}


def imports(cuda_module: str = CUDA_MODULES[0], tensor_module: str = TENSOR_MODULE) -> list[LinkedImport]:
    """Everything a guest may import, from our modules and of WASI what the tests call."""
    found = [
        LinkedImport(module, name, signature)
        for module in (cuda_module, SCHEDULER_MODULE, tensor_module)
        for name, signature in signatures(module).items()
    ]
    return found + [LinkedImport(WASI_MODULE, name, signature) for name, signature in WASI.items()]


def passthrough(linked: list[LinkedImport], pages: int = 2) -> bytes:
    module = Module()
    imported = [
        module.import_function(
            item.module,
            item.name,
            [_TYPES[kind] for kind in item.signature.parameters],
            [_TYPES[kind] for kind in item.signature.results],
        )
        for item in linked
    ]
    module.memory(pages, export="memory")
    for item, target in zip(linked, imported, strict=True):
        function = module.function(target.type.parameters, target.type.results, export=item.name)
        for parameter in function.parameters:
            function.code.get(parameter)
        function.code.call(target)
    return module.encode().wasm


class HostRig:
    """One guest over a real engine, ledger and CPU device, or ``gpu``. ``left_s`` is its time, None without end."""

    def __init__(
        self,
        engine: Engine,
        home: Path,
        *,
        left_s: float | None = None,
        guest_input: bytes = b"",
        capable: bool = True,
        memory_bytes: int = 1 << 26,
        output_bytes: int = 1 << 16,
        cuda_module: str = CUDA_MODULES[0],
        tensor_module: str = TENSOR_MODULE,
        pages: int = 2,
        gates: GateFactory | None = None,
        gpu: CudaDevice | None = None,
        tenant: int = 0,
        device_budget: Budget | None = None,
    ) -> None:
        key = bytes(32)
        modules = ModuleCache(engine, SealedFiles(home / "modules", key))
        self.device = gpu or open_device("cpu", modules, SealedFiles(home / "kernels", key))
        self.ledger = Ledger(engine, 4) if gates is None else gates.ledger
        self.board = None if gpu is None else gpu.board(engine)
        gates = gates or GateFactory(engine, self.ledger, has_windows=gpu is not None)
        services = HostServices(self.device, gates, self.ledger, board=self.board)
        linked = imports(cuda_module, tensor_module)
        self._signatures = {item.name: item.signature for item in linked}
        module = HostLinker(engine, has_gpu=gpu is not None).resolve(
            engine.compile(passthrough(linked, pages)), linked, has_start=False, has_unbounded_table=False
        )
        deadline_ns = None if left_s is None else time.monotonic_ns() + int(left_s * 1e9)
        self.slot = self.ledger.open(1, capable)
        self.device_bytes = 0
        self.guest = Guest(
            services,
            self.slot,
            deadline_ns,
            tenant=tenant,
            guest_input=guest_input,
            device_budget=device_budget,
            on_device_bytes=self._count_device_bytes,
        )
        self.output = Output(output_bytes)
        self.store = Store(engine, Budget(memory_bytes), self.guest, self.guest.interrupt, self.output)
        self.instance = module.instantiate(self.store, self.guest)

    def _count_device_bytes(self, change: int) -> None:
        self.device_bytes += change

    def call(self, name: str, *args: int) -> int:
        signature = self._signatures[name]
        results = self.store.call(self.instance.function(name), signature.parameters, args, signature.results)
        return int(results[0]) if results else 0

    def write(self, offset: int, data: bytes) -> None:
        memory: Any = self.instance.memory()
        with self.store.memory_view(memory) as view:
            view[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        memory: Any = self.instance.memory()
        with self.store.memory_view(memory) as view:
            return bytes(view[offset : offset + size])

    def last_error(self) -> str:
        size = self.call("wasi_cuda_last_error_len")
        assert self.call("wasi_cuda_last_error_copy", 60_000, size) == size
        return self.read(60_000, size).decode()

    def load(self, ptx: bytes, entry: bytes) -> int:
        self.write(100, ptx)
        self.write(50_000, entry)
        return self.call("wasi_cuda_load_ptx", 100, len(ptx), 50_000, len(entry))

    def take_for_large(self, kernel: int) -> None:
        """Have the gate think that a thread of a kernel costs a lot."""
        assert self.guest.gate is not None
        at = self.guest.gate._loaded[kernel & (KERNELS_MAX - 1)].descriptor + scratch.DESCRIPTOR_THREAD_NS
        with self.guest.gate.scratch() as view:
            view[at : at + 8] = struct.pack("<d", 1e6)

    def close(self) -> None:
        self.guest.close()
        self.store.close()
        self.ledger.close(self.slot, self.guest.gate is not None)
        if self.board is not None:
            self.board.close()
