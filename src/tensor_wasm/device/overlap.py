"""Arrays of a launch by the memory that they share in this process: what overlaps here overlaps on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray


class Group:
    """Arrays whose bytes overlap in this process: one piece of device memory, so they stay aliases there.

    ``start`` and ``end`` are addresses in this process; ``members`` the arrays' indices with their own addresses;
    ``writable`` the ranges (start, bytes) to copy back.
    """

    __slots__ = ("end", "members", "start", "writable")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.members: list[tuple[int, int]] = []
        self.writable: list[tuple[int, int]] = []


def groups_of(arrays: Sequence[NDArray[Any]]) -> list[Group]:
    """Arrays with elements, those that overlap together. Arrays that only touch are not."""
    spans = []
    for index, array in enumerate(arrays):
        size = array.nbytes
        if size:
            spans.append((array.__array_interface__["data"][0], size, index, array.flags.writeable))
    spans.sort()
    groups: list[Group] = []
    group = Group(0, 0)
    for start, size, index, is_writable in spans:
        if start >= group.end:
            group = Group(start, start + size)
            groups.append(group)
        elif start + size > group.end:
            group.end = start + size
        group.members.append((index, start))
        if is_writable:
            group.writable.append((start, size))
    return groups
