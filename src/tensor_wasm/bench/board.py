"""What a launch costs on its way from a guest to the board of a GPU and back, without the worker and the GPU.

Who answers is a thread in WebAssembly that takes each request for done as soon as it sees it. No GPU is needed.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensor_wasm.abi import CUDA_MODULES, Signature
from tensor_wasm.bench.dispatch import EMPTY, VECTOR_ADD, timed
from tensor_wasm.bench.report import Report
from tensor_wasm.bench.sandbox import Workshop, guest_wasm
from tensor_wasm.device.compilation import compile_ptx
from tensor_wasm.device.cpu import tags
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.shared import SharedFile
from tensor_wasm.device.cuda.trampoline import REGION_BYTES, region, trampoline
from tensor_wasm.device.fence.written import EVERYTHING
from tensor_wasm.dispatch import Gate, GateFactory, GuestLink, KernelEntry, Ledger
from tensor_wasm.dispatch.link_module import BIND_MODULE, BIND_NAME, HIRE_NAME, LinkedImport
from tensor_wasm.dispatch.scratch import Placement
from tensor_wasm.errors import CapacityExhausted, InternalError, TensorWasmError, Terminated
from tensor_wasm.runtime import Budget, Engine, FileMemory, HostFunction, Linker, Store
from tensor_wasm.wasm import Module, ValType
from tensor_wasm.wasm.inspector import inspect

_WARM_UP = 2_000
_PERMITS = 64
_STAGING_BYTES = 1 << 20
_MEMORY_BYTES = 1 << 30
_DEVICE_BASE = 1 << 40
_LAUNCHERS = ("reach", "fetch", "fail")
_I32 = ValType.I32


def measure(home: Path, count: int) -> Report:
    """Time ``count`` launches of each case. The peer of both is a launch on the CPU device, which is a call."""
    report = Report("board")
    if len(os.sched_getaffinity(0)) < 2:
        raise CapacityExhausted("a guest and who answers it need a core each: this process has one")
    workshop = Workshop(home, guest_wasm())
    with workshop.guest() as kept:
        for name, kernel in (("empty kernel on the CPU device", EMPTY), ("vector_add on the CPU device", VECTOR_ADD)):
            kept.run("prepare", kernel)
            kept.run("launch_loop", _WARM_UP)
            report.add(name, timed(kept, count), "us")
    workshop.close()
    with _board_guest() as guest:
        for name, kernel, peer in (
            ("empty kernel to the board and back", EMPTY, "empty kernel on the CPU device"),
            ("3 windows of 4 KiB to the board and back", VECTOR_ADD, "vector_add on the CPU device"),
        ):
            guest.call("prepare", kernel)
            guest.call("launch_loop", _WARM_UP)
            report.add(name, timed(guest, count), "us", peer=peer)
    return report


class BoardGuest:
    """The benchmark guest; all its kernels are trampolines."""

    def __init__(self, engine: Engine, memory: FileMemory) -> None:
        self._memory = memory
        self._trampoline = engine.compile(trampoline())
        self._ledger = Ledger(engine, _PERMITS)
        self._gates = GateFactory(engine, self._ledger, has_windows=True)
        self._gate: Gate | None = None
        self._extern: Any = None
        wasm = guest_wasm()
        imports = [LinkedImport(i.module, i.name, Signature(i.parameters, i.results)) for i in inspect(wasm).imports]
        linker = Linker(engine)
        linker.define_wasi()
        linker.define(self._functions(imports))
        more = [LinkedImport(BIND_MODULE, name, _SIGNATURES[name]) for name in _LAUNCHERS]
        link = GuestLink(engine, linker, imports, more)
        self._slot = self._ledger.open(0, True)
        self._store = Store(engine, Budget(_MEMORY_BYTES), self)
        self._store.enable_wasi()
        self._link = link.start(self._store)
        self._instance = self._store.instantiate(engine.compile(wasm), link.externs(self._link))
        self._guest_memory: Any = self._instance.extern("memory")

    def call(self, export: str, *args: int) -> int:
        """Call an export that takes i32s and gives one. Raises :class:`InternalError` when that is a code."""
        function = self._instance.function(export)
        (result,) = self._store.call(function, ["i32"] * len(args), args, ["i32"])
        if result < 0:
            raise InternalError(f"{export} gave {result}")
        return int(result)

    def samples(self, count: int) -> tuple[int, ...]:
        """The first ``count`` samples, nanoseconds, of the last timed loop."""
        start = self.call("samples_ptr")
        with self._store.memory_view(self._guest_memory.of.memory) as view:
            return struct.unpack_from(f"<{count}Q", view, start)

    def close(self) -> None:
        """End the instance."""
        self._store.close()
        self._ledger.close(self._slot, self._gate is not None)

    def _functions(self, imports: list[LinkedImport]) -> Iterator[HostFunction]:
        for item in imports:
            if item.module in CUDA_MODULES and not item.is_launch:
                call = _load if item.name == "wasi_cuda_load_ptx" else _zero
                yield HostFunction(item.module, item.name, item.signature.parameters, item.signature.results, call)
        yield HostFunction(BIND_MODULE, BIND_NAME, (), ("i32",), _zero)
        yield HostFunction(BIND_MODULE, HIRE_NAME, ("i32",), ("i32",), _zero)
        for name, signature in _SIGNATURES.items():
            yield HostFunction(BIND_MODULE, name, signature.parameters, signature.results, _fail)

    def load(self, ptx: bytes, entry: str) -> int:
        """Add a trampoline for a kernel; its id."""
        gate = self._gate
        if gate is None:
            gate = self._gate = self._gates.bind(self._store, self._link, self._guest_memory, self._slot, None)
            # Nobody copies anything here: that all of guest memory were the staging area's does no harm.
            gate.place(Placement(0, _DEVICE_BASE, 0, _DEVICE_BASE, _STAGING_BYTES, 0, _STAGING_BYTES))
            self._extern = self._memory.extern(self._store)
        compiled = compile_ptx(ptx, entry)
        parameters = [(tags(each.kind), each.offset, each.size_bytes) for each in compiled.parameters]
        size_bytes = max((offset + size for _, offset, size in parameters), default=0)
        functions = [self._link.extern(name) for name in _LAUNCHERS]
        more = [self._extern, self._ledger.memory.extern, *functions]
        identity, _, base = gate.add(self._trampoline, REGION_BYTES, KernelEntry(parameters), more)
        with gate.scratch() as scratch:
            scratch[base : base + REGION_BYTES] = region(1, size_bytes, EVERYTHING)
        return identity

    def text(self, pointer: int, size_bytes: int) -> bytes:
        """Bytes of the guest's memory."""
        with self._store.memory_view(self._guest_memory.of.memory) as view:
            return bytes(view[pointer : pointer + size_bytes])


_SIGNATURES = {
    "reach": Signature(("i32", "i32"), ("i32",)),
    "fetch": Signature((), ()),
    "fail": Signature(("i32", "i32"), ()),
}


def _load(guest: BoardGuest, values: Any) -> None:
    ptx, entry = (guest.text(values[at].i32, values[at + 1].i32) for at in (0, 2))
    values[0].i64 = guest.load(ptx, entry.decode())


def _zero(_guest: BoardGuest, values: Any) -> None:
    values[0].i64 = 0


def _fail(_guest: BoardGuest, _values: Any) -> None:
    raise InternalError("a launch of the benchmark does not fit the board")


@contextmanager
def _board_guest() -> Iterator[BoardGuest]:
    engine = Engine()
    engine.start()
    file = SharedFile.create(_STAGING_BYTES)
    memory = FileMemory(engine, file.descriptor, board.BYTES)
    is_over = threading.Event()
    thread = threading.Thread(target=_answer, args=(engine, memory, is_over), name="answers")
    thread.start()
    guest = BoardGuest(engine, memory)
    try:
        yield guest
    finally:
        guest.close()
        is_over.set()
        thread.join()
        file.close()
        engine.close()


def _answer(engine: Engine, memory: FileMemory, is_over: threading.Event) -> None:
    """Take each request of lane 0 for done, until it is over."""

    def interrupt() -> TensorWasmError | None:
        return Terminated("the benchmark is over") if is_over.is_set() else None

    module = Module()
    module.import_memory("gpu", "board")
    body = module.function([], export="answer").code
    with body.loop() as again:
        body.i32_const(0)
        body.i32_const(0)
        body.memory("i32.atomic.load", board.REQUEST)
        body.memory("i32.atomic.store", board.DONE)
        body.br(again)
    store = Store(engine, Budget(0), interrupt=interrupt)
    try:
        instance = store.instantiate(engine.compile(module.encode().wasm), [memory.extern(store)])
        store.call(instance.function("answer"), (), (), ())
    except Terminated:
        pass
    finally:
        store.close()
