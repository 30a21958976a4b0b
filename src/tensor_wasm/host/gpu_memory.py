"""Device memory of one guest on a GPU: pieces of its tenant's partition behind handles."""

from __future__ import annotations

from collections import deque

from tensor_wasm.abi import Code
from tensor_wasm.abi.limits import ALLOCATION_MAX_BYTES, ALLOCATIONS_MAX
from tensor_wasm.dispatch import Gate
from tensor_wasm.dispatch.scratch import DEVICE_ADDRESS_SHIFT
from tensor_wasm.errors import CapacityExhausted, QuotaExceeded
from tensor_wasm.host.guest_gpu import GuestGpu


class GpuMemory:
    """Allocations of one guest, as :class:`~tensor_wasm.host.device_memory.DeviceMemory` says.

    Every call but :meth:`close` may raise :class:`~tensor_wasm.errors.DeviceRestarting`. The guest's end gives back
    what is left, with everything else that it has on the GPU.
    """

    def __init__(self, gate: Gate, gpu: GuestGpu) -> None:
        self._gate = gate
        self._gpu = gpu
        #: Address and bytes.
        self._pieces: dict[int, tuple[int, int]] = {}
        #: Handles to give next, as on the CPU device.
        self._freed: deque[int] = deque()
        self._next = 1

    def allocate(self, size_bytes: int) -> int:
        """A handle >= 1, or a code."""
        self._gpu.check()
        if size_bytes <= 0:
            return Code.INVALID_ARGUMENTS
        if size_bytes > ALLOCATION_MAX_BYTES or len(self._pieces) >= ALLOCATIONS_MAX:
            return Code.QUOTA_EXCEEDED
        try:
            address = self._gpu.take(size_bytes)
        except CapacityExhausted:  # of the tenant's own partition
            address = None
        if address is None:
            return Code.QUOTA_EXCEEDED
        handle = self._next if self._next <= ALLOCATIONS_MAX else self._freed[0]
        try:
            self._gate.set_device(handle, self._gpu.offset(address) >> DEVICE_ADDRESS_SHIFT, size_bytes)
        except QuotaExceeded:
            self._gpu.give(address)
            return Code.QUOTA_EXCEEDED
        if self._next <= ALLOCATIONS_MAX:
            self._next += 1
        else:
            self._freed.popleft()
        self._pieces[handle] = address, size_bytes
        return handle

    def free(self, handle: int) -> int:
        """Give an allocation back; a code."""
        self._gpu.check()
        piece = self._pieces.pop(handle, None)
        if piece is None:
            return Code.INVALID_HANDLE
        self._gate.unset_device(handle)
        self._gpu.give(piece[0])
        self._freed.append(handle + ALLOCATIONS_MAX)
        return Code.OK

    def size_of(self, handle: int) -> int | None:
        """The bytes of an allocation; None when there is none."""
        self._gpu.check()
        piece = self._pieces.get(handle)
        return None if piece is None else piece[1]

    def write(self, handle: int, offset: int, source: memoryview) -> None:
        """Copy into an allocation."""
        self._gpu.write(self._pieces[handle][0] + offset, source)

    def read(self, handle: int, offset: int, target: memoryview) -> None:
        """Copy out of an allocation."""
        self._gpu.read(self._pieces[handle][0] + offset, target)

    def fill(self, handle: int, offset: int, value: int, size_bytes: int) -> None:
        """Set bytes of an allocation."""
        self._gpu.fill(self._pieces[handle][0] + offset, value, size_bytes)

    def close(self) -> None:
        """Nothing: see above."""
