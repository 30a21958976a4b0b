"""A guest's stream as an HTTP answer: Server-Sent Events, or the bytes alone.

The answer begins with the first chunk or with the end, whichever comes first: an invocation that fails before it has
emitted anything is answered by an error like any other.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator, Callable

from starlette.types import Receive

from tensor_wasm.errors import Cancelled, RequestError, TensorWasmError
from tensor_wasm.http import wire
from tensor_wasm.http.media import accepts
from tensor_wasm.http.operations import Call, StreamedAnswer
from tensor_wasm.http.refusals import told
from tensor_wasm.node import FAREWELL_S, InvocationResult, StreamedCall
from tensor_wasm.node.streamed import Start

EVENT_STREAM = b"text/event-stream"
BYTES = b"application/octet-stream"


class Chunks:
    """The chunks of one running invocation for a client. Iterate it; then ``result`` is there.

    Iterating raises what the invocation came to. When the client goes away the guest is told by its stream, and ended
    a moment later; iterating then raises :class:`Cancelled`. Leave it by :meth:`close`.
    """

    def __init__(self, start: Start, receive: Receive) -> None:
        self._call = StreamedCall(start)
        self._receive = receive
        self._watch = asyncio.ensure_future(self._wait_for_disconnect())
        self._cut_timer: asyncio.TimerHandle | None = None
        self.is_gone = False

    @property
    def result(self) -> InvocationResult | None:
        """What the invocation gave, once it has returned."""
        return self._call.result

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._call.next()
        except Cancelled:
            if not self.is_gone:
                raise
            await self.leave()
            raise Cancelled("the client went away") from None
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def cut_on_failure(self, cut: Callable[[], None]) -> None:
        """Call ``cut`` a moment after the invocation has failed, whether its chunks were read by then or not."""
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._cut_timer = loop.call_later(FAREWELL_S, cut)

        self._call.when_failed(begin)

    async def leave(self) -> None:
        """Want no more chunks: the guest is told by its stream, and ended when it goes on for a moment."""
        await self._call.leave()
        await self.close()

    async def close(self) -> None:
        """End what still runs."""
        self._watch.cancel()
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        await self._call.close()

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self._call.abandon()


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
