"""Guest memory made by the host: reservations of address space that are recycled, zeroed and counted.

Wasmtime asks this pool for every linear memory of the engine (C API: ``wasmtime_memory_creator_t``). One mechanism
serves bounds (guard pages), byte limits over all memories of an instance, several stores over one memory (see
:meth:`MemoryPool.alias`), memory that is another process's too (see :meth:`MemoryPool.adopt` and
:meth:`MemoryPool.show`), room behind a memory's end (see :mod:`.annex`), and snapshots by mapping. Figures: a
recycled reservation makes a fresh instance 6 µs cheaper than a new mapping.

Shared memories (the ledger) are Wasmtime's own and do not pass here.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tensor_wasm.errors import InternalError
from tensor_wasm.runtime import bindings as native

_PROT_NONE, _PROT_READ_WRITE = 0, 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_MADV_DONTNEED = 4
_MADV_POPULATE_WRITE = 23
_MAP_FAILED = ctypes.c_void_p(-1).value

#: Reservations kept for reuse. Each is address space only (its pages are given back), 4 GiB and a guard.
_KEPT_RESERVATIONS = 256

#: Up to this many bytes writing zeros is cheaper than giving pages back and faulting them in again (3 µs against 6).
_CLEARED_BYTES = 128 << 10

#: Pieces behind memories that have closed space of their own: each may cost two mappings, of 65,530 that the system
#: allows a process by default.
_GUARDED_PIECES = 8_192

#: What the engine's settings expect behind the start of every memory that 32 bits address, and behind that. Compiled
#: code checks no more than that; an alias of a reservation that is shorter is refused.
_RESERVED_BYTES, _RESERVED_GUARD_BYTES = 4 << 30, 32 << 20

#: Above this many bytes giving pages back takes long enough that the GIL is released for it.
_SHORT_RELEASE_BYTES = 4 << 20

#: Pages are made ready in such pieces: other threads' mappings wait for no more than one.
_READY_BYTES = 8 << 20

_PAGE_BYTES = 4096
_WASM_PAGE_BYTES = 65_536

_DESCRIPTION_BYTES = ctypes.sizeof(native.LinearMemory)

_short = ctypes.PyDLL(None, use_errno=True)
_long = ctypes.CDLL(None, use_errno=True)


def _libc(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = library[name]
    function.restype, function.argtypes = result, arguments
    return function


_size, _pointer, _int = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
_mmap = _libc(_short, "mmap", _pointer, _pointer, _size, _int, _int, _int, ctypes.c_long)
_mmap_releasing = _libc(_long, "mmap", _pointer, _pointer, _size, _int, _int, _int, ctypes.c_long)
_munmap = _libc(_long, "munmap", _int, _pointer, _size)
_mprotect = _libc(_short, "mprotect", _int, _pointer, _size, _int)
_madvise = _libc(_short, "madvise", _int, _pointer, _size, _int)
# Not ctypes' own memset and memmove: those release the GIL, which is dearer than what they do here.
_memset = _libc(_short, "memset", _pointer, _pointer, _int, _size)
_memmove = _libc(_short, "memmove", _pointer, _pointer, _pointer, _size)
_madvise_releasing = _libc(_long, "madvise", _int, _pointer, _size, _int)


#: More than there can be.
_UNBOUNDED_BYTES = 1 << 62


def _ignore() -> None:
    pass


class SharedBudget:
    """Bytes that several instances may hold together. Safe for threads; ``limit_bytes`` (None: no limit) may change.

    ``on_refused`` is called when something was not allowed; it must not raise.
    """

    __slots__ = ("_lock", "_on_refused", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int | None = None, on_refused: Callable[[], None] = _ignore) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._on_refused = on_refused
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """Count ``size_bytes`` more; false, and nothing counted, when that passes the limit."""
        with self._lock:
            if self.limit_bytes is None or self.used_bytes + size_bytes <= self.limit_bytes:
                self.used_bytes += size_bytes
                return True
        self._on_refused()
        return False

    def give(self, size_bytes: int) -> None:
        """Count ``size_bytes`` less."""
        with self._lock:
            self.used_bytes -= size_bytes


class Budget:
    """Bytes of linear memory one instance may hold, over all memories in its store.

    Without ``limit_bytes`` there is no bound. What it takes counts in ``shared`` too, and must fit there. Only the
    instance's own thread takes and gives.
    """

    __slots__ = ("limit_bytes", "shared", "used_bytes")

    def __init__(self, limit_bytes: int = _UNBOUNDED_BYTES, shared: SharedBudget | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.shared = shared
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Count ``size_bytes`` more; false, and nothing counted, when that passes a limit."""
        if self.used_bytes + size_bytes > self.limit_bytes:
            return False
        if self.shared is not None and not self.shared.take(size_bytes):
            return False
        self.used_bytes += size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """Count ``size_bytes`` less."""
        self.used_bytes -= size_bytes
        if self.shared is not None:
            self.shared.give(size_bytes)


class Reservation:
    """A range of address space: ``size`` bytes of it readable and writable, the rest guarded.

    ``is_alias`` holds for one that only names another's range, ``has_image`` for one of which pages show a file.
    ``ceiling`` is how far it may grow while something is open behind it, None while nothing is.
    """

    __slots__ = (
        "base",
        "budget",
        "ceiling",
        "description",
        "description_address",
        "has_image",
        "is_alias",
        "key",
        "maximum",
        "size",
        "span",
    )

    def __init__(self, key: int, base: int, span: int, description: Any) -> None:
        self.key = key
        self.base = base
        self.span = span
        self.description = description  # what C is told of it, made once
        self.description_address = ctypes.addressof(description)
        self.size = 0
        self.maximum = 0
        self.budget: Budget | None = None
        self.is_alias = False
        self.has_image = False
        self.ceiling: int | None = None


class MemoryPool:
    """The memory creator of one engine.

    ``creator`` is what the engine's configuration takes. A thread that makes instances first names the budget they
    count against with :meth:`charge`; memories made with none named are not limited.
    """

    def __init__(self) -> None:
        self._live: dict[int, Reservation] = {}
        self._by_base: dict[int, Reservation] = {}
        self._free: dict[int, list[Reservation]] = {}
        self._adopted: dict[int, Reservation] = {}
        self._keys = itertools.count(1)
        self._thread = threading.local()
        #: Counts the pieces behind memories that have closed space of their own, over all of them.
        self.guarded_pieces = SharedBudget(_GUARDED_PIECES)
        fields: dict[str, Any] = dict(native.LinearMemory._fields_)
        # The C side keeps bare pointers to these: they live as long as the pool, the pool as long as the engine.
        self._get_memory = fields["get_memory"](self._on_get)
        self._grow_memory = fields["grow_memory"](self._on_grow)
        self._finalizer = fields["finalizer"](self._on_drop)
        creator_fields: dict[str, Any] = dict(native.MemoryCreator._fields_)
        self._new_memory = creator_fields["new_memory"](self._on_new)
        self.creator = native.MemoryCreator(None, self._new_memory, None)

    def charge(self, budget: Budget | None) -> None:
        """Count memories that this thread makes from now on against ``budget``."""
        self._thread.budget = budget

    @contextmanager
    def alias(self, bases: Sequence[int]) -> Iterator[None]:
        """In a ``with`` block the memories that this thread makes are not new: they are those at ``bases``, in order.

        ``bases`` are where the bytes of memories of this pool are in this process. An alias counts against no budget,
        is as large as its module says, which may be more than the other is at present: what lies beyond is closed
        until the other grows. It does not grow itself. It must end before the other does, and be in another store.
        """
        self._thread.aliases = list(bases)
        try:
            yield
        finally:
            self._thread.aliases = None

    def adopt(self, descriptor: int, size_bytes: int) -> int:
        """Show the first bytes of a file, shared with whoever else maps it; where they are in this process.

        Stores see them through :meth:`alias`, as a memory of ``size_bytes``, whole pages of WebAssembly. It counts
        against no budget, and is there until :meth:`disown`, or as long as the pool. The descriptor may be closed.

        Raises :class:`InternalError` for a file that has fewer bytes or is not sealed against losing some, since
        reading past its end would end the process, and when the system has no address space.
        """
        if size_bytes <= 0 or size_bytes % _WASM_PAGE_BYTES or size_bytes > _RESERVED_BYTES:
            raise InternalError(f"a memory cannot have {size_bytes} bytes")
        try:
            is_sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        except OSError:  # a file of a file system: anybody could cut it
            is_sealed = 0
        if not is_sealed or os.fstat(descriptor).st_size < size_bytes:
            raise InternalError("a file to be shown as a memory is too short, or may become so")
        adopted = self._take(_RESERVED_BYTES + _RESERVED_GUARD_BYTES)
        if adopted is None:
            raise InternalError("no address space for a shared file")
        flags = _MAP_SHARED | _MAP_FIXED
        # One that was used before is open as far as it was then.
        if (
            not self._resize(adopted, 0)
            or _mmap(adopted.base, size_bytes, _PROT_READ_WRITE, flags, descriptor, 0) != adopted.base
        ):
            _munmap(adopted.base, adopted.span)
            raise InternalError("the system refuses to map a shared file")
        adopted.size = adopted.maximum = size_bytes
        self._adopted[adopted.base] = self._by_base[adopted.base] = adopted
        return adopted.base

    def disown(self, base: int) -> None:
        """Show a file no more that :meth:`adopt` showed there. No store may have it still."""
        adopted = self._adopted.pop(base)
        del self._by_base[base]
        _munmap(adopted.base, adopted.span)

    def find(self, base: int) -> Reservation | None:
        """The memory in use whose bytes start at ``base`` in this process, None when there is none."""
        return self._by_base.get(base)

    def open(self, address: int, size_bytes: int) -> bool:
        """Open pages of a memory's reservation; false when the system refuses."""
        return bool(_mprotect(address, size_bytes, _PROT_READ_WRITE) == 0)

    def shut(self, address: int, size_bytes: int) -> None:
        """Give pages of a memory's reservation back and close them; opened again they are zeros."""
        # Mapped anew: pages that were touched and then only closed would stay a mapping of their own, of which the
        # system allows a process some 65,000.
        if _map_anew(address, size_bytes, _PROT_NONE):
            return
        if _madvise_releasing(address, size_bytes, _MADV_DONTNEED) != 0:
            _memset(address, 0, size_bytes)
        _mprotect(address, size_bytes, _PROT_NONE)

    def clear(self, address: int, size_bytes: int) -> None:
        """Make bytes of a memory zeros again; the pages of many are given back."""
        start, end = -(-address // _PAGE_BYTES) * _PAGE_BYTES, (address + size_bytes) // _PAGE_BYTES * _PAGE_BYTES
        give_back = _madvise if size_bytes <= _SHORT_RELEASE_BYTES else _madvise_releasing
        if size_bytes <= _CLEARED_BYTES or give_back(start, end - start, _MADV_DONTNEED) != 0:
            _memset(address, 0, size_bytes)
            return
        _memset(address, 0, start - address)
        _memset(end, 0, address + size_bytes - end)

    def map_image(self, base: int, size_bytes: int, descriptor: int) -> None:
        """Have the first bytes of the memory at ``base``, which are open, show a file's; it is never written to.

        The file must have them: reading past its end would end the process. Raises :class:`InternalError`.
        """
        reservation = self._by_base[base]
        assert size_bytes <= reservation.size
        reservation.has_image = True
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_NORESERVE
        if _mmap(base, size_bytes, _PROT_READ_WRITE, flags, descriptor, 0) != base:
            raise InternalError("the system refuses to map a snapshot")

    def show(self, base: int, start: int, size_bytes: int, descriptor: int, place: int) -> None:
        """Have pages of the memory at ``base``, from ``start``, be those of a file at ``place``, shared with whoever
        else maps it. All three are whole pages. What the memory had there is gone.

        The file must have them and not lose them: reading past its end would end the process. Raises
        :class:`InternalError`.
        """
        reservation = self._by_base[base]
        assert 0 <= start <= start + size_bytes <= reservation.size
        reservation.has_image = True
        if (
            _mmap(base + start, size_bytes, _PROT_READ_WRITE, _MAP_SHARED | _MAP_FIXED, descriptor, place)
            != base + start
        ):
            raise InternalError("the system refuses to map a shared file")
        # A fault for each page would take ten times as long. Where the system does not know this, faults come.
        for piece in range(start, start + size_bytes, _READY_BYTES):
            _madvise_releasing(base + piece, min(_READY_BYTES, start + size_bytes - piece), _MADV_POPULATE_WRITE)

    def hide(self, base: int, start: int, size_bytes: int) -> None:
        """Have pages that show a file be the memory's own again, zeros. Raises :class:`InternalError`."""
        if not _map_anew(base + start, size_bytes, _PROT_READ_WRITE):
            raise InternalError("the system refuses to map a memory anew")

    # Callbacks from C. None may raise: a failure is a `wasmtime_error_t`, or nothing can be said at all.

    def _on_new(self, _env: int, _type: int, minimum: int, maximum: int, reserve: int, guard: int, out: int) -> int:
        aliases: list[int] | None = getattr(self._thread, "aliases", None)
        if aliases is not None:
            return self._on_alias(aliases, minimum, max(reserve, minimum) + guard, out)
        budget: Budget | None = getattr(self._thread, "budget", None)
        if budget is not None and not budget.take(minimum):
            return _error(b"memory limit of the instance")
        reservation = self._take(max(reserve, minimum) + guard)
        if reservation is None or not self._resize(reservation, minimum):
            if budget is not None:
                budget.give(minimum)
            return _error(b"no address space for a linear memory")
        reservation.maximum = min(maximum, reservation.span - guard)
        reservation.budget = budget
        self._live[reservation.key] = self._by_base[reservation.base] = reservation
        _memmove(out, reservation.description_address, _DESCRIPTION_BYTES)
        return 0

    def _on_alias(self, bases: list[int], minimum: int, span: int, out: int) -> int:
        base = bases.pop(0) if bases else 0
        original = self.find(base)
        if original is None or original.maximum < minimum or original.span < span:
            return _error(b"there is no such memory to share")
        alias = Reservation(key := next(self._keys), base, original.span, self._description(key))
        alias.is_alias, alias.size, alias.maximum = True, minimum, minimum
        self._live[key] = alias
        _memmove(out, alias.description_address, _DESCRIPTION_BYTES)
        return 0

    def _on_get(self, key: int, size: Any, maximum: Any) -> int:
        reservation = self._live[key]
        size[0] = reservation.size
        maximum[0] = reservation.maximum
        return reservation.base

    def _on_grow(self, key: int, new_size: int) -> int:
        reservation = self._live[key]
        budget = reservation.budget
        more = new_size - reservation.size
        limit = reservation.maximum if reservation.ceiling is None else min(reservation.maximum, reservation.ceiling)
        if reservation.is_alias or new_size > limit:
            return _error(b"memory limit of the instance")
        if budget is not None and not budget.take(more):
            return _error(b"memory limit of the instance")
        if not self._resize(reservation, new_size):
            if budget is not None:
                budget.give(more)
            return _error(b"the system has no memory left")
        return 0

    def _on_drop(self, key: int) -> None:
        reservation = self._live.pop(key)
        if reservation.is_alias:
            return
        del self._by_base[reservation.base]
        budget, reservation.budget = reservation.budget, None
        is_open_behind, reservation.ceiling = reservation.ceiling is not None, None
        size = reservation.size
        if budget is not None:
            budget.give(size)
        if is_open_behind:  # whoever opened it has not closed it: nobody else is to find that
            reservation.has_image = False
            _munmap(reservation.base, reservation.span)
            return
        if not self._clear(reservation):
            _munmap(reservation.base, reservation.span)
            return
        kept = self._free.setdefault(reservation.span, [])
        if len(kept) < _KEPT_RESERVATIONS:
            kept.append(reservation)
        else:
            _munmap(reservation.base, reservation.span)

    def _clear(self, reservation: Reservation) -> bool:
        """Make all of a memory zeros, so that no tenant sees another's bytes; false when the system refuses."""
        size = reservation.size
        if reservation.has_image:  # given back, its pages would be the file's again
            reservation.has_image = False
            return _map_anew(reservation.base, size, _PROT_READ_WRITE)
        if size <= _CLEARED_BYTES:
            _memset(reservation.base, 0, size)
            return True
        # Anonymous private pages come back as zeros.
        give_back = _madvise if size <= _SHORT_RELEASE_BYTES else _madvise_releasing
        return bool(give_back(reservation.base, size, _MADV_DONTNEED) == 0)

    def _take(self, span: int) -> Reservation | None:
        try:
            return self._free[span].pop()  # a list's pop and append are atomic: no lock
        except (KeyError, IndexError):
            pass
        base = _mmap(None, span, _PROT_NONE, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)
        if base is None or base == _MAP_FAILED:
            return None
        key = next(self._keys)
        return Reservation(key, base, span, self._description(key))

    def _description(self, key: int) -> Any:
        return native.LinearMemory(key, self._get_memory, self._grow_memory, self._finalizer)

    def _resize(self, reservation: Reservation, size: int) -> bool:
        """Make exactly ``size`` bytes accessible; false when the system refuses."""
        old = reservation.size
        if size > old:
            if _mprotect(reservation.base + old, size - old, _PROT_READ_WRITE) != 0:
                return False
        elif size < old and _mprotect(reservation.base + size, old - size, _PROT_NONE) != 0:
            return False
        reservation.size = size
        return True

    def close(self) -> None:
        """Give the kept reservations and adopted files back. Memories in use stay until their stores end."""
        for base in tuple(self._adopted):
            self.disown(base)
        for kept in self._free.values():
            while kept:
                reservation = kept.pop()
                _munmap(reservation.base, reservation.span)


def _map_anew(address: int, size_bytes: int, protection: int) -> bool:
    """Have pages be anonymous ones, zeros, whatever they were; false when the system refuses."""
    mmap = _mmap if size_bytes <= _SHORT_RELEASE_BYTES else _mmap_releasing
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
    return bool(mmap(address, size_bytes, protection, flags, -1, 0) == address)


def _error(text: bytes) -> int:
    pointer: int = native.error_new(text)
    return pointer
