"""The chunks of a guest of this process, for an event loop."""

from __future__ import annotations

from tensor_wasm.api.convert import result_of
from tensor_wasm.api.streams import AsyncStream
from tensor_wasm.node import StreamedCall
from tensor_wasm.node.streamed import Start


class Chunks(AsyncStream):
    """A call that runs and what it emits. To be made on its event loop."""

    def __init__(self, start: Start) -> None:
        self._call = StreamedCall(start)
        self._first: bytes | None = None

    async def begin(self) -> None:
        """Wait for the first chunk, or the end. Raises what the call came to before its first chunk."""
        try:
            self._first = await self._next()
        except BaseException:
            await self.close()
            raise

    async def __anext__(self) -> bytes:
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = await self._next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        """Leave it: a guest that goes on is ended."""
        self._first = None
        await self._call.leave()

    async def _next(self) -> bytes | None:
        """The next chunk, None when the call has returned."""
        chunk = await self._call.next()
        if chunk is None and self._call.result is not None:
            self._result = result_of(self._call.result)
        return chunk
