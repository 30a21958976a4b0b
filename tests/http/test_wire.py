from __future__ import annotations

import base64
import os
import random

import pytest

from tensor_wasm.errors import InvalidArguments, InvalidBase64, InvalidJson
from tensor_wasm.http import wire


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, (3 << 18) - 1, 3 << 18, (3 << 18) + 1, 2_000_003])
def test_base64_comes_back_whole_across_pieces(size):
    data = os.urandom(size)
    assert wire.decode_base64(base64.b64encode(data).decode(), "x") == data


def test_padding_at_the_end_of_a_piece_is_not_the_end():
    piece = "A" * (wire._BASE64_PIECE - 4)
    for text in (piece + "AA==" + "AAAA", piece + "AAA=" + "AAAA"):
        with pytest.raises(InvalidBase64, match="before the end"):
            wire.decode_base64(text, "x")
    assert wire.decode_base64(piece + "AAAA" + "AA==", "x")


def test_what_the_standard_library_refuses_is_refused():
    seed = random.randrange(1 << 32)
    generator = random.Random(seed)
    alphabet = "ABCabc019+/=-_ \n"
    for _ in range(3000):
        text = "".join(generator.choices(alphabet, k=generator.randrange(12)))
        try:
            expected = base64.b64decode(text, validate=True)
        except ValueError:
            expected = None
        try:
            got = wire.decode_base64(text, "x")
        except InvalidBase64:
            got = None
        if expected is None:
            assert got is None, f"{text!r}, seed {seed}"
        elif got is not None:
            assert got == expected, f"{text!r}, seed {seed}"
        else:
            # The standard library lets some malformed padding pass; whoever encodes properly never makes it.
            assert base64.b64encode(expected).decode() != text, f"{text!r}, seed {seed}"


def test_an_integer_too_long_to_read_is_out_of_range():
    with pytest.raises(InvalidArguments, match="argument 1"):
        wire.decode_invoke(b'{"args": [0, ' + b"9" * 5000 + b"]}")


def test_nesting_does_not_exhaust_the_stack():
    for decode in (wire.decode_deploy, wire.decode_invoke):
        with pytest.raises(InvalidJson):
            decode(b'{"unknown": ' + b"[" * 200_000)
