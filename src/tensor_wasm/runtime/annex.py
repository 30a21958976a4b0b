"""Memory behind the end of a linear memory: pieces in its reservation that kernels can address.

A linear memory has 4 GiB of address space, closed from its end on, and compiled code relies on that to find accesses
outside. An annex opens pieces of it, from the top down. Code that addresses the memory reaches them by plain 32-bit
addresses, as fast as the memory itself and from every store that names it; ``memory.size`` and all that the host
checks against it know nothing of them. The memory cannot grow into them.

Each piece has closed space around it, while there are few; each of those costs the process two of its mappings, of
which the system allows some 65,000. Beyond that pieces lie side by side in blocks, which have closed space around them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.runtime.memory import Budget, MemoryPool, Reservation
from tensor_wasm.runtime.spans import Spans

#: Closed space after every piece, and before the lowest.
GUARD_BYTES = 64 << 10
#: Pieces with closed space of their own, in one memory.
GUARDED_PIECES = 64
#: A piece starts at a multiple of this, the widest access of a thread; so up to 15 bytes after it can be touched.
ALIGNMENT = 16
#: In a block a piece has cache lines of its own.
_BLOCK_ALIGNMENT = 64
#: A block has as many bytes as all blocks before, within these bounds.
_BLOCK_MIN_BYTES, _BLOCK_MAX_BYTES = 64 << 10, 16 << 20

_PAGE_BYTES = 4096
_TOP = (1 << 32) - GUARD_BYTES


@dataclass(slots=True, eq=False)
class _Opened:
    """Open pages, from ``start`` on. ``room`` is what is free there; None where one piece has all of it."""

    start: int
    size_bytes: int
    room: Spans | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """Open pages as a snapshot has them: ``room`` is what is free there, None where one piece has all of it."""

    start: int
    size_bytes: int
    room: list[tuple[int, int]] | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an annex: ``address`` is what kernels are given, ``host_address`` where that is in this process."""

    address: int
    host_address: int
    size_bytes: int
    opened: _Opened


class Annex:
    """The pieces behind one memory. For the thread that has its store.

    Open pages count against ``budget``.
    """

    def __init__(self, pool: MemoryPool, reservation: Reservation, budget: Budget) -> None:
        self._pool = pool
        self._memory = reservation
        self._budget = budget
        self._closed = Spans(0, _TOP)
        self._opened: set[_Opened] = set()
        self._blocks: list[_Opened] = []
        self._guarded = 0

    def take(self, size_bytes: int) -> Piece | None:
        """So many bytes of zeros; None when the budget or the address space has no room, or the system refuses."""
        if self._guarded < GUARDED_PIECES and self._pool.guarded_pieces.take(1):
            opened = self._open(_rounded(size_bytes, _PAGE_BYTES))
            if opened is None:
                self._pool.guarded_pieces.give(1)
                return None
            self._guarded += 1
            # At the end of its pages: what comes after is closed.
            at = opened.start + opened.size_bytes - _rounded(size_bytes, ALIGNMENT)
            return self._piece(at, size_bytes, opened)
        return self._take_from_block(size_bytes)

    def give(self, piece: Piece) -> None:
        """Take a piece back; its bytes are zeros for whoever gets them next."""
        opened = piece.opened
        if opened.room is None:
            self._close(opened)
            self._guarded -= 1
            self._pool.guarded_pieces.give(1)
            return
        size_bytes = _rounded(piece.size_bytes, _BLOCK_ALIGNMENT)
        self._pool.clear(piece.host_address, size_bytes)
        opened.room.give(piece.address, size_bytes)
        if opened.room.is_all(opened.size_bytes):
            self._blocks.remove(opened)
            self._close(opened)

    def close(self) -> None:
        """Close all of it, whether pieces were given back or not."""
        for opened in tuple(self._opened):
            if opened.room is None:
                self._guarded -= 1
                self._pool.guarded_pieces.give(1)
            self._close(opened)
        self._blocks.clear()

    # --- for snapshots ----------------------------------------------------------------------------------

    def regions(self) -> list[Region]:
        """What is open, in no particular order."""
        return [
            Region(opened.start, opened.size_bytes, None if opened.room is None else opened.room.free)
            for opened in sorted(self._opened, key=lambda opened: opened.start)
        ]

    def reopen(self, region: Region) -> bool:
        """Open what :meth:`regions` gave, at its place, as zeros; false when that cannot be."""
        is_guarded = region.room is None
        if region.start < GUARD_BYTES or not self._closed.take_at(region.start, region.size_bytes + GUARD_BYTES):
            return False
        if is_guarded and not self._pool.guarded_pieces.take(1):
            self._closed.give(region.start, region.size_bytes + GUARD_BYTES)
            return False
        fits = region.start - GUARD_BYTES >= self._memory.size and self._budget.take(region.size_bytes)
        if not fits or not self._pool.open(self._memory.base + region.start, region.size_bytes):
            if fits:
                self._budget.give(region.size_bytes)
            if is_guarded:
                self._pool.guarded_pieces.give(1)
            self._closed.give(region.start, region.size_bytes + GUARD_BYTES)
            return False
        opened = _Opened(region.start, region.size_bytes, None if region.room is None else Spans.of(region.room))
        self._opened.add(opened)
        if is_guarded:
            self._guarded += 1
        else:
            self._blocks.append(opened)
        self._bound()
        return True

    def piece(self, address: int, size_bytes: int) -> Piece | None:
        """A piece that was at an address before, in what was opened again; None when nothing is open there."""
        for opened in self._opened:
            if opened.start <= address and address + size_bytes <= opened.start + opened.size_bytes:
                return self._piece(address, size_bytes, opened)
        return None

    def address_of(self, start: int) -> int:
        """Where in this process a place behind the memory is."""
        return self._memory.base + start

    def _take_from_block(self, size_bytes: int) -> Piece | None:
        span = _rounded(size_bytes, _BLOCK_ALIGNMENT)
        for opened in self._blocks:
            assert opened.room is not None
            at = opened.room.take(span)
            if at is not None:
                return self._piece(at, size_bytes, opened)
        wanted = min(max(sum(block.size_bytes for block in self._blocks), _BLOCK_MIN_BYTES), _BLOCK_MAX_BYTES)
        least = _rounded(size_bytes, _PAGE_BYTES)
        opened_now = self._open(max(wanted, least)) or (self._open(least) if wanted > least else None)
        if opened_now is None:
            return None
        opened_now.room = Spans(opened_now.start, opened_now.start + opened_now.size_bytes)
        self._blocks.append(opened_now)
        at = opened_now.room.take(span)
        assert at is not None
        return self._piece(at, size_bytes, opened_now)

    def _piece(self, at: int, size_bytes: int, opened: _Opened) -> Piece:
        return Piece(at, self._memory.base + at, size_bytes, opened)

    def _open(self, size_bytes: int) -> _Opened | None:
        if not self._budget.take(size_bytes):
            return None
        start = self._closed.take_high(size_bytes + GUARD_BYTES)
        if start is not None:
            if start - GUARD_BYTES >= self._memory.size and self._pool.open(self._memory.base + start, size_bytes):
                opened = _Opened(start, size_bytes)
                self._opened.add(opened)
                self._bound()
                return opened
            self._closed.give(start, size_bytes + GUARD_BYTES)
        self._budget.give(size_bytes)
        return None

    def _close(self, opened: _Opened) -> None:
        self._pool.shut(self._memory.base + opened.start, opened.size_bytes)
        self._closed.give(opened.start, opened.size_bytes + GUARD_BYTES)
        self._opened.remove(opened)
        self._bound()
        self._budget.give(opened.size_bytes)

    def _bound(self) -> None:
        """Bound how far the memory may grow."""
        lowest = min((opened.start for opened in self._opened), default=None)
        self._memory.ceiling = None if lowest is None else lowest - GUARD_BYTES


def _rounded(value: int, unit: int) -> int:
    return -(-value // unit) * unit
