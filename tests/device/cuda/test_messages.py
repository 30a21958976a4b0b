"""Frames between a client and its worker."""

from __future__ import annotations

import json
import random

import pytest

from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.messages import (
    FRAME_BYTES_MAX,
    REQUESTS,
    TEXT_BYTES_MAX,
    Frames,
    Kind,
    Message,
    answer,
    check_request,
    decode_facts,
    encode_facts,
    request,
)
from tensor_wasm.errors import InternalError

FACTS = GpuFacts(0, "A GPU", "GPU-1", "sm_90", 80 << 30, 132, 227 << 10)


def frame(message: Message) -> bytes:
    return b"".join(message.parts())


@pytest.mark.parametrize("fields", [(), (b"",), (b"a", b"", b"bcd"), (bytes(70_000),) * 4])
def test_a_frame_is_read_as_it_was_written(fields):
    message = Message(Kind.DONE, 77, fields)
    assert list(Frames().feed(frame(message))) == [message]


def test_frames_are_whole_whatever_pieces_they_come_in():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    sent = [
        request(Kind.LOAD, number, (1, 2, 3), *(source.randbytes(source.randrange(300)) for _ in range(4)))
        for number in range(50)
    ]
    data = b"".join(map(frame, sent))
    frames, received = Frames(), []
    while data:
        count = source.randrange(1, 400)
        received += frames.feed(memoryview(data)[:count])
        data = data[count:]
    assert received == sent


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00" + bytes(4),
        b"\xff\x00" + bytes(4),
        b"\x21\xff" + bytes(4 + 4 * 255),
        b"\x21\x01" + bytes(4) + (FRAME_BYTES_MAX + 1).to_bytes(4, "little"),
        b"\x21\x04" + bytes(4) + (FRAME_BYTES_MAX // 2).to_bytes(4, "little") * 4,
        b"Traceback (most recent call last):" * 100,
    ],
)
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(InternalError):
        list(Frames().feed(data))


def test_a_long_frame_is_refused_before_any_of_it_is_kept():
    head = b"\x04\x01" + bytes(4) + (FRAME_BYTES_MAX + 1).to_bytes(4, "little")
    frames = Frames()
    with pytest.raises(InternalError):
        list(frames.feed(head))


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_has_just_its_numbers_and_fields(kind):
    numbers, fields = REQUESTS[kind]
    values = tuple(range(1 << 63, (1 << 63) + numbers))
    content = [b"x"] * fields
    assert check_request(request(kind, 1, values, *content)) == (values, tuple(content))
    for wrong in (
        request(kind, 1, (*values, 1), *content),
        request(kind, 1, values, *content, b""),
        Message(kind, 1, (b"1234567", *content)),
        Message(kind, 1),
    ):
        with pytest.raises(InternalError):
            check_request(wrong)


@pytest.mark.parametrize("kind", [each for each in Kind if each not in REQUESTS])
def test_an_answer_is_no_request(kind):
    with pytest.raises(InternalError):
        check_request(Message(kind, 1, (b"",)))


def test_a_text_is_cut():
    message = answer(Kind.FAILED, 1, "ü" * TEXT_BYTES_MAX)
    assert len(message.fields[0]) == TEXT_BYTES_MAX
    assert message.text() == "ü" * (TEXT_BYTES_MAX // 2)


def test_facts_are_read_as_they_were_written():
    assert decode_facts(encode_facts(FACTS)) == FACTS


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"[]",
        b"7",
        b"\xff",
        b'{"index": 0}',
        encode_facts(FACTS)[:-1] + b', "more": 1}',
        json.dumps({**json.loads(encode_facts(FACTS)), "name": 5}).encode(),
        json.dumps({**json.loads(encode_facts(FACTS)), "memory_bytes": "1"}).encode(),
    ],
)
def test_what_are_no_facts_is_refused(field):
    with pytest.raises(InternalError):
        decode_facts(field)
