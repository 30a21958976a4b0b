"""Pages of a guest's memory that are a part of a GPU's staging area at the same time.

The GPU copies from and to them itself: neither a processor nor the guest's thread touches a byte of it. They stay from
one launch to the next, and grow with the launches, at which what is there is copied once.
"""

from __future__ import annotations

from typing import Final

from tensor_wasm.device.cuda.board import BYTES
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.cuda.shared import STAGING_GRAIN_BYTES
from tensor_wasm.runtime import PAGE_BYTES, Pages

#: Up to here they double, so that a guest's launches soon find room enough.
_DOUBLED_BYTES_MAX: Final = 16 << 20


class StagedPages:
    """Of the memory ``pages`` of a guest of ``tenant``, at first none. Used by the guest's thread."""

    __slots__ = ("_gpu", "_pages", "_taken_bytes", "_tenant", "place", "size_bytes", "start")

    def __init__(self, pages: Pages, gpu: Gpu, tenant: int) -> None:
        self._pages = pages
        self._gpu = gpu
        self._tenant = tenant
        #: From where on in guest memory, how many bytes, and from where on in the staging area.
        self.start = self.size_bytes = self.place = 0
        self._taken_bytes = 0

    def extend(self, low: int, high: int) -> bool:
        """Have all between two places of guest memory be in the staging area too; false when that has no room.

        Nothing changes then. Raises :class:`~tensor_wasm.errors.InternalError` when the system refuses.
        """
        old_end = self.start + self.size_bytes
        if self.start <= low and high <= old_end:
            return True
        is_lower = bool(self.size_bytes) and low < self.start
        if self.size_bytes:
            low, high = min(low, self.start), max(high, old_end)
        start, end = low // PAGE_BYTES * PAGE_BYTES, -(-high // PAGE_BYTES) * PAGE_BYTES
        taken_bytes = with_room(end - start)
        # As much as is taken anyway, on the side where it became more: the next launch may ask for a little further on.
        if is_lower:
            start = max(end - taken_bytes, 0)
        size_bytes = min(start + taken_bytes, self._pages.size_bytes) - start
        place = self._gpu.take_staging(taken_bytes, self._tenant, self._taken_bytes)
        if place is None:
            return False
        try:
            self._gpu.fill_staging(place, self._pages.view(start, size_bytes))
            self._pages.show(start, size_bytes, self._gpu.board_descriptor, BYTES + place)
        except BaseException:
            self._gpu.give_staging(place, taken_bytes)
            raise
        self.give_back()
        self.start, self.size_bytes, self.place, self._taken_bytes = start, size_bytes, place, taken_bytes
        return True

    def hide(self) -> None:
        """Have the guest's memory be its own again, zeros: to be called before anybody else has it, or that part."""
        if self.size_bytes:
            self._pages.hide(self.start, self.size_bytes)
            self.size_bytes = 0

    def give_back(self) -> None:
        """Give the part of the staging area back, which no launch uses any more and guest memory does not show."""
        if self._taken_bytes:
            self._gpu.give_staging(self.place, self._taken_bytes)
            self._taken_bytes = 0


def with_room(size_bytes: int) -> int:
    """What to take for so many bytes."""
    if size_bytes > _DOUBLED_BYTES_MAX:
        return -(-size_bytes // STAGING_GRAIN_BYTES) * STAGING_GRAIN_BYTES
    return max(1 << (size_bytes - 1).bit_length(), STAGING_GRAIN_BYTES)
