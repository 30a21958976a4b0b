"""The staging area: who has which part of it, and copies of any size that go through it in pieces.

While the GPU copies one piece, this process copies the next: to or from the staging area, on several threads, for one
thread copies at a fraction of what the GPU's bus has.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.device.cuda.messages import Kind, Message
from tensor_wasm.device.cuda.shared import STAGING_GRAIN_BYTES
from tensor_wasm.runtime import Spans, asleep

#: A piece: with larger ones less time is lost between two, with smaller ones more of them are under way.
PIECE_BYTES_MAX: Final = 4 << 20
#: A request costs some 100 µs here, as much as a thread needs to copy half of this.
_PIECE_BYTES_MIN: Final = 1 << 20
#: Into how many pieces a copy goes at least, where they are not too small then.
_PIECES: Final = 16
#: Threads of one copy.
THREADS_MAX: Final = 8
#: Of the staging area, one part in so many, and no more than so much, is for copies alone: they never wait for a guest.
_SHARE: Final = 4
_COPIES_BYTES_MAX: Final = 2 * THREADS_MAX * PIECE_BYTES_MAX
#: What threads that copy within this process take at a time, and from how much on there is more than one.
_MOVE_BYTES: Final = 4 << 20

Bytes = NDArray[np.uint8]


class Ask(Protocol):
    """Sends a request to the worker; see :meth:`.worker_handle.WorkerHandle.ask`."""

    def __call__(self, kind: Kind, numbers: tuple[int, ...]) -> Future[Message]: ...  # noqa: D102


class Staging:
    """Parts of the staging area, taken and given back in any order by any thread.

    What a tenant has is never more than what is free besides, known of shared buffers as a dynamic threshold: one alone
    has half of the area, and who comes later finds room whatever the others do.
    """

    def __init__(self, size_bytes: int) -> None:
        own = min(max(size_bytes // _SHARE, STAGING_GRAIN_BYTES), _COPIES_BYTES_MAX)
        own = own // STAGING_GRAIN_BYTES * STAGING_GRAIN_BYTES
        self._lock = threading.Lock()
        self._spans = Spans(0, size_bytes - own)
        self._free_bytes = size_bytes - own
        #: Bytes of each tenant, and who has what starts there.
        self._held: dict[int, int] = {}
        self._holders: dict[int, int] = {}
        self.copies = (size_bytes - own, own)

    def take(self, size_bytes: int, tenant: int | None = None, instead_bytes: int = 0) -> int | None:
        """Where so many bytes are, at a multiple of 64 KiB; None when there is no room now, or not for this tenant.

        ``instead_bytes`` are what the tenant gives back then: they do not count to what it has.
        """
        size_bytes = _rounded(size_bytes)
        with self._lock:
            held = 0 if tenant is None else self._held.get(tenant, 0) + size_bytes
            if held - instead_bytes > self._free_bytes - size_bytes + instead_bytes:
                return None
            place = self._spans.take(size_bytes)
            if place is None:
                return None
            self._free_bytes -= size_bytes
            if tenant is not None:
                self._held[tenant] = held
                self._holders[place] = tenant
            return place

    def give(self, offset: int, size_bytes: int) -> None:
        """Give back what :meth:`take` gave, once nothing on the device copies from or to it any more."""
        size_bytes = _rounded(size_bytes)
        with self._lock:
            self._spans.give(offset, size_bytes)
            self._free_bytes += size_bytes
            tenant = self._holders.pop(offset, None)
            if tenant is not None:
                self._held[tenant] -= size_bytes
                if not self._held[tenant]:
                    del self._held[tenant]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy between ``host`` and ``address``: ``pieces`` are what nobody has begun yet, ``stop`` ends it early."""

    ask: Ask
    tenant: int
    address: int
    host: Bytes
    is_in: bool
    piece_bytes: int
    pieces: Iterator[int]
    lock: threading.Lock
    stop: threading.Event

    def next(self) -> int | None:
        """Where the next piece starts."""
        with self.lock:
            return None if self.stop.is_set() else next(self.pieces, None)


class Copies:
    """Copies through the part ``area`` (start and bytes) of ``staging``, which is all of the staging area.

    ``check`` gives the numbers of an answer, or raises what it says.
    """

    def __init__(self, staging: memoryview, area: tuple[int, int], check: Callable[[Message], Any]) -> None:
        start, size_bytes = area
        self._staging: Bytes = np.frombuffer(staging, np.uint8)
        self._check = check
        self._free = Spans(start, start + size_bytes)
        self._changed = threading.Condition()
        self._helpers = min(len(os.sched_getaffinity(0)), THREADS_MAX) - 1
        self._piece_bytes_max = min(
            PIECE_BYTES_MAX,
            max(size_bytes // (2 * THREADS_MAX) // STAGING_GRAIN_BYTES, 1) * STAGING_GRAIN_BYTES,
        )
        self._pool = ThreadPoolExecutor(max(self._helpers, 1), thread_name_prefix="gpu-copy")

    def copy(self, ask: Ask, tenant: int, address: int, host: Bytes, *, is_in: bool) -> None:
        """Copy all of ``host`` to a tenant's memory at ``address``, or fill it from there."""
        if not host.size:
            return
        wanted = min(max(host.size // _PIECES, _PIECE_BYTES_MIN), host.size)
        piece_bytes = min(_rounded(wanted), self._piece_bytes_max)
        pieces = range(0, host.size, piece_bytes)
        copy = _Copy(ask, tenant, address, host, is_in, piece_bytes, iter(pieces), threading.Lock(), threading.Event())
        # Each has two pieces under way. A helper that comes late, or finds no room, leaves its part to the others.
        helpers = [self._pool.submit(self._help, copy) for _ in range(min(self._helpers, (len(pieces) + 1) // 2 - 1))]
        try:
            self._move(copy, self._take(piece_bytes, is_waiting=True))
        finally:
            copy.stop.set()
            for helper in helpers:
                helper.cancel()
            with asleep():
                wait(helpers)
        for helper in helpers:
            if not helper.cancelled():
                helper.result()

    def move(self, target: memoryview, source: memoryview) -> None:
        """Copy bytes within this process."""
        to, of = np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8)
        pieces = [slice(start, start + _MOVE_BYTES) for start in range(0, of.size, _MOVE_BYTES)]
        if len(pieces) == 1:
            np.copyto(to, of)
            return
        with asleep():
            for _ in self._pool.map(lambda piece: np.copyto(to[piece], of[piece]), pieces):
                pass

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _help(self, copy: _Copy) -> None:
        first = self._take(copy.piece_bytes, is_waiting=False)
        if first is not None:
            self._move(copy, first)

    def _move(self, copy: _Copy, first: int | None) -> None:
        """Take pieces until there are none, two at a time, through ``first`` and another place if there is one."""
        assert first is not None
        second = self._take(copy.piece_bytes, is_waiting=False)
        places = [first] if second is None else [first, second]
        under_way: dict[int, tuple[int, Future[Message]]] = {}
        turn = 0
        try:
            while True:
                place = places[turn % len(places)]
                turn += 1
                if place in under_way:
                    self._finish(copy, place, *under_way.pop(place))
                start = copy.next()
                if start is not None:
                    under_way[place] = start, self._begin(copy, place, start)
                elif not under_way:
                    return
        except BaseException:
            copy.stop.set()
            raise
        finally:
            # What is under way still comes from or goes to its place.
            wait([future for _, future in under_way.values()])
            self._give(places, copy.piece_bytes)

    def _begin(self, copy: _Copy, place: int, start: int) -> Future[Message]:
        size = min(copy.piece_bytes, copy.host.size - start)
        if copy.is_in:
            np.copyto(self._staging[place : place + size], copy.host[start : start + size])
        kind = Kind.COPY_IN if copy.is_in else Kind.COPY_OUT
        return copy.ask(kind, (copy.tenant, copy.address + start, place, size))

    def _finish(self, copy: _Copy, place: int, start: int, future: Future[Message]) -> None:
        with asleep():
            self._check(future.result())
        if not copy.is_in:
            size = min(copy.piece_bytes, copy.host.size - start)
            np.copyto(copy.host[start : start + size], self._staging[place : place + size])

    def _take(self, size_bytes: int, *, is_waiting: bool) -> int | None:
        """A place for a piece; without waiting None when there is none now."""
        with self._changed:
            place = self._free.take(size_bytes)
            while place is None and is_waiting:
                with asleep():
                    self._changed.wait()
                place = self._free.take(size_bytes)
            return place

    def _give(self, places: list[int], size_bytes: int) -> None:
        with self._changed:
            for place in places:
                self._free.give(place, size_bytes)
            self._changed.notify_all()


def _rounded(size_bytes: int) -> int:
    return max(-(-size_bytes // STAGING_GRAIN_BYTES), 1) * STAGING_GRAIN_BYTES
