"""What a node and its compiler processes say to each other: frames of a kind and some byte strings.

A frame is the kind (u8), the number of fields (u8), the length of each field (u32, little-endian), then the fields.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from tensor_wasm.errors import InternalError

#: More than any kernel or module: what claims to be longer is no frame.
FRAME_BYTES_MAX = 1 << 30

#: How a process says on standard error that it ends for want of memory: the words of Rust's allocator.
NO_MEMORY = b"memory allocation of "

_HEAD = struct.Struct("<BB")
_FIELDS_MAX = 8
_LIMIT = struct.Struct("<d")
_ERROR_PLACE = struct.Struct("<II")
_SIZE = struct.Struct("<Q")


class Kind(IntEnum):
    """What a frame is for, and its fields."""

    COMPILE_KERNEL = 1  # to the compiler: time limit, entry, PTX
    COMPILE_MODULE = 2  # to the compiler: time limit, WebAssembly
    READY = 3  # its first words
    KERNEL = 4  # memory held, encoded kernel, machine code
    MODULE = 5  # memory held, machine code
    PTX_ERROR = 6  # memory held, line and column, text
    INVALID_WASM = 7  # memory held, text
    OUT_OF_MEMORY = 8  # memory held
    FAILED = 9  # memory held, text
    DRAFT_KERNEL = 10  # to the compiler: time limit, entry, PTX
    FENCE_KERNEL = 11  # to the compiler: time limit, order, PTX
    DRAFT = 12  # memory held, encoded draft
    FENCED = 13  # memory held, PTX or machine code, name, image, not empty for a kernel that is narrow


@dataclass(frozen=True, slots=True)
class Message:
    """One frame."""

    kind: Kind
    fields: tuple[bytes, ...] = ()

    def head(self) -> bytes:
        """All of the frame but the fields themselves."""
        lengths = struct.pack(f"<{len(self.fields)}I", *map(len, self.fields))
        return _HEAD.pack(self.kind, len(self.fields)) + lengths


def receive(read: Callable[[int], bytes | bytearray]) -> Message:
    """The next frame. ``read(count)`` gives exactly that many bytes, or raises.

    Raises :class:`~tensor_wasm.errors.InternalError` for bytes that are no frame.
    """
    kind, count = _HEAD.unpack(read(_HEAD.size))
    if count > _FIELDS_MAX:
        raise InternalError("a frame of a compiler process has too many fields")
    lengths = struct.unpack(f"<{count}I", read(4 * count))
    if sum(lengths) > FRAME_BYTES_MAX:
        raise InternalError("a frame of a compiler process is too long")
    try:
        return Message(Kind(kind), tuple(bytes(read(length)) for length in lengths))
    except ValueError as error:
        raise InternalError("a frame of a compiler process is of no known kind") from error


def pack_limit(limit_s: float) -> bytes:
    """A time limit in seconds as a field."""
    return _LIMIT.pack(limit_s)


def unpack_limit(field: bytes) -> float:
    """The time limit in seconds that :func:`pack_limit` packed."""
    (limit_s,) = _LIMIT.unpack(field)
    return float(limit_s)


def pack_size(size_bytes: int) -> bytes:
    """A size as a field."""
    return _SIZE.pack(size_bytes)


def unpack_size(field: bytes) -> int:
    """The size that :func:`pack_size` packed."""
    (size_bytes,) = _SIZE.unpack(field)
    return int(size_bytes)


def pack_place(line: int, column: int) -> bytes:
    """A place in a text as a field."""
    return _ERROR_PLACE.pack(line, column)


def unpack_place(field: bytes) -> tuple[int, int]:
    """Line and column that :func:`pack_place` packed."""
    line, column = _ERROR_PLACE.unpack(field)
    return int(line), int(column)
