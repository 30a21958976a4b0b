"""Linear memories that many stores see at once: one that they share, and one that another process has too."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

from wasmtime import _bindings as _c

from tensor_wasm.errors import InternalError
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.engine import Engine
from tensor_wasm.runtime.store import Store
from tensor_wasm.wasm import Module

_PAGE_BYTES = 65_536
_PAGE_SIZE_LOG2 = 16


class SharedMemory:
    """``pages`` pages of memory that does not grow.

    ``extern`` is what instances import; ``address`` is where its bytes are in this process, zeroed at first.
    """

    def __init__(self, engine: Engine, pages: int) -> None:
        kind = ctypes.POINTER(_c.wasm_memorytype_t)()
        error = _c.wasmtime_memorytype_new(pages, True, pages, False, True, _PAGE_SIZE_LOG2, ctypes.byref(kind))
        if error:
            raise InternalError("a shared memory type was refused")
        out = ctypes.c_void_p()
        failed = native.sharedmemory_new(engine.pointer, ctypes.cast(kind, ctypes.c_void_p), ctypes.byref(out))
        _c.wasm_memorytype_delete(kind)
        if failed:
            raise InternalError(native.take_error(failed))
        self._engine = engine  # must outlive the memory
        self._pointer = out.value
        self.pages = pages
        self.size_bytes = pages * _PAGE_BYTES
        address = native.sharedmemory_data(self._pointer)
        assert address is not None
        self.address: int = address
        self.extern: Any = native.Extern()
        self.extern.kind = native.EXTERN_SHARED_MEMORY
        shared_type = dict(type(self.extern.of)._fields_)["sharedmemory"]
        self.extern.of.sharedmemory = ctypes.cast(out, shared_type)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # at interpreter exit the bindings may be gone
            native.sharedmemory_delete(self._pointer)


class FileMemory:
    """The first bytes of a file in memory that another process maps too. To WebAssembly it is no shared memory: atomic
    accesses are allowed, waiting is not.

    ``descriptor`` may be closed afterwards. It is there until :meth:`close`, or as long as the engine. Raises as
    :meth:`MemoryPool.adopt`.
    """

    def __init__(self, engine: Engine, descriptor: int, size_bytes: int) -> None:
        self._engine = engine
        self.address = engine.pool.adopt(descriptor, size_bytes)
        module = Module()
        module.memory(size_bytes // _PAGE_BYTES, size_bytes // _PAGE_BYTES, export="memory")
        self._module = engine.compile(module.encode().wasm)

    def extern(self, store: Store) -> Any:
        """The memory in a store, as a C extern; made once for each. It counts against no budget."""
        with self._engine.pool.alias([self.address]):
            return store.instantiate(self._module, ()).extern("memory")

    def close(self) -> None:
        """Show it no more. No store may be left that has it."""
        self._engine.pool.disown(self.address)
