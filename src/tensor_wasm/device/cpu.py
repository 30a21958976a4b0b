"""The CPU device: PTX compiled to WebAssembly, cached by content in memory and on disk."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial

from blake3 import blake3

from tensor_wasm.abi import Tag
from tensor_wasm.compiler import COMPILER_VERSION, CompiledKernel
from tensor_wasm.device.compilation import compile_ptx
from tensor_wasm.device.compiler_jobs import KernelCode
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.protocol import SM, Interrupt, KernelStatistics, LoadedKernel
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.errors import InternalError, InvalidWasm
from tensor_wasm.runtime import KEPT_CODE_BYTES, Module, ModuleCache, Recent, SealedFiles, asleep

#: Kernels kept ready in memory, over all tenants.
_KEPT_KERNELS = 1024
#: How often a caller that waits for a compilation looks whether it should still wait.
_POLL_S = 0.04

_INTEGER_32 = 1 << Tag.I32 | 1 << Tag.U32
_INTEGER_64 = 1 << Tag.I64 | 1 << Tag.U64
_POINTER = 1 << Tag.POINTER | 1 << Tag.DEVICE_POINTER
#: The argv tags that a parameter of a PTX type takes; others are given as the bytes they have, see :func:`tags`.
TAGS_BY_TYPE: dict[str, int] = {
    "u32": _INTEGER_32,
    "s32": _INTEGER_32,
    "b32": _INTEGER_32 | 1 << Tag.F32,
    "f32": 1 << Tag.F32,
    "s64": _INTEGER_64,
    "u64": _INTEGER_64 | _POINTER,
    "b64": _INTEGER_64 | _POINTER | 1 << Tag.F64,
    "f64": 1 << Tag.F64,
    **dict.fromkeys(("u16", "s16", "b16", "f16", "bf16"), 1 << Tag.F16),
}


def tags(kind: str) -> int:
    """The argv tags that a parameter takes, a bit each: what no other tag fits is given as a structure."""
    return TAGS_BY_TYPE.get(kind, 1 << Tag.STRUCT)


@dataclass(slots=True, eq=False)
class _Flight:
    """A kernel on its way: who waits for it, and the job of the compilers', once there is one."""

    kernel: Future[LoadedKernel] = field(default_factory=Future)
    waiters: int = 0
    job: Future[KernelCode] | None = None


class CpuDevice:
    """Runs kernels on the processors, inside the sandbox of the guest that launches them.

    ``files`` keeps compiled kernels between starts of the node; ``modules`` their machine code. ``compilers`` compile
    them outside this process; without those the first caller of a text does, on its own thread.
    """

    name = "cpu"
    kind = "cpu"
    sm = SM
    restarts = None
    gpu = None

    def __init__(self, modules: ModuleCache, files: SealedFiles, compilers: Compilers | None = None) -> None:
        self._modules = modules
        self._files = files
        self._compilers = compilers
        self._kernels: Recent[str, LoadedKernel] = Recent(_KEPT_KERNELS, KEPT_CODE_BYTES, _size)
        self._flights: dict[str, _Flight] = {}
        self._lock = threading.Lock()
        self.statistics = KernelStatistics()

    def load(self, ptx: bytes, entry: str, interrupt: Interrupt | None = None) -> LoadedKernel:
        """Compile ``entry`` of a PTX text, or take it from the cache; callers of one text wait for one compilation.

        ``interrupt`` is asked while this waits for another process or caller. A caller that it ends leaves the
        compilation to the others; one that has begun goes on into the cache even when nobody waits any more.

        Raises :class:`~tensor_wasm.errors.PtxError` with line and column, also for a kernel that takes too long or
        too much memory to compile; :class:`~tensor_wasm.errors.CapacityExhausted` when too many kernels wait for the
        compilers; and what ``interrupt`` gives.
        """
        digest = _digest(ptx, entry)
        with self._lock:
            kernel = self._find(digest)
            is_first = kernel is None and digest not in self._flights
            flight = self._flights.setdefault(digest, _Flight()) if kernel is None else None
            if flight is not None:
                flight.waiters += 1
        self.statistics.count_lookup("memory", hit=kernel is not None)
        if flight is None:
            assert kernel is not None
            return kernel
        began_s = time.monotonic()
        try:
            if is_first:
                self._begin(digest, flight, ptx, entry)
            kernel = _wait(flight.kernel, interrupt)
        finally:
            self._leave(digest, flight)
        self.statistics.count_load(time.monotonic() - began_s)
        return kernel

    def has(self, ptx: bytes, entry: str) -> bool:
        """Whether a kernel is there compiled, in memory or on disk."""
        digest = _digest(ptx, entry)
        with self._lock:
            if self._find(digest) is not None:
                return True
        return self._read(digest) is not None

    def revive(self, encoded: bytes) -> LoadedKernel:
        """A kernel that was compiled before, from what :meth:`CompiledKernel.encode` gave.

        Raises :class:`InternalError` for one of another release's compiler.
        """
        compiled = CompiledKernel.decode(encoded)
        return _loaded(compiled, self._modules.get(_module_digest(compiled), compiled.wasm))

    # --- flights ----------------------------------------------------------------------------------------

    def _begin(self, digest: str, flight: _Flight, ptx: bytes, entry: str) -> None:
        """Take the kernel from disk, have it compiled, or compile it here. Ends the flight, or leaves that to a job."""
        pool = self._compilers
        try:
            kernel = self._read(digest)
            self.statistics.count_lookup("disk", hit=kernel is not None)
            if kernel is None and pool is not None and pool.takes(len(ptx)):
                flight.job = pool.kernel(ptx, entry)
                flight.job.add_done_callback(partial(self._arrive, digest, flight))
                return
            self._end(digest, flight, kernel or self._compile(digest, ptx, entry))
        except Exception as error:
            self._end(digest, flight, error)
        except BaseException:  # this thread was interrupted; it is nothing to the others
            self._end(digest, flight, InternalError("the caller that compiled this kernel was interrupted"))
            raise

    def _arrive(self, digest: str, flight: _Flight, job: Future[KernelCode]) -> None:
        """End the flight with what the compilers made; runs on their thread."""
        if job.cancelled():
            return
        try:
            code = job.result()
            compiled = CompiledKernel.decode(code.kernel)
            kernel = _loaded(compiled, self._modules.put(_module_digest(compiled), code.machine_code))
            self._files.write(digest, code.kernel)
            self.statistics.count_compilation(code.duration_s)
            self._end(digest, flight, kernel)
        except Exception as error:
            self._end(digest, flight, error)

    def _end(self, digest: str, flight: _Flight, outcome: LoadedKernel | Exception) -> None:
        with self._lock:
            if self._flights.get(digest) is flight:
                del self._flights[digest]
            if isinstance(outcome, LoadedKernel):
                self._kernels.put(digest, outcome)
        if flight.kernel.done():
            return
        if isinstance(outcome, LoadedKernel):
            flight.kernel.set_result(outcome)
        else:
            flight.kernel.set_exception(outcome)

    def _leave(self, digest: str, flight: _Flight) -> None:
        """A caller waits no more. What nobody waits for and has not begun is not compiled."""
        with self._lock:
            flight.waiters -= 1
            if flight.waiters or flight.job is None or flight.kernel.done():
                return
            if flight.job.cancel() and self._flights.get(digest) is flight:
                del self._flights[digest]

    # --- kernels ----------------------------------------------------------------------------------------

    def _find(self, digest: str) -> LoadedKernel | None:
        return self._kernels.get(digest)

    def _read(self, digest: str) -> LoadedKernel | None:
        """The kernel from disk, when its machine code is there too."""
        content = self._files.read(digest)
        if content is None:
            return None
        try:
            compiled = CompiledKernel.decode(content)
        except InternalError:  # of another version: made anew
            return None
        module = self._modules.find(_module_digest(compiled))
        return None if module is None else _loaded(compiled, module)

    def _compile(self, digest: str, ptx: bytes, entry: str) -> LoadedKernel:
        """Compile on this thread."""
        started = time.perf_counter()
        compiled = compile_ptx(ptx, entry)
        try:
            kernel = _loaded(compiled, self._modules.get(_module_digest(compiled), compiled.wasm))
        except InvalidWasm as error:
            # Wasmtime's validation stands behind our compiler: what it refuses is our defect, never a hole.
            raise InternalError(f"kernel {compiled.name} became a module that does not validate: {error}") from error
        self._files.write(digest, compiled.encode())
        self.statistics.count_compilation(time.perf_counter() - started)
        return kernel


def _digest(ptx: bytes, entry: str) -> str:
    name = entry.encode("utf-8", "surrogatepass")
    content = blake3(f"{COMPILER_VERSION}\0{len(name)}\0".encode() + name)
    content.update(ptx)  # by itself: a text may have 8 MiB, and a copy holds the interpreter lock
    return content.hexdigest()


def _module_digest(compiled: CompiledKernel) -> str:
    return blake3(compiled.wasm).hexdigest()


def _size(kernel: LoadedKernel) -> int:
    return len(kernel.compiled.wasm) + kernel.module.code_bytes


def _loaded(compiled: CompiledKernel, module: Module) -> LoadedKernel:
    parameters = [(tags(p.kind), p.offset, p.size_bytes) for p in compiled.parameters]
    return LoadedKernel(
        compiled, module, KernelEntry(parameters, compiled.reqntid, compiled.maxntid, compiled.records is None)
    )


def _wait(kernel: Future[LoadedKernel], interrupt: Interrupt | None) -> LoadedKernel:
    if interrupt is None:
        return kernel.result()
    if kernel.done():
        return kernel.result()
    with asleep():
        while not kernel.done():
            error = interrupt()
            if error is not None:
                raise error
            wait([kernel], _POLL_S)
    return kernel.result()
