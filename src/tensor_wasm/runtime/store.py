"""A store with its instances: one sandbox, from its making to its end."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from tensor_wasm.errors import InternalError, QuotaExceeded, TensorWasmError
from tensor_wasm.runtime import bindings as native
from tensor_wasm.runtime.endings import Failure, from_call
from tensor_wasm.runtime.engine import CHECK_TICKS, Engine, Module
from tensor_wasm.runtime.linker import Template
from tensor_wasm.runtime.memory import Budget

# Limits of a store besides its bytes. A guest has one instance; gate and kernels take the rest.
TABLE_ELEMENTS = 100_000
_INSTANCES = 600
_TABLES = 700
_MEMORIES = 600
_INSTANCES_UNBOUNDED = (1 << 31) - 1

Number = int | float
_PAGE_BYTES = 65_536

#: WebAssembly engines take at most this many parameters or results.
MAX_VALUES = 1_000
# Making an array type costs as much as a call: they are made once.
_VALUE_ARRAYS = tuple(native.RawValue * max(count, 1) for count in range(MAX_VALUES + 1))


class CallFailed(Exception):
    """A call into Wasm ended in a trap or an exit; ``failure`` says which. Internal: callers turn it into an ending."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.text)


class Output:
    """What a guest wrote to stdout and stderr, together at most ``limit_bytes``; the rest is counted and dropped."""

    __slots__ = ("dropped_bytes", "limit_bytes", "stderr", "stdout")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.dropped_bytes = 0

    def write(self, data: int, size: int, is_stderr: bool) -> None:
        """Take ``size`` bytes at address ``data``."""
        kept = min(size, self.room_bytes)
        self.dropped_bytes += size - kept
        if kept:
            (self.stderr if is_stderr else self.stdout).extend(ctypes.string_at(data, kept))

    def append_error(self, text: bytes) -> None:
        """Take what the host writes to the guest's stderr."""
        room = self.room_bytes
        self.stderr += text[:room]
        self.dropped_bytes += max(len(text) - room, 0)

    @property
    def room_bytes(self) -> int:
        """Bytes that may still be written."""
        return max(self.limit_bytes - len(self.stdout) - len(self.stderr), 0)


class Instance:
    """A module's instance in a store; hands out its exports."""

    __slots__ = ("_native", "_store")

    def __init__(self, store: Store, handle: Any) -> None:
        self._store = store
        self._native = handle

    def extern(self, name: str) -> Any | None:
        """The export ``name`` as a C ``wasmtime_extern_t``, or None."""
        out = native.Extern()
        encoded = name.encode()
        found = native.instance_export_get(
            self._store.context, ctypes.byref(self._native), encoded, len(encoded), ctypes.byref(out)
        )
        return out if found else None

    def function(self, name: str) -> Any | None:
        """The exported function ``name`` as a C ``wasmtime_func_t``, or None."""
        extern = self.extern(name)
        return extern.of.func if extern is not None and extern.kind == native.EXTERN_FUNC else None

    def memory(self, name: str = "memory") -> Any | None:
        """The exported memory ``name`` as a C ``wasmtime_memory_t``, or None."""
        extern = self.extern(name)
        return extern.of.memory if extern is not None and extern.kind == native.EXTERN_MEMORY else None


class TableEntry:
    """A function for a place in a table given as a C extern, made once to be put there more than once."""

    __slots__ = ("_index", "_keeps", "_table", "_value")

    def __init__(self, table: Any, index: int, function: Any) -> None:
        value = native.Value(kind=native.VALUE_FUNCREF)
        value.of.funcref = function
        self._keeps = table, value  # what the two references below point at
        self._table, self._value = ctypes.byref(table.of.table), ctypes.byref(value)
        self._index = index

    def put(self, store: Store) -> None:
        """Put it in its place."""
        error = native.table_set(store.context, self._table, self._index, self._value)
        if error:
            raise InternalError(native.take_error(error))


class Store:
    """One sandbox.

    ``owner`` is what host functions are given; ``interrupt`` is asked every ``check_ticks`` epochs of running whether
    to go on (None) or which error to end with, the first time after ``CHECK_TICKS``; ``budget`` bounds the bytes of all
    memories together. A store belongs to one thread at a time. Close it: C holds no reference to this object, the
    engine does.
    """

    __slots__ = (
        "_key",
        "_template",
        "budget",
        "check_ticks",
        "context",
        "engine",
        "failure",
        "interrupt",
        "output",
        "owner",
        "pointer",
    )

    def __init__(
        self,
        engine: Engine,
        budget: Budget,
        owner: Any = None,
        interrupt: Callable[[], TensorWasmError | None] | None = None,
        output: Output | None = None,
    ) -> None:
        self.engine = engine
        self.budget = budget
        self.owner = owner
        self.interrupt = interrupt
        self.check_ticks = CHECK_TICKS
        self.output = output
        self.failure: BaseException | None = None
        self._template: Template | None = None  # keeps the callbacks that its imports call
        key = self._key = next(engine.keys)
        self.pointer = native.store_new(engine.pointer, key, None)
        self.context = native.store_context(self.pointer)
        engine.stores[key] = self
        native.store_epoch_callback(self.pointer, engine.epoch_callback, key, None)
        native.context_set_epoch_deadline(self.context, CHECK_TICKS)

    def limit_tables(self) -> None:
        """Bound tables that could grow. A module whose tables are bounded by declaration does not need the 1 µs."""
        native.store_limiter(self.pointer, -1, TABLE_ELEMENTS, _INSTANCES, _TABLES, _MEMORIES)

    def allow_instances(self) -> None:
        """Bound the number of instances by memory only: each stays until the store ends."""
        native.store_limiter(self.pointer, -1, TABLE_ELEMENTS, _INSTANCES_UNBOUNDED, _TABLES, _MEMORIES)

    def enable_wasi(self) -> None:
        """Give the store a WASI context: clocks, random, captured output; no files, network, arguments, environment."""
        config = native.wasi_config_new()
        if self.output is not None:
            native.wasi_config_set_stdout_custom(config, self.engine.stdout_callback, self._key, None)
            native.wasi_config_set_stderr_custom(config, self.engine.stderr_callback, self._key, None)
        error = native.context_set_wasi(self.context, config)
        if error:
            raise InternalError(native.take_error(error))

    def start(self, template: Template) -> Instance:
        """Instantiate a template. Releases the GIL when its module has a ``start`` function, which is guest code.

        Raises :class:`CallFailed`, :class:`QuotaExceeded` when the memory does not fit the budget, or what a host
        function or the interrupt raised.
        """
        handle = native.Instance()
        trap = ctypes.c_void_p()
        instantiate = (
            native.instance_pre_instantiate_releasing if template.runs_code else native.instance_pre_instantiate
        )
        self._template = template
        self.engine.pool.charge(self.budget)
        error = instantiate(template.pointer, self.context, ctypes.byref(handle), ctypes.byref(trap))
        if error or trap.value:
            self._raise(error, trap.value)
        return Instance(self, handle)

    def instantiate(self, module: Module, imports: Sequence[Any], runs_code: bool = False) -> Instance:
        """Instantiate ``module`` with C externs given in the order of its imports. Raises as :meth:`start`."""
        handle = native.Instance()
        trap = ctypes.c_void_p()
        externs = (native.Extern * len(imports))(*imports)
        instantiate = native.instance_new_releasing if runs_code else native.instance_new
        self.engine.pool.charge(self.budget)
        error = instantiate(
            self.context, module.pointer, externs, len(imports), ctypes.byref(handle), ctypes.byref(trap)
        )
        if error or trap.value:
            self._raise(error, trap.value)
        return Instance(self, handle)

    def call(
        self, function: Any, parameters: Sequence[str], arguments: Sequence[Number], results: Sequence[str]
    ) -> list[Number]:
        """Call a function with unchecked values; releases the GIL.

        ``parameters`` and ``results`` name types ("i32" "i64" "f32" "f64") that must be the function's own: the call
        is not checked by Wasmtime. Raises :class:`CallFailed`, or what a host function or the interrupt raised.
        """
        raw = _VALUE_ARRAYS[max(len(parameters), len(results))]()
        for index, kind in enumerate(parameters):
            setattr(raw[index], kind, arguments[index])
        trap = ctypes.c_void_p()
        error = native.func_call(self.context, ctypes.byref(function), raw, len(raw), ctypes.byref(trap))
        if error or trap.value:
            self._raise(error, trap.value)
        return [getattr(raw[index], kind) for index, kind in enumerate(results)]

    def call_short(self, function: Any, *arguments: int) -> int:
        """Call a trusted function of our own, i32 in and one i32 (or nothing) out, keeping the GIL."""
        raw = _VALUE_ARRAYS[len(arguments)]()
        for index, value in enumerate(arguments):
            raw[index].i32 = value
        trap = ctypes.c_void_p()
        error = native.func_call_short(self.context, ctypes.byref(function), raw, len(raw), ctypes.byref(trap))
        if error or trap.value:
            self._raise(error, trap.value)
        result: int = raw[0].i32
        return result

    def memory_view(self, memory: Any) -> memoryview:
        """The bytes of a memory, writable, as they are now; invalid once the guest runs or grows it."""
        size = native.memory_data_size(self.context, ctypes.byref(memory))
        if not size:
            return memoryview(bytearray())
        base = native.memory_data(self.context, ctypes.byref(memory))
        return memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B")

    def grow_memory(self, memory: Any, size_bytes: int) -> None:
        """Make a memory at least ``size_bytes`` large. Raises :class:`QuotaExceeded` when that passes the limit."""
        missing = size_bytes - native.memory_data_size(self.context, ctypes.byref(memory))
        if missing <= 0:
            return
        before = ctypes.c_uint64()
        pages = -(-missing // _PAGE_BYTES)
        error = native.memory_grow(self.context, ctypes.byref(memory), pages, ctypes.byref(before))
        if error:
            native.error_delete(error)
            raise QuotaExceeded("the kernel's memory does not fit the limit of an instance")

    def i32_global(self, value: int) -> Any:
        """A new immutable global of this store, as a C extern."""
        initial = native.Value(kind=native.VALUE_I32)
        initial.of.i32 = value
        extern = native.Extern(kind=native.EXTERN_GLOBAL)
        kind = self.engine.i32_constant
        error = native.global_new(self.context, kind, ctypes.byref(initial), ctypes.byref(extern.of.global_))
        if error:
            raise InternalError(native.take_error(error))
        return extern

    def read_global(self, extern: Any) -> int:
        """The value of an exported i32 or i64 global."""
        value = native.Value()
        native.global_get(self.context, ctypes.byref(extern.of.global_), ctypes.byref(value))
        result: int = value.of.i64 if value.kind == native.VALUE_I64 else value.of.i32
        return result

    def table_set(self, table: Any, index: int, function: Any) -> None:
        """Put a function in a table given as a C extern."""
        TableEntry(table, index, function).put(self)

    def begin_call(self) -> None:
        """Have the interrupt be asked soon, as in a new store; for one whose calls lie apart."""
        self.check_ticks = CHECK_TICKS
        native.context_set_epoch_deadline(self.context, CHECK_TICKS)

    def close(self) -> None:
        """End the sandbox and give its memory back. Safe to call twice."""
        pointer, self.pointer = self.pointer, None
        if pointer is not None:
            del self.engine.stores[self._key]
            native.store_delete(pointer)

    def _raise(self, error: int | None, trap: int | None) -> None:
        failure = from_call(error, trap)
        cause, self.failure = self.failure, None
        if cause is not None:
            raise cause
        if failure.code is None and not failure.frames and "memory limit of the instance" in failure.text:
            raise QuotaExceeded("the function's memory does not fit what an instance may have or its tenant has left")
        raise CallFailed(failure)
