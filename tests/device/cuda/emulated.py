"""A driver without a GPU: the protocol of :mod:`tensor_wasm.device.cuda.driver`, run by processors.

Addresses on the device are places in one WebAssembly linear memory of 4 GiB, all of it closed but what is mapped.
Physical memory is a file in memory, pieces of which are mapped there: several addresses can show the same bytes.
Kernels are read and compiled by this project's own front end and compiler. Each stream has a thread.

What a real driver would not tell, or only at times, is a :class:`Misuse` here: it is raised and kept in
:attr:`EmulatedDriver.misuses`.

What differs from a GPU: variables of a module that is not fenced are each stream's own; blocks run one after another.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self

from tensor_wasm.compiler import CompiledKernel, Fault, compile_kernel
from tensor_wasm.device.cuda.driver import NOT_READY, OUT_OF_MEMORY, STICKY, DriverError, GpuFacts
from tensor_wasm.errors import PtxError, TensorWasmError, Terminated
from tensor_wasm.ptx import read, support
from tensor_wasm.ptx.program import Immediate, Kernel, Space
from tensor_wasm.runtime import Budget, CallFailed, Engine, Instance, Store
from tensor_wasm.runtime import Module as Code
from tensor_wasm.runtime import bindings as native
from tensor_wasm.wasm import Module, ValType

Axes = tuple[int, int, int]

INVALID_VALUE, INVALID_PTX, INVALID_HANDLE, NOT_FOUND = 1, 218, 400, 500
ILLEGAL_ADDRESS, OUT_OF_RESOURCES, ASSERTED, MISALIGNED, FAILED = 700, 701, 710, 716, 719
NAMES: Final = {
    1: "INVALID_VALUE", 2: "OUT_OF_MEMORY", 46: "DEVICE_UNAVAILABLE", 100: "NO_DEVICE", 101: "INVALID_DEVICE",
    214: "ECC_UNCORRECTABLE", 218: "INVALID_PTX", 220: "NVLINK_UNCORRECTABLE", 400: "INVALID_HANDLE", 500: "NOT_FOUND",
    600: "NOT_READY", 700: "ILLEGAL_ADDRESS", 701: "LAUNCH_OUT_OF_RESOURCES", 702: "LAUNCH_TIMEOUT",
    709: "CONTEXT_IS_DESTROYED", 710: "ASSERT", 712: "HOST_MEMORY_ALREADY_REGISTERED", 714: "HARDWARE_STACK_ERROR",
    715: "ILLEGAL_INSTRUCTION", 716: "MISALIGNED_ADDRESS", 717: "INVALID_ADDRESS_SPACE", 718: "INVALID_PC",
    719: "LAUNCH_FAILED", 721: "CONTAINED", 999: "UNKNOWN",
}  # fmt: skip
#: The driver's functions behind those of the protocol, for messages.
CALLS: Final = {
    "count": "cuDeviceGetCount", "facts": "cuDeviceGetAttribute", "create_context": "cuCtxCreate",
    "use_context": "cuCtxSetCurrent", "destroy_context": "cuCtxDestroy", "memory_info": "cuMemGetInfo",
    "granularity": "cuMemGetAllocationGranularity", "reserve": "cuMemAddressReserve", "release": "cuMemAddressFree",
    "create_memory": "cuMemCreate", "destroy_memory": "cuMemRelease", "map_memory": "cuMemMap",
    "unmap_memory": "cuMemUnmap", "register_host": "cuMemHostRegister", "unregister_host": "cuMemHostUnregister",
    "create_stream": "cuStreamCreate", "destroy_stream": "cuStreamDestroy", "is_stream_done": "cuStreamQuery",
    "synchronize_stream": "cuStreamSynchronize", "copy_to_device": "cuMemcpyHtoDAsync",
    "copy_to_host": "cuMemcpyDtoHAsync", "copy_on_device": "cuMemcpyDtoDAsync", "set_memory": "cuMemsetD8Async",
    "write_value": "cuStreamWriteValue32", "launch": "cuLaunchKernel", "load_module": "cuModuleLoadDataEx",
    "unload_module": "cuModuleUnload", "function": "cuModuleGetFunction", "allow_shared": "cuFuncSetAttribute",
    "max_threads": "cuFuncGetAttribute", "parameter_bytes": "cuFuncGetParamInfo",
    "create_event": "cuEventCreate", "destroy_event": "cuEventDestroy",
    "record": "cuEventRecord", "elapsed_ms": "cuEventElapsedTime",
}  # fmt: skip

_SPACE_BYTES: Final = 1 << 32
_WASM_PAGE_BYTES: Final = 65_536
_PAGE_BYTES: Final = 4096
_PARAMETERS_AT: Final = 1024
_INSTANCES_MAX: Final = (1 << 31) - 1
#: Dynamic shared memory that every launch may have.
_SHARED_BYTES: Final = 48 << 10
#: Where the device sees registered pages of the process, so that nobody takes one address for the other.
_HOST_WINDOW: Final = 1 << 46
_CHECK_S: Final = 0.02

_PROT_NONE, _PROT_READ_WRITE = 0, 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc["mmap"]
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


class Misuse(AssertionError):
    """The driver was used as it must not be."""


@dataclass(eq=False)
class _Gpu:
    """``pieces`` are the places of physical memory that are free: start, bytes."""

    descriptor: int
    pieces: list[tuple[int, int]]
    #: From here on no memory was ever given out.
    fresh: int = 0


@dataclass(eq=False)
class _Context:
    index: int
    lost: int = 0


@dataclass(eq=False)
class _Memory:
    gpu: _Gpu
    place: int
    size_bytes: int
    mappings: int = 0
    is_released: bool = False


@dataclass(eq=False)
class _Mapping:
    address: int
    size_bytes: int
    memory: _Memory


@dataclass(eq=False)
class _Reservation:
    address: int
    size_bytes: int
    mappings: dict[int, _Mapping] = field(default_factory=dict)


@dataclass(eq=False)
class _Pinned:
    address: int
    size_bytes: int
    device_address: int


@dataclass(eq=False)
class _Module:
    context: _Context
    kernels: dict[str, tuple[Kernel, CompiledKernel, Code]]


@dataclass(eq=False)
class _Function:
    module: _Module
    kernel: CompiledKernel
    code: Code
    #: Addresses that the text has.
    addresses: frozenset[int]
    static_shared_bytes: int
    shared_bytes: int = _SHARED_BYTES


@dataclass(eq=False)
class _Event:
    context: _Context
    is_recorded: bool = False
    happened_s: float | None = None


@dataclass(eq=False)
class _Work:
    """Something in a stream: ``uses`` are objects that it needs, ``device`` and ``host`` ranges."""

    name: str
    run: Callable[[_Stream], None]
    uses: tuple[object, ...] = ()
    device: tuple[tuple[int, int], ...] = ()
    host: tuple[tuple[int, int], ...] = ()


@dataclass
class _Fault:
    """Something to go wrong: at a call of this name, after so many others, with ``code``."""

    call: str
    code: int
    after: int
    at_run: bool
    kernel: str
    is_kept: bool
    log: str


@dataclass
class _Delay:
    """A kernel that never ends (``seconds`` is None), or only after a while."""

    kernel: str
    seconds: float | None
    after: int
    is_kept: bool


class _Stream:
    """A queue of work and the thread that does it, in a store of its own over the device's memory."""

    def __init__(self, driver: EmulatedDriver, context: _Context, name: str) -> None:
        self.driver = driver
        self.context = context
        self.queue: deque[_Work] = deque()
        #: What is being done.
        self.current: _Work | None = None
        #: How many pieces of work may be done while the driver is held.
        self.steps = 0
        self.is_closing = False
        self._store: Store | None = None
        self._guest: Any = None
        self._instances: dict[_Function, tuple[Instance, int]] = {}
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    @property
    def pending(self) -> list[_Work]:
        """All that is not done. The caller has the driver's lock."""
        return [*([self.current] if self.current else ()), *self.queue]

    def _run(self) -> None:
        driver = self.driver
        try:
            while True:
                with driver.changed:
                    driver.changed.wait_for(self._can_go_on)
                    if self.is_closing:
                        return
                    self.current = self.queue.popleft()
                try:
                    self.current.run(self)
                except DriverError as error:
                    driver.lose(error.code, self.context)
                except Misuse:
                    pass  # it is kept
                except TensorWasmError:
                    pass  # the kernel was ended
                finally:
                    with driver.changed:
                        self.current = None
                        self.steps = max(self.steps - 1, 0)
                        driver.changed.notify_all()
        finally:
            self._instances.clear()
            if self._store is not None:
                self._store.close()

    def _can_go_on(self) -> bool:
        return self.is_closing or bool(self.queue and (not self.driver.is_held or self.steps))

    # --- on the stream's thread ---------------------------------------------------------------------------

    def kernel(self, function: _Function, launch: tuple[int, ...], parameters: bytes) -> None:
        """Run a kernel. Raises :class:`DriverError` for one that faults."""
        instance, scratch = self._instance(function)
        ctypes.memmove(scratch + _PARAMETERS_AT, parameters, len(parameters))
        assert self._store is not None
        try:
            self._store.call(instance.function("run"), ("i32",) * 8, (*launch, _PARAMETERS_AT), ())
        except CallFailed as error:
            fault = self._store.read_global(instance.extern("fault"))
            codes = {Fault.MISALIGNED: MISALIGNED, Fault.TRAP: FAILED, Fault.ASSERTION: ASSERTED, Fault.BARRIER: FAILED}
            code = codes.get(Fault(fault), ILLEGAL_ADDRESS)
            if error.failure.code in (0, 2):
                code = FAILED if error.failure.code == 0 else MISALIGNED
            self.driver.faults.append(f"{function.kernel.name}: {error.failure.text}, fault {fault}")
            raise _error(code, "launch") from None

    def _instance(self, function: _Function) -> tuple[Instance, int]:
        found = self._instances.get(function)
        if found is not None:
            return found
        if self._store is None:
            self._store = Store(self.driver.engine, Budget(), interrupt=self._interrupt)
            native.store_limiter(self._store.pointer, -1, -1, _INSTANCES_MAX, -1, -1)
            with self.driver.engine.pool.alias([self.driver.base]):
                self._guest = self._store.instantiate(self.driver.memory_code, ()).extern("memory")
        kernel = function.kernel
        region = -(-(_PARAMETERS_AT + kernel.parameter_bytes) // 16) * 16
        host = Module()
        host.memory(-(-(region + kernel.work_bytes) // _WASM_PAGE_BYTES) + 1, export="scratch")
        host.global_(ValType.I32, region, mutable=False, export="base")
        own = self._store.instantiate(self.driver.engine.compile(host.encode().wasm), ())
        externs = [self._guest, own.extern("scratch"), own.extern("base"), own.extern("base")]
        instance = self._store.instantiate(function.code, externs)
        address = native.memory_data(self._store.context, ctypes.byref(own.memory("scratch")))
        assert address is not None
        found = self._instances[function] = instance, address
        return found

    def _interrupt(self) -> TensorWasmError | None:
        if self.is_closing or self.context.lost:
            return Terminated("the driver ended the kernel")
        return None

    def rest(self, seconds: float | None) -> None:
        """Be a kernel that runs so long, or until the context is gone."""
        end = None if seconds is None else time.monotonic() + seconds
        with self.driver.changed:
            while not (self.is_closing or self.context.lost):
                left = _CHECK_S if end is None else min(end - time.monotonic(), _CHECK_S)
                if left <= 0:
                    return
                self.driver.changed.wait(left)
        raise Terminated("the driver ended the kernel")


class EmulatedDriver:
    """A driver as :class:`~tensor_wasm.device.cuda.driver.Driver` says.

    Memory of the GPUs is ``stale`` bytes at first, and what was in it before when it is given out again. ``sm`` is what
    kernels are for, ``threads_max`` how many threads a block of some kernels can have, by their names.

    Close it, or use it in a ``with`` block, which also looks for misuses and for what was not given back.
    """

    def __init__(
        self,
        *,
        gpus: int = 1,
        memory_bytes: int = 256 << 20,
        granularity_bytes: int = 2 << 20,
        sm: str = "sm_90",
        stale: int | None = 0xDB,
        version: int = 13000,
    ) -> None:
        assert granularity_bytes % _WASM_PAGE_BYTES == 0
        assert granularity_bytes & (granularity_bytes - 1) == 0
        self.sm = sm
        self.memory_bytes = memory_bytes
        self.granularity_bytes = granularity_bytes
        self.shared_bytes_max = 227 << 10
        self.stale = stale
        self.threads_max: dict[str, int] = {}
        #: What was done that must not be, in words.
        self.misuses: list[str] = []
        #: How kernels faulted, in words.
        self.faults: list[str] = []
        #: How often each function was called.
        self.calls: dict[str, int] = {}
        #: While it holds, streams do only what :meth:`step` asks for.
        self.is_held = False
        self.engine = Engine()
        self.engine.start()
        self.changed = threading.Condition(threading.RLock())
        self._version = version
        self._gpus = [self._gpu() for _ in range(gpus)]
        self._handles = itertools.count(0x1001)
        self._objects: dict[int, Any] = {}
        self._gone: dict[int, str] = {}
        self._reservations: dict[int, _Reservation] = {}
        self._pinned: dict[int, _Pinned] = {}
        self._host_window = _HOST_WINDOW
        self._faults: list[_Fault] = []
        self._delays: list[_Delay] = []
        self._thread = threading.local()
        self._is_closed = False
        self._is_lost = 0
        module = Module()
        module.memory(_SPACE_BYTES // _WASM_PAGE_BYTES, export="memory")
        self.memory_code = self.engine.compile(module.encode().wasm)
        self._store = Store(self.engine, Budget())
        memory = self._store.instantiate(self.memory_code, ()).memory()
        base = native.memory_data(self._store.context, ctypes.byref(memory))
        assert base is not None
        #: Where address 0 of the device is in this process.
        self.base: int = base
        self._shut(0, _SPACE_BYTES)

    def _gpu(self) -> _Gpu:
        descriptor = os.memfd_create("emulated-gpu")
        os.ftruncate(descriptor, self.memory_bytes)
        return _Gpu(descriptor, [(0, self.memory_bytes)])

    # --- what tests ask for -----------------------------------------------------------------------------------

    def fail(
        self,
        call: str,
        code: int,
        after: int = 0,
        *,
        at_run: bool = False,
        kernel: str = "",
        is_kept: bool = False,
        log: str = "",
    ) -> None:
        """Have a function of the protocol fail, once ``after`` calls of it went well; with ``is_kept`` all that follow.

        With ``at_run`` it is accepted and fails when its stream does it; ``kernel`` names what ``launch`` is of.
        """
        assert call in CALLS, call
        self._faults.append(_Fault(call, code, after, at_run, kernel, is_kept, log))

    def hang(self, kernel: str = "", after: int = 0, *, is_kept: bool = False) -> None:
        """Have a launch never end: of ``kernel``, or of any, after so many others."""
        self._delays.append(_Delay(kernel, None, after, is_kept))

    def slow(self, seconds: float, kernel: str = "", after: int = 0, *, is_kept: bool = True) -> None:
        """Have launches take that much longer."""
        self._delays.append(_Delay(kernel, seconds, after, is_kept))

    def lose(self, code: int, context: object = None) -> None:
        """Have a context, or all of them, be lost, as if the GPU broke."""
        with self.changed:
            self._is_lost = self._is_lost or code
            for each in self._all(_Context):
                if context is None or each is context:
                    each.lost = each.lost or code
                    for stream in self._all(_Stream):
                        if stream.context is each:
                            stream.queue.clear()
            self.changed.notify_all()
        self.engine.look_soon()

    def hold(self) -> None:
        """Have streams do nothing but what :meth:`step` asks for."""
        self.is_held = True

    def let_go(self) -> None:
        """End :meth:`hold`."""
        with self.changed:
            self.is_held = False
            self.changed.notify_all()

    def step(self, stream: int) -> str:
        """Have a stream do what comes next, and wait for that; what it was, or nothing when there is nothing."""
        with self.changed:
            found: _Stream = self._objects[stream]
            if not found.queue:
                return ""
            work = found.queue[0]
            found.steps += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: work not in found.pending)
            return work.name

    def waiting(self, stream: int) -> list[str]:
        """What a stream has not done."""
        with self.changed:
            return [work.name for work in self._objects[stream].pending]

    @property
    def streams(self) -> list[int]:
        """The streams that there are, oldest first."""
        with self.changed:
            return [handle for handle, each in self._objects.items() if isinstance(each, _Stream)]

    def peek(self, address: int, size_bytes: int) -> bytes:
        """What memory on the device holds."""
        with self.changed:
            assert self._is_mapped(address, size_bytes)
            return ctypes.string_at(self.base + address, size_bytes)

    def poke(self, address: int, data: bytes) -> None:
        """Write to memory on the device."""
        with self.changed:
            assert self._is_mapped(address, len(data))
            ctypes.memmove(self.base + address, data, len(data))

    def leaks(self) -> list[str]:
        """What was not given back. Nothing can be once a context is lost: then the process ends."""
        with self.changed:
            if self._is_lost:
                return []
            objects = [f"a {_kind(each)}, {handle:#x}" for handle, each in self._objects.items()]
            return [
                *objects,
                *(f"reserved addresses at {each.address:#x}" for each in self._reservations.values()),
                *(f"registered host memory at {each.address:#x}" for each in self._pinned.values()),
            ]

    def close(self) -> None:
        """End all threads, running kernels too, and give everything back."""
        if self._is_closed:
            return
        self._is_closed = True
        with self.changed:
            streams = self._all(_Stream)
            for stream in streams:
                stream.is_closing = True
            self.changed.notify_all()
        self.engine.look_soon()
        for stream in streams:
            stream.thread.join()
        self._objects.clear()
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        assert _mmap(self.base, _SPACE_BYTES, _PROT_READ_WRITE, flags, -1, 0) == self.base
        self._store.close()
        self.engine.close()
        for gpu in self._gpus:
            os.close(gpu.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        leaks = self.leaks()
        self.close()
        if kind is None:
            assert not self.misuses
            assert not leaks

    # --- checks -----------------------------------------------------------------------------------------------

    def _misuse(self, text: str) -> NoReturn:
        self.misuses.append(text)
        raise Misuse(text)

    def _begin(self, call: str, *, needs_context: bool = True, kernel: str = "") -> _Context:
        """What every call does first; the caller has the lock."""
        self.calls[call] = self.calls.get(call, 0) + 1
        if self._is_closed:
            self._misuse(f"{call} after the driver was closed")
        context: _Context | None = getattr(self._thread, "context", None)
        if context is not None and context.lost:
            raise _error(context.lost, call)
        self._fail(call, kernel, at_run=False)
        if not needs_context:
            return context or _Context(0)
        if context is None:
            self._misuse(f"{call} without a context on this thread")
        if context not in self._objects.values():
            self._misuse(f"{call} in a context that was destroyed")
        return context

    def _fail(self, call: str, kernel: str, *, at_run: bool) -> None:
        for fault in self._faults:
            if fault.call == call and fault.at_run == at_run and fault.kernel in ("", kernel):
                if fault.after:
                    fault.after -= 1
                    continue
                if not fault.is_kept:
                    self._faults.remove(fault)
                if fault.code in STICKY:
                    self.lose(fault.code, getattr(self._thread, "context", None))
                raise _error(fault.code, call, fault.log)

    def _delay(self, kernel: str) -> _Delay | None:
        for delay in self._delays:
            if delay.kernel in ("", kernel):
                if delay.after:
                    delay.after -= 1
                    continue
                if not delay.is_kept:
                    self._delays.remove(delay)
                return delay
        return None

    def _all(self, kind: type[Any]) -> list[Any]:
        return [each for each in self._objects.values() if isinstance(each, kind)]

    def _add(self, made: object) -> int:
        handle = next(self._handles)
        self._objects[handle] = made
        return handle

    def _get(self, kind: type[Any], handle: int, call: str, context: _Context) -> Any:
        found = self._objects.get(handle)
        if not isinstance(found, kind):
            gone = self._gone.get(handle)
            name = kind.__name__[1:].lower()
            self._misuse(f"{call}: {handle!r} is " + (f"a {gone} that is gone" if gone else f"no {name}"))
        owner = getattr(found, "context", None) or getattr(getattr(found, "module", None), "context", context)
        if owner is not context:
            self._misuse(f"{call}: {_kind(found)} {handle:#x} is of another context")
        return found

    def _drop(self, handle: int, call: str) -> None:
        found = self._objects[handle]
        self._must_be_idle(call, found)
        self._gone[handle] = _kind(found)
        del self._objects[handle]

    def _pending(self) -> Iterable[_Work]:
        for stream in self._all(_Stream):
            yield from stream.pending

    def _must_be_idle(self, call: str, used: object) -> None:
        for work in self._pending():
            if any(each is used for each in work.uses):
                self._misuse(f"{call}: {work.name} still uses the {_kind(used)}")

    def _must_be_free(self, call: str, address: int, size_bytes: int, *, is_host: bool = False) -> None:
        for work in self._pending():
            for start, size in work.host if is_host else work.device:
                if start < address + size_bytes and address < start + size:
                    self._misuse(f"{call}: {work.name} still uses memory at {start:#x}")

    def _is_mapped(self, address: int, size_bytes: int) -> bool:
        reservation = self._reservation(address)
        while reservation is not None and size_bytes > 0:
            found = next(
                (each for each in reservation.mappings.values() if 0 <= address - each.address < each.size_bytes), None
            )
            if found is None:
                return False
            step = min(found.address + found.size_bytes - address, size_bytes)
            address, size_bytes = address + step, size_bytes - step
        return reservation is not None and size_bytes == 0

    def _reservation(self, address: int) -> _Reservation | None:
        return next(
            (each for each in self._reservations.values() if 0 <= address - each.address < each.size_bytes), None
        )

    def _must_be_mapped(self, call: str, address: int, size_bytes: int) -> None:
        if size_bytes < 0 or not self._is_mapped(address, size_bytes):
            self._misuse(f"{call}: nothing is mapped at all of {address:#x}, {size_bytes} bytes")

    def _must_be_pinned(self, call: str, address: int, size_bytes: int) -> None:
        for each in self._pinned.values():
            if each.address <= address and address + size_bytes <= each.address + each.size_bytes and size_bytes >= 0:
                return
        self._misuse(f"{call}: host memory at {address:#x}, {size_bytes} bytes, is not registered")

    def _must_be_granules(self, call: str, *numbers: int) -> None:
        for number in numbers:
            if number % self.granularity_bytes or number < 0:
                self._misuse(f"{call}: {number:#x} is no multiple of the granularity")

    # --- the machine ------------------------------------------------------------------------------------------

    def version(self) -> int:
        return self._version

    def count(self) -> int:
        with self.changed:
            self._begin("count", needs_context=False)
            return len(self._gpus)

    def facts(self, index: int) -> GpuFacts:
        with self.changed:
            self._begin("facts", needs_context=False)
            if not 0 <= index < len(self._gpus):
                raise _error(101, "facts")
            uuid = f"GPU-00000000-0000-0000-0000-{index:012}"
            return GpuFacts(index, f"Emulated GPU {index}", uuid, self.sm, self.memory_bytes, 4, self.shared_bytes_max)

    # --- contexts ---------------------------------------------------------------------------------------------

    def create_context(self, index: int) -> int:
        with self.changed:
            if self._is_lost:
                raise _error(self._is_lost, "create_context")
            self._begin("create_context", needs_context=False)
            if not 0 <= index < len(self._gpus):
                raise _error(101, "create_context")
            context = _Context(index)
            self._thread.context = context
            return self._add(context)

    def use_context(self, context: int) -> None:
        with self.changed:
            self.calls["use_context"] = self.calls.get("use_context", 0) + 1
            found = self._objects.get(context)
            if not isinstance(found, _Context):
                self._misuse(f"use_context: {context!r} is no context")
            if found.lost:
                raise _error(found.lost, "use_context")
            self._fail("use_context", "", at_run=False)
            self._thread.context = found

    def destroy_context(self, context: int) -> None:
        with self.changed:
            current = self._begin("destroy_context")
            found = self._get(_Context, context, "destroy_context", current)
            streams = [each for each in self._all(_Stream) if each.context is found]
            for stream in streams:
                for work in stream.pending:
                    self._misuse(f"destroy_context: {work.name} is not done")
                stream.is_closing = True
            for handle, each in list(self._objects.items()):
                if getattr(each, "context", getattr(getattr(each, "module", None), "context", None)) is found:
                    self._gone[handle] = _kind(each)
                    del self._objects[handle]
            self._drop(context, "destroy_context")
            self._thread.context = None
            self.changed.notify_all()
        for stream in streams:
            stream.thread.join()

    # --- memory -----------------------------------------------------------------------------------------------

    def granularity(self) -> int:
        with self.changed:
            self._begin("granularity")
            return self.granularity_bytes

    def memory_info(self) -> tuple[int, int]:
        with self.changed:
            context = self._begin("memory_info")
            return sum(size for _, size in self._gpus[context.index].pieces), self.memory_bytes

    def reserve(self, size_bytes: int, alignment: int) -> int:
        with self.changed:
            self._begin("reserve")
            self._must_be_granules("reserve", size_bytes)
            if size_bytes <= 0 or alignment < 0 or alignment & (alignment - 1):
                self._misuse(f"reserve: {size_bytes} bytes at a multiple of {alignment}")
            unit = max(alignment, self.granularity_bytes)
            taken = sorted((each.address, each.address + each.size_bytes) for each in self._reservations.values())
            address = max(unit, 1 << 20)
            for start, end in taken:  # what is between two reservations is closed, at least a granule
                if address + size_bytes + self.granularity_bytes <= start:
                    break
                address = max(address, -(-(end + self.granularity_bytes) // unit) * unit)
            if address + size_bytes > _SPACE_BYTES - self.granularity_bytes:
                raise _error(OUT_OF_MEMORY, "reserve")
            self._reservations[address] = _Reservation(address, size_bytes)
            return address

    def release(self, address: int, size_bytes: int) -> None:
        with self.changed:
            self._begin("release")
            found = self._reservations.get(address)
            if found is None or found.size_bytes != size_bytes:
                self._misuse(f"release: {size_bytes} bytes at {address:#x} were not reserved")
            if found.mappings:
                self._misuse(f"release: something is mapped at {next(iter(found.mappings)):#x}")
            del self._reservations[address]

    def create_memory(self, size_bytes: int) -> int:
        with self.changed:
            context = self._begin("create_memory")
            self._must_be_granules("create_memory", size_bytes)
            if size_bytes <= 0:
                self._misuse("create_memory: no bytes")
            gpu = self._gpus[context.index]
            for number, (start, size) in enumerate(gpu.pieces):
                if size >= size_bytes:
                    gpu.pieces[number : number + 1] = (
                        [(start + size_bytes, size - size_bytes)] if size > size_bytes else []
                    )
                    break
            else:
                raise _error(OUT_OF_MEMORY, "create_memory")
            end = start + size_bytes
            if self.stale is not None and end > gpu.fresh:
                # Never used, and yet not to be taken for zeros.
                piece = bytes([self.stale]) * min(size_bytes, 1 << 20)
                for place in range(max(gpu.fresh, start), end, len(piece)):
                    os.pwrite(gpu.descriptor, piece[: end - place], place)
            gpu.fresh = max(gpu.fresh, end)
            return self._add(_Memory(gpu, start, size_bytes))

    def destroy_memory(self, memory: int) -> None:
        with self.changed:
            context = self._begin("destroy_memory")
            found: _Memory = self._get(_Memory, memory, "destroy_memory", context)
            self._drop(memory, "destroy_memory")
            found.is_released = True
            self._give_back(found)

    def _give_back(self, memory: _Memory) -> None:
        if memory.is_released and not memory.mappings:
            pieces: list[tuple[int, int]] = []
            for start, size in sorted([*memory.gpu.pieces, (memory.place, memory.size_bytes)]):
                if pieces and sum(pieces[-1]) == start:
                    start, size = pieces[-1][0], pieces.pop()[1] + size  # noqa: PLW2901
                pieces.append((start, size))
            memory.gpu.pieces = pieces

    def map_memory(self, address: int, size_bytes: int, memory: int, offset: int) -> None:
        with self.changed:
            context = self._begin("map_memory")
            found: _Memory = self._get(_Memory, memory, "map_memory", context)
            self._must_be_granules("map_memory", address, size_bytes, offset)
            if offset:  # "currently must be zero", says the driver's reference
                raise _error(INVALID_VALUE, "map_memory", "the offset must be 0 in today's drivers")
            reservation = self._reservation(address)
            if size_bytes <= 0 or size_bytes > found.size_bytes:
                self._misuse(f"map_memory: {size_bytes} bytes of {found.size_bytes}")
            if reservation is None or address + size_bytes > reservation.address + reservation.size_bytes:
                self._misuse(f"map_memory: {size_bytes} bytes at {address:#x} are not reserved")
            for each in reservation.mappings.values():
                if each.address < address + size_bytes and address < each.address + each.size_bytes:
                    self._misuse(f"map_memory: something is mapped at {each.address:#x}")
            reservation.mappings[address] = _Mapping(address, size_bytes, found)
            found.mappings += 1
            place, flags = self.base + address, _MAP_SHARED | _MAP_FIXED
            done = _mmap(place, size_bytes, _PROT_READ_WRITE, flags, found.gpu.descriptor, found.place)
            assert done == place, os.strerror(ctypes.get_errno())

    def unmap_memory(self, address: int, size_bytes: int) -> None:
        with self.changed:
            self._begin("unmap_memory")
            self._must_be_free("unmap_memory", address, size_bytes)
            reservation = self._reservation(address)
            end = address + size_bytes
            pieces = (
                []
                if reservation is None
                else [each for each in reservation.mappings.values() if address <= each.address < end]
            )
            if sum(each.size_bytes for each in pieces) != size_bytes or not pieces:
                self._misuse(f"unmap_memory: {size_bytes} bytes at {address:#x} are not what was mapped")
            assert reservation is not None
            self._shut(address, size_bytes)
            for each in pieces:
                del reservation.mappings[each.address]
                each.memory.mappings -= 1
                self._give_back(each.memory)

    def _shut(self, address: int, size_bytes: int) -> None:
        place, flags = self.base + address, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        assert _mmap(place, size_bytes, _PROT_NONE, flags, -1, 0) == place

    def register_host(self, address: int, size_bytes: int) -> int:
        with self.changed:
            self._begin("register_host")
            if address % _PAGE_BYTES or size_bytes <= 0 or address <= 0:
                self._misuse(f"register_host: {size_bytes} bytes at {address:#x}")
            for each in self._pinned.values():
                if each.address < address + size_bytes and address < each.address + each.size_bytes:
                    raise _error(712, "register_host")
            device_address = self._host_window
            self._host_window += -(-size_bytes // (1 << 30)) * (1 << 30) + (1 << 30)
            self._pinned[address] = _Pinned(address, size_bytes, device_address)
            return device_address

    def unregister_host(self, address: int) -> None:
        with self.changed:
            self._begin("unregister_host")
            found = self._pinned.get(address)
            if found is None:
                self._misuse(f"unregister_host: {address:#x} is not registered")
            self._must_be_free("unregister_host", address, found.size_bytes, is_host=True)
            del self._pinned[address]

    # --- streams ----------------------------------------------------------------------------------------------

    def create_stream(self) -> int:
        with self.changed:
            context = self._begin("create_stream")
            return self._add(_Stream(self, context, f"stream-{len(self._all(_Stream))}"))

    def destroy_stream(self, stream: int) -> None:
        with self.changed:
            context = self._begin("destroy_stream")
            found: _Stream = self._get(_Stream, stream, "destroy_stream", context)
            for work in found.pending:
                self._misuse(f"destroy_stream: {work.name} is not done")
            self._drop(stream, "destroy_stream")
            found.is_closing = True
            self.changed.notify_all()
        found.thread.join()

    def is_stream_done(self, stream: int) -> bool:
        with self.changed:
            context = self._begin("is_stream_done")
            found: _Stream = self._get(_Stream, stream, "is_stream_done", context)
            is_done = not found.pending
        if not is_done:
            time.sleep(0)  # whoever asks again and again would keep the interpreter's lock from the stream's thread
        return is_done

    def synchronize_stream(self, stream: int) -> None:
        with self.changed:
            context = self._begin("synchronize_stream")
            found: _Stream = self._get(_Stream, stream, "synchronize_stream", context)
            self.changed.wait_for(lambda: not found.pending or bool(context.lost) or self._is_closed)
            if context.lost:
                raise _error(context.lost, "synchronize_stream")

    def _put(self, call: str, stream: int, context: _Context, work: _Work) -> None:
        found: _Stream = self._get(_Stream, stream, call, context)
        run, kernel = work.run, work.name.partition(" ")[2]

        def run_unless_it_fails(own: _Stream) -> None:
            with self.changed:
                for address, size_bytes in work.device:
                    self._must_be_mapped(work.name, address, size_bytes)
                for address, size_bytes in work.host:
                    self._must_be_pinned(work.name, address, size_bytes)
                self._fail(call, kernel, at_run=True)
            run(own)

        work.run = run_unless_it_fails
        work.uses = (*work.uses, found)
        found.queue.append(work)
        self.changed.notify_all()

    def copy_to_device(self, address: int, host_address: int, size_bytes: int, stream: int) -> None:
        call = "copy_to_device"
        with self.changed:
            context = self._begin(call)
            self._must_be_mapped(call, address, size_bytes)
            self._must_be_pinned(call, host_address, size_bytes)
            work = _Work(call, self._copy(self.base + address, host_address, size_bytes))
            work.device, work.host = ((address, size_bytes),), ((host_address, size_bytes),)
            self._put(call, stream, context, work)

    def copy_to_host(self, host_address: int, address: int, size_bytes: int, stream: int) -> None:
        call = "copy_to_host"
        with self.changed:
            context = self._begin(call)
            self._must_be_mapped(call, address, size_bytes)
            self._must_be_pinned(call, host_address, size_bytes)
            work = _Work(call, self._copy(host_address, self.base + address, size_bytes))
            work.device, work.host = ((address, size_bytes),), ((host_address, size_bytes),)
            self._put(call, stream, context, work)

    def copy_on_device(self, address: int, source: int, size_bytes: int, stream: int) -> None:
        call = "copy_on_device"
        with self.changed:
            context = self._begin(call)
            self._must_be_mapped(call, address, size_bytes)
            self._must_be_mapped(call, source, size_bytes)
            work = _Work(call, self._copy(self.base + address, self.base + source, size_bytes))
            work.device = (address, size_bytes), (source, size_bytes)
            self._put(call, stream, context, work)

    def set_memory(self, address: int, value: int, size_bytes: int, stream: int) -> None:
        call = "set_memory"
        with self.changed:
            context = self._begin(call)
            if not 0 <= value < 256:
                self._misuse(f"set_memory: {value} is no byte")
            self._must_be_mapped(call, address, size_bytes)

            def run(_own: _Stream) -> None:
                with self.changed:
                    ctypes.memset(self.base + address, value, size_bytes)

            self._put(call, stream, context, _Work(call, run, device=((address, size_bytes),)))

    def _copy(self, to: int, source: int, size_bytes: int) -> Callable[[_Stream], None]:
        def run(_own: _Stream) -> None:
            with self.changed:  # nothing is unmapped meanwhile
                ctypes.memmove(to, source, size_bytes)

        return run

    def write_value(self, address: int, value: int, stream: int) -> None:
        call = "write_value"
        with self.changed:
            context = self._begin(call)
            if address % 4 or not 0 <= value < 1 << 32:
                self._misuse(f"write_value: {value} to {address:#x}")
            pinned = next(
                (each for each in self._pinned.values() if 0 <= address - each.device_address <= each.size_bytes - 4),
                None,
            )
            work = _Work(call, lambda _own: None)
            if pinned is not None:
                place = pinned.address + address - pinned.device_address
                work.host = ((place, 4),)
            else:
                self._must_be_mapped(call, address, 4)
                place = self.base + address
                work.device = ((address, 4),)

            def run(_own: _Stream) -> None:
                with self.changed:
                    ctypes.c_uint32.from_address(place).value = value

            work.run = run
            self._put(call, stream, context, work)

    def launch(
        self,
        function: int,
        grid: Axes,
        block: Axes,
        shared_bytes: int,
        stream: int,
        parameters: int,
        parameter_bytes: int,
    ) -> None:
        call = "launch"
        with self.changed:
            found = self._objects.get(function)
            name = found.kernel.name if isinstance(found, _Function) else ""
            context = self._begin(call, kernel=name)
            found = self._get(_Function, function, call, context)
            kernel: CompiledKernel = found.kernel
            if parameter_bytes != kernel.parameter_bytes:  # what a driver makes of others is not written down
                self._misuse(f"launch: {parameter_bytes} bytes of parameters, {name} has {kernel.parameter_bytes}")
            block_threads = block[0] * block[1] * block[2]
            if (
                min(*grid, *block) < 1
                or grid[0] >= 1 << 31
                or max(grid[1:]) > 65_535
                or max(block[:2]) > 1024
                or block[2] > 64
                or block_threads > 1024
                or (kernel.reqntid is not None and block != kernel.reqntid)
                or not 0 <= shared_bytes <= found.shared_bytes
                or shared_bytes + found.static_shared_bytes > self.shared_bytes_max
            ):
                raise _error(INVALID_VALUE, call)
            if block_threads > self._max_threads(kernel):
                raise _error(OUT_OF_RESOURCES, call)
            content = ctypes.string_at(parameters, parameter_bytes) if parameter_bytes else b""
            numbers = (grid, block, shared_bytes)
            delay = self._delay(name)

            def run(own: _Stream) -> None:
                if delay is not None:
                    own.rest(delay.seconds)
                own.kernel(found, (*numbers[0], *numbers[1], numbers[2]), content[: kernel.parameter_bytes])

            # A fenced text says where its partition is; another gets its memory by parameters.
            words = {int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content) - 7, 8)}
            owned = {each for at in found.addresses if (each := self._reservation(at)) is not None}
            owned = owned or {each for at in words if (each := self._reservation(at)) is not None}
            mapped = tuple((each.address, each.size_bytes) for whole in owned for each in whole.mappings.values())
            work = _Work(f"launch {name}", run, uses=(found, found.module), device=mapped)
            self._put(call, stream, context, work)

    def _max_threads(self, kernel: CompiledKernel) -> int:
        if kernel.maxntid is not None:  # the assembler then gives it no more registers than these can have
            return min(math.prod(kernel.maxntid), 1024)
        return self.threads_max.get(kernel.name, 1024)

    # --- modules ----------------------------------------------------------------------------------------------

    def load_module(self, code: bytes) -> int:
        call = "load_module"
        with self.changed:
            context = self._begin(call)
        # Without the lock: it takes long, and another thread may launch meanwhile.
        try:
            program = read(code.decode("utf-8"))
            kernels = {}
            for kernel in program.kernels:
                for place in support(kernel):
                    raise PtxError(place.reason, place.line, place.column)
                compiled = compile_kernel(kernel, program)
                kernels[kernel.name] = kernel, compiled, self.engine.compile(compiled.wasm)
        except (PtxError, UnicodeDecodeError) as error:
            raise _error(INVALID_PTX, call, str(error)) from None
        with self.changed:
            if context.lost:
                raise _error(context.lost, call)
            return self._add(_Module(context, kernels))

    def unload_module(self, module: int) -> None:
        with self.changed:
            context = self._begin("unload_module")
            found: _Module = self._get(_Module, module, "unload_module", context)
            self._drop(module, "unload_module")
            for handle, each in list(self._objects.items()):
                if isinstance(each, _Function) and each.module is found:
                    self._gone[handle] = "function"
                    del self._objects[handle]

    def function(self, module: int, name: str) -> int:
        with self.changed:
            context = self._begin("function")
            found: _Module = self._get(_Module, module, "function", context)
            if name not in found.kernels:
                raise _error(NOT_FOUND, "function")
            for handle, each in self._objects.items():
                if isinstance(each, _Function) and each.module is found and each.kernel.name == name:
                    return handle
            kernel, compiled, code = found.kernels[name]
            shared = sum(each.size_bytes for each in kernel.variables if each.space is Space.SHARED)
            return self._add(_Function(found, compiled, code, _addresses(kernel), shared))

    def allow_shared(self, function: int, size_bytes: int) -> None:
        with self.changed:
            context = self._begin("allow_shared")
            found: _Function = self._get(_Function, function, "allow_shared", context)
            if not 0 <= size_bytes <= self.shared_bytes_max - found.static_shared_bytes:
                raise _error(INVALID_VALUE, "allow_shared")
            found.shared_bytes = size_bytes

    def max_threads(self, function: int) -> int:
        with self.changed:
            context = self._begin("max_threads")
            found: _Function = self._get(_Function, function, "max_threads", context)
            return self._max_threads(found.kernel)

    def parameter_bytes(self, function: int) -> int:
        with self.changed:
            context = self._begin("parameter_bytes")
            found: _Function = self._get(_Function, function, "parameter_bytes", context)
            return found.kernel.parameter_bytes

    # --- time -------------------------------------------------------------------------------------------------

    def create_event(self) -> int:
        with self.changed:
            return self._add(_Event(self._begin("create_event")))

    def destroy_event(self, event: int) -> None:
        with self.changed:
            context = self._begin("destroy_event")
            self._get(_Event, event, "destroy_event", context)
            self._drop(event, "destroy_event")

    def record(self, event: int, stream: int) -> None:
        with self.changed:
            context = self._begin("record")
            found: _Event = self._get(_Event, event, "record", context)
            if any(work.name == "record" and found in work.uses for work in self._pending()):
                self._misuse("record: the event has not happened yet, and nobody will know when it did")
            found.is_recorded, found.happened_s = True, None

            def run(_own: _Stream) -> None:
                found.happened_s = time.perf_counter()

            self._put("record", stream, context, _Work("record", run, uses=(found,)))

    def elapsed_ms(self, start: int, end: int) -> float:
        with self.changed:
            context = self._begin("elapsed_ms")
            first, last = (self._get(_Event, event, "elapsed_ms", context) for event in (start, end))
            if not first.is_recorded or not last.is_recorded:
                raise _error(INVALID_HANDLE, "elapsed_ms")
            if first.happened_s is None or last.happened_s is None:
                raise _error(NOT_READY, "elapsed_ms")
            return (last.happened_s - first.happened_s) * 1000


def _error(code: int, call: str, log: str = "") -> DriverError:
    return DriverError(code, f"CUDA_ERROR_{NAMES.get(code, 'UNKNOWN')}", CALLS[call], log)


def _kind(thing: object) -> str:
    return type(thing).__name__[1:].lower()


def _addresses(kernel: Kernel) -> frozenset[int]:
    """Constants of a kernel that may be addresses: not the masks that keep it in a partition, and whole accesses."""
    return frozenset(
        source.bits
        for block in kernel.blocks
        for instruction in block.instructions
        for source in instruction.sources
        if isinstance(source, Immediate) and source.type.bits == 64 and ((source.bits | 31) + 1) & source.bits
    )
