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
    DEVICE_POINTER = 8  # u64 handle, u64 byte offset: a place in a device allocation
    F16 = 9  # f16, or another scalar of two bytes: its bits
    STRUCT = 10  # u16 length, bytes: a structure given by value


#: The last tag that a launch under each version of the module takes.
LAST_TAG = Tag.POINTER
LAST_TAG_3 = Tag.STRUCT

#: Bytes of the value after the tag; of a structure, those of its length, which says how many more follow.
VALUE_BYTES: dict[Tag, int] = {
    Tag.I32: 4,
    Tag.I64: 8,
    Tag.F32: 4,
    Tag.F64: 8,
    Tag.U32: 4,
    Tag.U64: 8,
    Tag.POINTER: 8,
    Tag.DEVICE_POINTER: 16,
    Tag.F16: 2,
    Tag.STRUCT: 2,
}

_FORMATS: dict[Tag, str] = {
    Tag.I32: "<Bi",
    Tag.I64: "<Bq",
    Tag.F32: "<Bf",
    Tag.F64: "<Bd",
    Tag.U32: "<BI",
    Tag.U64: "<BQ",
    Tag.POINTER: "<BII",
    Tag.DEVICE_POINTER: "<BQQ",
    Tag.F16: "<BH",
}


def pack(records: Iterable[tuple[Tag, *tuple[float | bytes, ...]]]) -> bytes:
    """Pack records ``(tag, value)`` into argv bytes.

    ``Tag.POINTER`` and ``Tag.DEVICE_POINTER`` take two numbers, ``Tag.F16`` the bits of its value, ``Tag.STRUCT``
    bytes. Raises :class:`struct.error` for a value out of its type's range.
    """
    return b"".join(_record(tag, *values) for tag, *values in records)


def _record(tag: Tag, *values: float | bytes) -> bytes:
    if tag is Tag.STRUCT:
        (content,) = values
        assert isinstance(content, bytes)
        return struct.pack("<BH", tag, len(content)) + content
    return struct.pack(_FORMATS[tag], tag, *values)
