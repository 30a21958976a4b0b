"""Formats of C's ``printf``, taken apart: what is text, and what is a conversion and of which values.

Source: ISO C, "The fprintf function", with the sizes of CUDA's 64-bit targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

#: Values of one record: those of further conversions are not looked at.
VALUES_MAX = 32
#: Bytes of a format; what comes after them is left out.
FORMAT_BYTES_MAX = 4096
#: Characters that a width or a precision may ask for.
WIDTH_MAX = 1024

_CONVERSION: Final = re.compile(
    rb"%(?P<flags>[-+ #0]{0,8}+)(?P<width>\*|[0-9]{1,10}+)?+(?:\.(?P<precision>\*|[0-9]{0,10}+))?+"
    rb"(?P<length>hh|h|ll|l|j|z|t|q|L)?+(?P<letter>[diouxXcsSpfFeEgGaAn%])"
)
_WIDE_LENGTHS: Final = (b"ll", b"l", b"j", b"z", b"t", b"q")
_WIDE_LETTERS: Final = b"fFeEgGaAsSpn"


@dataclass(frozen=True, slots=True)
class Conversion:
    """``%-8.3f``: ``width`` and ``precision`` are numbers, -1 for one that is a value (``*``), None without one."""

    flags: str
    width: int | None
    precision: int | None
    length: str
    letter: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of the values it takes, in their order."""
        stars = (4,) * ((self.width == -1) + (self.precision == -1))
        if self.letter == "%":
            return ()
        is_wide = self.letter.encode() in _WIDE_LETTERS or (self.length.encode() in _WIDE_LENGTHS)
        return (*stars, 8 if is_wide and self.letter != "c" else 4)


def parse(text: bytes) -> Iterator[bytes | Conversion]:
    """Text and conversions in turn. What is no conversion of C's is text; so are conversions past ``VALUES_MAX``."""
    text = text[:FORMAT_BYTES_MAX]
    place = values = 0
    for match in _CONVERSION.finditer(text):
        conversion = Conversion(
            match["flags"].decode(),
            _number(match["width"]),
            _number(match["precision"]),
            (match["length"] or b"").decode(),
            match["letter"].decode(),
        )
        values += len(conversion.sizes)
        if values > VALUES_MAX:
            break
        if match.start() > place:
            yield text[place : match.start()]
        place = match.end()
        yield conversion
    if place < len(text):
        yield text[place:]


def sizes(text: bytes) -> tuple[int, ...]:
    """Bytes of each value that a format takes."""
    return tuple(size for piece in parse(text) if isinstance(piece, Conversion) for size in piece.sizes)


def _number(digits: bytes | None) -> int | None:
    if digits is None:
        return None
    return -1 if digits == b"*" else min(int(digits or b"0"), WIDTH_MAX)
