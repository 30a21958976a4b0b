"""NumPy arrays of one launch: to the GPU, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from numpy.typing import NDArray

from tensor_wasm.device.cuda.board import BYTES, Direction
from tensor_wasm.device.cuda.gpu import Gpu, Window
from tensor_wasm.device.cuda.tenant import ALIGNMENT, GpuTenant
from tensor_wasm.device.guarded import bytes_at, copy_bytes
from tensor_wasm.device.overlap import Group, groups_of

#: Arrays of so many bytes, all together, go with the launch itself; more are copied before and after it, piece by
#: piece, so that this process and the GPU copy at the same time.
_STAGED_BYTES_MAX: Final = 8 << 20


class GpuTransfer:
    """The arrays of one launch. The caller calls :meth:`release` in the end, when the launch is over.

    ``addresses`` are in the order of the arrays; ``windows`` are what the launch copies. ``is_written`` says for each
    array whether the kernel may write through its pointer: only what it may write is copied back.
    """

    def __init__(self, gpu: Gpu, tenant: GpuTenant, arrays: Sequence[NDArray[Any]], is_written: Sequence[bool]) -> None:
        self._gpu = gpu
        self._tenant = tenant
        # What is only read comes first: the rest is one range, to be copied back.
        self._groups = sorted(groups_of(arrays, is_written), key=lambda group: bool(group.writable))
        self._places: list[int] = []
        self._size_bytes = self._read_bytes = 0
        for group in self._groups:
            self._places.append(self._size_bytes)
            self._size_bytes += -(-(group.end - group.start) // ALIGNMENT) * ALIGNMENT
            if not group.writable:
                self._read_bytes = self._size_bytes
        self._address: int | None = None
        self._staging: int | None = None
        self.addresses = [tenant.empty_address] * len(arrays)
        self.windows: list[Window] = []

    def copy_in(self) -> None:
        """Take device memory, and copy the arrays there or to where the launch copies from.

        Raises :class:`CapacityExhausted` when they do not fit, and :class:`DeviceRestarting`.
        """
        if not self._groups:
            return
        address = self._address = self._tenant.take(self._size_bytes, is_cleared=False)
        if self._size_bytes <= _STAGED_BYTES_MAX:
            self._staging = self._gpu.take_staging(self._size_bytes)
        for group, place in zip(self._groups, self._places, strict=True):
            for index, start in group.members:
                self.addresses[index] = address + place + start - group.start
            if self._staging is None:
                self._tenant.copy_in(address + place, _bytes_of(group))
            else:
                copy_bytes(self._staged(place), group.start, group.end - group.start)
        if self._staging is not None:
            self.windows.append(Window(address, self._staging, self._size_bytes, Direction.IN))
            if written := self._size_bytes - self._read_bytes:
                start = self._read_bytes
                self.windows.append(Window(address + start, self._staging + start, written, Direction.OUT))

    def copy_back(self) -> None:
        """Copy what the kernel may have written into the writable arrays. Raises :class:`DeviceRestarting`."""
        for group, place in zip(self._groups, self._places, strict=True):
            for start, size in group.writable:
                place_in = place + start - group.start
                if self._staging is not None:
                    copy_bytes(start, self._staged(place_in), size)
                else:
                    assert self._address is not None
                    self._tenant.copy_out(self._address + place_in, bytes_at(start, size))

    def release(self) -> None:
        """Give the memory back."""
        if self._staging is not None:
            self._gpu.give_staging(self._staging, self._size_bytes)
        if self._address is not None and not self._tenant.is_void:
            self._tenant.give(self._address)
        self._staging = self._address = None

    def _staged(self, place: int) -> int:
        """Where in this process a place in the staging area is."""
        assert self._staging is not None
        return self._gpu.address + BYTES + self._staging + place


def _bytes_of(group: Group) -> memoryview:
    return bytes_at(group.start, group.end - group.start)
