"""NumPy arrays of one launch: into the CPU device's memory, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tensor_wasm.device.guarded import GUARD_BYTES, GuardedMemory, Piece, copy_bytes
from tensor_wasm.device.overlap import groups_of

#: What an array without elements has for an address: none that may be touched, and no null pointer.
EMPTY_ADDRESS = GUARD_BYTES // 2


class Transfer:
    """The arrays of one launch. The caller has the machine's turn, and calls :meth:`release` in the end.

    ``addresses`` are in the order of the arrays. An array that is read-only, and overlaps no writable one, cannot be
    written to by the kernel: that faults.
    """

    def __init__(self, memory: GuardedMemory, arrays: Sequence[NDArray[Any]]) -> None:
        self._memory = memory
        self._groups = groups_of(arrays)
        self._pieces: list[Piece] = []  # of the groups, in order
        self.addresses = [EMPTY_ADDRESS] * len(arrays)

    def copy_in(self) -> None:
        """Take device memory and copy the arrays there. Raises :class:`CapacityExhausted` when they do not fit."""
        memory = self._memory
        for group in self._groups:
            size = group.end - group.start
            piece = memory.take(size)
            self._pieces.append(piece)
            copy_bytes(piece.host_address, group.start, size)
            if not group.writable:
                memory.forbid_writing(piece)
            for index, start in group.members:
                self.addresses[index] = piece.address + start - group.start

    def copy_back(self) -> None:
        """Copy what the kernel left in device memory into the writable arrays."""
        for group, piece in zip(self._groups, self._pieces, strict=True):
            for start, size in group.writable:
                copy_bytes(start, piece.host_address + start - group.start, size)

    def is_read_only(self, index: int) -> bool:
        """Whether writing to array ``index`` faults."""
        return any(not group.writable and any(member == index for member, _ in group.members) for group in self._groups)

    def release(self) -> None:
        """Give the device memory back."""
        for group, piece in zip(self._groups, self._pieces, strict=False):
            if not group.writable:
                self._memory.allow_writing(piece)
            self._memory.give(piece, keep=True)
        self._pieces.clear()
