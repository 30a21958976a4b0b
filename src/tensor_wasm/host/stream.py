"""A stream of chunks from a guest to whoever reads it: bounded, with back-pressure.

One writer, the guest's thread; one reader, on an event loop or any thread. At most ``CHUNKS_UNREAD_MAX`` chunks wait:
a guest that emits one more waits until there is room, the reader leaves, or its end is ordered.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from tensor_wasm.abi.limits import CHUNKS_UNREAD_MAX
from tensor_wasm.errors import EndingError
from tensor_wasm.runtime import asleep

#: How often a guest that waits for room looks whether its end was ordered.
_LOOK_S = 0.02

Interrupt = Callable[[], EndingError | None]


def _ignore() -> None:
    pass


class Stream:
    """Chunks on their way. Safe for one writer and one reader.

    ``on_change`` is called by the writer, outside the lock, when the reader has something new to look at; it must not
    raise or block.
    """

    def __init__(self, on_change: Callable[[], None] = _ignore) -> None:
        self._on_change = on_change
        self._chunks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self.emitted_bytes = 0
        self.emitted_chunks = 0
        #: Whether the reader left, and whether the writer is through.
        self.is_abandoned = False
        self.is_closed = False

    # --- the guest's side -------------------------------------------------------------------------------

    def emit(self, chunk: bytes, interrupt: Interrupt) -> bool:
        """Add a chunk, waiting for room; false when the reader left. Raises the ending that ``interrupt`` gives."""
        if len(self._chunks) >= CHUNKS_UNREAD_MAX:
            self._wait_for(CHUNKS_UNREAD_MAX - 1, interrupt)
        with self._changed:
            if self.is_abandoned:
                return False
            self._chunks.append(chunk)
            self.emitted_bytes += len(chunk)
            self.emitted_chunks += 1
        self._on_change()
        return True

    def flush(self, interrupt: Interrupt) -> bool:
        """Wait until every chunk was read; false when the reader left. Raises as :meth:`emit`."""
        if self._chunks:
            self._wait_for(0, interrupt)
        return not self.is_abandoned

    def close(self) -> None:
        """No chunk comes any more. Safe to call twice."""
        with self._changed:
            self.is_closed = True
        self._on_change()

    def _wait_for(self, unread_max: int, interrupt: Interrupt) -> None:
        with asleep():
            while len(self._chunks) > unread_max and not self.is_abandoned:
                ending = interrupt()
                if ending is not None:
                    raise ending
                with self._changed:
                    if len(self._chunks) > unread_max and not self.is_abandoned:
                        self._changed.wait(_LOOK_S)

    # --- the reader's side ------------------------------------------------------------------------------

    @property
    def has_chunks(self) -> bool:
        """Whether there is something to take."""
        return bool(self._chunks)

    def take(self) -> bytes | None:
        """The next chunk, None when there is none at the moment."""
        if not self._chunks:
            return None
        with self._changed:
            chunk = self._chunks.popleft()
            self._changed.notify()
            return chunk

    def abandon(self) -> None:
        """The reader leaves: what was not read is gone, and the guest is told at its next chunk."""
        with self._changed:
            self.is_abandoned = True
            self._chunks.clear()
            self._changed.notify()
