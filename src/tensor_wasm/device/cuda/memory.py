"""A partition on the device: addresses, the physical memory that they show, and the guard zones around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tensor_wasm.device.cuda.driver import Driver
from tensor_wasm.device.partition import GUARD_BYTES, Partition


class PartitionMemory:
    """All that the driver gave for one partition.

    The granule before the base shows the partition's last granule, and the one after its end the first: a constant
    offset that leads out of the partition meets the tenant's own bytes, and never a hole, which would end the context.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        #: What gives back what was taken, the latest last.
        self._undo: list[Callable[[], None]] = []
        #: Whether all of it is there.
        self.is_whole = False

    def open(self, granule_bytes: int, size_bytes: int) -> Partition:
        """Take it; the content is whatever was there. ``size_bytes`` is a power of two and at least two granules.

        Raises :class:`DriverError`; :meth:`close` is then due.
        """
        if size_bytes < 2 * granule_bytes or size_bytes & (size_bytes - 1) or granule_bytes < GUARD_BYTES:
            raise ValueError(f"no partition: {size_bytes} bytes in granules of {granule_bytes}")
        # Wherever so many addresses start, a multiple of the size, with a granule on both sides, lies among them.
        start = self._reserve(2 * size_bytes + granule_bytes, granule_bytes)
        base = -(-(start + granule_bytes) // size_bytes) * size_bytes
        # Drivers map a piece of physical memory only from its start: what is shown twice is a piece of its own.
        first, last = self._create(granule_bytes), self._create(granule_bytes)
        self._map(base - granule_bytes, granule_bytes, last)
        self._map(base, granule_bytes, first)
        if between := size_bytes - 2 * granule_bytes:
            self._map(base + granule_bytes, between, self._create(between))
        self._map(base + size_bytes - granule_bytes, granule_bytes, last)
        self._map(base + size_bytes, granule_bytes, first)
        self.is_whole = True
        return Partition(base, size_bytes)

    def close(self) -> None:
        """Give all of it back; nothing uses it any more. Where a call fails, the next call of this goes on there."""
        while self._undo:
            self.is_whole = False
            self._undo[-1]()
            self._undo.pop()

    def _reserve(self, size_bytes: int, alignment: int) -> int:
        start = self._driver.reserve(size_bytes, alignment)
        self._undo.append(partial(self._driver.release, start, size_bytes))
        return start

    def _create(self, size_bytes: int) -> int:
        memory = self._driver.create_memory(size_bytes)
        self._undo.append(partial(self._driver.destroy_memory, memory))
        return memory

    def _map(self, address: int, size_bytes: int, memory: int) -> None:
        self._driver.map_memory(address, size_bytes, memory, 0)
        self._undo.append(partial(self._driver.unmap_memory, address, size_bytes))
