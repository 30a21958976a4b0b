"""Text from a format of C's ``printf`` and its values. Source: ISO C, "The fprintf function".

Formats come from kernels that nobody vouches for: widths and precisions are bounded where a format is taken apart
(:mod:`tensor_wasm.ptx.formats`), those that are values here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence

from tensor_wasm.ptx.formats import WIDTH_MAX, Conversion, parse

_BITS_BY_LENGTH = {"hh": 8, "h": 16, "": 32}


def render(text: bytes, values: Sequence[int], string_at: Callable[[int, int], bytes]) -> bytes:
    """The text of a format. Values are their bits; ``string_at`` gives that of an address, at most so many bytes."""
    left = iter(values)
    return b"".join(piece if isinstance(piece, bytes) else _converted(piece, left, string_at) for piece in parse(text))


def _converted(conversion: Conversion, values: Iterator[int], string_at: Callable[[int, int], bytes]) -> bytes:
    letter, flags = conversion.letter, conversion.flags
    if letter == "%":
        return b"%"
    width, precision = conversion.width, conversion.precision
    if width == -1:
        width = _signed(next(values), 32)
        flags, width = (flags + "-", -width) if width < 0 else (flags, width)
    if precision == -1:
        precision = _signed(next(values), 32)
        precision = None if precision < 0 else precision
    width = min(width or 0, WIDTH_MAX)
    precision = None if precision is None else min(precision, WIDTH_MAX)
    value = next(values)
    match letter:
        case "c":
            return _padded("", bytes([value & 0xFF]), flags.replace("0", ""), width)
        case "s" | "S":
            longest = WIDTH_MAX if precision is None else precision
            return _padded("", string_at(value, longest)[:longest], flags.replace("0", ""), width)
        case "p":
            return _padded("", f"{value:#x}".encode(), flags.replace("0", ""), width)
        case "n":
            return b""
        case "d" | "i" | "u" | "o" | "x" | "X":
            return _integer(conversion, value, (flags, width, precision))
    return _float(letter, struct.unpack("<d", value.to_bytes(8, "little"))[0], (flags, width, precision))


def _integer(conversion: Conversion, value: int, layout: tuple[str, int, int | None]) -> bytes:
    letter, (flags, width, precision) = conversion.letter, layout
    bits = _BITS_BY_LENGTH.get(conversion.length, 64)
    number = _signed(value, bits) if letter in "di" else value & (1 << bits) - 1
    digits = format(abs(number), {"o": "o", "x": "x", "X": "X"}.get(letter, "d"))
    if precision is not None:
        digits = "" if not precision and not number else digits.rjust(precision, "0")
        flags = flags.replace("0", "")
    sign = ""
    if letter in "di":
        sign = _sign(number < 0, flags)
    elif "#" in flags and letter == "o" and not digits.startswith("0"):
        digits = "0" + digits
    elif "#" in flags and letter in "xX" and number:
        sign = "0" + letter
    return _padded(sign, digits.encode(), flags, width)


def _float(letter: str, value: float, layout: tuple[str, int, int | None]) -> bytes:
    flags, width, precision = layout
    sign = _sign(math.copysign(1, value) < 0, flags)
    if not math.isfinite(value):
        text = "nan" if math.isnan(value) else "inf"
        return _padded(sign, (text.upper() if letter.isupper() else text).encode(), flags.replace("0", ""), width)
    if letter in "aA":
        text = _hexadecimal(abs(value), precision)
        text = text.upper() if letter == "A" else text
        sign, text = sign + text[:2], text[2:]
    else:
        alternate = "#" if "#" in flags else ""
        text = f"%{alternate}.{6 if precision is None else precision}{letter}" % abs(value)
    return _padded(sign, text.encode(), flags, width)


def _hexadecimal(value: float, precision: int | None) -> str:
    mantissa, exponent = math.frexp(value)
    exponent = exponent - 1 if value else 0
    digits = int(mantissa * 2**53)  # 1 and 52 bits, 13 digits
    if precision is not None and precision < 13:
        cut = 4 * (13 - precision)
        half, rest = 1 << (cut - 1), digits & (1 << cut) - 1
        digits = (digits >> cut) + (rest > half or (rest == half and digits >> cut & 1))
        digits <<= cut
    whole, fraction = digits >> 52, f"{digits & (1 << 52) - 1:013x}"
    fraction = fraction.rstrip("0") if precision is None else fraction.ljust(precision, "0")[:precision]
    return f"0x{whole}{'.' if fraction else ''}{fraction}p{exponent:+d}"


def _sign(is_negative: bool, flags: str) -> str:
    return "-" if is_negative else "+" if "+" in flags else " " if " " in flags else ""


def _padded(sign: str, digits: bytes, flags: str, width: int) -> bytes:
    """A sign and digits in ``width`` characters: blanks before or after them, or zeros between."""
    if "-" in flags:
        return (sign.encode() + digits).ljust(width)
    if "0" in flags:
        return sign.encode() + digits.rjust(width - len(sign), b"0")
    return (sign.encode() + digits).rjust(width)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
