"""Loads and stores.

Guest memory is memory 0, and an address in it has a high half of 0. One test on the fast path, of the high half and
the low bits together, refuses every other address and every misaligned one; the end of guest memory is left to
WebAssembly's own bounds (guard pages), and what the host has opened behind it is reached as well. Where the kernel
makes windowed addresses (see :mod:`.region`), what fails that test is tried as one of them. A windowed address is
checked against the kernel's own region, because the scratch memory around it belongs to the gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.region import SHARED_WINDOW, WINDOW
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, Kernel, Parameter, Register, ScalarType, Space, Variable
from tensor_wasm.wasm import Body, Local, ValType

_GUEST, _SCRATCH = 0, 1
_HIGH_HALF = 0xFFFFFFFF_00000000
_WRITERS = ("st", "atom", "red")
#: Spaces whose variables may be addressed in 32 bits: the lower half of the windowed address.
_NARROWED = (Space.LOCAL, Space.CONST)

#: What 32-bit addresses reach.
GUEST_END = 1 << 32

#: Parameters beyond this many are read from memory at each use instead of once a launch.
PARAMETER_LOCALS_MAX = 64


class Place(NamedTuple):
    """Where in a memory: an i32 address in a local, plus a constant number of bytes."""

    memory: int
    base: Local
    offset: int = 0

    def after(self, size_bytes: int) -> Place:
        """The place ``size_bytes`` further."""
        return self._replace(offset=self.offset + size_bytes)


@dataclass(frozen=True, slots=True)
class _Access:
    """An access of ``size_bytes`` to the i64 ``address``; ``move`` writes the loads or stores themselves."""

    frame: Frame
    address: Local
    size_bytes: int
    move: Callable[[Place], None]


def load(frame: Frame, instruction: Instruction) -> None:
    """Lower ``ld`` and ``ldu``; a load that its guard turns off leaves its registers."""
    kind = instruction.type

    def move(place: Place) -> None:
        for position, register in enumerate(instruction.destinations):
            if register is not None:
                push_loaded(frame, kind, place.after(position * kind.size_bytes))
                frame.keep(register, kind)

    with frame.guarded(instruction.guard):
        if not push_parameters(frame, instruction, lambda register: frame.keep(register, kind)):
            reach(frame, instruction, len(instruction.destinations), move)


def store(frame: Frame, instruction: Instruction) -> None:
    """Lower ``st``."""
    address = instruction.address
    if instruction.space is Space.PARAM or (address is not None and isinstance(address.base, Parameter)):
        raise PtxError("a kernel's parameters cannot be written", instruction.line, instruction.column)

    def move(place: Place) -> None:
        for position in range(len(instruction.sources)):
            _store(frame, instruction, position, place.after(position * instruction.type.size_bytes))

    with frame.guarded(instruction.guard):
        reach(frame, instruction, len(instruction.sources), move)


def read_parameters(frame: Frame, kernel: Kernel) -> None:
    """Read the parameters that the kernel loads at constant places into locals, once a launch."""
    body = frame.body
    for block in kernel.blocks:
        for instruction in block.instructions:
            for place in _parameter_places(kernel, instruction):
                if place in frame.ground.parameter_values:
                    continue
                if len(frame.ground.parameter_values) >= PARAMETER_LOCALS_MAX:
                    return
                local = frame.ground.parameter_values[place] = body.local(carrier(place[1]))
                push_loaded(frame, place[1], Place(_SCRATCH, frame.ground.parameters, place[0]))
                body.set(local)


def _parameter_places(kernel: Kernel, instruction: Instruction) -> list[tuple[int, ScalarType]]:
    """Offsets in the parameter block that a load reads, where they are known; else nothing."""
    address = instruction.address
    if address is None or instruction.root not in ("ld", "ldu") or not isinstance(address.base, Parameter):
        return []
    kind = instruction.type
    start = address.base.offset + address.offset
    total = kind.size_bytes * len(instruction.destinations)
    if not 0 <= start <= kernel.parameter_bytes - total:
        text = f"{instruction.text} reads outside the kernel's parameters"
        raise PtxError(text, instruction.line, instruction.column)
    return [(start + position * kind.size_bytes, kind) for position in range(len(instruction.destinations))]


def push_parameters(frame: Frame, instruction: Instruction, keep: Callable[[Register], None]) -> bool:
    """Push parameters that are loaded from a constant place, ``keep`` after each; false when it is no such load."""
    places = _parameter_places(frame.kernel, instruction)
    for place, register in zip(places, instruction.destinations, strict=bool(places)):
        if register is None:
            continue
        local = frame.ground.parameter_values.get(place)
        if local is None:
            push_loaded(frame, place[1], Place(_SCRATCH, frame.ground.parameters, place[0]))
        else:
            frame.body.get(local)
        keep(register)
    return bool(places)


def reach(frame: Frame, instruction: Instruction, count: int, move: Callable[[Place], None]) -> None:
    """Check the address of an instruction that moves ``count`` elements, and write ``move`` for where it leads.

    ``move`` may be written several times, once for each memory that the address may lead to.
    """
    total = instruction.type.size_bytes * count
    address = instruction.address
    assert address is not None
    if total & (total - 1):
        text = f"{instruction.text} moves {total} bytes, which is no power of two"
        raise PtxError(text, instruction.line, instruction.column)
    if isinstance(address.base, Variable) and _is_inside(frame, address.base, address.offset, total):
        move(Place(_SCRATCH, frame.base_of(address.base), frame.region.offsets[address.base] + address.offset))
        return
    with frame.temporary(ValType.I64) as local:
        push_address(frame, instruction)
        frame.body.set(local)
        _go(_Access(frame, local, total, move), instruction)


def reach_at(frame: Frame, instruction: Instruction, address: Local, move: Callable[[Place], None]) -> None:
    """As :func:`reach`, for one element at an address that an i64 local holds; the local may be changed."""
    _go(_Access(frame, address, instruction.type.size_bytes, move), instruction)


def _go(access: _Access, instruction: Instruction) -> None:
    match instruction.space:
        case Space.LOCAL:
            _to_own(access)
        case Space.CONST:
            _to_statics(access)
        case Space.PARAM:
            _to_parameters(access)
        case Space.SHARED:
            _to_shared(access)
        case _:
            _to_guest(access, is_load=instruction.root not in _WRITERS)


def _is_inside(frame: Frame, variable: Variable, offset: int, total: int) -> bool:
    """Whether an access at a constant place in a variable can be made without a check."""
    region = frame.region
    place = region.offsets[variable] + offset
    start, end = region.bounds.get(variable.space, (0, region.shared_bytes))
    if variable.space is Space.LOCAL:
        end = start + region.local_bytes
    return start <= place <= end - total and place % total == 0


def push_address(frame: Frame, instruction: Instruction) -> None:
    """Push an instruction's address as an i64."""
    body, address = frame.body, instruction.address
    assert address is not None
    offset = address.offset
    match address.base:
        case None:
            body.i64_const(offset)
            return
        case Register():
            frame.push(address.base, ScalarType.U64)
            widen(body, address.base, instruction.space)
        case Variable():
            frame.push_variable(address.base, offset)
            return
        case Parameter():
            body.get(frame.ground.parameter_window)
            offset += address.base.offset
    if offset:
        body.i64_const(offset)
        body.op("i64.add")


def widen(body: Body, base: Register, space: Space | None) -> None:
    """Make the windowed address on the stack whole again where the register ``base`` has its lower half only."""
    if base.type.bits == 32 and space in _NARROWED:
        body.i64_const(WINDOW)
        body.op("i64.or")


def _to_guest(access: _Access, *, is_load: bool) -> None:
    """Guest memory; failing that, the windows the kernel has."""
    frame, body, region = access.frame, access.frame.body, access.frame.region
    has_parameters = region.has_parameter_addresses and is_load
    body.get(access.address)
    body.i64_const(_HIGH_HALF | (access.size_bytes - 1))
    body.op("i64.and")
    if not region.has_addresses and not has_parameters and not region.has_shared_addresses:
        body.i64_const(0)
        body.op("i64.ne")
        with body.if_():
            body.get(access.address)
            frame.faults.guest_address(body)
        _move_at(access, _GUEST)
        return
    body.op("i64.eqz")
    with body.if_():
        _move_at(access, _GUEST)
        body.else_()
        if region.has_shared_addresses:
            _if_in_shared_window(access)
            with body.if_():
                _to_shared(_offset_in_shared(access))
                body.else_()
                _to_windows(access, has_parameters=has_parameters)
        else:
            _to_windows(access, has_parameters=has_parameters)


def _if_in_shared_window(access: _Access) -> None:
    """Push whether the address is a generic one of shared memory."""
    body = access.frame.body
    body.get(access.address)
    body.i64_const(32)
    body.op("i64.shr_u")
    body.i64_const(SHARED_WINDOW >> 32)
    body.op("i64.eq")


def _offset_in_shared(access: _Access) -> _Access:
    """The access with a generic address of shared memory turned into the offset."""
    body = access.frame.body
    body.get(access.address)
    body.i64_const(SHARED_WINDOW - 1)
    body.op("i64.and")
    body.set(access.address)
    return access


def _to_windows(access: _Access, *, has_parameters: bool) -> None:
    """An address that is not the guest's: a windowed one, or a fault."""
    frame, body = access.frame, access.frame.body
    # A high half of 0 is a misaligned guest address, which no window takes: say so.
    body.get(access.address)
    body.i64_const(32)
    body.op("i64.shr_u", "i64.eqz")
    with body.if_():
        body.get(access.address)
        frame.faults.guest_address(body)
    if has_parameters:
        _to_parameters(access, otherwise=_to_region)
    else:
        _to_region(access)


def _to_shared(access: _Access) -> None:
    """Shared memory, by the offset in it. Its end depends on the launch."""
    frame, body = access.frame, access.frame.body
    shift = access.size_bytes.bit_length() - 1
    # Counted in elements, an offset that is not a multiple of the size is larger than any number of them.
    body.get(access.address)
    if shift:
        body.i64_const(shift)
        body.op("i64.rotr")
    body.get(frame.ground.shared_end)
    if shift:
        body.i64_const(shift)
        body.op("i64.shr_u")
    body.op("i64.ge_u")
    with body.if_():
        body.get(access.address)
        body.i64_const(1)
        body.op("i64.add")
        body.get(frame.ground.shared_end)
        if shift:  # an element that goes past the end is out of bounds, however it is aligned
            body.i64_const(-access.size_bytes)
            body.op("i64.and")
        frame.faults.window_address(body)
    with frame.temporary(ValType.I32) as base:
        body.get(access.address)
        body.op("i32.wrap_i64")
        body.get(frame.ground.shared_base)
        body.op("i32.add")
        body.set(base)
        access.move(Place(_SCRATCH, base))


def _to_region(access: _Access) -> None:
    """The kernel's own variables: those of the thread, or of all."""
    if access.frame.region.local_bytes:
        _to_own(access, otherwise=_to_statics)
    else:
        _to_statics(access)


def _to_own(access: _Access, otherwise: Callable[[_Access], None] | None = None) -> None:
    """The thread's local variables; where the address is not in them, ``otherwise`` or a fault."""
    frame, region = access.frame, access.frame.region
    start, _ = region.bounds[Space.LOCAL]
    _to_window(access, frame.local_window, region.local_bytes, otherwise, offset=start)


def _to_statics(access: _Access) -> None:
    """Global variables and constants: what lies before local memory."""
    start, _ = access.frame.region.bounds[Space.LOCAL]
    _to_window(access, access.frame.ground.window, start)


def _to_parameters(access: _Access, otherwise: Callable[[_Access], None] | None = None) -> None:
    """The parameter block; where the address is not in it, ``otherwise`` or a fault."""
    _to_window(access, access.frame.ground.parameter_window, access.frame.kernel.parameter_bytes, otherwise)


def _to_window(
    access: _Access,
    start: Local,
    size_bytes: int,
    otherwise: Callable[[_Access], None] | None = None,
    *,
    offset: int = 0,
) -> None:
    """The ``size_bytes`` from ``offset`` after the windowed address ``start``; elsewhere ``otherwise``, or a fault."""
    frame, body = access.frame, access.frame.body
    last = size_bytes - access.size_bytes
    if last < 0:
        if otherwise is not None:
            otherwise(access)
        else:
            body.i64_const(-1)
            body.i64_const(0)
            frame.faults.window_address(body)
        return
    shift = access.size_bytes.bit_length() - 1
    with frame.temporary(ValType.I64) as place:
        body.get(access.address)
        body.get(start)
        body.op("i64.sub")
        if offset:
            body.i64_const(offset)
            body.op("i64.sub")
        body.tee(place)
        # Rotated right, an offset that is not a multiple of the size is larger than any that is: one test does.
        if shift:
            body.i64_const(shift)
            body.op("i64.rotr")
        body.i64_const(last >> shift)
        body.op("i64.gt_u")
        with body.if_():
            if otherwise is None:
                body.get(place)
                body.i64_const(last)
                frame.faults.window_address(body)
            else:
                body.get(place)
                body.i64_const(last)
                body.op("i64.le_u")
                with body.if_():  # inside, but misaligned
                    body.get(place)
                    body.i64_const(last)
                    frame.faults.window_address(body)
                otherwise(access)
                body.else_()
                _move_at(access, _SCRATCH)
    if otherwise is None:
        _move_at(access, _SCRATCH)


def _move_at(access: _Access, memory: int) -> None:
    """Move the elements from or to ``memory``, at the low half of the address."""
    with access.frame.temporary(ValType.I32) as base:
        access.frame.body.get(access.address)
        access.frame.body.op("i32.wrap_i64")
        access.frame.body.set(base)
        access.move(Place(memory, base))


def push_loaded(frame: Frame, kind: ScalarType, place: Place) -> None:
    """Push a canonical value of ``kind`` from memory."""
    frame.body.get(place.base)
    letter = "s" if kind.is_signed else "u"
    name = f"{carrier(kind).name.lower()}.load"
    if kind.bits < 32:
        name += f"{kind.bits}_{letter}"
    frame.body.memory(name, place.offset, memory=place.memory)


def _store(frame: Frame, instruction: Instruction, position: int, place: Place) -> None:
    """Store source ``position``, cut to the instruction's type."""
    body = frame.body
    kind = instruction.type
    source = instruction.sources[position]
    carried = carrier(kind)
    body.get(place.base)
    if isinstance(source, Register) and kind.bits < 32 and carrier(source.type) in (ValType.I32, ValType.I64):
        # The narrow stores cut by themselves.
        carried = carrier(source.type)
        frame.push_register(source)
    else:
        frame.push(source, kind)
    body.memory(store_name(carried, kind), place.offset, memory=place.memory)


def store_name(carried: ValType, kind: ScalarType) -> str:
    """The store of a value of ``kind`` in a carrier."""
    return f"{carried.name.lower()}.store" + (str(kind.bits) if kind.bits < 32 else "")
