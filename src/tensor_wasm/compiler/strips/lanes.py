"""One lane after another: functions that run an instruction for each lane of a mask.

What has no vector form, and accesses whose lanes are not side by side, are functions of their own in the kernel's
module, so that the registers of the code around are free for vectors. Such a function gets the mask's bits, where the
strip is, and the instruction's operands: uniform ones and the first lane's of linear ones as parameters, others in a
buffer in the kernel's region, where it leaves varying results as well. Lanes run in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.contexts import LaneContext
from tensor_wasm.compiler.faults import push_thread_place
from tensor_wasm.compiler.frame import Frame, Ground
from tensor_wasm.compiler.shapes import OWN_VALUES, Shape
from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.compiler.strips.strip import LANE_BYTES, SCRATCH, is_double, push_lane, scalar_types, set_window
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES
from tensor_wasm.ptx.program import Address, Instruction, Operand, Register, ScalarType, Special
from tensor_wasm.wasm import Body, Function, Local, ValType

if TYPE_CHECKING:
    from tensor_wasm.compiler.strips.strip import Mask, Strip

I32, I64 = ValType.I32, ValType.I64

#: Writes an instruction for one thread.
Lower = Callable[[Frame, Instruction], None]


@dataclass(frozen=True, slots=True)
class _Operands:
    """The registers of an instruction by how a lane's function gets them."""

    uniform: tuple[Register, ...]
    linear: tuple[Register, ...]
    varying: tuple[Register, ...]


def run(
    strip: Strip,
    instruction: Instruction,
    mask: Mask,
    read: Sequence[Register],
    written: Sequence[Register],
    lower: Lower,
) -> None:
    """Call a function that lowers ``instruction`` for each lane of ``mask``.

    ``read`` and ``written`` are the registers it uses; where it is written for lanes that wait elsewhere too, those
    keep what they had.
    """
    body = strip.body
    instruction, specials = _name_specials(instruction)
    instruction, offset = _without_offset(instruction)
    several = dict.fromkeys(read)
    shapes = {register: strip.shape(register) for register in several}
    operands = _Operands(
        tuple(specials) + tuple(r for r, shape in shapes.items() if shape is Shape.UNIFORM),
        tuple(r for r, shape in shapes.items() if shape is Shape.LINEAR),
        tuple(r for r, shape in shapes.items() if shape is Shape.VARYING),
    )
    slots = {register: slot for slot, register in enumerate(dict.fromkeys((*operands.varying, *written)))}
    function = _function(strip, instruction, operands, slots, lower)
    for register in operands.varying:
        for number, local in enumerate(strip.vectors(register)):
            body.get(strip.ground.base)
            body.get(local)
            body.memory("v128.store", _offset(strip, slots[register]) + 16 * number, align=2, memory=SCRATCH)
    at = strip.first.coordinates
    for local in (mask.bits, at.thread, at.thread_index[0], strip.ground.shared_end, strip.ground.parameters):
        body.get(local)
    if offset is not None:
        body.i64_const(offset)
    for register in operands.uniform:
        special = specials.get(register)
        if special is None:
            strip.first.push_register(register)
        else:
            strip.first.push(special, register.type)
    for register in operands.linear:
        strip.push_scalars(register)
    body.call(function)
    for register in dict.fromkeys(written):
        blend = mask if register in strip.kept or mask is not strip.mask else None
        for number in range(len(strip.vectors(register))):
            body.get(strip.ground.base)
            body.memory("v128.load", _offset(strip, slots[register]) + 16 * number, align=2, memory=SCRATCH)
            strip.set_vector(register, number, blend)
        strip.find_bits(register)


def _name_specials(instruction: Instruction) -> tuple[Instruction, dict[Register, Special]]:
    """The instruction with special registers that are the same for all lanes as registers of a name."""
    found: dict[Register, Special] = {}
    sources: list[Operand] = []
    for operand in instruction.sources:
        is_same = (
            isinstance(operand, Special)
            and operand.name not in OWN_VALUES
            and (operand.name, operand.axis) != ("tid", "x")
        )
        if is_same and isinstance(operand, Special):
            register = Register(operand.name, operand.type, -1)
            found[register] = operand
            sources.append(register)
        else:
            sources.append(operand)
    return (replace(instruction, sources=tuple(sources)) if found else instruction), found


def _without_offset(instruction: Instruction) -> tuple[Instruction, int | None]:
    """An instruction with an address in a register without the offset from it, and that: one function does for all."""
    address = instruction.address
    if address is None or not isinstance(address.base, Register):
        return instruction, None
    return (replace(instruction, address=replace(address, offset=0)) if address.offset else instruction), address.offset


def _offset(strip: Strip, slot: int) -> int:
    return strip.parts.lanes + slot * strip.width * LANE_BYTES


def _function(
    strip: Strip, instruction: Instruction, operands: _Operands, slots: dict[Register, int], lower: Lower
) -> Function:
    """The function for an instruction, written once for all that are alike but for their registers."""
    names: dict[Register, object] = {}
    for group, registers in (("u", operands.uniform), ("l", operands.linear), ("v", tuple(slots))):
        for number, register in enumerate(registers):
            names[register] = (group, number, register.type, strip.shapes.line(register) if group == "l" else None)
    key = (
        lower,
        instruction.root,
        instruction.modifiers,
        instruction.types,
        tuple(names.get(d) if d is not None else None for d in instruction.destinations),
        tuple(names.get(s, s) if isinstance(s, Register) else s for s in instruction.sources),
        None
        if instruction.address is None
        else (
            names.get(instruction.address.base, instruction.address.base)
            if isinstance(instruction.address.base, Register)
            else instruction.address.base,
            instruction.address.offset,
        ),
        instruction.space,
        instruction.negated,
        # What a pseudo-instruction has besides.
        getattr(instruction, "suspension", None),
        getattr(instruction, "format", None),
    )
    found = strip.parts.lane_functions.get(key)
    if found is None:
        found = strip.parts.lane_functions[key] = _write(strip, instruction, operands, slots, lower)
    return found


def _write(
    strip: Strip, instruction: Instruction, operands: _Operands, slots: dict[Register, int], lower: Lower
) -> Function:
    parts = strip.parts
    kinds = [I32, I32, I32, I64, I32]
    base = None if instruction.address is None else instruction.address.base
    if isinstance(base, Register):
        kinds.append(I64)
    kinds += [carrier(register.type) for register in operands.uniform]
    for register in operands.linear:
        kinds += scalar_types(strip.shapes, register)
    function = parts.module.function(kinds, name=f"lanes_{instruction.root}")
    body = function.code
    rest, thread, x, shared_end, parameters, *given = function.parameters
    ground = Ground(body, parameters)
    ground.shared_end = shared_end
    ground.enter(body, parts.base, parts.variables, parts.layout)
    lane = body.local(I32)
    registers = LaneRegisters(strip, body, lane, slots)
    queue = iter(given)
    offset = next(queue) if isinstance(base, Register) else None
    for register in operands.uniform:
        registers.locals[register] = next(queue)
    lines = []
    for register in operands.linear:
        first = next(queue)
        line = strip.shapes.line(register)
        assert line is not None
        origin = next(queue) if line.is_wide else None
        registers.locals[register] = body.local(first.type)
        lines.append((register, line, first, origin))
    at = Coordinates(function, parts.clock, is_lane=True)
    at.thread, at.thread_index = body.local(I32), (body.local(I32), *at.thread_index[1:])
    frame = parts.frame(strip.first.kernel, body, at, ground, registers)
    if strip.context is not None:
        frame.context = LaneContext(strip.context.contexts, body.local(I32))
    body.get(rest)
    with body.if_(), body.loop() as again:
        body.get(rest)
        body.op("i32.ctz")
        body.set(lane)
        for start, own in ((thread, at.thread), (x, at.thread_index[0])):
            body.get(start)
            body.get(lane)
            body.op("i32.add")
            body.set(own)
        body.get(at.thread)
        push_thread_place(body)
        body.global_set(parts.place_global)
        registers.enter(ground.base)
        for register, line, first, origin in lines:
            push_lane(body, line, first, origin, lane)
            body.set(registers.locals[register])
        _enter_own_memory(strip, frame, ground, lane)
        if offset is not None:
            assert isinstance(base, Register)
            instruction = _at_offset(body, registers, instruction, base, offset)
        lower(frame, instruction)
        body.get(rest)
        body.i32_const(1)
        body.op("i32.sub")
        body.get(rest)
        body.op("i32.and")
        body.tee(rest)
        body.br_if(again)
    return function


def _at_offset(
    body: Body, registers: LaneRegisters, instruction: Instruction, base: Register, offset: Local
) -> Instruction:
    """The instruction with its address and the offset in one register."""
    address = Register("address", ScalarType.B64, -1)
    registers.locals[address] = body.local(I64)
    registers.push(body, base)
    if not is_double(base.type):
        body.op("i64.extend_i32_u")
    memory.widen(body, base, instruction.space)
    body.get(offset)
    body.op("i64.add")
    body.set(registers.locals[address])
    return replace(instruction, address=Address(address, 0))


def _enter_own_memory(strip: Strip, frame: Frame, ground: Ground, lane: Local) -> None:
    """Point to the lane's local variables and mailbox."""
    body = frame.body
    local_bytes = strip.parts.layout.local_bytes
    if local_bytes:
        body.get(ground.base)
        body.get(lane if strip.context is None else frame.coordinates.thread)
        body.i32_const(local_bytes)
        body.op("i32.mul", "i32.add")
        body.set(frame.local_base)
        set_window(body, frame)
    if frame.context is not None:
        body.get(ground.base)
        body.get(frame.coordinates.thread)
        body.i32_const(MAILBOX_BYTES)
        body.op("i32.mul", "i32.add")
        body.set(frame.context.mailbox)


class LaneRegisters:
    """The registers of one lane: those in ``locals``, and others in the buffer."""

    def __init__(self, strip: Strip, body: Body, lane: Local, slots: dict[Register, int]) -> None:
        self.locals: dict[Register, Local] = {}
        self._strip = strip
        self._body = body
        self._lane = lane
        self._slots = slots
        self._narrow = body.local(I32)
        self._wide = body.local(I32)

    def enter(self, base: Local) -> None:
        """Point to the lane."""
        body = self._body
        for local, shift in ((self._narrow, 2), (self._wide, 3)):
            body.get(base)
            body.get(self._lane)
            body.i32_const(shift)
            body.op("i32.shl", "i32.add")
            body.set(local)

    def push(self, body: Body, register: Register) -> None:
        """Push a register's value."""
        own = self.locals.get(register)
        if own is not None:
            body.get(own)
            return
        kind = carrier(register.type)
        body.get(self._wide if is_double(register.type) else self._narrow)
        body.memory(f"{kind.name.lower()}.load", _offset(self._strip, self._slots[register]), memory=SCRATCH)
        if register.type is ScalarType.PRED:
            body.i32_const(1)
            body.op("i32.and")

    def pop(self, body: Body, register: Register) -> None:
        """Pop a value into a register."""
        kind = carrier(register.type)
        value = body.local(kind)
        if register.type is ScalarType.PRED:
            body.set(value)
            body.i32_const(0)
            body.get(value)
            body.op("i32.sub")
        body.set(value)
        body.get(self._wide if is_double(register.type) else self._narrow)
        body.get(value)
        body.memory(f"{kind.name.lower()}.store", _offset(self._strip, self._slots[register]), memory=SCRATCH)
        body.release(value)
