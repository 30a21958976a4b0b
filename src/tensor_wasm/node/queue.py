"""A queue that serves tenants fairly: whose turn is it, when somebody waits?

The same rule as for permits of the device (see :mod:`tensor_wasm.dispatch.arbiter`): the tenant with the least running
for its weight, and between equals by the virtual time of start-time fair queueing.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


#: Tenants of which nothing waits or runs are remembered up to this many: to make a line anew costs as much as a call.
_IDLE_LINES = 1024


@dataclass(slots=True)
class _Line(Generic[_Item]):
    """A tenant that waits or runs. ``version`` tells its entry in the heap from older ones."""

    tenant: int
    items: deque[_Item] = field(default_factory=deque)
    running: int = 0
    turn: float = 0.0
    version: int = 0


class FairQueue(Generic[_Item]):
    """Items of tenants, and how many of each tenant's are running. Not safe for threads.

    ``weight_of`` is asked each time a tenant's place is reckoned: it may change.
    """

    def __init__(self, weight_of: Callable[[int], int]) -> None:
        self._weight_of = weight_of
        self._lines: dict[int, _Line[_Item]] = {}
        self._heap: list[tuple[float, float, int, int]] = []
        self._now = 0.0
        self._lines_max = _IDLE_LINES
        self.length = 0
        self.running = 0

    def waiting(self, tenant: int) -> int:
        """Items of a tenant that wait."""
        line = self._lines.get(tenant)
        return 0 if line is None else len(line.items)

    def running_of(self, tenant: int) -> int:
        """Items of a tenant that run."""
        line = self._lines.get(tenant)
        return 0 if line is None else line.running

    def tenants(self) -> dict[int, int]:
        """How many items of each tenant wait; without those that have none."""
        return {line.tenant: len(line.items) for line in self._lines.values() if line.items}

    def start(self, tenant: int) -> None:
        """Count an item as running that did not wait."""
        self._line(tenant).running += 1
        self.running += 1

    def finish(self, tenant: int) -> None:
        """Count an item as running no longer."""
        line = self._lines[tenant]
        line.running -= 1
        self.running -= 1
        if line.items:
            self._reckon(line)

    def push(self, tenant: int, item: _Item) -> None:
        """Put an item at its tenant's tail."""
        line = self._line(tenant)
        if not line.items:
            line.turn = max(line.turn, self._now)  # who comes anew has no turns to make up for
        line.items.append(item)
        self.length += 1
        if len(line.items) == 1:
            self._reckon(line)

    def remove(self, tenant: int, item: _Item) -> bool:
        """Take an item out that will not be served; whether it waited."""
        line = self._lines.get(tenant)
        if line is None:
            return False
        try:
            line.items.remove(item)
        except ValueError:
            return False
        self.length -= 1
        if not line.items:
            line.version += 1
        return True

    def next(self) -> tuple[int, int] | None:
        """Whose turn it is, and how many of its items run; None when nobody waits."""
        while self._heap:
            _, _, tenant, version = self._heap[0]
            line = self._lines.get(tenant)
            if line is not None and line.items and line.version == version:
                return tenant, line.running
            heapq.heappop(self._heap)
        return None

    def pop(self) -> tuple[int, _Item]:
        """Take out the item whose turn it is, and count it as running. There must be one."""
        found = self.next()
        assert found is not None
        line = self._lines[found[0]]
        item = line.items.popleft()
        self.length -= 1
        line.running += 1
        self.running += 1
        self._now = line.turn
        line.turn += 1.0 / self._weight_of(line.tenant)
        self._reckon(line)
        return line.tenant, item

    def _line(self, tenant: int) -> _Line[_Item]:
        line = self._lines.get(tenant)
        if line is None:
            if len(self._lines) >= self._lines_max:
                self._lines = {number: one for number, one in self._lines.items() if one.items or one.running}
                self._lines_max = 2 * len(self._lines) + _IDLE_LINES
            line = self._lines[tenant] = _Line(tenant)
        return line

    def _reckon(self, line: _Line[_Item]) -> None:
        """Enter a tenant's place in the heap anew; entries made before are void."""
        line.version += 1
        if line.items:
            share = line.running / self._weight_of(line.tenant)
            heapq.heappush(self._heap, (share, line.turn, line.tenant, line.version))
            if len(self._heap) > 64 + 4 * len(self._lines):
                self._heap = [entry for entry in self._heap if self._is_current(entry)]
                heapq.heapify(self._heap)

    def _is_current(self, entry: tuple[float, float, int, int]) -> bool:
        line = self._lines.get(entry[2])
        return line is not None and bool(line.items) and line.version == entry[3]
