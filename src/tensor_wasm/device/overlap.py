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


def groups_of(arrays: Sequence[NDArray[Any]], is_written: Sequence[bool] | None = None) -> list[Group]:
    """Arrays with elements, those that overlap together. Arrays that only touch are not.

    ``is_written`` says for each array whether anything is written through its pointer. Without it all may be.
    """
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
    if is_written is not None and not all(is_written):
        for group in groups:
            if group.writable:
                found = [(start, arrays[index].nbytes) for index, start in group.members if is_written[index]]
                group.writable = _both(group.writable, _united(found))
    return groups


def _united(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (start, bytes) in the order of their starts, without what several have in common."""
    found: list[tuple[int, int]] = []
    for start, size in ranges:
        if found and start <= sum(found[-1]):
            first, before = found[-1]
            found[-1] = first, max(before, start + size - first)
        else:
            found.append((start, size))
    return found


def _both(ranges: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is in one of the ranges and in one of the others."""
    found = []
    for start, size in ranges:
        for other, other_size in others:
            first, end = max(start, other), min(start + size, other + other_size)
            if first < end:
                found.append((first, end - first))
    return found
