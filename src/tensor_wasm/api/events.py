"""Server-Sent Events as a node sends them: out of pieces of bytes, bounded in size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: A chunk of a guest has at most 64 KiB, in base64; a result at most its output, in JSON.
EVENT_MAX_BYTES = 64 << 20
_END = b"\n\n"


class MalformedEvent(ValueError):
    """What came is no event of a node's."""


def events(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and data of each event; what comes after the last whole one is none. Raises :class:`MalformedEvent`."""
    waiting = bytearray()
    looked = 0  # where no end begins before
    for piece in pieces:
        waiting += piece
        begin = 0
        while (end := waiting.find(_END, looked)) >= 0:
            yield _read(bytes(waiting[begin:end]))
            begin = looked = end + len(_END)
        del waiting[:begin]
        looked = max(len(waiting) - 1, 0)
        if len(waiting) > EVENT_MAX_BYTES:
            raise MalformedEvent("an event is too long")


def _read(record: bytes) -> tuple[str, bytes]:
    name, data = "message", []
    for line in record.split(b"\n"):
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
        elif field and not colon:
            raise MalformedEvent("a line of an event has no colon")
    return name, b"\n".join(data)
