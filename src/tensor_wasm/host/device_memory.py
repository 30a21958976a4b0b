"""Device memory of one guest: allocations behind handles, zeroed, gone with the guest.

Launches find them by handle in a table of the gate's. On the CPU device, which is here, they lie behind the end of the
guest's memory (see :mod:`tensor_wasm.runtime.annex`), where its kernels address them. ``gpu_memory.py`` has the GPU's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tensor_wasm.abi import Code
from tensor_wasm.abi.limits import ALLOCATION_MAX_BYTES, ALLOCATIONS_MAX
from tensor_wasm.device.guarded import bytes_at, copy_buffer, fill_bytes
from tensor_wasm.dispatch import Gate
from tensor_wasm.errors import InvalidSnapshot, QuotaExceeded
from tensor_wasm.runtime import Budget, Piece, Region


@dataclass(frozen=True, slots=True)
class DeviceState:
    """Allocations as a snapshot has them: address and bytes by handle, handles to give next, and what is open."""

    pieces: Mapping[int, tuple[int, int]]
    freed: Sequence[int]
    next: int
    regions: Sequence[Region]


class DeviceMemory(Protocol):
    """Allocations of one guest, by their handles. Ranges are inside, and views no longer than an allocation: whoever
    calls has asked :meth:`size_of`.
    """

    def allocate(self, size_bytes: int) -> int:
        """A handle >= 1, or a code."""

    def free(self, handle: int) -> int:
        """Give an allocation back; a code."""

    def size_of(self, handle: int) -> int | None:
        """The bytes of an allocation; None when there is none."""

    def write(self, handle: int, offset: int, source: memoryview) -> None:
        """Copy into an allocation."""

    def read(self, handle: int, offset: int, target: memoryview) -> None:
        """Copy out of an allocation."""

    def fill(self, handle: int, offset: int, value: int, size_bytes: int) -> None:
        """Set bytes of an allocation."""

    def close(self) -> None:
        """Give everything back."""


class CpuMemory:
    """Allocations of one guest. Their pages count against the instance's memory limit, their bytes against ``quota``,
    which is the tenant's for device memory.

    ``on_change`` is told by how many bytes the sum changed.
    """

    def __init__(self, gate: Gate, quota: Budget, on_change: Callable[[int], None]) -> None:
        self._gate = gate
        self._quota = quota
        self._on_change = on_change
        self._annex = gate.annex()
        self._pieces: dict[int, Piece] = {}
        #: Handles to give next. What was freed comes again as another number at the same place of the gate's table.
        self._freed: deque[int] = deque()
        self._next = 1
        self.used_bytes = 0

    def __len__(self) -> int:
        """How many allocations there are."""
        return len(self._pieces)

    def allocate(self, size_bytes: int) -> int:
        """A handle >= 1, or a code."""
        if size_bytes <= 0:
            return Code.INVALID_ARGUMENTS
        if size_bytes > ALLOCATION_MAX_BYTES or len(self._pieces) >= ALLOCATIONS_MAX:
            return Code.QUOTA_EXCEEDED
        if not self._quota.take(size_bytes):
            return Code.QUOTA_EXCEEDED
        piece = self._annex.take(size_bytes)
        if piece is None:
            self._quota.give(size_bytes)
            return Code.QUOTA_EXCEEDED
        handle = self._next if self._next <= ALLOCATIONS_MAX else self._freed[0]
        try:
            self._gate.set_device(handle, piece.address, size_bytes)
        except QuotaExceeded:
            self._annex.give(piece)
            self._quota.give(size_bytes)
            return Code.QUOTA_EXCEEDED
        if self._next <= ALLOCATIONS_MAX:
            self._next += 1
        else:
            self._freed.popleft()
        self._pieces[handle] = piece
        self._count(size_bytes)
        return handle

    def free(self, handle: int) -> int:
        """Give an allocation back; a code."""
        piece = self._pieces.pop(handle, None)
        if piece is None:
            return Code.INVALID_HANDLE
        self._gate.unset_device(handle)
        self._annex.give(piece)
        self._freed.append(handle + ALLOCATIONS_MAX)
        self._quota.give(piece.size_bytes)
        self._count(-piece.size_bytes)
        return Code.OK

    def size_of(self, handle: int) -> int | None:
        """The bytes of an allocation; None when there is none."""
        piece = self._pieces.get(handle)
        return None if piece is None else piece.size_bytes

    def write(self, handle: int, offset: int, source: memoryview) -> None:
        """Copy into an allocation."""
        copy_buffer(self._bytes(handle)[offset:], source)

    def read(self, handle: int, offset: int, target: memoryview) -> None:
        """Copy out of an allocation."""
        copy_buffer(target, self._bytes(handle)[offset : offset + len(target)])

    def fill(self, handle: int, offset: int, value: int, size_bytes: int) -> None:
        """Set bytes of an allocation."""
        if size_bytes:
            fill_bytes(self._pieces[handle].host_address + offset, value, size_bytes)

    def _bytes(self, handle: int) -> memoryview:
        piece = self._pieces[handle]
        return bytes_at(piece.host_address, piece.size_bytes)

    # --- for snapshots ----------------------------------------------------------------------------------

    def state(self) -> DeviceState:
        """Where everything is, without the bytes."""
        pieces = {handle: (piece.address, piece.size_bytes) for handle, piece in self._pieces.items()}
        return DeviceState(pieces, list(self._freed), self._next, self._annex.regions())

    def restore(self, state: DeviceState) -> None:
        """Take on a state, in a memory that has no allocations; its bytes are zeros.

        The gate has the table of allocations already. Raises :class:`QuotaExceeded` when it does not fit, and
        :class:`InvalidSnapshot` for a state that cannot be.
        """
        if not all(self._annex.reopen(region) for region in state.regions):
            raise QuotaExceeded("the device memory of the snapshot does not fit what an instance may have")
        for handle, (address, size_bytes) in state.pieces.items():
            piece = self._annex.piece(address, size_bytes)
            if piece is None:
                raise InvalidSnapshot("the snapshot has device memory outside of what it has open")
            if not self._quota.take(size_bytes):
                raise QuotaExceeded("the device memory of the snapshot does not fit the tenant's quota")
            self._pieces[handle] = piece
            self._count(size_bytes)
        self._freed.extend(state.freed)
        self._next = state.next

    def view(self, region: Region) -> memoryview:
        """The bytes of what is open there."""
        address = self._annex.address_of(region.start)
        return bytes_at(address, region.size_bytes)

    def close(self) -> None:
        """Give everything back."""
        for handle in tuple(self._pieces):
            self.free(handle)
        self._annex.close()

    def _count(self, change: int) -> None:
        self.used_bytes += change
        self._on_change(change)
