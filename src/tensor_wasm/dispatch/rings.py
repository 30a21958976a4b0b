"""Trace rings: where the gate notes what a traced instance launches, lent for the length of one call.

They are memory of the node's, a fixed number of them; a ring is zeroed before the next instance has it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.layout import EVENT_BYTES, RING_FIRST, RING_HEADER_BYTES, RING_LAST

_EVENT = struct.Struct("<q3i3i2i4qi4x3q")
assert _EVENT.size == EVENT_BYTES


class Event(NamedTuple):
    """A launch or a sync. Times are of the gate's clock, those of a sync of :func:`time.monotonic_ns`'s.

    ``started_ns`` is 0 when no kernel ran, ``ended_ns`` when the guest ended in it; ``code`` is then
    ``layout.EVENT_OPEN``. ``kind`` is ``layout.KIND_LAUNCH`` or ``KIND_SYNC``. The last three are how long a GPU took,
    by its own clock; 0 where that is not known.
    """

    kernel: int
    grid_x: int
    grid_y: int
    grid_z: int
    block_x: int
    block_y: int
    block_z: int
    shared_bytes: int
    code: int
    entered_ns: int
    waited_ns: int
    started_ns: int
    ended_ns: int
    kind: int
    kernel_ns: int = 0
    copy_in_ns: int = 0
    copy_out_ns: int = 0


@dataclass(frozen=True, slots=True)
class Events:
    """What a ring had: how many events there were, how many of them syncs, and those that it kept, as they stand in it.

    As bytes, for whoever makes something of them does so later and elsewhere.
    """

    count: int
    syncs: int
    kept: bytes

    @property
    def kept_count(self) -> int:
        """How many it kept."""
        return len(self.kept) // EVENT_BYTES

    def __iter__(self) -> Iterator[Event]:
        """The kept events in the order in which they began: the first ones, then the last ones."""
        kept = [Event._make(fields) for fields in _EVENT.iter_unpack(self.kept)]
        turn = self.count % RING_LAST if self.count > RING_FIRST + RING_LAST else 0
        first, last = kept[:RING_FIRST], kept[RING_FIRST:]
        yield from first
        yield from last[turn:]
        yield from last[:turn]


class Rings:
    """The rings of one ledger, whose memory ``bytes_`` and ``longs`` show. Safe for threads; a ring is one thread's."""

    def __init__(self, bytes_: memoryview, longs: memoryview) -> None:
        self._bytes = bytes_
        self._longs = longs
        self._nothing = memoryview(bytes(layout.RING_BYTES))
        self._free = deque(range(layout.RING_SLOTS))

    def take(self) -> int | None:
        """The offset of an empty ring, None when all are lent."""
        try:
            return layout.ring_offset(self._free.pop())  # the last one given back: its memory is still at hand
        except IndexError:
            return None

    def note_sync(self, ring: int, code: int, entered_ns: int, ended_ns: int) -> None:
        """Note a sync, while the guest waits for its answer: nobody else writes the ring then."""
        count = self.count(ring)
        self._longs[(ring + layout.RING_EVENTS) >> 3] = count + 1
        self._longs[(ring + layout.RING_SYNCS) >> 3] += 1
        place = count if count < RING_FIRST else RING_FIRST + count % RING_LAST
        start = ring + RING_HEADER_BYTES + place * EVENT_BYTES
        times = entered_ns, 0, 0, ended_ns
        _EVENT.pack_into(self._bytes, start, *[0] * 8, code, *times, layout.KIND_SYNC, 0, 0, 0)

    def count(self, ring: int) -> int:
        """How many events a ring was told of."""
        count: int = self._longs[(ring + layout.RING_EVENTS) >> 3]
        return count

    def read(self, ring: int) -> Events:
        """What a ring has. Its guest runs no more."""
        count = self.count(ring)
        start = ring + RING_HEADER_BYTES
        kept = bytes(self._bytes[start : start + kept_of(count) * EVENT_BYTES])
        return Events(count, self._longs[(ring + layout.RING_SYNCS) >> 3], kept)

    def give(self, ring: int) -> None:
        """Take back a ring and leave it empty."""
        used_bytes = RING_HEADER_BYTES + kept_of(self.count(ring)) * EVENT_BYTES
        self._bytes[ring : ring + used_bytes] = self._nothing[:used_bytes]
        self._free.append((ring - layout.RINGS) // layout.RING_BYTES)


class FilledRing:
    """A ring whose guest runs no more, until somebody has read it: so the guest's thread copies nothing.

    It goes back by :meth:`take` or :meth:`give`, at the latest when nothing refers to it any more.
    """

    __slots__ = ("_is_given", "_ring", "_rings", "kept_count")

    def __init__(self, rings: Rings, ring: int) -> None:
        self._rings = rings
        self._ring = ring
        self._is_given = False
        #: How many events it has.
        self.kept_count = kept_of(rings.count(ring))

    def take(self) -> Events:
        """What is in it; once only."""
        events = self._rings.read(self._ring)
        self.give()
        return events

    def give(self) -> None:
        """Give it back. Safe to call twice."""
        if not self._is_given:
            self._is_given = True
            self._rings.give(self._ring)

    def __del__(self) -> None:
        self.give()


def kept_of(count: int) -> int:
    """How many of so many events a ring keeps."""
    return min(count, RING_FIRST + RING_LAST)
