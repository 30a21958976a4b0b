"""Device memory in which arrays cannot reach each other: every piece has guard space around it.

A linear memory of one store, all of it closed to reading and writing but the pieces that were taken. An access to
the closed rest is a trap of the kernel's, like one past the end of memory, and Wasmtime says its address. Figures:
taking and giving back a piece of a few kilobytes costs 3 µs, of one that is kept for reuse 0.5 µs.

The kernels' modules must not use ``memory.copy`` and ``memory.fill`` on such a memory: Wasmtime does these outside
WebAssembly, where a closed page would end the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from bisect import bisect_left, insort
from typing import Any

import numpy as np

from tensor_wasm.errors import CapacityExhausted, InternalError
from tensor_wasm.runtime import Store
from tensor_wasm.runtime import bindings as native

#: What lies closed before the first piece and after every one. The lowest addresses are never a piece's.
GUARD_BYTES = 64 << 10

#: A piece starts at a multiple of this: the widest access of a thread. At most 15 bytes after a piece can be touched.
ALIGNMENT = 16

#: Bytes of pieces given back that are kept open, to be taken again without asking the system.
KEPT_BYTES = 256 << 20

#: From this many bytes on the system is asked for huge pages.
_HUGE_BYTES = 4 << 20

#: Copying this many bytes takes longer than letting go of the GIL and taking it back.
_SHORT_COPY_BYTES = 64 << 10

_Buffer = bytearray | memoryview | mmap.mmap

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROT_NONE, _PROT_READ, _PROT_READ_WRITE = 0, 1, 3
_MADV_DONTNEED, _MADV_HUGEPAGE = 4, 14

_short = ctypes.PyDLL(None, use_errno=True)
_long = ctypes.CDLL(None, use_errno=True)


def _libc(library: Any, name: str, *arguments: Any) -> Any:
    function = library[name]
    function.restype, function.argtypes = ctypes.c_int, arguments
    return function


_address, _size = ctypes.c_void_p, ctypes.c_size_t
_mprotect = _libc(_short, "mprotect", _address, _size, ctypes.c_int)
_madvise = _libc(_long, "madvise", _address, _size, ctypes.c_int)
_memmove = _libc(_short, "memmove", _address, _address, _size)
_memmove_releasing = _libc(_long, "memmove", _address, _address, _size)
_memset = _libc(_short, "memset", _address, ctypes.c_int, _size)
_memset_releasing = _libc(_long, "memset", _address, ctypes.c_int, _size)


def bytes_at(address: int, size_bytes: int) -> memoryview:
    """Memory of this process. Whoever has it keeps it alive."""
    return memoryview((ctypes.c_ubyte * size_bytes).from_address(address)).cast("B")


def copy_bytes(to: int, source: int, size_bytes: int) -> None:
    """Copy between two addresses of this process; lets go of the GIL when that takes long."""
    (_memmove if size_bytes <= _SHORT_COPY_BYTES else _memmove_releasing)(to, source, size_bytes)


def copy_buffer(target: _Buffer, source: _Buffer) -> None:
    """Copy all of ``source`` to the start of ``target``, which is no shorter, as :func:`copy_bytes`."""
    size_bytes = len(source)
    if size_bytes:
        to, came_from = (np.frombuffer(buffer, np.uint8).ctypes.data for buffer in (target, source))
        copy_bytes(to, came_from, size_bytes)


def fill_bytes(to: int, value: int, size_bytes: int) -> None:
    """Set bytes at an address of this process; lets go of the GIL when that takes long."""
    (_memset if size_bytes <= _SHORT_COPY_BYTES else _memset_releasing)(to, value, size_bytes)


class Piece:
    """Bytes of device memory: ``address`` is what kernels are given, ``host_address`` where that is in this process.

    ``start`` and ``span_bytes`` are the pages that are open for it. The piece ends within ``ALIGNMENT`` of their end.
    """

    __slots__ = ("address", "host_address", "size_bytes", "span_bytes", "start")

    def __init__(self, start: int, span_bytes: int, size_bytes: int, base: int) -> None:
        self.start = start
        self.span_bytes = span_bytes
        self.size_bytes = size_bytes
        self.address = start + span_bytes - _rounded(size_bytes, ALIGNMENT)
        self.host_address = base + self.address


class GuardedMemory:
    """The pieces of one linear memory. Not safe for threads: whoever has it holds a lock.

    ``memory`` is the C ``wasmtime_memory_t`` of a memory that does not grow.
    """

    def __init__(self, store: Store, memory: Any) -> None:
        base = native.memory_data(store.context, ctypes.byref(memory))
        if base is None:
            raise InternalError("the device's memory is empty")
        self.base: int = base
        self.size_bytes: int = native.memory_data_size(store.context, ctypes.byref(memory))
        self._protect(0, self.size_bytes, _PROT_NONE)
        #: Closed space as (start, bytes), ascending, no two of them adjacent.
        self._free: list[tuple[int, int]] = [(GUARD_BYTES, self.size_bytes - GUARD_BYTES)]
        #: Open pieces to take again, by their span.
        self._kept: dict[int, list[int]] = {}
        self._kept_bytes = 0
        self.used_bytes = 0

    @property
    def capacity_bytes(self) -> int:
        """The largest piece there can be."""
        return self.size_bytes - 2 * GUARD_BYTES

    def take(self, size_bytes: int) -> Piece:
        """Bytes with guard space on both sides; what they hold is not defined, but zeros when they are new.

        Raises :class:`CapacityExhausted` when there is no room.
        """
        span = _rounded(max(size_bytes, 1), _PAGE_BYTES)
        kept = self._kept.get(span)
        if kept:
            start = kept.pop()
            self._kept_bytes -= span
        else:
            start = self._open(span)
        self.used_bytes += span
        return Piece(start, span, size_bytes, self.base)

    def clear(self, piece: Piece) -> None:
        """Make all of a piece zeros."""
        if piece.span_bytes < _HUGE_BYTES:
            ctypes.memset(self.base + piece.start, 0, piece.span_bytes)
        else:  # pages that are given back come again as zeros, and only those that are used
            _madvise(self.base + piece.start, piece.span_bytes, _MADV_DONTNEED)

    def give(self, piece: Piece, *, keep: bool = False) -> None:
        """Take a piece back and close it, or with ``keep`` leave it open for the next one of its span."""
        self.used_bytes -= piece.span_bytes
        if keep and self._kept_bytes + piece.span_bytes <= KEPT_BYTES:
            self._kept.setdefault(piece.span_bytes, []).append(piece.start)
            self._kept_bytes += piece.span_bytes
        else:
            self._close(piece.start, piece.span_bytes)

    def forbid_writing(self, piece: Piece) -> None:
        """Make writing to a piece fault."""
        self._protect(piece.start, piece.span_bytes, _PROT_READ)

    def allow_writing(self, piece: Piece) -> None:
        """Undo :meth:`forbid_writing`."""
        self._protect(piece.start, piece.span_bytes, _PROT_READ_WRITE)

    def open_all(self) -> None:
        """Open the whole memory again, as the pool that lent it expects it back."""
        self._protect(0, self.size_bytes, _PROT_READ_WRITE)

    # --- space --------------------------------------------------------------------------------------------

    def _open(self, span: int) -> int:
        start = self._find(span)
        if start is None and self._kept:
            self._close_kept()
            start = self._find(span)
        if start is None:
            free = max((size for _, size in self._free), default=0)
            raise CapacityExhausted(
                f"the device has no room for {span:,} more bytes: {self.used_bytes:,} are in use, and the largest "
                f"piece free is {max(free - GUARD_BYTES, 0):,}; close device arrays"
            )
        try:
            self._protect(start, span, _PROT_READ_WRITE)
        except CapacityExhausted:
            self._insert(start, span + GUARD_BYTES)
            raise
        if span >= _HUGE_BYTES:
            _madvise(self.base + start, span, _MADV_HUGEPAGE)  # advice: a system without them says no
        return start

    def _find(self, span: int) -> int | None:
        """Take closed space for a piece and the guard after it: where it starts, or None."""
        wanted = span + GUARD_BYTES
        for position, (start, size) in enumerate(self._free):
            if size >= wanted:
                if size == wanted:
                    del self._free[position]
                else:
                    self._free[position] = (start + wanted, size - wanted)
                return start
        return None

    def _close(self, start: int, span: int) -> None:
        _madvise(self.base + start, span, _MADV_DONTNEED)
        self._protect(start, span, _PROT_NONE)
        self._insert(start, span + GUARD_BYTES)

    def _close_kept(self) -> None:
        for span, starts in self._kept.items():
            for start in starts:
                self._close(start, span)
        self._kept.clear()
        self._kept_bytes = 0

    def _insert(self, start: int, size: int) -> None:
        """Add closed space, one with what is next to it."""
        position = bisect_left(self._free, (start, 0))
        if position < len(self._free) and self._free[position][0] == start + size:
            size += self._free.pop(position)[1]
        if position and sum(self._free[position - 1]) == start:
            before, before_size = self._free.pop(position - 1)
            start, size = before, before_size + size
        insort(self._free, (start, size))

    def _protect(self, start: int, size: int, protection: int) -> None:
        if _mprotect(self.base + start, size, protection) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CapacityExhausted(f"the system refuses memory for the device: {reason}; close device arrays")


def _rounded(value: int, unit: int) -> int:
    return -(-value // unit) * unit
