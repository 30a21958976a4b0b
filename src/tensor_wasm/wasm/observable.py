"""A module rewritten so that its whole state between calls can be seen from outside, for snapshots.

Its memory, tables and mutable globals get exports of their own, and its start function is no longer run by
instantiating: it is exported, to be called once in a fresh instance and not at all in one that is given a state. The
code is the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tensor_wasm.wasm.body import ValType
from tensor_wasm.wasm.inspector import EXPORTS_MAX, GLOBALS_MAX, TABLES_MAX, skip_expression
from tensor_wasm.wasm.leb import unsigned
from tensor_wasm.wasm.reader import PREAMBLE_BYTES, Reader, check_preamble

_TABLE, _MEMORY, _GLOBAL, _EXPORT, _START = 4, 5, 6, 7, 8
#: Sections that come after the exports.
_AFTER_EXPORTS: Final = frozenset({8, 9, 10, 11, 12, 13})
_FUNCTION_KIND, _TABLE_KIND, _MEMORY_KIND, _GLOBAL_KIND = range(4)
_REFERENCES: Final = (ValType.FUNCREF.value, ValType.EXTERNREF.value)
_KINDS: Final = {kind.value: kind.name.lower() for kind in ValType}


@dataclass(frozen=True, slots=True)
class ObservableModule:
    """The rewritten binary, and the names of what it exports besides.

    ``globals`` are pairs of name and type ("i32" … "v128"), in the module's order, ``tables`` names. ``obstacle`` says
    why the state of an instance cannot be told after all, None when it can.
    """

    wasm: bytes
    memory: str | None
    globals: tuple[tuple[str, str], ...]
    tables: tuple[str, ...]
    start: str | None
    obstacle: str | None = None


def observable(wasm: bytes) -> ObservableModule:
    """Rewrite a module that :func:`~tensor_wasm.wasm.inspector.inspect` has read. Raises as that does."""
    check_preamble(wasm)
    sections = list(_sections(wasm))
    places = {section.number: section for section in sections if section.number}
    known = _export_names(places.get(_EXPORT), wasm)
    prefix = _prefix(known)
    added: list[bytes] = []

    def export(label: str, kind: int, index: int) -> str:
        name = f"{prefix}{label}"
        encoded = name.encode()
        added.append(unsigned(len(encoded)) + encoded + bytes([kind]) + unsigned(index))
        return name

    memory = start = obstacle = None
    if _MEMORY in places and places[_MEMORY].reader(wasm).u32():
        memory = export("memory", _MEMORY_KIND, 0)
    tables = tuple(export(f"table.{index}", _TABLE_KIND, index) for index in range(_tables(places.get(_TABLE), wasm)))
    variables: list[tuple[str, str]] = []
    for index, kind in _variables(places.get(_GLOBAL), wasm):
        if kind in _REFERENCES:
            obstacle = "a variable of the module holds references"
        else:
            variables.append((export(f"global.{index}", _GLOBAL_KIND, index), _KINDS[kind]))
    if _START in places:
        start = export("start", _FUNCTION_KIND, places[_START].reader(wasm).u32())
    rewritten = _join(wasm, sections, added, len(known))
    return ObservableModule(rewritten, memory, tuple(variables), tables, start, obstacle)


@dataclass(frozen=True, slots=True)
class _Section:
    """A section: where it begins, and where its content begins and ends."""

    number: int
    start: int
    content: int
    end: int

    def reader(self, wasm: bytes) -> Reader:
        """Its content."""
        return Reader(wasm, self.content, self.end, "section")


def _sections(wasm: bytes) -> Iterator[_Section]:
    module = Reader(wasm, PREAMBLE_BYTES, len(wasm), "module")
    while module.remaining:
        start = module.position
        number = module.byte()
        size = module.u32()
        content = module.position
        module.skip(size)
        yield _Section(number, start, content, module.position)


def _join(wasm: bytes, sections: Sequence[_Section], added: Sequence[bytes], exports_before: int) -> bytes:
    """The module with ``added`` exports and without its start section."""
    out = [wasm[:PREAMBLE_BYTES]]
    is_written = False
    for section in sections:
        if section.number == _EXPORT:
            entries = section.reader(wasm)
            entries.u32()
            out.append(_exports(exports_before + len(added), [wasm[entries.position : section.end], *added]))
            is_written = True
            continue
        if section.number in _AFTER_EXPORTS and not is_written:
            out.append(_exports(len(added), added))
            is_written = True
        if section.number != _START:
            out.append(wasm[section.start : section.end])
    if not is_written:
        out.append(_exports(len(added), added))
    return b"".join(out)


def _exports(count: int, entries: Sequence[bytes]) -> bytes:
    body = unsigned(count) + b"".join(entries)
    return bytes([_EXPORT]) + unsigned(len(body)) + body


def _export_names(section: _Section | None, wasm: bytes) -> list[str]:
    if section is None:
        return []
    entries = section.reader(wasm)
    names = []
    for _ in range(entries.count(EXPORTS_MAX, 3, "exports")):
        names.append(entries.name())
        entries.byte()
        entries.u32()
    return names


def _prefix(names: Sequence[str]) -> str:
    """The beginning of names that the module does not use itself."""
    number = 0
    while any(name.startswith(f"tensor_wasm:{number}:") for name in names):
        number += 1
    return f"tensor_wasm:{number}:"


def _tables(section: _Section | None, wasm: bytes) -> int:
    return 0 if section is None else section.reader(wasm).count(TABLES_MAX, 3, "tables")


def _variables(section: _Section | None, wasm: bytes) -> Iterator[tuple[int, int]]:
    """The mutable globals: index and type."""
    if section is None:
        return
    entries = section.reader(wasm)
    for index in range(entries.count(GLOBALS_MAX, 4, "globals")):
        kind = entries.byte()
        is_mutable = entries.byte()
        skip_expression(entries)
        if is_mutable:
            yield index, kind
