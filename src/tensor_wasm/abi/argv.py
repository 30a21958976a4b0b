"""Launch arguments as guests pack them: a run of records, a tag byte then the value, no header, no padding."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum


class Tag(IntEnum):
    """First byte of a record: the type of its value."""

    I32 = 1
    I64 = 2
    F32 = 3
    F64 = 4
    U32 = 5
    U64 = 6
    POINTER = 7  # u32 offset, u32 byte length: a window of guest memory


#: Bytes of the value after the tag.
VALUE_BYTES: dict[Tag, int] = {
    Tag.I32: 4,
    Tag.I64: 8,
    Tag.F32: 4,
    Tag.F64: 8,
    Tag.U32: 4,
    Tag.U64: 8,
    Tag.POINTER: 8,
}

_FORMATS: dict[Tag, str] = {
    Tag.I32: "<Bi",
    Tag.I64: "<Bq",
    Tag.F32: "<Bf",
    Tag.F64: "<Bd",
    Tag.U32: "<BI",
    Tag.U64: "<BQ",
    Tag.POINTER: "<BII",
}


def pack(records: Iterable[tuple[Tag, *tuple[float, ...]]]) -> bytes:
    """Pack records ``(tag, value)``, or ``(Tag.POINTER, offset, length)``, into argv bytes.

    Raises :class:`struct.error` for a value out of its type's range.
    """
    return b"".join(struct.pack(_FORMATS[tag], tag, *values) for tag, *values in records)
