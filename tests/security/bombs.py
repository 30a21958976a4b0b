"""Modules that are bombs, as bytes: what no encoder for sane modules writes."""

from __future__ import annotations

from collections.abc import Iterable

from tensor_wasm.wasm.leb import unsigned

PREAMBLE = b"\0asm\x01\0\0\0"
TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA = range(1, 12)
_EMPTY_BODY = b"\x02\x00\x0b"


def section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + unsigned(len(content)) + content


def vector(entries: Iterable[bytes], count: int) -> bytes:
    return unsigned(count) + b"".join(entries)


def name(text: str) -> bytes:
    return unsigned(len(text)) + text.encode()


def module(*sections: bytes) -> bytes:
    return PREAMBLE + b"".join(sections)


NO_TYPE = section(TYPE, b"\x01\x60\0\0")
RUN = section(EXPORT, b"\x01\x03run\x00\x00")


def one_function(code: bytes, locals_: bytes = b"\0") -> bytes:
    """A module with the export ``run``, whose body is ``code`` without its last ``end``."""
    body = locals_ + code + b"\x0b"
    return module(NO_TYPE, section(FUNCTION, b"\x01\0"), RUN, section(CODE, b"\x01" + unsigned(len(body)) + body))


def functions(count: int, exported: bool = False, letters: str = "") -> bytes:
    """Empty functions, all of them exported or the first as ``run``; ``letters`` begin each name."""
    exports = RUN
    if exported:
        entries = (name(f"{letters}{n}") + b"\0" + unsigned(n) for n in range(count))
        exports = section(EXPORT, vector(entries, count))
    return module(
        NO_TYPE,
        section(FUNCTION, unsigned(count) + b"\0" * count),
        exports,
        section(CODE, unsigned(count) + _EMPTY_BODY * count),
    )


def busy_functions(count: int, steps: int) -> bytes:
    """Functions that all take some compiling: ``steps`` times multiply and add, over 16 locals."""
    parts = bytearray()
    for step in range(steps):
        parts += b"\x20" + bytes((step * 7 % 16,)) + b"\x20" + bytes((step * 5 % 16,)) + b"\x6c"
        parts += b"\x20" + bytes((step * 3 % 16,)) + b"\x6a\x21" + bytes((step % 16,))
    body = b"\x01\x10\x7f" + bytes(parts) + b"\x0b"
    code = (unsigned(len(body)) + body) * count
    return module(
        NO_TYPE, section(FUNCTION, unsigned(count) + b"\0" * count), RUN, section(CODE, unsigned(count) + code)
    )


def nested_blocks(depth: int) -> bytes:
    return one_function(b"\x02\x40" * depth + b"\x0b" * depth)


def wide_branch(targets: int) -> bytes:
    return one_function(b"\x41\0\x0e" + unsigned(targets) + b"\0" * targets + b"\0")


def many_locals(count: int) -> bytes:
    return one_function(b"", b"\x01" + unsigned(count) + b"\x7e")


def many_types(count: int) -> bytes:
    return module(section(TYPE, vector([b"\x60\0\0"] * count, count)))


def many_imports(count: int) -> bytes:
    entries = [name("wasi_snapshot_preview1") + name("sched_yield") + b"\0\0"] * count
    return module(section(TYPE, b"\x01\x60\0\x01\x7f"), section(IMPORT, vector(entries, count)))


def many_globals(count: int) -> bytes:
    return module(section(GLOBAL, vector([b"\x7f\x01\x41\0\x0b"] * count, count)))


def many_segments(count: int) -> bytes:
    """Data segments, each of which writes a byte into one page at instantiation."""
    return module(
        NO_TYPE, section(FUNCTION, b"\x01\0"), section(MEMORY, b"\x01\0\x01"), RUN,
        section(CODE, b"\x01" + _EMPTY_BODY),
        section(DATA, vector([b"\0\x41\0\x0b\x01x"] * count, count)),
    )  # fmt: skip


def many_memories(count: int) -> bytes:
    return module(section(MEMORY, vector([b"\0\x01"] * count, count)))


def memory_of(pages: int) -> bytes:
    return module(section(MEMORY, b"\x01\0" + unsigned(pages)))


def tables_of(count: int, entries: int) -> bytes:
    return module(section(TABLE, vector([b"\x70\0" + unsigned(entries)] * count, count)))


def segment_outside() -> bytes:
    """A data segment that lies behind the memory's end."""
    return module(
        NO_TYPE, section(FUNCTION, b"\x01\0"), section(MEMORY, b"\x01\0\x01"), RUN,
        section(CODE, b"\x01" + _EMPTY_BODY),
        section(DATA, b"\x01\0\x41\x7f\x0b\x04evil"),
    )  # fmt: skip
