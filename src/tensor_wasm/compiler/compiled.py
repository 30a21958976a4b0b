"""What compiling a kernel gives: a module and what its caller must know of it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from tensor_wasm.compiler.records import Record, RecordBuffer
from tensor_wasm.errors import InternalError
from tensor_wasm.ptx.program import Parameter

#: Changes whenever the compiler's output does: part of the key of cached kernels.
COMPILER_VERSION = "14"

_HEAD = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """A kernel parameter: ``kind`` is its PTX type, ``u64`` or ``b8[16]`` for 16 bytes passed by value.

    ``offset`` is its place in the packed parameter block.
    """

    name: str
    kind: str
    size_bytes: int
    offset: int

    @classmethod
    def of(cls, parameter: Parameter) -> ParameterLayout:
        """That of a parameter as it was read."""
        name = parameter.type.ptx_name
        kind = f"{name}[{parameter.size_bytes}]" if parameter.is_array else name
        return cls(parameter.name, kind, parameter.size_bytes, parameter.offset)


@dataclass(frozen=True, slots=True)
class Site:
    """An access that all threads of a row make one after another: its PTX line, and the bytes of a thread."""

    line: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel as a WebAssembly module.

    ``work_bytes`` is the size of its own region of scratch memory, zero at first, at a multiple of 16.
    ``lines`` says which PTX line code belongs to: ``(offset in the module, line)``, ascending; line 0 is code of
    no line, a helper that was called. ``sites`` are the accesses of whole rows. ``records`` is where the kernel leaves
    what it prints, None where it does not.
    """

    wasm: bytes
    name: str
    parameters: tuple[ParameterLayout, ...]
    parameter_bytes: int
    work_bytes: int
    reqntid: tuple[int, int, int] | None
    maxntid: tuple[int, int, int] | None
    lines: tuple[tuple[int, int], ...]
    sites: tuple[Site, ...] = ()
    records: RecordBuffer | None = None

    def encode(self) -> bytes:
        """The kernel as bytes for :meth:`decode`."""
        facts = {
            "version": COMPILER_VERSION,
            "name": self.name,
            "parameters": [[p.name, p.kind, p.size_bytes, p.offset] for p in self.parameters],
            "parameter_bytes": self.parameter_bytes,
            "work_bytes": self.work_bytes,
            "reqntid": self.reqntid,
            "maxntid": self.maxntid,
            "sites": [[site.line, site.size_bytes] for site in self.sites],
            "records": None if self.records is None else _facts(self.records),
        }
        head = json.dumps(facts).encode()
        numbers = [number for line in self.lines for number in line]
        lines = struct.pack(f"<{len(numbers)}I", *numbers)
        return _HEAD.pack(len(head), len(lines)) + head + lines + self.wasm

    @staticmethod
    def decode(data: bytes) -> CompiledKernel:
        """The kernel that :meth:`encode` gave. Raises :class:`InternalError` for anything else."""
        try:
            head_bytes, line_bytes = _HEAD.unpack_from(data)
            facts = json.loads(data[_HEAD.size : _HEAD.size + head_bytes])
            if facts["version"] != COMPILER_VERSION:
                raise InternalError("a compiled kernel is of another compiler version")
            start = _HEAD.size + head_bytes
            numbers = struct.unpack_from(f"<{line_bytes // 4}I", data, start)
            return CompiledKernel(
                wasm=data[start + line_bytes :],
                name=facts["name"],
                parameters=tuple(ParameterLayout(*parameter) for parameter in facts["parameters"]),
                parameter_bytes=facts["parameter_bytes"],
                work_bytes=facts["work_bytes"],
                reqntid=_axes(facts["reqntid"]),
                maxntid=_axes(facts["maxntid"]),
                lines=tuple(zip(numbers[::2], numbers[1::2], strict=True)),
                sites=tuple(Site(line, size) for line, size in facts["sites"]),
                records=None if facts["records"] is None else _records(*facts["records"]),
            )
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise InternalError("the bytes are no compiled kernel") from error


def _axes(value: list[int] | None) -> tuple[int, int, int] | None:
    if value is None:
        return None
    x, y, z = value
    return (x, y, z)


def _facts(buffer: RecordBuffer) -> list[object]:
    """A buffer for JSON: bytes are written as the characters of their numbers."""
    records = [[record.what, record.format.decode("latin-1"), record.sizes] for record in buffer.records]
    return [buffer.offset, buffer.size_bytes, buffer.text_bytes, records]


def _records(offset: int, size_bytes: int, text_bytes: int, records: list[tuple[str, str, list[int]]]) -> RecordBuffer:
    kinds = tuple(Record(what, text.encode("latin-1"), tuple(sizes)) for what, text, sizes in records)
    return RecordBuffer(offset, size_bytes, text_bytes, kinds)
