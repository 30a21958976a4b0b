"""Bodies of requests: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from tensor_wasm.errors import BodyTooLarge, Cancelled, RequestError

#: Longest pause within a body, and the slowest rate over all of it: a trickle must not hold a connection for ever.
PAUSE_S = 10.0
_GRACE_S = 30.0
_SLOWEST_BYTES_PER_S = 64 * 1024


class SlowBody(RequestError):
    """The body does not arrive. The connection is of no more use."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit_bytes: int) -> bytes:
    """The whole body.

    Raises :class:`BodyTooLarge` as soon as it is known to be, by its announced length or by what came;
    :class:`SlowBody`; :class:`~tensor_wasm.errors.Cancelled` when the client went away.
    """
    announced = headers.get(b"content-length")
    if announced is not None and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    loop = asyncio.get_running_loop()
    pieces: list[bytes] = []
    size = 0
    patience = loop.time() + _GRACE_S
    try:
        async with asyncio.timeout(PAUSE_S) as timer:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Cancelled("the client went away")
                piece = message["body"]
                size += len(piece)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                if not message["more_body"]:
                    break
                pieces.append(piece)
                timer.reschedule(min(loop.time() + PAUSE_S, patience + size / _SLOWEST_BYTES_PER_S))
    except TimeoutError:
        raise SlowBody(f"the body came too slowly: at most {PAUSE_S:g} seconds may pass without a byte of it") from None
    if not pieces:
        return bytes(piece)
    pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is larger than {limit_bytes} bytes; the node's operator sets TENSOR_WASM_MAX_BODY_BYTES"
    )
