"""Device memory of one guest on the CPU device: buffers behind handles, zeroed, gone with the guest."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from tensor_wasm.abi import Code
from tensor_wasm.abi.limits import ALLOCATION_MAX_BYTES, ALLOCATIONS_MAX
from tensor_wasm.runtime import Budget

#: From this many bytes on a buffer is pages of its own: those are made one by one where they are touched, and given
#: back, without the interpreter lock. To clear a large ``bytearray`` holds up every other thread, the event loop too.
_PAGED_BYTES = 1 << 20

Buffer = bytearray | mmap.mmap


class DeviceMemory:
    """Allocations of one guest. Their bytes count against the instance's memory limit, and against ``quota``, which
    is the tenant's for device memory.

    ``on_change`` is told by how many bytes the sum changed.
    """

    def __init__(self, budget: Budget, quota: Budget, on_change: Callable[[int], None]) -> None:
        self._budget = budget
        self._quota = quota
        self._on_change = on_change
        self._buffers: dict[int, Buffer] = {}
        self._next = 1
        self.used_bytes = 0

    def allocate(self, size_bytes: int) -> int:
        """A handle >= 1, or a code."""
        if size_bytes <= 0:
            return Code.INVALID_ARGUMENTS
        if size_bytes > ALLOCATION_MAX_BYTES or len(self._buffers) >= ALLOCATIONS_MAX:
            return Code.QUOTA_EXCEEDED
        if not self._quota.take(size_bytes):
            return Code.QUOTA_EXCEEDED
        if not self._budget.take(size_bytes):
            self._quota.give(size_bytes)
            return Code.QUOTA_EXCEEDED
        handle = self._next
        self._next += 1
        try:
            self._buffers[handle] = bytearray(size_bytes) if size_bytes < _PAGED_BYTES else mmap.mmap(-1, size_bytes)
        except (MemoryError, OSError):
            self._give(size_bytes)
            return Code.QUOTA_EXCEEDED
        self._count(size_bytes)
        return handle

    def free(self, handle: int) -> int:
        """Give an allocation back; a code."""
        buffer = self._buffers.pop(handle, None)
        if buffer is None:
            return Code.INVALID_HANDLE
        size_bytes = len(buffer)
        if isinstance(buffer, mmap.mmap):
            buffer.close()
        self._give(size_bytes)
        self._count(-size_bytes)
        return Code.OK

    def get(self, handle: int) -> Buffer | None:
        """The bytes behind a handle."""
        return self._buffers.get(handle)

    def close(self) -> None:
        """Give everything back."""
        for handle in tuple(self._buffers):
            self.free(handle)

    def _give(self, size_bytes: int) -> None:
        self._budget.give(size_bytes)
        self._quota.give(size_bytes)

    def _count(self, change: int) -> None:
        self.used_bytes += change
        self._on_change(change)
