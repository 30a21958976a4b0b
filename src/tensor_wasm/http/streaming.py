"""A guest's stream as an HTTP answer: Server-Sent Events, or the bytes alone.

The answer begins with the first chunk or with the end, whichever comes first: an invocation that fails before it has
emitted anything is answered by an error like any other.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from starlette.types import Receive

from tensor_wasm.errors import Cancelled, RequestError, TensorWasmError
from tensor_wasm.http import wire
from tensor_wasm.http.media import accepts
from tensor_wasm.http.operations import Call, StreamedAnswer
from tensor_wasm.http.refusals import told
from tensor_wasm.node import InvocationResult, Stream

EVENT_STREAM = b"text/event-stream"
BYTES = b"application/octet-stream"

#: How long a guest may go on after its client went away, before it is ended: long enough to see that from its stream.
#: Also how long a client may take to read what came before a failure.
_FAREWELL_S = 1.0

#: Starts the invocation with a stream.
Start = Callable[[Stream], Awaitable[InvocationResult]]


class Chunks:
    """The chunks of one running invocation, for an event loop. Iterate it; then ``result`` is there.

    Iterating raises what the invocation came to. When the client goes away the guest is told by its stream, and ended
    a moment later; iterating then raises :class:`Cancelled`. Leave it by :meth:`close`.
    """

    def __init__(self, start: Start, receive: Receive) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._stream = Stream(self._wake)
        self._receive = receive
        self._invocation = asyncio.ensure_future(start(self._stream))
        self._invocation.add_done_callback(self._on_end)
        self._watch = asyncio.ensure_future(self._wait_for_disconnect())
        self._is_waiting = False
        self._cut: Callable[[], None] | None = None
        self._cut_timer: asyncio.TimerHandle | None = None
        self.is_gone = False
        self.result: InvocationResult | None = None

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        while True:
            chunk = self._stream.take()
            if chunk is not None:
                return chunk
            if self.is_gone:
                await self._end()
                raise Cancelled("the client went away")
            if self._invocation.done():
                # It may have emitted between the look and its end.
                chunk = self._stream.take()
                if chunk is not None:
                    return chunk
                self.result = self._invocation.result()
                raise StopAsyncIteration
            await self._wait()

    def cut_on_failure(self, cut: Callable[[], None]) -> None:
        """Call ``cut`` a moment after the invocation has failed, whether its chunks were read by then or not."""
        self._cut = cut
        if self._invocation.done():
            self._on_end(self._invocation)

    async def leave(self) -> None:
        """Want no more chunks: the guest is told by its stream, and ended when it goes on for a moment."""
        self._stream.abandon()
        await self._end()
        if not self._invocation.cancelled() and self._invocation.exception() is None:
            self.result = self._invocation.result()

    async def close(self) -> None:
        """End what still runs."""
        self._watch.cancel()
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        if not self._invocation.done():
            self._stream.abandon()
            self._invocation.cancel()
        with suppress(asyncio.CancelledError, TensorWasmError):
            await self._invocation

    def _on_end(self, invocation: asyncio.Future[InvocationResult]) -> None:
        self._changed.set()
        if self._cut is not None and (invocation.cancelled() or invocation.exception() is not None):
            self._cut_timer = self._loop.call_later(_FAREWELL_S, self._cut)

    async def _end(self) -> None:
        """Give the guest a moment to see that its client went away; then end it."""
        await asyncio.wait([self._invocation], timeout=_FAREWELL_S)
        await self.close()

    async def _wait(self) -> None:
        self._changed.clear()
        self._is_waiting = True
        if self._stream.has_chunks or self._invocation.done() or self.is_gone:
            self._changed.set()
        try:
            await self._changed.wait()
        finally:
            self._is_waiting = False

    def _wake(self) -> None:
        """On the guest's thread: have the reader look, if it waits."""
        if self._is_waiting:
            self._is_waiting = False  # one call wakes it, however many chunks come until it looks
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changed.set)

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self._stream.abandon()
        self._changed.set()


async def answer(call: Call, start: Start) -> StreamedAnswer:
    """The answer of an invocation that streams, in the form that the request's ``Accept`` asks for.

    Raises :class:`RequestError` for a form there is not, and what the invocation came to before its first chunk.
    """
    media = accepts(call.headers, EVENT_STREAM, BYTES)
    if media == BYTES and call.scope.get("http_version") == "1.0":
        raise RequestError("application/octet-stream needs HTTP/1.1: in 1.0 a cut answer looks like a whole one")
    chunks = Chunks(start, call.receive)
    try:
        first = await anext(chunks, None)
    except BaseException:
        await chunks.close()
        raise
    if media == BYTES:  # what waits for a client that does not read is of no use without its end
        chunks.cut_on_failure(call.cut)
    body = _events(call, chunks, first) if media == EVENT_STREAM else _bytes(call, chunks, first)
    headers = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    return StreamedAnswer(body, media, headers, chunks.close)


def note(call: Call, result: InvocationResult) -> None:
    """Tell the audit log what was run."""
    call.detail = {
        "export": result.export,
        "instance_id": result.instance_id,
        "duration_ms": round(result.duration_s * 1e3, 3),
        "launches": result.launches,
    }


async def _bytes(call: Call, chunks: Chunks, first: bytes | None) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
        async for chunk in chunks:
            yield chunk
    assert chunks.result is not None
    note(call, chunks.result)


async def _events(call: Call, chunks: Chunks, first: bytes | None) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield _chunk_event(first)
            async for chunk in chunks:
                yield _chunk_event(chunk)
    except Cancelled:
        raise
    except TensorWasmError as error:
        call.failure = error
        body = wire.ErrorBody(error.kind, told(error, call.id), call.id)
        yield event(b"error", wire.encode(wire.ErrorAnswer(body)))
        return
    assert chunks.result is not None
    note(call, chunks.result)
    yield event(b"done", wire.encode_invoked(chunks.result))


def event(name: bytes, data: bytes) -> bytes:
    """A Server-Sent Event. ``data`` is JSON, which has no line breaks."""
    return b"event: %b\ndata: %b\n\n" % (name, data)


def _chunk_event(chunk: bytes) -> bytes:
    return b'event: chunk\ndata: {"chunk_b64":"%b"}\n\n' % binascii.b2a_base64(chunk, newline=False)
