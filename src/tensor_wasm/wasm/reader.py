"""A cursor over untrusted WebAssembly bytes: every read is bounded, every failure names its offset."""

from __future__ import annotations

from typing import Final

from tensor_wasm.errors import InvalidWasm

#: Longest name (import, export, custom section) in bytes; Wasmtime's own limit.
NAME_MAX_BYTES = 100_000
#: Magic number and version.
PREAMBLE_BYTES = 8

_MAGIC: Final = b"\0asm"
_CORE_VERSION: Final = b"\x01\0\0\0"


def invalid(text: str, offset: int) -> InvalidWasm:
    """The error for what is wrong at ``offset`` bytes from the module's start."""
    return InvalidWasm(f"{text} (at offset {offset})")


def check_preamble(data: bytes) -> None:
    """Raise :class:`InvalidWasm` unless ``data`` starts as a core module; says what it is instead where that shows."""
    if not data:
        raise InvalidWasm("the module is empty: send the bytes of a .wasm file")
    if data[:4] != _MAGIC[: len(data)]:
        if data.lstrip()[:1] == b"(":
            raise invalid("this is WebAssembly text: assemble it to the binary format first (wat2wasm)", 0)
        raise invalid("not a WebAssembly module: it does not start with 00 61 73 6D", 0)
    version = data[4:8]
    if len(version) < 4:
        raise invalid("the module is cut short", len(data))
    if version[2:] == b"\x01\0":
        raise invalid("this is a component: a function is a core module, build it for wasm32-wasi preview 1", 4)
    if version != _CORE_VERSION:
        raise invalid(f"version {int.from_bytes(version, 'little')} of the binary format: only 1 is supported", 4)


class Reader:
    """Reads ``data`` from ``position`` up to ``end``; ``what`` names the part for messages.

    Every method raises :class:`InvalidWasm` rather than read past the end.
    """

    __slots__ = ("data", "end", "position", "what")

    def __init__(self, data: bytes, position: int, end: int, what: str) -> None:
        self.data = data
        self.position = position
        self.end = end
        self.what = what

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self.end - self.position

    def byte(self) -> int:
        """The next byte."""
        at = self.position
        if at >= self.end:
            raise self.truncated(at)
        self.position = at + 1
        return self.data[at]

    def u32(self) -> int:
        """An unsigned 32-bit LEB128 number."""
        at = self.position
        if at < self.end:
            first = self.data[at]
            if first < 0x80:
                self.position = at + 1
                return first
        return self._long_u32(at)

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        if count > self.remaining:
            raise self.truncated(self.end)
        self.position += count

    def skip_signed(self, bits: int) -> None:
        """Pass over a signed LEB128 number of ``bits`` bits."""
        start = self.position
        for _ in range((bits + 6) // 7):
            if self.byte() < 0x80:
                return
        raise invalid(f"a number in the {self.what} is longer than {bits} bits allow", start)

    def slice(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        at = self.position
        self.skip(count)
        return self.data[at : self.position]

    def name(self) -> str:
        """A name: a length and that many bytes of UTF-8."""
        start = self.position
        size = self.u32()
        if size > NAME_MAX_BYTES:
            raise invalid(f"a name of {size} bytes in the {self.what}: at most {NAME_MAX_BYTES}", start)
        at = self.position
        try:
            return self.slice(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise invalid(f"a name in the {self.what} is not UTF-8", at + error.start) from None

    def count(self, most: int, smallest_bytes: int, of: str) -> int:
        """A number of entries that follow: at most ``most``, and none that the bytes left cannot hold."""
        start = self.position
        count = self.u32()
        if count > most:
            raise invalid(f"the {self.what} has {count} {of}: at most {most}", start)
        if count * smallest_bytes > self.remaining:
            raise invalid(f"the {self.what} says it has {count} {of} and is too short for them", start)
        return count

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.position != self.end:
            raise invalid(f"the {self.what} is {self.remaining} bytes longer than its content", self.position)

    def truncated(self, at: int) -> InvalidWasm:
        """The error for bytes that should be there and are not."""
        return invalid(f"the {self.what} is cut short", at)

    def _long_u32(self, start: int) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32:
                    break
                return value
        raise invalid(f"a number in the {self.what} does not fit 32 bits", start)
