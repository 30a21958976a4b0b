"""What a client and its worker say to each other: frames of a kind, a request's number, and some byte strings.

A frame is the kind (u8), the count of fields (u8), the request's number (u32), the length of each field (u32), then the
fields; all numbers are little-endian. Answers bear the number of what they answer and come in any order. The first
field of a request has its numbers, as u64s, and what follows is bytes: :data:`REQUESTS` says how many of each.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.errors import InternalError

#: A frame's fields together: more than what a fence, or an assembler, makes of the longest text.
FRAME_BYTES_MAX: Final = 256 << 20
#: What a worker says in words is cut to this.
TEXT_BYTES_MAX: Final = 8_000

_HEAD = struct.Struct("<BBI")
_FIELDS_MAX = 5
_NUMBERS_MAX = 2_048


class Kind(IntEnum):
    """What a frame is for, and its fields."""

    # --- to the worker ------------------------------------------------------------------------------------------

    BEAT = 1  # to be answered at once, by DONE
    OPEN_TENANT = 2  # tenant, partition's bytes; DONE: its base
    CLOSE_TENANT = 3  # tenant
    # tenant, image's address, whether faults are left; machine code or PTX, machine code for larger blocks or nothing,
    # name, image; DONE: kernel, most threads of a block
    LOAD = 4
    UNLOAD = 5  # kernel
    OPEN_LANE = 6  # lane, tenant
    CLOSE_LANE = 7  # lane
    COPY_IN = 8  # tenant, address, place in the staging area, bytes
    COPY_OUT = 9  # the same
    SET_MEMORY = 10  # tenant, address, byte, bytes

    # --- answers ------------------------------------------------------------------------------------------------

    READY = 32  # the worker's first words: facts
    DONE = 33  # numbers
    INVALID = 34  # text: the request names what there is not
    NO_MEMORY = 35  # text
    PTX_ERROR = 36  # text: what the driver's assembler said
    FAILED = 37  # text: a defect
    UNUSABLE = 38  # text: the GPU cannot be used; the worker ends
    LAST_WORDS = 39  # tenants with work in flight; the kernel, of one; text: why the worker ends


#: Of each request: how many numbers, and how many fields of bytes after them.
REQUESTS: Final[Mapping[Kind, tuple[int, int]]] = {
    Kind.BEAT: (0, 0),
    Kind.OPEN_TENANT: (2, 0),
    Kind.CLOSE_TENANT: (1, 0),
    Kind.LOAD: (3, 4),
    Kind.UNLOAD: (1, 0),
    Kind.OPEN_LANE: (2, 0),
    Kind.CLOSE_LANE: (1, 0),
    Kind.COPY_IN: (4, 0),
    Kind.COPY_OUT: (4, 0),
    Kind.SET_MEMORY: (4, 0),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One frame. ``request`` is the number of what it asks, or answers; 0 where there is none."""

    kind: Kind
    request: int = 0
    fields: tuple[bytes, ...] = ()

    def parts(self) -> list[bytes]:
        """The frame's bytes, as pieces."""
        lengths = struct.pack(f"<{len(self.fields)}I", *map(len, self.fields))
        return [_HEAD.pack(self.kind, len(self.fields), self.request) + lengths, *self.fields]

    def numbers(self, count: int | None = None) -> tuple[int, ...]:
        """The numbers of the first field; ``count`` of them, when it is given.

        Raises :class:`~tensor_wasm.errors.InternalError` when there are not so many, or are no numbers.
        """
        field = self.fields[0] if self.fields else b""
        if len(field) % 8 or len(field) > 8 * _NUMBERS_MAX or (count is not None and len(field) != 8 * count):
            raise InternalError(f"a frame of kind {self.kind.name} has other numbers than it should")
        return struct.unpack(f"<{len(field) // 8}Q", field)

    def text(self) -> str:
        """The words of the last field."""
        return self.fields[-1][:TEXT_BYTES_MAX].decode("utf-8", "replace") if self.fields else ""


def request(kind: Kind, number: int, numbers: Sequence[int] = (), *content: bytes) -> Message:
    """A request, or an answer of numbers. Raises ``struct.error`` for a number that is no u64."""
    return Message(kind, number, (struct.pack(f"<{len(numbers)}Q", *numbers), *content))


def answer(kind: Kind, number: int, text: str) -> Message:
    """An answer in words."""
    return Message(kind, number, (text[:TEXT_BYTES_MAX].encode("utf-8", "replace")[:TEXT_BYTES_MAX],))


def check_request(message: Message) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """A request's numbers and its further fields.

    Raises :class:`~tensor_wasm.errors.InternalError` for a frame that is no request of the form it should have.
    """
    form = REQUESTS.get(message.kind)
    if form is None or len(message.fields) != 1 + form[1]:
        raise InternalError(f"a frame of kind {message.kind.name} is no request, or has other fields than it should")
    return message.numbers(form[0]), message.fields[1:]


def encode_facts(facts: GpuFacts) -> bytes:
    """A GPU's facts as a field."""
    return json.dumps(dataclasses.asdict(facts)).encode()


def decode_facts(field: bytes) -> GpuFacts:
    """The facts that :func:`encode_facts` encoded. Raises :class:`~tensor_wasm.errors.InternalError`."""
    try:
        content = json.loads(field)
        facts = GpuFacts(**content)
        ours = [(getattr(facts, each.name), str(each.type)) for each in dataclasses.fields(facts)]
    except (ValueError, TypeError) as error:
        raise InternalError("a worker's facts cannot be read") from error
    if any(type(value).__name__ != kind for value, kind in ours):
        raise InternalError("a worker's facts have other types than they should")
    return facts


class Frames:
    """Puts what comes from a socket together to frames."""

    def __init__(self) -> None:
        self._data = bytearray()
        #: Bytes that the frame needs which is not whole yet: not looked at before they are there.
        self._needed = _HEAD.size

    def feed(self, data: bytes | memoryview) -> Iterator[Message]:
        """Take bytes, give the frames that are whole now.

        Raises :class:`~tensor_wasm.errors.InternalError` for bytes that are no frame; there is no going on after that.
        """
        self._data += data
        while len(self._data) >= self._needed:
            message = self._next()
            if message is not None:
                yield message

    def _next(self) -> Message | None:
        """The first frame, taken; None when more of it is needed."""
        code, count, number = _HEAD.unpack_from(self._data)
        if count > _FIELDS_MAX:
            raise InternalError("a frame has too many fields")
        start = _HEAD.size + 4 * count
        if len(self._data) < start:
            self._needed = start
            return None
        lengths = struct.unpack_from(f"<{count}I", self._data, _HEAD.size)
        if sum(lengths) > FRAME_BYTES_MAX:
            raise InternalError("a frame is too long")
        self._needed = start + sum(lengths)
        if len(self._data) < self._needed:
            return None
        fields, view = [], memoryview(self._data)
        for length in lengths:
            fields.append(bytes(view[start : start + length]))
            start += length
        view.release()
        del self._data[:start]
        self._needed = _HEAD.size
        try:
            return Message(Kind(code), number, tuple(fields))
        except ValueError as error:
            raise InternalError("a frame is of no known kind") from error
