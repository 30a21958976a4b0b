"""Free space as spans of bytes: taken first fit, given back, joined with what is next to it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable


class Spans:
    """Free spans between two addresses, ascending, no two of them adjacent. All of it is free at first."""

    __slots__ = ("_free",)

    def __init__(self, start: int, end: int) -> None:
        self._free: list[tuple[int, int]] = [(start, end - start)] if end > start else []

    @classmethod
    def of(cls, free: Iterable[tuple[int, int]]) -> Spans:
        """Free space as :attr:`free` gave it."""
        spans = cls(0, 0)
        for start, size_bytes in free:
            spans.give(start, size_bytes)
        return spans

    @property
    def free(self) -> list[tuple[int, int]]:
        """What is free: where each span starts, and its bytes."""
        return list(self._free)

    def take_at(self, start: int, size_bytes: int) -> bool:
        """Take a certain place; false, and nothing taken, when not all of it is free."""
        position = bisect_left(self._free, (start + 1, 0)) - 1
        if position < 0 or size_bytes <= 0:
            return False
        before, size = self._free[position]
        if start + size_bytes > before + size:
            return False
        del self._free[position]
        for at, end in ((before, start), (start + size_bytes, before + size)):
            if end > at:
                insort(self._free, (at, end - at))
        return True

    def take(self, size_bytes: int) -> int | None:
        """The lowest free place for so many bytes, taken; None when there is none."""
        for position, (start, size) in enumerate(self._free):
            if size >= size_bytes:
                self._set(position, start + size_bytes, size - size_bytes)
                return start
        return None

    def take_high(self, size_bytes: int) -> int | None:
        """As :meth:`take`, the highest place."""
        for position in reversed(range(len(self._free))):
            start, size = self._free[position]
            if size >= size_bytes:
                self._set(position, start, size - size_bytes)
                return start + size - size_bytes
        return None

    def give(self, start: int, size_bytes: int) -> None:
        """Free a span again."""
        position = bisect_left(self._free, (start, 0))
        if position < len(self._free) and self._free[position][0] == start + size_bytes:
            size_bytes += self._free.pop(position)[1]
        if position and sum(self._free[position - 1]) == start:
            before, before_bytes = self._free.pop(position - 1)
            start, size_bytes = before, before_bytes + size_bytes
        insort(self._free, (start, size_bytes))

    def is_all(self, size_bytes: int) -> bool:
        """Whether one free span has so many bytes."""
        return any(size >= size_bytes for _, size in self._free)

    def _set(self, position: int, start: int, size: int) -> None:
        if size:
            self._free[position] = (start, size)
        else:
            del self._free[position]
