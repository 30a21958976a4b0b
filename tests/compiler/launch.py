"""Runs compiled kernels on NumPy arrays that are placed in a guest memory. For tests only."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensor_wasm.compiler import CompiledKernel, faulting_thread
from tensor_wasm.device.fault import fault_address
from tensor_wasm.runtime import Budget, CallFailed, Engine, Failure, Instance, Store
from tensor_wasm.runtime import Module as Code
from tensor_wasm.runtime import bindings as native
from tensor_wasm.wasm import Module, ValType

PARAMETERS_AT = 1024
ARRAYS_AT = 4096
_PAGE = 65_536
_CANARY = 0xA5
#: Modules that are kept to be launched again.
_MODULES_MAX = 200

Axes = tuple[int, int, int]


class LaunchFault(Exception):
    """A launch that trapped: what the kernel's exports say, and the PTX line its line table gives."""

    def __init__(self, failure: Failure, fault: int, thread: int, block: Axes, line: int, stuck_line: int = 0) -> None:
        self.stuck_line = stuck_line
        self.failure = failure
        self.fault = fault
        self.thread = thread
        self.block = block
        self.line = line
        super().__init__(f"{failure.text}: fault {fault}, thread {thread}, block {block}, line {line}")


def line_at(kernel: CompiledKernel, offset: int) -> int:
    """The PTX line of a place in the kernel's module, 0 for none."""
    line = 0
    for start, number in kernel.lines:
        if start > offset:
            break
        line = number
    return line


def axes(value: int | tuple[int, ...]) -> Axes:
    """Three axes from one to three."""
    given = (value,) if isinstance(value, int) else value
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z


@dataclass
class Prepared:
    """A kernel's instance with its arguments in place: ``call()`` launches it, as often as wanted."""

    store: Store
    kernel: CompiledKernel
    host: Instance
    instance: Instance
    values: tuple[int, ...]
    placed: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def call(self) -> None:
        """One launch."""
        try:
            self.store.call(self.instance.function("run"), ("i32",) * 8, self.values, ())
        except CallFailed as error:
            raise self._fault(error.failure) from None

    def memory(self, name: str) -> memoryview:
        """Guest memory (``memory``) or scratch memory (``scratch``)."""
        return self.store.memory_view(self.host.memory(name))

    def global_value(self, name: str) -> int:
        """An exported global of the kernel, an integer."""
        extern = self.instance.extern(name)
        assert extern is not None, name
        value = native.Value()
        native.global_get(self.store.context, ctypes.byref(extern.of.global_), ctypes.byref(value))
        number: int = value.of.i64 if value.kind == native.VALUE_I64 else value.of.i32
        return number

    def copy_back(self) -> None:
        """Write what the kernel did to the arrays into them."""
        view = self.memory("memory")
        for array, address in self.placed:
            data = np.frombuffer(view[address : address + array.nbytes], dtype=array.dtype)
            if array.flags.writeable:
                array[...] = data.reshape(array.shape)
            else:
                assert (array.reshape(-1) == data).all(), "a read-only argument was written"

    def _fault(self, failure: Failure) -> LaunchFault:
        lines = [line_at(self.kernel, frame.module_offset) for frame in failure.frames]
        line = next((line for line in lines if line), 0)
        stuck_line = 0 if self.instance.extern("line") is None else self.global_value("line")
        address = fault_address(failure.message)
        block, thread = faulting_thread(self.global_value, axes(self.values[3:6]), address, line, self.kernel.sites)
        return LaunchFault(failure, self.global_value("fault"), thread, block, line, stuck_line)


class Machine:
    """What kernels need around them; each launch has a store of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._modules: dict[bytes, Code] = {}

    def run(
        self,
        kernel: CompiledKernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared_bytes: int = 0,
        guest_pages: int | None = None,
    ) -> Prepared:
        """Launch a kernel once. An array argument is a pointer to its bytes, and holds what the kernel wrote to it.

        Other arguments: numbers, NumPy scalars, or bytes for a struct by value; a number for a pointer is an address.
        Guest memory is as large as the arrays need unless ``guest_pages`` says otherwise. Raises
        :class:`LaunchFault`. The scratch memory around the kernel's region must be untouched.
        """
        prepared = self.prepare(kernel, grid, block, *arguments, shared_bytes=shared_bytes, guest_pages=guest_pages)
        try:
            prepared.call()
            prepared.copy_back()
        finally:
            scratch = np.frombuffer(prepared.memory("scratch"), dtype=np.uint8)
            base = _region_base(kernel)
            parameters_end = PARAMETERS_AT + kernel.parameter_bytes
            assert (scratch[:PARAMETERS_AT] == _CANARY).all(), "written below the parameters"
            assert (scratch[parameters_end:base] == _CANARY).all(), "written below the region"
            assert (scratch[base + kernel.work_bytes :] == _CANARY).all(), "written past the region"
            prepared.store.close()
        return prepared

    def prepare(
        self,
        kernel: CompiledKernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared_bytes: int = 0,
        guest_pages: int | None = None,
    ) -> Prepared:
        """As :meth:`run`, up to the launch. The caller closes the store."""
        if len(arguments) != len(kernel.parameters):
            raise ValueError(f"{kernel.name} takes {len(kernel.parameters)} arguments, not {len(arguments)}")
        placed, end = self.place(kernel, arguments)
        packed = _pack(kernel, arguments, iter(placed))
        base = _region_base(kernel)
        store = Store(self._engine, Budget(1 << 32))
        pages = -(-end // _PAGE) if guest_pages is None else guest_pages
        host = store.instantiate(self._code(_host(pages, -(-(base + kernel.work_bytes) // _PAGE) + 1, base)), ())
        scratch = store.memory_view(host.memory("scratch"))
        scratch[:base] = bytes([_CANARY]) * base
        rest = len(scratch) - base - kernel.work_bytes
        scratch[len(scratch) - rest :] = bytes([_CANARY]) * rest
        scratch[PARAMETERS_AT : PARAMETERS_AT + len(packed)] = packed
        memory = store.memory_view(host.memory("memory"))
        self.fill(kernel, memory)
        for array, address in placed:
            memory[address : address + array.nbytes] = np.ascontiguousarray(array).tobytes()
        externs = [host.extern(name) for name in ("memory", "scratch", "base", "base")]
        instance = store.instantiate(self._code(kernel.wasm), externs)
        values = (*axes(grid), *axes(block), shared_bytes, PARAMETERS_AT)
        return Prepared(store, kernel, host, instance, values, placed)

    def place(self, kernel: CompiledKernel, arguments: tuple[Any, ...]) -> tuple[list[tuple[np.ndarray, int]], int]:
        """Array arguments with their addresses, and the end of guest memory that they need."""
        del kernel
        return _place(arguments)

    def fill(self, kernel: CompiledKernel, memory: memoryview) -> None:
        """Guest memory before arrays are put there: zeros."""

    def _code(self, wasm: bytes) -> Code:
        code = self._modules.get(wasm)
        if code is None:
            if len(self._modules) >= _MODULES_MAX:
                self._modules.clear()
            code = self._modules[wasm] = self._engine.compile(wasm)
        return code


def _region_base(kernel: CompiledKernel) -> int:
    return -(-(PARAMETERS_AT + kernel.parameter_bytes + 64) // 16) * 16


def _host(guest_pages: int, scratch_pages: int, base: int) -> bytes:
    module = Module()
    module.memory(guest_pages, export="memory")
    module.memory(scratch_pages, export="scratch")
    module.global_(ValType.I32, base, mutable=False, export="base")
    return module.encode().wasm


def _place(arguments: tuple[Any, ...]) -> tuple[list[tuple[np.ndarray, int]], int]:
    """Array arguments with their addresses, and the end of the last."""
    placed = []
    place = ARRAYS_AT
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            placed.append((argument, place))
            place = -(-(place + argument.nbytes) // 256) * 256
    return placed, place


def _pack(kernel: CompiledKernel, arguments: tuple[Any, ...], placed: Any) -> bytes:
    packed = bytearray(kernel.parameter_bytes)
    for parameter, argument in zip(kernel.parameters, arguments, strict=True):
        if isinstance(argument, np.ndarray):
            data = next(placed)[1].to_bytes(8, "little")
        elif isinstance(argument, np.generic):
            data = argument.tobytes()
        elif isinstance(argument, float):
            data = {4: np.float32, 8: np.float64}[parameter.size_bytes](argument).tobytes()
        elif isinstance(argument, int):
            data = (argument % (1 << 8 * parameter.size_bytes)).to_bytes(parameter.size_bytes, "little")
        else:
            data = bytes(argument)
        if len(data) != parameter.size_bytes:
            raise ValueError(f"{parameter.name} is {parameter.kind}, not {len(data)} bytes")
        packed[parameter.offset : parameter.offset + len(data)] = data
    return bytes(packed)
