"""A call that streams, for an event loop: what its guest emits, then its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tensor_wasm.errors import Cancelled, TensorWasmError
from tensor_wasm.host import Stream
from tensor_wasm.node.model import InvocationResult

#: How long a guest may go on after its reader left, before it is ended: long enough to see that from its stream.
FAREWELL_S = 1.0

#: Starts the call with a stream.
Start = Callable[[Stream], Awaitable[InvocationResult]]


class StreamedCall:
    """A call that runs, and its chunks. To be made and used on one event loop; leave it by :meth:`close`.

    ``result`` is there once :meth:`next` has given None.
    """

    def __init__(self, start: Start) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._is_waiting = False
        self._stream = Stream(self._wake)
        self._call = asyncio.ensure_future(start(self._stream))
        self._call.add_done_callback(lambda _: self._changed.set())
        self.result: InvocationResult | None = None

    async def next(self) -> bytes | None:
        """The next chunk, None when the call has returned.

        Raises what the call came to, and :class:`Cancelled` once the reader has left.
        """
        while True:
            is_over = self._call.done()  # before the look: what it emitted until its end is there then
            chunk = self._stream.take()
            if chunk is not None:
                return chunk
            if self._stream.is_abandoned:
                raise Cancelled("the stream was closed")
            if is_over:
                self.result = self._call.result()
                return None
            await self._wait()

    def when_failed(self, then: Callable[[], None]) -> None:
        """Call ``then`` when the call fails, or has failed."""

        def look(call: asyncio.Future[InvocationResult]) -> None:
            if call.cancelled() or call.exception() is not None:
                then()

        self._call.add_done_callback(look)

    def abandon(self) -> None:
        """Want no more chunks: the guest is told by its stream."""
        self._stream.abandon()
        self._changed.set()

    async def leave(self) -> None:
        """Want no more chunks; the guest is ended when it goes on for a moment. ``result`` is there if it returned."""
        self.abandon()
        if not self._call.done():
            await asyncio.wait([self._call], timeout=FAREWELL_S)
        await self.close()
        if not self._call.cancelled() and self._call.exception() is None:
            self.result = self._call.result()

    async def close(self) -> None:
        """End the guest if it still runs. Safe to call twice."""
        if not self._call.done():
            self.abandon()
            self._call.cancel()
        with suppress(asyncio.CancelledError, TensorWasmError):
            await self._call

    async def _wait(self) -> None:
        self._changed.clear()
        self._is_waiting = True
        if self._stream.has_chunks or self._call.done() or self._stream.is_abandoned:
            self._changed.set()
        try:
            await self._changed.wait()
        finally:
            self._is_waiting = False

    def _wake(self) -> None:
        """On the guest's thread: have the reader look, if it waits."""
        if self._is_waiting:
            self._is_waiting = False  # one call wakes it, however many chunks come until it looks
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                self._loop.call_soon_threadsafe(self._changed.set)
