"""What an instance is between two calls besides the bytes of its memory: its variables and tables.

Read from an instance of an observable module (see :mod:`tensor_wasm.wasm.observable`), and written to a fresh one. A
function in a table is told by a place where it stood when the instance was made: that place is the same in every
instance of the module. What cannot be told is whether passive segments were dropped; a written instance has them again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensor_wasm.errors import InternalError, InvalidSnapshot
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.store import Instance, Store
from tensor_wasm.wasm.observable import ObservableModule

#: Entries of all tables that are looked at: each costs a microsecond, when an instance is made and when it is read.
TABLE_ENTRIES_MAX = 65_536

_KINDS = {
    "i32": native.VALUE_I32,
    "i64": native.VALUE_I64,
    "f32": native.VALUE_F32,
    "f64": native.VALUE_F64,
    "v128": native.VALUE_V128,
}
_VALUE_BYTES = {"i32": 4, "i64": 8, "f32": 4, "f64": 8, "v128": 16}

#: Where a function stood at first: table and entry. None: null.
Place = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class TableState:
    """A table: its size, and the entries that are not what they were at first."""

    size: int
    changes: tuple[tuple[int, Place], ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceState:
    """Bytes of the memory, the bits of each variable, and each table, in the order of the module."""

    memory_bytes: int
    variables: tuple[bytes, ...]
    tables: tuple[TableState, ...]


class Observed:
    """An instance whose state can be read and written. Make it before the instance has run anything.

    Without ``looks_at_tables`` it can only be written: to look at all entries of large tables takes milliseconds.
    """

    __slots__ = ("_first", "_module", "_places", "_store", "_tables", "_variables", "memory", "obstacle")

    def __init__(
        self, store: Store, instance: Instance, module: ObservableModule, *, looks_at_tables: bool = True
    ) -> None:
        self._store = store
        self._module = module
        #: Why the state cannot be told; None when it can.
        self.obstacle = module.obstacle
        self.memory: Any = None if module.memory is None else instance.extern(module.memory)
        self._variables = [(instance.extern(name), kind) for name, kind in module.globals]
        self._tables = [instance.extern(name) for name in module.tables]
        self._first: list[list[int]] | None = None
        self._places: dict[int, tuple[int, int]] = {}
        if looks_at_tables:
            self._look_at_tables()

    def _look_at_tables(self) -> None:
        """Note which functions the tables have at first."""
        if sum(self._size(table) for table in self._tables) > TABLE_ENTRIES_MAX:
            self.obstacle = self.obstacle or f"its tables have more than {TABLE_ENTRIES_MAX} entries"
            return
        self._first = [self._entries(table) for table in self._tables]
        for number, entries in enumerate(self._first):
            for index, function in enumerate(entries):
                if function:
                    self._places.setdefault(function, (number, index))

    def read(self) -> InstanceState:
        """The state now. Raises :class:`InvalidSnapshot` when it cannot be told."""
        if self.obstacle is None and self._first is None:
            self.obstacle = "it was not made to be kept"
        if self.obstacle is not None:
            raise InvalidSnapshot(f"the instance cannot be captured: {self.obstacle}")
        size = 0
        if self.memory is not None:
            size = native.memory_data_size(self._store.context, ctypes.byref(self.memory.of.memory))
        variables = tuple(self._variable(extern, kind) for extern, kind in self._variables)
        if sum(self._size(table) for table in self._tables) > TABLE_ENTRIES_MAX:
            raise InvalidSnapshot(f"the instance cannot be captured: {TABLE_ENTRIES_MAX} entries of tables at most")
        tables = tuple(self._table(number, table) for number, table in enumerate(self._tables))
        return InstanceState(size, variables, tables)

    def write(self, state: InstanceState) -> None:
        """Give the instance, which has run nothing, variables and tables; its memory is grown to its size.

        Raises :class:`InvalidSnapshot` for a state of another module, :class:`QuotaExceeded` when the memory does not
        fit.
        """
        has_memory = self.memory is not None
        shapes = (len(state.variables), len(state.tables), bool(state.memory_bytes) and not has_memory)
        if self.obstacle is not None or shapes != (len(self._variables), len(self._tables), False):
            raise InvalidSnapshot("the snapshot is not of this module")
        if self._first is None and any(table.changes for table in state.tables):
            self._look_at_tables()
        for (extern, kind), bits in zip(self._variables, state.variables, strict=True):
            self._set_variable(extern, kind, bits)
        for table, wanted in zip(self._tables, state.tables, strict=True):
            self._set_table(table, wanted)
        if has_memory:
            self._store.grow_memory(self.memory.of.memory, state.memory_bytes)
            if native.memory_data_size(self._store.context, ctypes.byref(self.memory.of.memory)) != state.memory_bytes:
                raise InvalidSnapshot("the snapshot is not of this module: its memory is too small")

    def map_memory(self, descriptor: int, size_bytes: int) -> None:
        """Have the memory, which is so large, show a file's bytes; what is written to it is the instance's own."""
        if size_bytes:
            base = native.memory_data(self._store.context, ctypes.byref(self.memory.of.memory))
            self._store.engine.pool.map_image(base, size_bytes, descriptor)

    def view(self) -> memoryview:
        """The bytes of the memory, as they are now; invalid once the guest runs."""
        return memoryview(b"") if self.memory is None else self._store.memory_view(self.memory.of.memory)

    # --- variables --------------------------------------------------------------------------------------

    def _variable(self, extern: Any, kind: str) -> bytes:
        value = native.Value()
        native.global_get(self._store.context, ctypes.byref(extern.of.global_), ctypes.byref(value))
        return bytes(value.of.v128)[: _VALUE_BYTES[kind]]

    def _set_variable(self, extern: Any, kind: str, bits: bytes) -> None:
        if len(bits) != _VALUE_BYTES[kind]:
            raise InvalidSnapshot("the snapshot is not of this module: a variable has another type")
        value = native.Value(kind=_KINDS[kind])
        value.of.v128 = (ctypes.c_ubyte * 16)(*bits)
        error = native.global_set(self._store.context, ctypes.byref(extern.of.global_), ctypes.byref(value))
        if error:
            raise InternalError(native.take_error(error))

    # --- tables -----------------------------------------------------------------------------------------

    def _size(self, table: Any) -> int:
        size: int = native.table_size(self._store.context, ctypes.byref(table.of.table))
        return size

    def _get(self, table: Any, index: int) -> native.Value:
        value = native.Value()
        if not native.table_get(self._store.context, ctypes.byref(table.of.table), index, ctypes.byref(value)):
            raise InternalError("a table's entry cannot be read")
        return value

    def _entries(self, table: Any) -> list[int]:
        """What identifies the function of each entry in this instance; 0 for null, and for what is no function."""
        return [_identity(self._get(table, index)) for index in range(self._size(table))]

    def _table(self, number: int, table: Any) -> TableState:
        assert self._first is not None
        before = self._first[number]
        changes: list[tuple[int, Place]] = []
        entries = self._entries(table)
        for index, function in enumerate(entries):
            if function == (before[index] if index < len(before) else 0):
                continue
            place = self._places.get(function) if function else None
            if function and place is None:
                raise InvalidSnapshot(
                    "the instance cannot be captured: a table has a function that was in none when it was made"
                )
            changes.append((index, place))
        return TableState(len(entries), tuple(changes))

    def _set_table(self, table: Any, wanted: TableState) -> None:
        size = self._size(table)
        if not size <= wanted.size <= TABLE_ENTRIES_MAX:
            raise InvalidSnapshot("the snapshot is not of this module: a table has another size")
        if wanted.size > size:
            before = ctypes.c_uint64()
            null = native.Value(kind=native.VALUE_FUNCREF)
            context = self._store.context
            error = native.table_grow(
                context, ctypes.byref(table.of.table), wanted.size - size, ctypes.byref(null), ctypes.byref(before)
            )
            if error:
                native.error_delete(error)
                raise InvalidSnapshot("the snapshot is not of this module: a table cannot grow so far")
        # Read all before any is written: an entry may be another's source.
        values = [(index, self._source(place)) for index, place in wanted.changes]
        for index, value in values:
            if not 0 <= index < wanted.size:
                raise InvalidSnapshot("the snapshot is not of this module: a table has no such entry")
            self._store.table_set(table, index, value.of.funcref)

    def _source(self, place: Place) -> native.Value:
        if place is None:
            return native.Value(kind=native.VALUE_FUNCREF)
        number, index = place
        first = self._first or ()
        if not (0 <= number < len(first) and 0 <= index < len(first[number])):
            raise InvalidSnapshot("the snapshot is not of this module: a table has no such entry")
        return self._get(self._tables[number], index)


def _identity(value: native.Value) -> int:
    if value.kind != native.VALUE_FUNCREF or not value.of.funcref.store_id:
        return 0
    private: int = getattr(value.of.funcref, "__private") or 0
    return private


def encode_places(tables: Sequence[TableState]) -> list[list[object]]:
    """Tables as JSON has them: ``[size, [[entry, table, entry] or [entry]]]``."""
    return [[table.size, [[index, *(place or ())] for index, place in table.changes]] for table in tables]


def decode_places(tables: Sequence[Sequence[Any]]) -> tuple[TableState, ...]:
    """The reverse of :func:`encode_places`. Raises :class:`InvalidSnapshot`."""
    try:
        return tuple(
            TableState(
                int(size),
                tuple(
                    (int(change[0]), (int(change[1]), int(change[2])) if len(change) > 1 else None) for change in all_
                ),
            )
            for size, all_ in tables
        )
    except (TypeError, ValueError, IndexError):
        raise InvalidSnapshot("the snapshot's tables cannot be read") from None
