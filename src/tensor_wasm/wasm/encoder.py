"""Whole WebAssembly modules in the binary format (core specification, "Binary Format: Modules").

Declare imports first (they take the first places of each index space), then functions and the rest, in any order;
:meth:`Module.encode` writes the sections.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tensor_wasm.wasm.body import Body, Local, ValType
from tensor_wasm.wasm.leb import signed, unsigned


@dataclass(frozen=True, slots=True)
class FunctionType:
    """A signature in a module's type section."""

    index: int
    parameters: tuple[ValType, ...]
    results: tuple[ValType, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of a module; ``body`` is None for an imported one."""

    index: int
    type: FunctionType
    name: str
    body: Body | None

    @property
    def code(self) -> Body:
        """The body of a function that is not imported."""
        if self.body is None:
            raise ValueError(f"{self.name} is imported")
        return self.body

    @property
    def parameters(self) -> tuple[Local, ...]:
        """The parameters as locals of :attr:`code`."""
        return self.code.parameters


@dataclass(frozen=True, slots=True)
class Memory:
    """A linear memory: limits in 64 KiB pages."""

    index: int
    minimum: int
    maximum: int | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of references: limits in entries."""

    index: int
    minimum: int
    maximum: int | None = None
    type: ValType = ValType.FUNCREF


@dataclass(frozen=True, slots=True)
class Global:
    """A global variable."""

    index: int
    type: ValType
    mutable: bool = True


@dataclass(frozen=True, slots=True)
class EncodedModule:
    """A module's bytes and its line table.

    ``lines`` holds ``(offset in the module's bytes, source line)`` in ascending order: the code from that offset up to
    the next entry belongs to that line; line 0 is code of no line. These are the offsets of Wasmtime's trap frames
    (``Frame.module_offset``).
    """

    wasm: bytes
    lines: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Space:
    """One index space: what is imported comes first."""

    imported: int = 0
    defined: list[bytes] = field(default_factory=list)

    @property
    def next_index(self) -> int:
        return self.imported + len(self.defined)


_FUNCTION, _TABLE, _MEMORY, _GLOBAL = 0, 1, 2, 3
_PREAMBLE = b"\x00asm\x01\x00\x00\x00"


class Module:
    """A module under construction."""

    def __init__(self) -> None:
        self._types: dict[tuple[tuple[ValType, ...], tuple[ValType, ...]], FunctionType] = {}
        self._imports: list[bytes] = []
        self._functions: list[Function] = []
        self._function_space = _Space()
        self._table_space = _Space()
        self._memory_space = _Space()
        self._global_space = _Space()
        self._exports: list[bytes] = []
        self._start: Function | None = None
        self._elements: list[bytes] = []
        self._data: list[bytes] = []

    # --- types and imports ------------------------------------------------------------------------------

    def type(self, parameters: Iterable[ValType], results: Iterable[ValType] = ()) -> FunctionType:
        """The signature's entry in the type section; equal signatures share one."""
        key = (tuple(parameters), tuple(results))
        found = self._types.get(key)
        if found is None:
            found = self._types[key] = FunctionType(len(self._types), *key)
        return found

    def import_function(
        self, module: str, name: str, parameters: Iterable[ValType], results: Iterable[ValType] = ()
    ) -> Function:
        """Import a function."""
        signature = self.type(parameters, results)
        index = self._import(self._function_space, module, name, _FUNCTION, unsigned(signature.index))
        function = Function(index, signature, f"{module}.{name}", None)
        self._functions.append(function)
        return function

    def import_memory(
        self, module: str, name: str, minimum: int = 0, maximum: int | None = None, *, shared: bool = False
    ) -> Memory:
        """Import a memory, limits in pages; a shared one needs a maximum."""
        limits = _limits(minimum, maximum, shared)
        return Memory(self._import(self._memory_space, module, name, _MEMORY, limits), minimum, maximum, shared)

    def import_table(
        self, module: str, name: str, minimum: int = 0, maximum: int | None = None, kind: ValType = ValType.FUNCREF
    ) -> Table:
        """Import a table of references."""
        limits = bytes((kind.value,)) + _limits(minimum, maximum)
        return Table(self._import(self._table_space, module, name, _TABLE, limits), minimum, maximum, kind)

    def import_global(self, module: str, name: str, kind: ValType, *, mutable: bool = False) -> Global:
        """Import a global variable."""
        content = bytes((kind.value, mutable))
        return Global(self._import(self._global_space, module, name, _GLOBAL, content), kind, mutable)

    # --- definitions ------------------------------------------------------------------------------------

    def function(
        self,
        parameters: Iterable[ValType],
        results: Iterable[ValType] = (),
        *,
        name: str = "",
        export: str | None = None,
    ) -> Function:
        """Define a function; write its code through ``.body``, at any time before :meth:`encode`."""
        signature = self.type(parameters, results)
        body = Body(signature.parameters, signature.results)
        function = Function(self._function_space.next_index, signature, name or export or "", body)
        self._function_space.defined.append(unsigned(signature.index))
        self._functions.append(function)
        if export is not None:
            self._export(export, _FUNCTION, function.index)
        return function

    def memory(
        self, minimum: int, maximum: int | None = None, *, shared: bool = False, export: str | None = None
    ) -> Memory:
        """Define a memory, limits in pages."""
        memory = Memory(self._memory_space.next_index, minimum, maximum, shared)
        self._memory_space.defined.append(_limits(minimum, maximum, shared))
        if export is not None:
            self._export(export, _MEMORY, memory.index)
        return memory

    def table(
        self,
        minimum: int,
        maximum: int | None = None,
        *,
        kind: ValType = ValType.FUNCREF,
        export: str | None = None,
    ) -> Table:
        """Define a table, filled with null."""
        table = Table(self._table_space.next_index, minimum, maximum, kind)
        self._table_space.defined.append(bytes((kind.value,)) + _limits(minimum, maximum))
        if export is not None:
            self._export(export, _TABLE, table.index)
        return table

    def global_(self, kind: ValType, initial: float = 0, *, mutable: bool = True, export: str | None = None) -> Global:
        """Define a global variable with a constant initial value."""
        variable = Global(self._global_space.next_index, kind, mutable)
        self._global_space.defined.append(bytes((kind.value, mutable)) + _constant(kind, initial))
        if export is not None:
            self._export(export, _GLOBAL, variable.index)
        return variable

    def export(self, name: str, item: Function | Memory | Table | Global) -> None:
        """Export something, whether defined or imported."""
        kinds = {Function: _FUNCTION, Table: _TABLE, Memory: _MEMORY, Global: _GLOBAL}
        self._export(name, kinds[type(item)], item.index)

    def start(self, function: Function) -> None:
        """Run ``function`` when the module is instantiated."""
        self._start = function

    def elements(self, table: Table, offset: int, functions: Sequence[Function]) -> None:
        """Fill a table from ``offset`` on with references to functions at instantiation."""
        indices = b"".join(unsigned(function.index) for function in functions)
        place = _constant(ValType.I32, offset)
        head = b"\x00" + place if table.index == 0 else b"\x02" + unsigned(table.index) + place + b"\x00"
        self._elements.append(head + unsigned(len(functions)) + indices)

    def declare(self, functions: Sequence[Function]) -> None:
        """Declare functions that are named by ``ref.func`` and nowhere else."""
        indices = b"".join(unsigned(function.index) for function in functions)
        self._elements.append(b"\x03\x00" + unsigned(len(functions)) + indices)

    def data(self, content: bytes, offset: int | None = None, memory: int = 0, *, base: Global | None = None) -> int:
        """Add a data segment: written at ``offset`` at instantiation, or passive without one. Returns its index.

        With ``base``, an imported immutable i32 global, the segment goes to the sum of both.
        """
        place = b"" if offset is None else _constant(ValType.I32, offset)
        if base is not None:
            place = b"\x23" + unsigned(base.index) + place[:-1] + b"\x6a\x0b"
        if offset is None:
            head = b"\x01"
        elif memory == 0:
            head = b"\x00" + place
        else:
            head = b"\x02" + unsigned(memory) + place
        self._data.append(head + unsigned(len(content)) + content)
        return len(self._data) - 1

    # --- the result -------------------------------------------------------------------------------------

    def encode(self) -> EncodedModule:
        """The module's bytes and line table. The names of functions go into the custom section ``name``."""
        types = [_function_type(signature) for signature in self._types.values()]
        out = bytearray(_PREAMBLE)
        out += _section(1, types)
        out += _section(2, self._imports)
        out += _section(3, self._function_space.defined)
        out += _section(4, self._table_space.defined)
        out += _section(5, self._memory_space.defined)
        out += _section(6, self._global_space.defined)
        out += _section(7, self._exports)
        if self._start is not None:
            out += _raw_section(8, unsigned(self._start.index))
        out += _section(9, self._elements)
        if self._data:
            out += _raw_section(12, unsigned(len(self._data)))
        lines = self._encode_code(out)
        out += _section(11, self._data)
        out += self._names()
        return EncodedModule(bytes(out), lines)

    def _encode_code(self, out: bytearray) -> tuple[tuple[int, int], ...]:
        """Append the code section to ``out``; return the line table in offsets of ``out``."""
        bodies = [function.body.finish() for function in self._functions if function.body is not None]
        if not bodies:
            return ()
        content = bytearray(unsigned(len(bodies)))
        lines: list[tuple[int, int]] = []
        has_lines = any(marks for _, marks in bodies)
        for code, marks in bodies:
            content += unsigned(len(code))
            if has_lines:
                lines.append((len(content), 0))  # a function without marks is not part of the one before it
            lines.extend((len(content) + at, line) for at, line in marks)
            content += code
        head = b"\x0a" + unsigned(len(content))
        base = len(out) + len(head)
        out += head
        out += content
        return tuple((base + at, line) for at, line in lines)

    def _names(self) -> bytes:
        named = [unsigned(f.index) + _name(f.name) for f in self._functions if f.name]
        if not named:
            return b""
        functions = unsigned(len(named)) + b"".join(named)
        return _raw_section(0, _name("name") + b"\x01" + unsigned(len(functions)) + functions)

    def _import(self, space: _Space, module: str, name: str, kind: int, content: bytes) -> int:
        if space.defined:
            raise ValueError("imports come before definitions of their kind")
        self._imports.append(_name(module) + _name(name) + bytes((kind,)) + content)
        space.imported += 1
        return space.imported - 1

    def _export(self, name: str, kind: int, index: int) -> None:
        self._exports.append(_name(name) + bytes((kind,)) + unsigned(index))


def _name(text: str) -> bytes:
    data = text.encode()
    return unsigned(len(data)) + data


def _limits(minimum: int, maximum: int | None, shared: bool = False) -> bytes:
    if maximum is None:
        if shared:
            raise ValueError("a shared memory needs a maximum")
        return b"\x00" + unsigned(minimum)
    return bytes((3 if shared else 1,)) + unsigned(minimum) + unsigned(maximum)


def _constant(kind: ValType, value: float) -> bytes:
    """A constant expression; references are null."""
    match kind:
        case ValType.I32:
            return b"\x41" + signed((int(value) & 0xFFFFFFFF ^ 0x80000000) - 0x80000000) + b"\x0b"
        case ValType.I64:
            return b"\x42" + signed((int(value) & (2**64 - 1) ^ 2**63) - 2**63) + b"\x0b"
        case ValType.F32:
            return b"\x43" + struct.pack("<f", value) + b"\x0b"
        case ValType.F64:
            return b"\x44" + struct.pack("<d", value) + b"\x0b"
        case ValType.V128:
            return b"\xfd\x0c" + int(value).to_bytes(16, "little") + b"\x0b"
        case _:
            return bytes((0xD0, kind.value, 0x0B))


def _function_type(signature: FunctionType) -> bytes:
    parameters = bytes(kind.value for kind in signature.parameters)
    results = bytes(kind.value for kind in signature.results)
    return b"\x60" + unsigned(len(parameters)) + parameters + unsigned(len(results)) + results


def _section(number: int, entries: Sequence[bytes]) -> bytes:
    return _raw_section(number, unsigned(len(entries)) + b"".join(entries)) if entries else b""


def _raw_section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + unsigned(len(content)) + content
