"""Function bodies: instructions, structured control and locals of one WebAssembly function."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from tensor_wasm.wasm import opcodes
from tensor_wasm.wasm.leb import signed, unsigned

if TYPE_CHECKING:
    from tensor_wasm.wasm.encoder import FunctionType


class ValType(Enum):
    """A value type; the value is its binary code."""

    I32 = 0x7F
    I64 = 0x7E
    F32 = 0x7D
    F64 = 0x7C
    V128 = 0x7B
    FUNCREF = 0x70
    EXTERNREF = 0x6F


class Local(NamedTuple):
    """A parameter or local variable of a function."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks for
    type: ValType


class Indexed(Protocol):
    """Anything with a place in one of the module's index spaces."""

    @property
    def index(self) -> int:
        """Position in its index space."""


class Label:
    """An open block, loop or if: a branch target, and a context manager that closes it."""

    __slots__ = ("_body", "level")

    def __init__(self, body: Body, level: int) -> None:
        self._body = body
        self.level = level

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._body.end(self)


_EMPTY_BLOCK = b"\x40"
_I32_CONST, _I64_CONST, _F32_CONST, _F64_CONST = b"\x41", b"\x42", b"\x43", b"\x44"
_MULTI_MEMORY_BIT = 0x40
_PLAIN = opcodes.PLAIN


class Body:
    """The code of one function, written instruction by instruction.

    Instructions are named as in the text format: ``body.op("i32.add")``, ``body.memory("i32.load", offset=4)``.
    Operands are on the WebAssembly stack. Blocks are context managers::

        with body.loop() as again:
            ...
            body.br_if(again)

    ``parameters`` and ``results`` are the function's own; parameters are the first locals.
    """

    def __init__(self, parameters: Sequence[ValType], results: Sequence[ValType]) -> None:
        self.results = tuple(results)
        self.parameters = tuple(Local(i, kind) for i, kind in enumerate(parameters))
        self.function_label = Label(self, 0)
        self._types: list[ValType] = list(parameters)
        self._free: dict[ValType, list[Local]] = {}
        self._code = bytearray()
        self._depth = 0
        self._marks: list[tuple[int, int]] = []

    # --- plain instructions -----------------------------------------------------------------------------

    def op(self, *names: str) -> None:
        """Append instructions without immediates, in order."""
        code = self._code
        for name in names:
            code += _PLAIN[name]

    def memory(self, name: str, offset: int = 0, *, align: int | None = None, memory: int = 0) -> None:
        """Append a load, store or atomic access.

        ``align`` is log2 of the bytes the address is promised to be a multiple of (default: the access's own size;
        atomics allow nothing else); ``offset`` in bytes; ``memory`` the memory's index.
        """
        opcode, natural = opcodes.MEMORY[name]
        self._code += opcode
        self._memory_argument(natural if align is None else align, offset, memory)

    def memory_lane(self, name: str, lane: int, offset: int = 0, *, align: int | None = None, memory: int = 0) -> None:
        """Append a load or store of one SIMD lane; the rest as in :meth:`memory`."""
        opcode, natural = opcodes.MEMORY_LANE[name]
        self._code += opcode
        self._memory_argument(natural if align is None else align, offset, memory)
        self._code.append(lane)

    def lane(self, name: str, lane: int) -> None:
        """Append an ``extract_lane`` or ``replace_lane``."""
        self._code += opcodes.LANE[name]
        self._code.append(lane)

    def shuffle(self, lanes: Sequence[int]) -> None:
        """Append ``i8x16.shuffle`` with 16 byte lanes, each 0..31."""
        if len(lanes) != 16:
            raise ValueError("a shuffle names 16 lanes")
        self._code += b"\xfd\x0d" + bytes(lanes)

    def i32_const(self, value: int) -> None:
        """Push a 32-bit constant, given signed or unsigned."""
        self._code += _I32_CONST
        self._code += signed((value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)

    def i64_const(self, value: int) -> None:
        """Push a 64-bit constant, given signed or unsigned."""
        self._code += _I64_CONST
        self._code += signed((value & 0xFFFFFFFFFFFFFFFF ^ 0x8000000000000000) - 0x8000000000000000)

    def f32_const(self, value: float) -> None:
        """Push a float, rounded to f32."""
        self._code += _F32_CONST + struct.pack("<f", value)

    def f64_const(self, value: float) -> None:
        """Push a float."""
        self._code += _F64_CONST + struct.pack("<d", value)

    def f32_bits(self, bits: int) -> None:
        """Push the float whose bit pattern is ``bits``."""
        self._code += _F32_CONST + bits.to_bytes(4, "little")

    def f64_bits(self, bits: int) -> None:
        """Push the double whose bit pattern is ``bits``."""
        self._code += _F64_CONST + bits.to_bytes(8, "little")

    def v128_const(self, value: bytes) -> None:
        """Push a vector of 16 bytes, lane 0 first."""
        if len(value) != 16:
            raise ValueError("a v128 has 16 bytes")
        self._code += b"\xfd\x0c" + value

    # --- variables --------------------------------------------------------------------------------------

    def local(self, kind: ValType) -> Local:
        """A local variable to use: a released one of that type, else a new one (which starts as zero)."""
        free = self._free.get(kind)
        if free:
            return free.pop()
        self._types.append(kind)
        return Local(len(self._types) - 1, kind)

    def release(self, *locals_: Local) -> None:
        """Let :meth:`local` give these out again. Their values stay until then."""
        for local in locals_:
            self._free.setdefault(local.type, []).append(local)

    def get(self, local: Local) -> None:
        """``local.get``."""
        self._code.append(0x20)
        self._code += unsigned(local.index)

    def set(self, local: Local) -> None:
        """``local.set``."""
        self._code.append(0x21)
        self._code += unsigned(local.index)

    def tee(self, local: Local) -> None:
        """``local.tee``."""
        self._code.append(0x22)
        self._code += unsigned(local.index)

    def global_get(self, variable: Indexed) -> None:
        """``global.get``."""
        self._immediates(0x23, variable.index)

    def global_set(self, variable: Indexed) -> None:
        """``global.set``."""
        self._immediates(0x24, variable.index)

    # --- control ----------------------------------------------------------------------------------------

    def block(self, result: ValType | FunctionType | None = None) -> Label:
        """Open a ``block``; a branch to its label goes past its end."""
        return self._open(0x02, result)

    def loop(self, result: ValType | FunctionType | None = None) -> Label:
        """Open a ``loop``; a branch to its label goes to its start."""
        return self._open(0x03, result)

    def if_(self, result: ValType | FunctionType | None = None) -> Label:
        """Open an ``if`` on the i32 on the stack; a branch to its label goes past its end."""
        return self._open(0x04, result)

    def else_(self) -> None:
        """Start the other side of the innermost open ``if``."""
        self._code.append(0x05)

    def end(self, label: Label) -> None:
        """Close the innermost open block, which must be ``label`` (a ``with`` statement does this by itself)."""
        if label.level != self._depth or label.level == 0:
            raise ValueError("blocks close in the reverse order of opening")
        self._depth -= 1
        self._code.append(0x0B)

    def br(self, label: Label) -> None:
        """Branch to ``label``."""
        self._immediates(0x0C, self._distance(label))

    def br_if(self, label: Label) -> None:
        """Branch to ``label`` if the i32 on the stack is not zero."""
        self._immediates(0x0D, self._distance(label))

    def br_table(self, labels: Sequence[Label], default: Label) -> None:
        """Branch to the label that the i32 on the stack selects, or to ``default``."""
        targets = [self._distance(label) for label in labels]
        self._immediates(0x0E, len(targets), *targets, self._distance(default))

    def call(self, function: Indexed) -> None:
        """Call a function of this module."""
        self._immediates(0x10, function.index)

    def call_indirect(self, signature: FunctionType, table: int = 0) -> None:
        """Call the table entry that the i32 on the stack selects."""
        self._immediates(0x11, signature.index, table)

    def select_typed(self, kind: ValType) -> None:
        """``select`` of a stated type; plain ``op("select")`` does for numbers and vectors."""
        self._code += bytes((0x1C, 0x01, kind.value))

    # --- memories, tables, references -------------------------------------------------------------------

    def memory_size(self, memory: int = 0) -> None:
        """Push a memory's size in 64 KiB pages."""
        self._immediates(0x3F, memory)

    def memory_grow(self, memory: int = 0) -> None:
        """Grow a memory by pages; pushes the old size or -1."""
        self._immediates(0x40, memory)

    def memory_copy(self, destination: int = 0, source: int = 0) -> None:
        """``memory.copy`` between two memories (stack: to, from, bytes)."""
        self._bulk(10, destination, source)

    def memory_fill(self, memory: int = 0) -> None:
        """``memory.fill`` (stack: to, byte, count)."""
        self._bulk(11, memory)

    def memory_init(self, segment: int, memory: int = 0) -> None:
        """``memory.init`` from a passive data segment (stack: to, from, bytes)."""
        self._bulk(8, segment, memory)

    def data_drop(self, segment: int) -> None:
        """``data.drop``."""
        self._bulk(9, segment)

    def table_get(self, table: int = 0) -> None:
        """Push a table's entry."""
        self._immediates(0x25, table)

    def table_set(self, table: int = 0) -> None:
        """Store a reference in a table."""
        self._immediates(0x26, table)

    def table_size(self, table: int = 0) -> None:
        """Push a table's number of entries."""
        self._bulk(16, table)

    def table_grow(self, table: int = 0) -> None:
        """Grow a table; pushes the old size or -1."""
        self._bulk(15, table)

    def ref_null(self, kind: ValType = ValType.FUNCREF) -> None:
        """Push a null reference."""
        self._code += bytes((0xD0, kind.value))

    def ref_func(self, function: Indexed) -> None:
        """Push a reference to a function that an export or element segment declares."""
        self._immediates(0xD2, function.index)

    # --- source lines and the finished code -------------------------------------------------------------

    def mark(self, line: int) -> None:
        """Say that the code from here on belongs to source line ``line``."""
        marks = self._marks
        if marks and marks[-1][1] == line:
            return
        at = len(self._code)
        if marks and marks[-1][0] == at:
            marks.pop()
        marks.append((at, line))

    @property
    def size(self) -> int:
        """Bytes of code so far."""
        return len(self._code)

    def finish(self) -> tuple[bytes, tuple[tuple[int, int], ...]]:
        """The encoded locals and code, and the marks as (offset in those bytes, line)."""
        if self._depth:
            raise ValueError(f"{self._depth} blocks are still open")
        head = self._local_declarations()
        return head + self._code + b"\x0b", tuple((len(head) + at, line) for at, line in self._marks)

    # --- helpers ----------------------------------------------------------------------------------------

    def _local_declarations(self) -> bytes:
        runs: list[tuple[int, ValType]] = []
        for kind in self._types[len(self.parameters) :]:
            if runs and runs[-1][1] is kind:
                runs[-1] = (runs[-1][0] + 1, kind)
            else:
                runs.append((1, kind))
        return unsigned(len(runs)) + b"".join(unsigned(count) + bytes((kind.value,)) for count, kind in runs)

    def _open(self, opcode: int, result: ValType | FunctionType | None) -> Label:
        self._code.append(opcode)
        if result is None:
            self._code += _EMPTY_BLOCK
        elif isinstance(result, ValType):
            self._code.append(result.value)
        else:
            self._code += signed(result.index)
        self._depth += 1
        return Label(self, self._depth)

    def _distance(self, label: Label) -> int:
        if label.level > self._depth:
            raise ValueError("branch to a block that is closed")
        return self._depth - label.level

    def _memory_argument(self, align: int, offset: int, memory: int) -> None:
        if memory:
            self._code.append(align | _MULTI_MEMORY_BIT)
            self._code += unsigned(memory)
        else:
            self._code.append(align)
        self._code += unsigned(offset)

    def _immediates(self, opcode: int, *values: int) -> None:
        self._code.append(opcode)
        for value in values:
            self._code += unsigned(value)

    def _bulk(self, opcode: int, *values: int) -> None:
        self._code.append(0xFC)
        self._code += unsigned(opcode)
        for value in values:
            self._code += unsigned(value)
