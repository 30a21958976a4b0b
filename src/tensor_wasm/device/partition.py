"""A tenant's part of a device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Bytes on both sides of a partition that no allocation uses: constant offsets may lead there.
GUARD_BYTES: Final = 1 << 16
#: Bytes of the widest access.
WIDEST_BYTES: Final = 32
#: What comes first in the image of a module's variables: the line of the kernel's first trap or, where accesses are
#: checked, of the first that was outside. 0 while there is none.
FAULT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Partition:
    """``size_bytes`` is a power of two, ``base`` a multiple of it: an address is inside when its upper bits are.

    Raises ValueError for other numbers.
    """

    base: int
    size_bytes: int

    def __post_init__(self) -> None:
        size = self.size_bytes
        if size < WIDEST_BYTES or size & (size - 1) or self.base % size or not 0 <= self.base <= (1 << 64) - size:
            raise ValueError(f"no partition: {size} bytes at {self.base:#x}")

    @property
    def mask(self) -> int:
        """The bits of an address that say where in the partition it is."""
        return self.size_bytes - 1

    def inside(self, address: int) -> int:
        """What becomes of an address: itself where it is inside."""
        return (address & self.mask) | self.base

    def holds(self, address: int, size_bytes: int) -> bool:
        """Whether all bytes of a range are inside."""
        return self.base <= address <= address + size_bytes <= self.base + self.size_bytes
