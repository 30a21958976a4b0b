"""LEB128, the variable-length integers of the WebAssembly binary format (core specification, "Values")."""

from __future__ import annotations

from typing import Final

_SMALL_UNSIGNED: Final = tuple(bytes([n]) for n in range(128))
_SMALL_SIGNED: Final = {n: bytes([n & 0x7F]) for n in range(-64, 64)}


def unsigned(value: int) -> bytes:
    """``value`` (not negative) as unsigned LEB128."""
    if 0 <= value < 128:
        return _SMALL_UNSIGNED[value]
    if value < 0:
        raise ValueError(f"not an unsigned number: {value}")
    out = bytearray()
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """``value`` as signed LEB128."""
    small = _SMALL_SIGNED.get(value)
    if small is not None:
        return small
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)
