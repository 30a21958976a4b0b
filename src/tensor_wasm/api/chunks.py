"""The chunks of a guest of this process, for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tensor_wasm.api.convert import result_of
from tensor_wasm.api.streams import AsyncStream
from tensor_wasm.errors import Cancelled, TensorWasmError
from tensor_wasm.node import InvocationResult
from tensor_wasm.node import Stream as GuestStream

#: How long a guest may go on after its reader left, before it is ended: long enough to see that from its stream.
_FAREWELL_S = 1.0

#: Starts the call with a stream.
Start = Callable[[GuestStream], Awaitable[InvocationResult]]


class Chunks(AsyncStream):
    """A call that runs and what it emits. To be made on its event loop."""

    def __init__(self, start: Start) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._stream = GuestStream(self._wake)
        self._first: bytes | None = None
        self._call = asyncio.ensure_future(start(self._stream))
        self._call.add_done_callback(lambda _: self._changed.set())

    async def begin(self) -> None:
        """Wait for the first chunk, or the end. Raises what the call came to before its first chunk."""
        try:
            self._first = await self._next()
        except BaseException:
            await self.close()
            raise

    async def __anext__(self) -> bytes:
        if self._first is not None:
            chunk, self._first = self._first, None
        else:
            found = await self._next()
            if found is None:
                raise StopAsyncIteration
            chunk = found
        return chunk

    async def close(self) -> None:
        """Leave it: a guest that goes on is ended."""
        self._stream.abandon()
        self._first = None
        if not self._call.done():
            await asyncio.wait([self._call], timeout=_FAREWELL_S)
            self._call.cancel()
        with suppress(asyncio.CancelledError, TensorWasmError):
            await self._call

    async def _next(self) -> bytes | None:
        """The next chunk, None when the call has returned."""
        while True:
            self._changed.clear()
            is_over = self._call.done()  # before the look: what it emitted until its end is there then
            chunk = self._stream.take()
            if chunk is not None:
                return chunk
            if self._stream.is_abandoned:
                raise Cancelled("the stream was closed")
            if is_over:
                self._result = result_of(self._call.result())
                return None
            await self._changed.wait()

    def _wake(self) -> None:
        """On the guest's thread."""
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._changed.set)
