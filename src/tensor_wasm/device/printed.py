"""What a launch printed: the records in a kernel's buffer, as text."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tensor_wasm.compiler import HEAD_BYTES, CompiledKernel, RecordBuffer
from tensor_wasm.device.formatting import render

#: The high half of the address of a variable of a kernel's.
_WINDOW = 1
_HEAD = struct.Struct("<II")
#: Characters of a string that a record points to.
_STRING_BYTES_MAX = 1024
#: Characters of an assertion that a fault's message shows.
_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True)
class Printed:
    """``text`` is for stderr; ``assertion`` says which one failed, empty when none did."""

    text: bytes
    assertion: str = ""


def take_printed(kernel: CompiledKernel, region: memoryview, base: int, limit_bytes: int) -> Printed:
    """Take all records out of a kernel's buffer.

    ``region`` is its region of scratch memory, which starts at ``base``. At most ``limit_bytes`` of text are made, and
    a line that says how many records are missing. Nothing in the buffer is relied on: the kernel may have damaged it.
    """
    buffer = kernel.records
    if buffer is None:
        return Printed(b"")
    used, dropped = _HEAD.unpack_from(region, buffer.offset)
    if not used and not dropped:
        return Printed(b"")
    _HEAD.pack_into(region, buffer.offset, 0, 0)
    start = buffer.offset + HEAD_BYTES
    content = bytes(region[start : start + min(used, buffer.size_bytes - HEAD_BYTES)])
    strings = _Strings(region[: buffer.text_bytes], base)
    lines: list[bytes] = []
    left = limit_bytes
    assertion = ""
    for what, format_, values in _records(buffer, content):
        if what == "assert":
            text, assertion = _assertion(values, strings)
        elif left <= 0:
            dropped += 1
            continue
        elif what == "text":
            text = strings.at(values[0], _STRING_BYTES_MAX)
        else:
            text = render(format_, values, strings.at)
        left -= len(text)
        lines.append(text)
    if dropped:
        these = "record that it printed was" if dropped == 1 else "records that it printed were"
        lines.append(f"[kernel {kernel.name}: {dropped} {these} dropped: there was no room]\n".encode())
    return Printed(b"".join(lines), assertion)


def _records(buffer: RecordBuffer, content: bytes) -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """What each record is, its format and its values' bits; up to one that none of the kernel's could be."""
    layouts = [struct.Struct("<" + "".join("Q" if size == 8 else "I" for size in r.sizes)) for r in buffer.records]
    place = 0
    while place + 4 <= len(content):
        (number,) = struct.unpack_from("<I", content, place)
        place += 4
        if number >= len(layouts) or place + layouts[number].size > len(content):
            return
        record = buffer.records[number]
        yield record.what, record.format, layouts[number].unpack_from(content, place)
        place += layouts[number].size


class _Strings:
    """Strings among a kernel's constants."""

    def __init__(self, constants: memoryview, base: int) -> None:
        self._constants = constants
        self._base = base

    def at(self, address: int, longest: int) -> bytes:
        """The string at an address, cut; what is no address of a constant is shown as a number."""
        place = (address & 0xFFFFFFFF) - self._base
        if address == 0:
            return b"(null)"
        if address >> 32 != _WINDOW or not 0 <= place < len(self._constants):
            return f"(string at {address:#x})".encode()
        return bytes(self._constants[place : place + longest]).partition(b"\0")[0]


def _assertion(values: tuple[int, ...], strings: _Strings) -> tuple[bytes, str]:
    """The line that CUDA writes, and what messages say."""
    message, file, function = (strings.at(values[place], _STRING_BYTES_MAX) for place in (0, 1, 3))
    line = values[2]
    block, thread = (",".join(map(str, values[place : place + 3])) for place in (4, 7))
    text = b"%b:%d: %b: block: [%b], thread: [%b] Assertion `%b` failed.\n" % (
        file,
        line,
        function,
        block.encode(),
        thread.encode(),
        message,
    )
    return text, f"assertion `{_printable(message)}` failed at {_printable(file)}:{line}"


def _printable(text: bytes) -> str:
    """Text of the kernel's for a message: on one line, shortened."""
    shown = text.decode("utf-8", "replace")
    shown = shown if len(shown) <= _SHOWN_MAX else shown[: _SHOWN_MAX - 3] + "..."
    return "".join(character if character.isprintable() else "?" for character in shown)
