"""What an untrusted module imports, exports and declares, read from its binary without compiling it.

This is what the node decides by before a module costs it anything: linear time, bounded memory, code never looked
at. It is no validator: Wasmtime checks the whole module afterwards. Refused here is what Wasmtime would accept and
a guest may not have: more than one memory (a store's limits count the node's own too), a memory that is shared or
of 64 bits, imports other than functions, and the types of proposals the engine has off.

Source: WebAssembly core specification 3.0, chapter "Binary Format: Modules".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tensor_wasm.errors import InvalidWasm
from tensor_wasm.wasm.body import ValType
from tensor_wasm.wasm.reader import PREAMBLE_BYTES, Reader, check_preamble, invalid

# Most entries of each kind, so that reading stays cheap. Those of functions, values and tables are Wasmtime's own,
# the others are far above what compilers make.
SECTIONS_MAX = 10_000
TYPES_MAX = 100_000
IMPORTS_MAX = 10_000
FUNCTIONS_MAX = 1_000_000
TABLES_MAX = 100
GLOBALS_MAX = 100_000
EXPORTS_MAX = 100_000
VALUES_MAX = 1_000
SEGMENTS_MAX = 100_000
#: What imports and exports may come to together, in bytes of their description: their names, and as below for each and
#: for each of its values. Every function's is held in memory and sent to whoever lists functions, and a module of a few
#: bytes can have an export of a thousand values under a name of 100,000 letters, many times.
DESCRIPTION_MAX_BYTES = 1 << 20
_ENTRY_BYTES, _VALUE_BYTES = 32, 6
#: A 32-bit memory has at most this many pages of 64 KiB.
PAGES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class FunctionImport:
    """A function the module needs; types are "i32" "i64" "f32" "f64" "v128" "funcref" "externref"."""

    module: str
    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FunctionExport:
    """A function the module offers; types as in :class:`FunctionImport`."""

    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Size of the module's memory in pages of 64 KiB; no maximum means 65,536."""

    minimum_pages: int
    maximum_pages: int | None


@dataclass(frozen=True, slots=True)
class TableLimits:
    """Size of a table in entries; None when it may grow without a bound of its own."""

    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module's outside: what it needs, offers and occupies."""

    imports: tuple[FunctionImport, ...]
    exports: tuple[FunctionExport, ...]
    memory: MemoryLimits | None
    exports_memory: bool  # under the name "memory"
    has_start: bool
    tables: tuple[TableLimits, ...]


_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _ELEMENT, _CODE, _DATA, _DATA_COUNT = (
    range(13)
)
_TAG: Final = 13

# Section number -> (place in the module, name).
_SECTIONS: Final[dict[int, tuple[int, str]]] = {
    number: (place, f"{name} section")
    for place, (number, name) in enumerate(
        (
            (_TYPE, "type"),
            (_IMPORT, "import"),
            (_FUNCTION, "function"),
            (_TABLE, "table"),
            (_MEMORY, "memory"),
            (_GLOBAL, "global"),
            (_EXPORT, "export"),
            (_START, "start"),
            (_ELEMENT, "element"),
            (_DATA_COUNT, "data count"),
            (_CODE, "code"),
            (_DATA, "data"),
        )
    )
}

_TYPE_NAMES: Final = {kind.value: kind.name.lower() for kind in ValType}
_VALUE_TYPES: Final = bytes(_TYPE_NAMES)
_REFERENCES: Final = (ValType.FUNCREF.value, ValType.EXTERNREF.value)
_GC: Final = "garbage-collected types (the GC proposal) are not supported"
_TYPED: Final = "typed references (the function-references proposal) are not supported"
_EXCEPTIONS: Final = "exceptions are not supported: build without them (clang: -fno-exceptions)"
_MEMORY64: Final = "64-bit memories and tables are not supported: build for wasm32"
_NO_SHARED: Final = "shared memories are not supported: build without threads"
_PAGE_SIZES: Final = "memories with their own page size are not supported"

# First byte of a type -> why it is refused.
_REFUSED_TYPES: Final[dict[int, str]] = {
    **dict.fromkeys((0x4E, 0x4F, 0x50, 0x5E, 0x5F, 0x65, 0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x71, 0x72, 0x73), _GC),
    **dict.fromkeys((0x63, 0x64), _TYPED),
    **dict.fromkeys((0x69, 0x74), _EXCEPTIONS),
}
_IMPORT_KINDS: Final = {1: "a table", 2: "a memory", 3: "a global", 4: "an exception tag"}

_MODULE_SPACES: Final = ("function", "table", "memory", "global")


def inspect(data: bytes) -> ModuleInfo:
    """Read a module's binary. Raises :class:`InvalidWasm` with the offset of what is wrong."""
    check_preamble(data)
    return _Inspector().read(data)


class _Inspector:
    """What is known of the module so far; one method a section."""

    def __init__(self) -> None:
        self.types: list[tuple[bytes, bytes]] = []
        self.functions: list[int] = []  # type index of every function, imported ones first
        self.defined_functions = 0
        self.globals = 0
        self.imports: list[FunctionImport] = []
        self.exports: list[FunctionExport] = []
        self.memory: MemoryLimits | None = None
        self.tables: list[TableLimits] = []
        self.exports_memory = False
        self.has_start = False
        self.code_entries = 0
        self.data_count: int | None = None
        self.data_entries = 0
        self._signatures: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._described_bytes = 0

    def read(self, data: bytes) -> ModuleInfo:
        """Go through the sections in order."""
        module = Reader(data, PREAMBLE_BYTES, len(data), "module")
        readers = {
            _TYPE: self._types,
            _IMPORT: self._imports,
            _FUNCTION: self._functions,
            _TABLE: self._tables,
            _MEMORY: self._memories,
            _GLOBAL: self._globals,
            _EXPORT: self._exports,
            _START: self._start,
            _DATA_COUNT: self._data_count,
        }
        last_place = -1
        sections = 0
        while module.remaining:
            start = module.position
            sections += 1
            if sections > SECTIONS_MAX:
                raise invalid(f"more than {SECTIONS_MAX} sections", start)
            section, number = self._section(module)
            if number == _CUSTOM:
                section.name()
                continue
            place = _SECTIONS[number][0]
            if place <= last_place:
                raise invalid(f"the {section.what} is out of order or there twice", start)
            last_place = place
            if number in readers:
                readers[number](section)
                section.finish()
            elif number == _CODE:
                self.code_entries = section.count(FUNCTIONS_MAX, 2, "bodies")
            elif number == _DATA:
                self.data_entries = section.count(SEGMENTS_MAX, 2, "segments")
        self._check_counts(module.end)
        return ModuleInfo(
            imports=tuple(self.imports),
            exports=tuple(self.exports),
            memory=self.memory,
            exports_memory=self.exports_memory,
            has_start=self.has_start,
            tables=tuple(self.tables),
        )

    def _section(self, module: Reader) -> tuple[Reader, int]:
        """The next section as a reader of its own; ``module`` goes past it."""
        start = module.position
        number = module.byte()
        if number == _TAG:
            raise invalid(_EXCEPTIONS, start)
        if number != _CUSTOM and number not in _SECTIONS:
            raise invalid(f"unknown section {number}", start)
        what = "custom section" if number == _CUSTOM else _SECTIONS[number][1]
        size = module.u32()
        if size > module.remaining:
            raise invalid(f"the {what} has {size} bytes, the module has {module.remaining} left", start)
        section = Reader(module.data, module.position, module.position + size, what)
        module.skip(size)
        return section, number

    def _check_counts(self, end: int) -> None:
        if self.code_entries != self.defined_functions:
            text = f"{self.defined_functions} functions are declared and {self.code_entries} have a body"
            raise invalid(text, end)
        if self.data_count is not None and self.data_count != self.data_entries:
            text = f"the data count section says {self.data_count} segments, the data section has {self.data_entries}"
            raise invalid(text, end)

    # --- sections ---------------------------------------------------------------------------------------------

    def _types(self, section: Reader) -> None:
        for _ in range(section.count(TYPES_MAX, 3, "types")):
            start = section.position
            form = section.byte()
            if form != 0x60:
                raise invalid(_REFUSED_TYPES.get(form, f"unknown type form 0x{form:02x}"), start)
            self.types.append((self._value_types(section), self._value_types(section)))

    def _imports(self, section: Reader) -> None:
        for _ in range(section.count(IMPORTS_MAX, 4, "imports")):
            start = section.position
            module, name = section.name(), section.name()
            kind = section.byte()
            if kind != 0:
                what = _IMPORT_KINDS.get(kind, f"of the unknown kind {kind}")
                if kind == 2:
                    what += ": define the memory in the module and export it as `memory`"
                text = f"import {_shown(module)}.{_shown(name)} is {what}; guests may import functions only"
                raise invalid(text, start)
            parameters, results = self._signature(self._type_index(section))
            values = len(parameters) + len(results)
            self._describe(_ENTRY_BYTES + len(module) + len(name) + _VALUE_BYTES * values, start)
            self.imports.append(FunctionImport(module, name, parameters, results))

    def _functions(self, section: Reader) -> None:
        self.defined_functions = section.count(FUNCTIONS_MAX, 1, "functions")
        for _ in range(self.defined_functions):
            self._type_index(section)

    def _tables(self, section: Reader) -> None:
        for _ in range(section.count(TABLES_MAX, 3, "tables")):
            start = section.position
            kind = section.byte()
            if kind == 0x40:
                raise invalid("tables with an initial value are not supported", start)
            if kind not in _REFERENCES:
                raise invalid(_REFUSED_TYPES.get(kind, f"0x{kind:02x} is not a table's type"), start)
            self.tables.append(TableLimits(*self._limits(section, 0xFFFF_FFFF, "table")))

    def _memories(self, section: Reader) -> None:
        start = section.position
        count = section.count(100, 2, "memories")
        if count > 1:
            raise invalid(f"the module has {count} memories: one memory a guest", start)
        if count:
            self.memory = MemoryLimits(*self._limits(section, PAGES_MAX, "memory"))

    def _globals(self, section: Reader) -> None:
        self.globals = section.count(GLOBALS_MAX, 4, "globals")
        for _ in range(self.globals):
            self._value_type(section)
            start = section.position
            if section.byte() > 1:
                raise invalid("a global is neither constant (0) nor variable (1)", start)
            skip_expression(section)

    def _exports(self, section: Reader) -> None:
        sizes = (len(self.functions), len(self.tables), int(self.memory is not None), self.globals)
        names: set[str] = set()
        for _ in range(section.count(EXPORTS_MAX, 3, "exports")):
            start = section.position
            name = section.name()
            if name in names:
                raise invalid(f"two exports are named {_shown(name)}", start)
            names.add(name)
            self._describe(_ENTRY_BYTES + len(name), start)
            kind = section.byte()
            if kind >= len(sizes):
                raise invalid(_EXCEPTIONS if kind == 4 else f"export {_shown(name)} is of unknown kind {kind}", start)
            index = section.u32()
            if index >= sizes[kind]:
                text = f"export {_shown(name)} is {_MODULE_SPACES[kind]} {index}: the module has {sizes[kind]}"
                raise invalid(text, start)
            if kind == 0:
                parameters, results = self._signature(self.functions[index])
                self._describe(_VALUE_BYTES * (len(parameters) + len(results)), start)
                self.exports.append(FunctionExport(name, parameters, results))
            elif kind == 2 and name == "memory":
                self.exports_memory = True

    def _start(self, section: Reader) -> None:
        start = section.position
        index = section.u32()
        if index >= len(self.functions):
            raise invalid(f"the start function {index} does not exist", start)
        if self.types[self.functions[index]] != (b"", b""):
            raise invalid("the start function has parameters or results", start)
        self.has_start = True

    def _data_count(self, section: Reader) -> None:
        start = section.position
        self.data_count = section.u32()
        if self.data_count > SEGMENTS_MAX:
            raise invalid(f"{self.data_count} data segments: at most {SEGMENTS_MAX}", start)

    def _describe(self, size_bytes: int, start: int) -> None:
        """Count what an import or export comes to. Raises :class:`InvalidWasm` when all of them are too much."""
        self._described_bytes += size_bytes
        if self._described_bytes > DESCRIPTION_MAX_BYTES:
            raise invalid("the module's imports and exports are too many, or their names or signatures too long", start)

    # --- parts of sections ------------------------------------------------------------------------------------

    def _value_types(self, section: Reader) -> bytes:
        """A run of value types, as their codes."""
        count = section.count(VALUES_MAX, 1, "values in a signature")
        start = section.position
        codes = section.slice(count)
        unknown = codes.translate(None, _VALUE_TYPES)
        if unknown:
            raise _unknown_type(unknown[0], start + codes.index(unknown[0]))
        return codes

    def _value_type(self, section: Reader) -> None:
        start = section.position
        code = section.byte()
        if code not in _TYPE_NAMES:
            raise _unknown_type(code, start)

    def _type_index(self, section: Reader) -> int:
        """The type of the next function, which this adds to the function index space."""
        start = section.position
        index = section.u32()
        if index >= len(self.types):
            raise invalid(f"type {index} does not exist: the module has {len(self.types)}", start)
        self.functions.append(index)
        return index

    def _signature(self, index: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        # Shared between functions of one type: 100,000 exports of one long signature must not take 100 MB.
        found = self._signatures.get(index)
        if found is None:
            parameters, results = self.types[index]
            found = tuple(_TYPE_NAMES[code] for code in parameters), tuple(_TYPE_NAMES[code] for code in results)
            self._signatures[index] = found
        return found

    def _limits(self, section: Reader, most: int, what: str) -> tuple[int, int | None]:
        start = section.position
        flags = section.byte()
        for bit, text in ((4, _MEMORY64), (2, _NO_SHARED), (8, _PAGE_SIZES)):
            if flags & bit:
                raise invalid(text, start)
        if flags > 1:
            raise invalid(f"unknown limits flags 0x{flags:02x}", start)
        minimum = section.u32()
        maximum = section.u32() if flags else None
        if minimum > most or (maximum or 0) > most:
            raise invalid(f"the {what} is larger than {most} {'pages' if what == 'memory' else 'entries'}", start)
        if maximum is not None and maximum < minimum:
            raise invalid(f"the {what}'s maximum {maximum} is below its minimum {minimum}", start)
        return minimum, maximum


def skip_expression(section: Reader) -> None:
    """Pass over a constant expression."""
    while True:
        start = section.position
        opcode = section.byte()
        match opcode:
            case 0x0B:
                return
            case 0x41:
                section.skip_signed(32)
            case 0x42:
                section.skip_signed(64)
            case 0x43:
                section.skip(4)
            case 0x44:
                section.skip(8)
            case 0x23 | 0xD2:  # global.get, ref.func
                section.u32()
            case 0xD0:  # ref.null
                kind = section.byte()
                if kind not in _REFERENCES:
                    # Anything but the codes from 0x40 to 0x7F is the index of a type: a typed reference.
                    raise _unknown_type(kind, start + 1) if 0x40 <= kind < 0x80 else invalid(_TYPED, start + 1)
            case 0x6A | 0x6B | 0x6C | 0x7C | 0x7D | 0x7E:  # add, sub, mul of i32 and i64
                pass
            case 0xFD:
                if section.u32() != 12:  # v128.const
                    raise invalid("a SIMD instruction other than v128.const in a constant expression", start)
                section.skip(16)
            case 0xFB:
                raise invalid(_GC, start)
            case _:
                raise invalid(f"instruction 0x{opcode:02x} is not allowed in a constant expression", start)


def _unknown_type(code: int, offset: int) -> InvalidWasm:
    return invalid(_REFUSED_TYPES.get(code, f"unknown value type 0x{code:02x}"), offset)


def _shown(name: str) -> str:
    """A guest's name in a message: printable and short."""
    return repr(name if len(name) <= 64 else name[:61] + "...")
