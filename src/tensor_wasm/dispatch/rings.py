"""Trace rings: where the gate notes what a traced instance launches, lent for the length of one call.

They are memory of the node's, a fixed number of them; a ring is zeroed before the next instance has it.
"""

from __future__ import annotations

import ctypes
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.layout import EVENT_BYTES, RING_FIRST, RING_HEADER_BYTES, RING_LAST

_EVENT = struct.Struct("<q3i3i2i4qi4x")
assert _EVENT.size == EVENT_BYTES


class Event(NamedTuple):
    """A launch or a sync. Times are of the gate's clock, those of a sync of :func:`time.monotonic_ns`'s.

    ``started_ns`` is 0 when no kernel ran, ``ended_ns`` when the guest ended in it; ``code`` is then
    ``layout.EVENT_OPEN``. ``kind`` is ``layout.KIND_LAUNCH`` or ``KIND_SYNC``.
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
    """The rings of one ledger, whose memory starts at ``address``. Safe for threads; a ring is one thread's."""

    def __init__(self, address: int) -> None:
        self._address = address
        self._free = deque(range(layout.RING_SLOTS))

    def take(self) -> int | None:
        """The offset of an empty ring, None when all are lent."""
        try:
            return layout.ring_offset(self._free.popleft())
        except IndexError:
            return None

    def note_sync(self, ring: int, code: int, entered_ns: int, ended_ns: int) -> None:
        """Note a sync, while the guest waits for its answer: nobody else writes the ring then."""
        header = (ctypes.c_int64 * 2).from_address(self._address + ring)
        count = header[0]
        header[0] = count + 1
        header[1] += 1
        place = count if count < RING_FIRST else RING_FIRST + count % RING_LAST
        event = _EVENT.pack(0, 0, 0, 0, 0, 0, 0, 0, code, entered_ns, 0, 0, ended_ns, layout.KIND_SYNC)
        ctypes.memmove(self._address + ring + RING_HEADER_BYTES + place * EVENT_BYTES, event, EVENT_BYTES)

    def give(self, ring: int) -> Events:
        """Take back a ring and leave it empty; what it had. The guest runs no more."""
        start = self._address + ring
        count, syncs = (ctypes.c_int64 * 2).from_address(start)
        used_bytes = min(count, RING_FIRST + RING_LAST) * EVENT_BYTES
        kept = ctypes.string_at(start + RING_HEADER_BYTES, used_bytes)
        ctypes.memset(start, 0, RING_HEADER_BYTES + used_bytes)
        self._free.append((ring - layout.RINGS) // layout.RING_BYTES)
        return Events(count, syncs, kept)
