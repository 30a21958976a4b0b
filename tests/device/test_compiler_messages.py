"""Frames between a node and its compilers."""

from __future__ import annotations

import io
import random

import pytest

from tensor_wasm.device.compiler_messages import (
    FRAME_BYTES_MAX,
    Kind,
    Message,
    pack_limit,
    pack_place,
    pack_size,
    receive,
    unpack_limit,
    unpack_place,
    unpack_size,
)
from tensor_wasm.errors import InternalError


class Ended(Exception):
    pass


def received(data: bytes) -> Message:
    stream = io.BytesIO(data)

    def read(count: int) -> bytearray:
        taken = bytearray(stream.read(count))
        if len(taken) < count:
            raise Ended
        return taken

    return receive(read)


@pytest.mark.parametrize("fields", [(), (b"",), (b"a", b"", b"bcd"), (bytes(70_000),) * 8])
def test_a_frame_is_read_as_it_was_written(fields: tuple[bytes, ...]) -> None:
    message = Message(Kind.MODULE, fields)
    assert received(message.head() + b"".join(fields) + b"what follows") == message


def test_numbers_are_read_as_they_were_written() -> None:
    assert unpack_limit(pack_limit(0.25)) == 0.25
    assert unpack_size(pack_size(1 << 40)) == 1 << 40
    assert unpack_place(pack_place(500_000, 7)) == (500_000, 7)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\xff\x00",
        b"\x03\xff" + bytes(4 * 255),
        b"\x03\x01" + (FRAME_BYTES_MAX + 1).to_bytes(4, "little"),
        b"Traceback (most recent call last):" * 100,
    ],
)
def test_other_bytes_are_no_frame(data: bytes) -> None:
    with pytest.raises(InternalError):
        received(data)


def test_random_bytes_end_in_a_frame_an_error_or_a_wish_for_more() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(2000):
        data = bytes(source.choices(range(10), k=source.randrange(40)))
        try:
            message = received(data)
        except (InternalError, Ended):
            continue
        assert data.startswith(message.head() + b"".join(message.fields))
