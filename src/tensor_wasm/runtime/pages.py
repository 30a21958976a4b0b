"""Pages of a guest's memory that are a shared file's at the same time, so that another process has them too."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.store import Store

#: What is shown starts and ends at multiples of this.
PAGE_BYTES: Final = 4096


class Pages:
    """The pages of a store's memory. Used by the store's thread, while nothing runs in the store.

    A place of the memory stays where it is for as long as the store is, whatever is shown there.
    """

    __slots__ = ("_base", "_memory", "_store")

    def __init__(self, store: Store, memory: Any) -> None:
        self._store = store
        self._memory = memory
        base = native.memory_data(store.context, ctypes.byref(memory))
        self._base: int = base

    @property
    def size_bytes(self) -> int:
        """How large the memory is now."""
        size: int = native.memory_data_size(self._store.context, ctypes.byref(self._memory))
        return size

    def view(self, start: int, size_bytes: int) -> memoryview:
        """Bytes of the memory, which it has."""
        return self._store.memory_view(self._memory)[start : start + size_bytes]

    def show(self, start: int, size_bytes: int, descriptor: int, place: int) -> None:
        """Have pages be a file's from ``place`` on, see :meth:`MemoryPool.show`."""
        self._store.engine.pool.show(self._base, start, size_bytes, descriptor, place)

    def hide(self, start: int, size_bytes: int) -> None:
        """Have them be the memory's own again, zeros."""
        self._store.engine.pool.hide(self._base, start, size_bytes)
