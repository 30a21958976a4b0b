"""Bodies of requests: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Receive

from tensor_wasm.errors import BodyTooLarge, Cancelled, RequestTimeout

#: Longest pause within a body, and the slowest rate over all of it: a trickle must not hold a connection for ever.
PAUSE_S = 10.0
_GRACE_S = 30.0
_LARGE_BYTES = 1 << 20
_SLOWEST_BYTES_PER_S = 64 * 1024


class _Patience:
    """Cancels the current task when it runs out. ``asyncio.timeout`` does the same at eight times the cost."""

    __slots__ = ("_loop", "_task", "_timer", "is_over")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(PAUSE_S, self._run_out)
        self.is_over = False

    def renew(self, most_s: float) -> None:
        """Wait again, ``most_s`` at most."""
        self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, min(PAUSE_S, most_s)), self._run_out)

    def end(self) -> None:
        self._timer.cancel()
        if self.is_over and self._task is not None:
            self._task.uncancel()
        self._task = None

    def _run_out(self) -> None:
        if self._task is not None:
            self.is_over = True
            self._task.cancel()


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit_bytes: int, hold: Callable[[int], None]
) -> bytes:
    """The whole body. ``hold`` is told of the bytes that come, before they are kept; what it raises ends the reading.

    Raises :class:`BodyTooLarge` as soon as it is known to be, by its announced length or by what came;
    :class:`~tensor_wasm.errors.RequestTimeout`; :class:`~tensor_wasm.errors.Cancelled` when the client went away.
    """
    announced = headers.get(b"content-length")
    if announced is not None and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    patience = _Patience()
    try:
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"] and len(message["body"]) <= limit_bytes:
            body: bytes = message["body"]
            if body:
                hold(len(body))
            return body
        return await _read_on(message, receive, limit_bytes, patience, hold)
    except asyncio.CancelledError:
        if patience.is_over:
            raise _too_slow() from None
        raise
    finally:
        patience.end()


async def receive_parts(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    limit_bytes: int,
    part_bytes: int,
    keep: Callable[[bytes], Awaitable[None]],
) -> None:
    """A body that is too large to be held: ``keep`` gets it in parts of about ``part_bytes``, one after another.

    Raises as :func:`read_body`, and what ``keep`` raises.
    """
    announced = headers.get(b"content-length")
    if announced is not None and int(announced) > limit_bytes:
        raise _too_large(limit_bytes, "TENSOR_WASM_SNAPSHOT_FILE_BYTES")
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    size, is_whole, part = 0, False, bytearray()
    while not is_whole:
        most_s = started_s + _GRACE_S + size / _SLOWEST_BYTES_PER_S - loop.time()
        try:
            async with asyncio.timeout(max(0.0, min(PAUSE_S, most_s))):
                message = await receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise Cancelled("the client went away")
        size += len(message["body"])
        if size > limit_bytes:
            raise _too_large(limit_bytes, "TENSOR_WASM_SNAPSHOT_FILE_BYTES")
        part += message["body"]
        is_whole = not message["more_body"]
        if len(part) >= part_bytes or (is_whole and part):
            await keep(bytes(part))
            part.clear()


async def _read_on(
    message: Mapping[str, object],
    receive: Receive,
    limit_bytes: int,
    patience: _Patience,
    hold: Callable[[int], None],
) -> bytes:
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    pieces: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise Cancelled("the client went away")
        piece = message["body"]
        assert isinstance(piece, bytes)
        size += len(piece)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        hold(len(piece))
        pieces.append(piece)
        if not message["more_body"]:
            # To join more than a MiB lets go of the interpreter lock, and so of the event loop if done elsewhere.
            return await asyncio.to_thread(b"".join, pieces) if size > _LARGE_BYTES else b"".join(pieces)
        patience.renew(started_s + _GRACE_S + size / _SLOWEST_BYTES_PER_S - loop.time())
        message = await receive()


def _too_slow() -> RequestTimeout:
    return RequestTimeout(f"the body came too slowly: send it without pauses of {PAUSE_S:g} seconds")


def _too_large(limit_bytes: int, setting: str = "TENSOR_WASM_MAX_BODY_BYTES") -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit_bytes} bytes; the node's operator sets {setting} for all")
