"""NumPy arrays of one launch: into device memory, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tensor_wasm.device.guarded import GUARD_BYTES, GuardedMemory, Piece, copy_bytes

#: What an array without elements has for an address: none that may be touched, and no null pointer.
EMPTY_ADDRESS = GUARD_BYTES // 2


class _Group:
    """Arrays whose bytes overlap in this process: one piece of device memory, so they stay aliases there.

    ``start`` and ``end`` are addresses in this process; ``writable`` the ranges (start, bytes) to copy back.
    """

    __slots__ = ("end", "members", "piece", "start", "writable")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.members: list[tuple[int, int]] = []
        self.writable: list[tuple[int, int]] = []
        self.piece: Piece | None = None


class Transfer:
    """The arrays of one launch. The caller has the machine's turn, and calls :meth:`release` in the end.

    ``addresses`` are in the order of the arrays. An array that is read-only, and overlaps no writable one, cannot be
    written to by the kernel: that faults.
    """

    def __init__(self, memory: GuardedMemory, arrays: Sequence[NDArray[Any]]) -> None:
        self._memory = memory
        self._groups = _groups(arrays)
        self.addresses = [EMPTY_ADDRESS] * len(arrays)

    def copy_in(self) -> None:
        """Take device memory and copy the arrays there. Raises :class:`CapacityExhausted` when they do not fit."""
        memory = self._memory
        for group in self._groups:
            size = group.end - group.start
            group.piece = piece = memory.take(size)
            copy_bytes(piece.host_address, group.start, size)
            if not group.writable:
                memory.forbid_writing(piece)
            for index, start in group.members:
                self.addresses[index] = piece.address + start - group.start

    def copy_back(self) -> None:
        """Copy what the kernel left in device memory into the writable arrays."""
        for group in self._groups:
            assert group.piece is not None
            for start, size in group.writable:
                copy_bytes(start, group.piece.host_address + start - group.start, size)

    def is_read_only(self, index: int) -> bool:
        """Whether writing to array ``index`` faults."""
        return any(not group.writable and any(member == index for member, _ in group.members) for group in self._groups)

    def release(self) -> None:
        """Give the device memory back."""
        for group in self._groups:
            piece, group.piece = group.piece, None
            if piece is not None:
                if not group.writable:
                    self._memory.allow_writing(piece)
                self._memory.give(piece, keep=True)


def _groups(arrays: Sequence[NDArray[Any]]) -> list[_Group]:
    """Arrays with elements, those that overlap together. Arrays that only touch are not."""
    spans = []
    for index, array in enumerate(arrays):
        size = array.nbytes
        if size:
            spans.append((array.__array_interface__["data"][0], size, index, array.flags.writeable))
    spans.sort()
    groups: list[_Group] = []
    group = _Group(0, 0)
    for start, size, index, is_writable in spans:
        if start >= group.end:
            group = _Group(start, start + size)
            groups.append(group)
        elif start + size > group.end:
            group.end = start + size
        group.members.append((index, start))
        if is_writable:
            group.writable.append((start, size))
    return groups
