"""Text of printf formats, against the C library's own."""

from __future__ import annotations

import ctypes
import random
import struct

import pytest

from tensor_wasm.device.formatting import render

_LIBC = ctypes.CDLL(None)
_BITS = 0xFFFFFFFFFFFFFFFF


def expected(text: str, *values: object) -> bytes:
    buffer = ctypes.create_string_buffer(8192)
    size = _LIBC.snprintf(buffer, len(buffer), text.encode(), *values)
    assert 0 <= size < len(buffer)
    return buffer.raw[:size]


def rendered(text: str, *values: int) -> bytes:
    return render(text.encode(), values, lambda address, longest: f"<{address}>".encode()[:longest])


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


_FLAGS = ["", "-", "+", " ", "#", "0", "-0", "+0", " 0", "+-", "# ", "#0", "+ "]
_INTEGERS = [0, 1, -1, 7, -42, 0x7FFFFFFF, -0x80000000, 123456789]
_LONGS = [0, 1, -1, 0x7FFFFFFFFFFFFFFF, -0x8000000000000000, 1 << 40]
_FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 1 / 3, 1e-7, 123456.789, 1e15, 1e300, 5e-324, 2.5, 0.5]
_FLOATS += [float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("letter", "diuxXo")
@pytest.mark.parametrize("flags", _FLAGS)
def test_integers_are_what_c_makes_of_them(letter: str, flags: str) -> None:
    for layout in ("", "1", "12", ".0", ".5", "12.5", "3.9"):
        for value in _INTEGERS:
            text = f"[%{flags}{layout}{letter}]"
            assert rendered(text, value & 0xFFFFFFFF) == expected(text, ctypes.c_int(value)), (text, value)
        for value in _LONGS:
            text = f"[%{flags}{layout}ll{letter}]"
            assert rendered(text, value & _BITS) == expected(text, ctypes.c_longlong(value)), (text, value)
        for length in ("h", "hh"):
            text = f"[%{flags}{layout}{length}{letter}]"
            assert rendered(text, 0xFFFF87F3) == expected(text, ctypes.c_int(0xFFFF87F3 - (1 << 32))), text


@pytest.mark.parametrize("letter", "fFeEgGaA")
@pytest.mark.parametrize("flags", _FLAGS)
def test_floats_are_what_c_makes_of_them(letter: str, flags: str) -> None:
    if letter in "aA" and "#" in flags:
        pytest.skip("a point without digits after it is left out")
    for layout in ("", "1", "14", ".0", ".3", "14.3", ".20", "30.1"):
        for value in _FLOATS:
            if letter in "aA" and 0 < abs(value) < 1e-300:
                continue  # subnormal numbers have more than one right text
            text = f"[%{flags}{layout}{letter}]"
            assert rendered(text, bits(value)) == expected(text, ctypes.c_double(value)), (text, value)


def test_numbers_at_random_are_what_c_makes_of_them() -> None:
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    for _ in range(5000):
        value = struct.unpack("<d", choose.randbytes(8))[0]
        if 0 < abs(value) < 1e-300:
            continue
        text = f"%{choose.choice(['', '.0', '.3', '20.7', '-25.2'])}{choose.choice('fega')}"
        assert rendered(text, bits(value)) == expected(text, ctypes.c_double(value)), (seed, text, value)


@pytest.mark.parametrize("layout", ["", "10", "-10", ".2", "10.2", "-10.2", "010"])
def test_strings_characters_and_pointers_are_padded(layout: str) -> None:
    text = f"[%{layout}s]"
    assert rendered(text, 77) == expected(text.replace("010", "10"), b"<77>")
    if "." not in layout:
        assert rendered(f"[%{layout}c]", 0x41) == expected(f"[%{layout.replace('010', '10')}c]", ctypes.c_int(0x41))
        assert rendered(f"[%{layout}p]", 0x123) == expected(
            f"[%{layout.replace('010', '10')}p]", ctypes.c_void_p(0x123)
        )


def test_widths_may_be_values() -> None:
    assert rendered("[%*d|%-*d|%.*f]", 6, 42, 6, 42, 2, bits(1.0)) == b"[    42|42    |1.00]"
    assert rendered("[%*d]", -6 & 0xFFFFFFFF, 42) == b"[42    ]"
    assert rendered("[%.*f]", -1 & 0xFFFFFFFF, bits(1.0)) == b"[1.000000]"


def test_no_width_makes_much_text() -> None:
    assert len(rendered("%2000000000d", 1)) == 1024
    assert len(rendered("%*d", 2_000_000_000, 1)) == 1024
    assert len(rendered("%.2000000000f", bits(1.0))) < 1100
    assert len(rendered("%.*d", 0x7FFFFFFF, 1)) == 1024
    assert len(rendered("%.*f", 0x7FFFFFFF, bits(1e308))) < 1400
    assert len(rendered("%*.*s", 0x80000000, 0x7FFFFFFF, 1)) == 1024


def test_text_that_is_no_conversion_stays() -> None:
    assert rendered("100%% %y %n|", 5) == b"100% %y |"
