"""Formats of printf taken apart."""

from __future__ import annotations

import time

import pytest

from tensor_wasm.ptx.formats import FORMAT_BYTES_MAX, VALUES_MAX, WIDTH_MAX, Conversion, parse, sizes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", ()),
        (b"plain", ()),
        (b"%d %i %u %x %X %o %c", (4,) * 7),
        (b"%hd %hhd", (4, 4)),
        (b"%ld %lld %llu %zu %jd %td %qd", (8,) * 7),
        (b"%f %e %g %a %F %E %G %A %lf", (8,) * 9),
        (b"%s %p %n", (8, 8, 8)),
        (b"%lc", (4,)),
        (b"%%d %d%%", (4,)),
        (b"%*d %.*f %*.*lld", (4, 4, 4, 8, 4, 4, 8)),
        (b"%-+ #08.3f", (8,)),
        (b"%y %", ()),
        (b"%5", ()),
    ],
)
def test_each_conversion_takes_values_of_its_size(text: bytes, expected: tuple[int, ...]) -> None:
    assert sizes(text) == expected


def test_text_and_conversions_come_in_turn() -> None:
    assert list(parse(b"a%5.2fb%%%y")) == [
        b"a",
        Conversion("", 5, 2, "", "f"),
        b"b",
        Conversion("", None, None, "", "%"),
        b"%y",
    ]


def test_everything_is_bounded() -> None:
    assert len(sizes(b"%d" * 100)) == VALUES_MAX
    assert list(parse(b"%d" * 100))[-1] == b"%d" * (100 - VALUES_MAX)
    (wide,) = parse(b"%2000000000.1999999999d")
    assert isinstance(wide, Conversion)
    assert (wide.width, wide.precision) == (WIDTH_MAX, WIDTH_MAX)
    assert list(parse(b"%99999999999d")) == [b"%99999999999d"]
    assert list(parse(b"x" * 10_000)) == [b"x" * FORMAT_BYTES_MAX]


@pytest.mark.parametrize("piece", [b"%", b"%-", b"%0", b"% ", b"%.", b"%l", b"%9", b"%-+ #0123456789.123456789ll"])
def test_no_format_takes_long(piece: bytes) -> None:
    started = time.process_time()
    for _ in range(100):
        sizes(piece * FORMAT_BYTES_MAX)
    assert time.process_time() - started < 5
