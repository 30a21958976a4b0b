"""What the code of one kernel function works with: its locals, and operands to and from the WebAssembly stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from tensor_wasm.compiler.carriers import carrier, convert, kept_form, store_form
from tensor_wasm.compiler.contexts import LaneContext
from tensor_wasm.compiler.faults import Faults
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.region import WINDOW, Region
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.ptx.program import (
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Variable,
)
from tensor_wasm.wasm import Body, Global, Local, ValType


class RegisterFile(Protocol):
    """Where registers live: values go to and from the stack in the carrier of the register's type."""

    def push(self, body: Body, register: Register) -> None:
        """Push a register's value."""

    def pop(self, body: Body, register: Register) -> None:
        """Pop a value into a register."""


class Locals:
    """Registers in WebAssembly locals."""

    __slots__ = ("_locals",)

    def __init__(self, locals_: Mapping[Register, Local]) -> None:
        self._locals = locals_

    def push(self, body: Body, register: Register) -> None:
        """Push a register's value."""
        body.get(self._locals[register])

    def pop(self, body: Body, register: Register) -> None:
        """Pop a value into a register."""
        body.set(self._locals[register])


class Ground:
    """Locals of a kernel function that hold what is the same for all threads of a launch.

    ``base`` is where this core's region starts, ``variables`` the one whose variables all cores use; ``window`` and
    ``parameter_window`` are the windowed addresses of the latter and of the parameter block; ``parameters`` the block's
    own address; ``shared_base`` is the address of shared memory, ``shared_end`` its size in this launch.
    ``parameter_values`` are parameters that were read at the start, by (offset, type).
    """

    def __init__(self, body: Body, parameters: Local) -> None:
        self.parameters = parameters
        self.base = body.local(ValType.I32)
        self.variables = body.local(ValType.I32)
        self.window = body.local(ValType.I64)
        self.parameter_window = body.local(ValType.I64)
        self.shared_base = body.local(ValType.I32)
        self.shared_end = body.local(ValType.I64)
        self.parameter_values: dict[tuple[int, ScalarType], Local] = {}

    def enter(self, body: Body, base: Global, variables: Global, region: Region) -> None:
        """Set what follows from where the regions are."""
        body.global_get(base)
        body.set(self.base)
        body.global_get(variables)
        body.set(self.variables)
        for low, window in ((self.variables, self.window), (self.parameters, self.parameter_window)):
            push_windowed(body, low)
            body.set(window)
        body.get(self.base)
        body.i32_const(region.variable_bytes)
        body.op("i32.add")
        body.set(self.shared_base)


def push_windowed(body: Body, address: Local) -> None:
    """Push an i32 address in scratch memory as one in the window that generic addresses see it through."""
    body.get(address)
    body.op("i64.extend_i32_u")
    body.i64_const(WINDOW)
    body.op("i64.or")


class Frame:
    """One thread of a kernel function while its code is written: its registers, its place, its own memory.

    ``local_base`` and ``local_window`` are the region's start
    as the thread's local variables see it. ``context`` is where a thread leaves what it needs while it waits; None in a
    kernel where none does.
    """

    def __init__(
        self,
        kernel: Kernel,
        body: Body,
        *,
        ground: Ground,
        registers: RegisterFile,
        region: Region,
        coordinates: Coordinates,
        library: Library,
        faults: Faults,
        local_base: Local,
        local_window: Local,
        context: LaneContext | None = None,
    ) -> None:
        self.kernel = kernel
        self.body = body
        self.ground = ground
        self.region = region
        self.coordinates = coordinates
        self.library = library
        self.faults = faults
        self.local_base = local_base
        self.local_window = local_window
        self.context = context
        self._registers = registers

    def push(self, operand: Operand, kind: ScalarType, *, negated: bool = False) -> None:
        """Push an operand as a canonical value of ``kind``; a predicate inverted where ``negated``."""
        match operand:
            case Register():
                self._registers.push(self.body, operand)
                convert(self.body, kept_form(operand.type), kind)
            case Immediate():
                self._constant(operand, kind)
            case Special():
                self.coordinates.push(self.body, operand)
                convert(self.body, operand.type, kind)
            case Symbol():
                self.push_symbol(operand)
                convert(self.body, ScalarType.U64, kind)
        if negated:
            self.body.op("i32.eqz")

    def push_source(self, instruction: Instruction, position: int, kind: ScalarType) -> None:
        """Push source ``position`` of an instruction as ``kind``."""
        self.push(instruction.sources[position], kind, negated=position in instruction.negated)

    def push_symbol(self, symbol: Symbol) -> None:
        """Push the address of a variable or parameter, as an i64."""
        if isinstance(symbol.target, Parameter):
            self.body.get(self.ground.parameter_window)
            offset = symbol.target.offset + symbol.offset
        else:
            self.push_variable(symbol.target, symbol.offset)
            return
        if offset:
            self.body.i64_const(offset)
            self.body.op("i64.add")

    def push_variable(self, variable: Variable, offset: int) -> None:
        """Push the address of a place in a variable, as an i64: windowed, but for shared memory."""
        offset += self.region.offsets[variable]
        if variable.space is Space.SHARED:
            self.body.i64_const(offset)
            return
        self.body.get(self.local_window if variable.space is Space.LOCAL else self.ground.window)
        if offset:
            self.body.i64_const(offset)
            self.body.op("i64.add")

    def base_of(self, variable: Variable) -> Local:
        """What a variable's offset counts from."""
        return {Space.LOCAL: self.local_base, Space.SHARED: self.ground.shared_base}.get(
            variable.space, self.ground.variables
        )

    def keep(self, register: Register, kind: ScalarType) -> None:
        """Pop a canonical value of ``kind`` into a register."""
        convert(self.body, kind, kept_form(register.type))
        self._registers.pop(self.body, register)

    def store(self, register: Register | None, kind: ScalarType) -> None:
        """Pop a result of type ``kind``, with anything above its bits, into a register (None: drop it)."""
        if register is None:
            self.body.op("drop")
            return
        store_form(self.body, kind, register.type)
        self._registers.pop(self.body, register)

    def store_where(self, guard: Guard | None, register: Register, kind: ScalarType) -> None:
        """As :meth:`store`, but where ``guard`` does not hold the register keeps its value. Without a branch."""
        store_form(self.body, kind, register.type)
        if guard is not None:
            self._registers.push(self.body, register)
            self.push_guard(guard)
            self.body.op("select")
        self._registers.pop(self.body, register)

    def push_register(self, register: Register) -> None:
        """Push a register as it is kept."""
        self._registers.push(self.body, register)

    def pop_register(self, register: Register) -> None:
        """Pop a value in the register's own kept form."""
        self._registers.pop(self.body, register)

    def push_guard(self, guard: Guard) -> None:
        """Push whether a guard holds."""
        self._registers.push(self.body, guard.register)
        if guard.negated:
            self.body.op("i32.eqz")

    @contextmanager
    def guarded(self, guard: Guard | None) -> Iterator[None]:
        """Run the code written inside only where ``guard`` holds."""
        if guard is None:
            yield
            return
        self.push_guard(guard)
        with self.body.if_():
            yield

    @contextmanager
    def temporary(self, kind: ValType) -> Iterator[Local]:
        """A local for the code written inside."""
        local = self.body.local(kind)
        yield local
        self.body.release(local)

    def _constant(self, operand: Immediate, kind: ScalarType) -> None:
        bits = operand.bits
        if operand.type.is_signed and bits >> (operand.type.bits - 1):
            bits -= 1 << operand.type.bits
        bits &= (1 << kind.bits) - 1
        if kind.is_signed and kind.bits < 32 and bits >> (kind.bits - 1):
            bits -= 1 << kind.bits
        match carrier(kind):
            case ValType.F32:
                self.body.f32_bits(bits)
            case ValType.F64:
                self.body.f64_bits(bits)
            case ValType.I64:
                self.body.i64_const(bits)
            case _:
                self.body.i32_const(bits)
