"""What a kernel prints: records in a buffer of its region, which its caller turns into text after the launch.

The buffer starts with two i32: the bytes of the records in it, and how many records found no room. Records follow
from ``HEAD_BYTES`` on, one after the other: an i32, the record's number in :attr:`RecordBuffer.records`, then its
values, 4 or 8 bytes each, little endian, unaligned. Failed assertions have room that others cannot take.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.ptx.program import Emit, Kernel

#: The last bytes of a buffer: for the assertion that ends the launch.
ASSERTION_BYTES = 128
HEAD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Record:
    """One kind of record: what it is (see :class:`~tensor_wasm.ptx.program.Emit`), and the bytes of its values."""

    what: str
    format: bytes
    sizes: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of it in the buffer."""
        return 4 + sum(self.sizes)


@dataclass(frozen=True, slots=True)
class RecordBuffer:
    """Where a kernel's records are: ``offset`` from its region's start, ``size_bytes`` long.

    Strings are addresses in the first ``text_bytes`` of the region, where its constants are.
    """

    offset: int
    size_bytes: int
    text_bytes: int
    records: tuple[Record, ...]


def record_of(emit: Emit) -> Record:
    """The kind of an instruction's records."""
    return Record(emit.modifiers[0], emit.format, tuple(kind.size_bytes for kind in emit.types))


def records_of(kernel: Kernel) -> tuple[Record, ...]:
    """All kinds of records of a kernel, each once."""
    emits = (i for block in kernel.blocks for i in block.instructions if isinstance(i, Emit))
    return tuple(dict.fromkeys(record_of(emit) for emit in emits))
