"""SQLite's file format, as far as rows are read of a file that SQLite itself refuses.

Each page is read by itself: what is lost is what a damaged page held. Format: https://sqlite.org/fileformat2.html. All
that is read may be damaged: every number is checked before it is used, every chain of pages has an end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

Value = int | float | str | bytes | None

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
#: What the module ``sqlite3`` makes, and so what this program's files have.
_PAGE_BYTES = 4096
_WAL_HEADER = struct.Struct(">8I")
_WAL_FRAME = struct.Struct(">6I")
_WAL_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
_SERIAL_BYTES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
#: The first byte of an overflow page is that of the next one's number: with fewer pages it is 0, and the content, which
#: may be an attacker's, never passes for a page of rows.
PAGES_MAX = 1 << 24


class Damage(Exception):
    """A page or a cell cannot be read."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An entry of a page of rows. ``rowid`` is None in an index."""

    rowid: int | None
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a tree: its entries, its children, and whether anything of it could not be read."""

    is_index: bool
    is_leaf: bool
    cells: tuple[Cell, ...]
    children: tuple[int, ...]
    is_damaged: bool


class PageFile:
    """The pages of a database file with what was committed to its WAL. A context manager."""

    def __init__(self, path: Path, wal: Path) -> None:
        self._file = path.open("rb")
        head = self._file.read(_HEADER_BYTES)
        wal_bytes = _page_bytes_of_wal(wal)
        stated = int.from_bytes(head[16:18], "big") if head[:16] == _MAGIC else 0
        stated = 1 << 16 if stated == 1 else stated
        is_power = 512 <= stated <= 1 << 16 and stated & (stated - 1) == 0
        self.page_bytes = stated if is_power else wal_bytes or _PAGE_BYTES
        self._wal = dict(_wal_pages(wal, self.page_bytes))
        size = self._file.seek(0, 2)
        self.count = min(max([size // self.page_bytes, *self._wal]), PAGES_MAX)
        first = self.raw(1) if self.count else b""
        self._has_header = first[:16] == _MAGIC
        reserved = first[20] if self._has_header else 0
        self._usable = self.page_bytes - reserved if reserved <= 64 else self.page_bytes
        #: What ``PRAGMA user_version`` gives; None when the header is gone.
        self.version = int.from_bytes(first[60:64], "big", signed=True) if self._has_header else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def raw(self, number: int) -> bytes:
        """A page's bytes. Raises :class:`Damage` when there is no such page."""
        found = self._wal.get(number)
        if found is not None:
            return found
        if not 0 < number <= self.count:
            raise Damage
        self._file.seek((number - 1) * self.page_bytes)
        data = self._file.read(self.page_bytes)
        return data.ljust(self.page_bytes, b"\0")

    def free(self) -> set[int]:
        """The pages that hold nothing any more, as far as their list can be read."""
        found: set[int] = set()
        if not self._has_header:
            return found
        trunk = int.from_bytes(self.raw(1)[32:36], "big")
        while 0 < trunk <= self.count and trunk not in found:
            found.add(trunk)
            data = self.raw(trunk)
            trunk, count = struct.unpack_from(">II", data)
            if count > self._usable // 4 - 2:
                break
            found.update(struct.unpack_from(f">{count}I", data, 8))
        return found

    def page(self, number: int) -> Page | None:
        """A page of a tree, None for one that is none. Raises :class:`Damage` when nothing of it can be read."""
        data = self.raw(number)
        at = _HEADER_BYTES if number == 1 else 0
        kind = data[at]
        if kind not in (0x02, 0x05, 0x0A, 0x0D):
            if any(data):
                return None
            raise Damage
        is_index, is_leaf = kind in (0x02, 0x0A), kind in (0x0A, 0x0D)
        (count,) = struct.unpack_from(">H", data, at + 3)
        first = at + (8 if is_leaf else 12)
        if first + 2 * count > self._usable:
            raise Damage
        children: list[int] = []
        cells: list[Cell] = []
        is_damaged = False
        for place in struct.unpack_from(f">{count}H", data, first):
            try:
                self._read_cell(data, place, is_index, is_leaf, cells, children)
            except (Damage, IndexError, struct.error, ValueError):
                is_damaged = True
        if not is_leaf:
            children.append(int.from_bytes(data[at + 8 : at + 12], "big"))
        return Page(is_index, is_leaf, tuple(cells), tuple(children), is_damaged)

    def _read_cell(
        self, data: bytes, at: int, is_index: bool, is_leaf: bool, cells: list[Cell], children: list[int]
    ) -> None:
        if not is_leaf:
            children.append(int.from_bytes(data[at : at + 4], "big"))
            at += 4
            if not is_index:
                return
        size, at = _varint(data, at)
        rowid = None
        if not is_index:
            rowid, at = _varint(data, at)
            rowid -= (rowid >> 63) << 64
        cells.append(Cell(rowid, _record(self._payload(data, at, size, is_index))))

    def _payload(self, data: bytes, at: int, size: int, is_index: bool) -> bytes:
        usable = self._usable
        if size > self.count * self.page_bytes:
            raise Damage
        most = (usable - 12) * 64 // 255 - 23 if is_index else usable - 35
        local = size
        if size > most:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            local = local if local <= most else least
        if at + local > usable:
            raise Damage
        pieces = [data[at : at + local]]
        following = int.from_bytes(data[at + local : at + local + 4], "big") if size > most else 0
        left = size - local
        while left > 0:
            overflow = self.raw(following)
            piece = overflow[4 : 4 + min(left, usable - 4)]
            pieces.append(piece)
            left -= len(piece)
            following = int.from_bytes(overflow[:4], "big")
        if following:  # the last page of a value names no other
            raise Damage
        return b"".join(pieces)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    raise AssertionError


def _record(payload: bytes) -> tuple[Value, ...]:
    """The values of a record. Raises :class:`Damage`, or what slices and decoding raise."""
    header_bytes, at = _varint(payload, 0)
    if header_bytes > len(payload):
        raise Damage
    body = header_bytes
    values: list[Value] = []
    while at < header_bytes:
        serial, at = _varint(payload, at)
        value, length = _value(payload, body, serial)
        values.append(value)
        body += length
    if body != len(payload) or at != header_bytes:
        raise Damage
    return tuple(values)


def _value(payload: bytes, at: int, serial: int) -> tuple[Value, int]:
    if serial >= 12:
        length = (serial - 12) // 2
        data = payload[at : at + length]
        if len(data) != length:
            raise Damage
        return (data.decode() if serial & 1 else data), length
    if serial >= 10:
        raise Damage
    length = _SERIAL_BYTES[serial]
    data = payload[at : at + length]
    if len(data) != length:
        raise Damage
    if serial == 0:
        return None, 0
    if serial == 7:
        return struct.unpack(">d", data)[0], 8
    return (serial - 8 if serial >= 8 else int.from_bytes(data, "big", signed=True)), length


def _page_bytes_of_wal(wal: Path) -> int | None:
    try:
        with wal.open("rb") as file:
            header = _WAL_HEADER.unpack(file.read(_WAL_HEADER.size))
    except (OSError, struct.error):
        return None
    return header[2] if header[0] in _WAL_MAGICS and 512 <= header[2] <= 1 << 16 else None


def _wal_pages(wal: Path, page_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The pages that the WAL has of commits that are whole, older ones first."""
    try:
        file = wal.open("rb")
    except OSError:
        return
    with file:
        header = file.read(_WAL_HEADER.size)
        if len(header) < _WAL_HEADER.size:
            return
        magic, _, size, _, *salts = _WAL_HEADER.unpack(header)[:6]
        order = _WAL_MAGICS.get(magic)
        if order is None or size != page_bytes:
            return
        sums = _checksum(order, header[:24], (0, 0))
        if sums != _WAL_HEADER.unpack(header)[6:]:
            return
        waiting: list[tuple[int, bytes]] = []
        while len(frame := file.read(_WAL_FRAME.size + page_bytes)) == _WAL_FRAME.size + page_bytes:
            number, committed_pages, *rest = _WAL_FRAME.unpack_from(frame)
            sums = _checksum(order, frame[:8], sums)
            sums = _checksum(order, frame[_WAL_FRAME.size :], sums)
            if rest != [*salts, *sums] or number == 0:
                return
            waiting.append((number, frame[_WAL_FRAME.size :]))
            if committed_pages:
                yield from waiting
                waiting.clear()


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
