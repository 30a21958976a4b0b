"""A guest with a gate and a kernel, all written with the encoder: what tests of dispatch drive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensor_wasm.abi import CUDA_MODULES, Tag, pack, signatures
from tensor_wasm.dispatch import Gate, GateFactory, GuestLink, KernelEntry, Ledger, Share, Slot
from tensor_wasm.dispatch.link_module import LAUNCH_PARAMETERS, LinkedImport
from tensor_wasm.runtime import Budget, Engine, HostFunction, Linker, Store
from tensor_wasm.wasm import Body, Function, Module, ValType

I32, I64 = ValType.I32, ValType.I64
ARGV_AT = 1024
LAUNCH = signatures(CUDA_MODULES[0])["wasi_cuda_launch"]
#: One kernel parameter of each kind: s32, u64 pointer, f32, f64.
TAGS = [(1 << 1 | 1 << 5, 0, 4), (1 << 2 | 1 << 6 | 1 << 7 | 1 << 8, 8, 8), (1 << 3, 16, 4), (1 << 4, 24, 8)]
GOOD_ARGV = pack([(Tag.I32, -5), (Tag.POINTER, 64, 100), (Tag.F32, 1.5), (Tag.F64, -2.5)])


def kernel_module(engine: Engine, write: str = "copy") -> Any:
    """A kernel: ``copy`` writes its parameter block to guest memory at 0, ``spin`` never ends, ``trap`` traps."""
    module = Module()
    module.import_memory("guest", "memory")
    module.import_memory("gate", "scratch")
    module.import_global("gate", "base", I32)
    module.import_global("gate", "variables", I32)
    run = module.function([I32] * 8, [], export="run")
    module.function([I32] * 10, [], export="share")
    body: Body = run.code
    if write == "copy":
        body.i32_const(0)
        body.get(run.parameters[7])
        body.i32_const(32)
        body.memory_copy(0, 1)
    elif write == "spin":
        with body.loop() as again:
            body.br(again)
    elif write == "trap":
        body.op("unreachable")
    return engine.compile(module.encode().wasm)


def _launch_once(body: Body, launch: Function, kernel: int, argv: Any) -> None:
    body.i64_const(kernel)
    for value in (1, 1, 1, 1, 1, 1, 0):
        body.i32_const(value)
    argv()
    body.call(launch)


def guest_module(pages: int = 2) -> bytes:
    """Exports ``launch`` with the ABI's parameters and ``loop(n)``: n launches of kernel 0, or the first refusal."""
    module = Module()
    launch = module.import_function(CUDA_MODULES[0], "wasi_cuda_launch", LAUNCH_PARAMETERS, [I32])
    module.memory(pages, export="memory")
    module.data(GOOD_ARGV, ARGV_AT)
    one = module.function(LAUNCH_PARAMETERS, [I32], export="launch")
    for parameter in one.parameters:
        one.code.get(parameter)
    one.code.call(launch)
    loop = module.function([I32], [I32], export="loop")
    body, (left,) = loop.code, loop.parameters
    code = body.local(I32)
    with body.block() as done, body.loop() as again:
        body.i64_const(0)
        for value in (1, 1, 1, 1, 1, 1, 0, ARGV_AT, len(GOOD_ARGV)):
            body.i32_const(value)
        body.call(launch)
        body.tee(code)
        body.br_if(done)
        body.get(left)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(left)
        body.br_if(again)
    body.get(code)
    return module.encode().wasm


class Rig:
    """An engine's worth of dispatch: ledger, linker, guest module; makes guests."""

    def __init__(
        self,
        engine: Engine,
        permits: int = 4,
        max_wait_ms: int | None = None,
        share_of: Callable[[int], Share] = lambda _tenant: Share(),
        *,
        has_windows: bool = False,
        functions: Sequence[HostFunction] = (),
        pages: int = 2,
    ) -> None:
        self.engine = engine
        self.ledger = Ledger(engine, permits, max_wait_ms, share_of)
        self.factory = GateFactory(engine, self.ledger, has_windows=has_windows)
        self.binds = 0
        linker = Linker(engine)
        linker.define_wasi()
        linker.define(
            [
                HostFunction("tensor_wasm", "bind_gate", (), ("i32",), self._bind),
                HostFunction("tensor_wasm", "hire_crew", ("i32",), ("i32",), _hire),
                *functions,
            ]
        )
        imports = [LinkedImport(CUDA_MODULES[0], "wasi_cuda_launch", LAUNCH)]
        self.linker = linker
        self.link = GuestLink(engine, linker, imports)
        self.guest = engine.compile(guest_module(pages))

    def _bind(self, owner: RigGuest, values: Any) -> None:
        self.binds += 1
        owner.bind()
        values[0].i32 = 0


def _hire(_owner: RigGuest, _values: Any) -> None:
    raise AssertionError("nobody hires here")


class RigGuest:
    """One guest. ``left_ms`` is its deadline from the binding of its gate."""

    def __init__(
        self,
        rig: Rig,
        kernel: Any,
        *,
        tenant: int = 7,
        left_ms: int | None = None,
        capable: bool = True,
        entry: KernelEntry | None = None,
        interrupt: Any = None,
        memory_bytes: int = 1 << 24,
    ) -> None:
        self.rig = rig
        self.kernel = kernel
        self.entry = entry or KernelEntry(TAGS)
        self.left_ms = left_ms
        self.slot: Slot = rig.ledger.open(tenant, capable)
        self.store = Store(rig.engine, Budget(memory_bytes), self, interrupt)
        self.store.enable_wasi()
        self.link = rig.link.start(self.store)
        self.instance = self.store.instantiate(rig.guest, rig.link.externs(self.link))
        self.memory = self.instance.extern("memory")
        self.gate: Gate | None = None

    def bind(self) -> None:
        left_ns = None if self.left_ms is None else self.left_ms * 1_000_000
        self.gate = self.rig.factory.bind(self.store, self.link, self.memory, self.slot, left_ns)
        self.gate.add(self.kernel, 64, self.entry)

    def write(self, offset: int, data: bytes) -> None:
        with self.store.memory_view(self.memory.of.memory) as view:
            view[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        with self.store.memory_view(self.memory.of.memory) as view:
            return bytes(view[offset : offset + size])

    def launch(
        self,
        argv: bytes | None = None,
        *,
        kernel: int = 0,
        grid: tuple[int, int, int] = (1, 1, 1),
        block: tuple[int, int, int] = (1, 1, 1),
        shared: int = 0,
        pointer: int = ARGV_AT,
        length: int | None = None,
    ) -> int:
        if argv is not None:
            self.write(pointer, argv)
        size = len(GOOD_ARGV if argv is None else argv) if length is None else length
        values = [kernel, *grid, *block, shared, pointer, size]
        (code,) = self.store.call(self.instance.function("launch"), LAUNCH.parameters, values, ["i32"])
        return int(code)

    def loop(self, count: int) -> int:
        (code,) = self.store.call(self.instance.function("loop"), ["i32"], [count], ["i32"])
        return int(code)

    def close(self) -> None:
        self.store.close()
        self.rig.ledger.close(self.slot, self.gate is not None)
