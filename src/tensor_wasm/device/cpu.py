"""The CPU device: PTX compiled to WebAssembly, cached by content in memory and on disk."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict

from blake3 import blake3

from tensor_wasm.abi import Tag
from tensor_wasm.compiler import COMPILER_VERSION, CompiledKernel, compile_kernel
from tensor_wasm.device.protocol import KernelStatistics, LoadedKernel
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.errors import InternalError, InvalidWasm
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.runtime import ModuleCache, SealedFiles

#: Kernels kept ready in memory, over all tenants.
_KEPT_KERNELS = 1024

_INTEGER_32 = 1 << Tag.I32 | 1 << Tag.U32
_INTEGER_64 = 1 << Tag.I64 | 1 << Tag.U64
#: The argv tags that a parameter of a PTX type takes; other types cannot be given by this ABI.
TAGS_BY_TYPE: dict[str, int] = {
    "u32": _INTEGER_32,
    "s32": _INTEGER_32,
    "b32": _INTEGER_32 | 1 << Tag.F32,
    "f32": 1 << Tag.F32,
    "s64": _INTEGER_64,
    "u64": _INTEGER_64 | 1 << Tag.POINTER,
    "b64": _INTEGER_64 | 1 << Tag.POINTER | 1 << Tag.F64,
    "f64": 1 << Tag.F64,
}


class CpuDevice:
    """Runs kernels on the processors, inside the sandbox of the guest that launches them.

    ``files`` keeps compiled kernels between starts of the node; ``modules`` their machine code.
    """

    name = "cpu"
    kind = "cpu"

    def __init__(self, modules: ModuleCache, files: SealedFiles) -> None:
        self._modules = modules
        self._files = files
        self._kernels: OrderedDict[str, LoadedKernel] = OrderedDict()
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self.statistics = KernelStatistics()

    def load(self, ptx: bytes, entry: str) -> LoadedKernel:
        """Compile ``entry`` of a PTX text, or take it from the cache; callers of one text wait for one compilation.

        Raises :class:`~tensor_wasm.errors.PtxError` with line and column.
        """
        digest = blake3(f"{COMPILER_VERSION}\0{len(entry)}\0{entry}\0".encode() + ptx).hexdigest()
        with self._lock:
            kernel = self._find(digest)
            busy = self._busy.setdefault(digest, threading.Lock()) if kernel is None else None
        self.statistics.count_lookup("memory", hit=kernel is not None)
        if kernel is not None:
            return kernel
        assert busy is not None
        try:
            with busy:
                with self._lock:
                    kernel = self._find(digest)
                return kernel or self._make(digest, ptx, entry)
        finally:
            with self._lock:
                self._busy.pop(digest, None)

    def _find(self, digest: str) -> LoadedKernel | None:
        kernel = self._kernels.get(digest)
        if kernel is not None:
            self._kernels.move_to_end(digest)
        return kernel

    def _make(self, digest: str, ptx: bytes, entry: str) -> LoadedKernel:
        compiled = self._read(digest)
        self.statistics.count_lookup("disk", hit=compiled is not None)
        started = time.perf_counter()
        is_new = compiled is None
        if compiled is None:
            program = read(ptx)
            compiled = compile_kernel(find_kernel(program, entry), program)
        kernel = self._ready(compiled)
        if is_new:
            self._files.write(digest, compiled.encode())
            self.statistics.count_compilation(time.perf_counter() - started)
        with self._lock:
            self._kernels[digest] = kernel
            while len(self._kernels) > _KEPT_KERNELS:
                self._kernels.popitem(last=False)
        return kernel

    def _read(self, digest: str) -> CompiledKernel | None:
        content = self._files.read(digest)
        if content is not None:
            with contextlib.suppress(InternalError):  # of another version: made anew
                return CompiledKernel.decode(content)
        return None

    def _ready(self, compiled: CompiledKernel) -> LoadedKernel:
        try:
            module = self._modules.get(blake3(compiled.wasm).hexdigest(), compiled.wasm)
        except InvalidWasm as error:
            # Wasmtime's validation stands behind our compiler: what it refuses is our defect, never a hole.
            raise InternalError(f"kernel {compiled.name} became a module that does not validate: {error}") from error
        parameters = [(TAGS_BY_TYPE.get(p.kind, 0), p.offset) for p in compiled.parameters]
        return LoadedKernel(compiled, module, KernelEntry(parameters, compiled.reqntid, compiled.maxntid))
