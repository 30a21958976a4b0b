"""Memory operations that are more than a load or a store: ``atom`` and ``red``, ``cp.async``, rows for ``ldmatrix``."""

from __future__ import annotations

from dataclasses import replace

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.memory import Place
from tensor_wasm.compiler.values.updates import update as update_value
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Address, Immediate, Instruction, Register, ScalarType, Space, Symbol
from tensor_wasm.wasm import Local, ValType

#: Elements of 16 bits in a row that a lane loads for ``ldmatrix``.
_ROW_ELEMENTS = 8

#: What ``cp.async`` can copy at a time: bytes, and the elements that are moved.
_COPIES = {4: (ScalarType.U32, 1), 8: (ScalarType.U64, 1), 16: (ScalarType.U64, 2)}


def update(frame: Frame, instruction: Instruction) -> None:
    """Lower ``atom`` and ``red``. One thread runs at a time, so a load and a store are as good as one access."""
    kind = instruction.type

    def push(position: int, as_type: ScalarType) -> None:
        frame.push_source(instruction, position, as_type)

    def move(place: Place) -> None:
        with frame.temporary(carrier(kind)) as old:
            memory.push_loaded(frame, kind, place)
            frame.body.set(old)
            frame.body.get(place.base)
            update_value(frame.body, instruction, lambda: frame.body.get(old), push, frame.library)
            frame.body.memory(memory.store_name(carrier(kind), kind), place.offset, memory=place.memory)
            for register in instruction.destinations:
                if register is not None:
                    frame.body.get(old)
                    frame.keep(register, kind)

    with frame.guarded(instruction.guard):
        memory.reach(frame, instruction, 1, move)


def load_row(frame: Frame, instruction: Instruction) -> tuple[Local, Local]:
    """Load the 16 bytes that an instruction addresses into two i64 locals, the caller's to release."""
    halves = (frame.body.local(ValType.I64), frame.body.local(ValType.I64))

    def move(place: Place) -> None:
        for number, half in enumerate(halves):
            frame.body.get(place.base)
            frame.body.memory("i64.load", place.offset + 8 * number, memory=place.memory)
            frame.body.set(half)

    memory.reach(frame, instruction, _ROW_ELEMENTS, move)
    return halves


# --- cp.async ----------------------------------------------------------------------------------------------


def copy(frame: Frame, instruction: Instruction) -> None:
    """Lower ``cp.async``: the copy is done at once, so there is nothing to commit or to wait for.

    Sources are the address that is read (base, offset), the bytes to write, and how many of them to read: the rest
    is zero.
    """
    if instruction.address is None:
        return
    base, offset, size, *read = instruction.sources
    if not isinstance(size, Immediate) or size.bits not in _COPIES or not isinstance(offset, Immediate):
        raise PtxError("cp.async copies 4, 8 or 16 bytes", instruction.line, instruction.column)
    kind, count = _COPIES[size.bits]
    parts = [frame.body.local(carrier(kind)) for _ in range(count)]
    source = replace(
        instruction, root="ld", types=(kind,), address=_address(base, offset), space=Space.GLOBAL, sources=()
    )
    with frame.guarded(instruction.guard):
        if read:
            _load_some(frame, instruction, source, parts, size.bits)
        else:
            _load_all(frame, source, parts)
        _store_all(frame, replace(instruction, root="st", types=(kind,)), parts)
    frame.body.release(*parts)


def _address(base: object, offset: Immediate) -> Address:
    shift = offset.bits - (1 << 64) if offset.bits >> 63 else offset.bits
    match base:
        case Register():
            return Address(base, shift)
        case Symbol(target, place):
            return Address(target, shift + place)
        case Immediate(bits):
            return Address(None, bits + shift)
    raise PtxError("cp.async reads from an address")


def _load_all(frame: Frame, source: Instruction, parts: list[Local]) -> None:
    def move(place: Place) -> None:
        for number, part in enumerate(parts):
            memory.push_loaded(frame, source.type, place.after(number * source.type.size_bytes))
            frame.body.set(part)

    memory.reach(frame, source, len(parts), move)


def _store_all(frame: Frame, target: Instruction, parts: list[Local]) -> None:
    def move(place: Place) -> None:
        for number, part in enumerate(parts):
            frame.body.get(place.base)
            frame.body.get(part)
            name = memory.store_name(part.type, target.type)
            frame.body.memory(name, place.offset + number * target.type.size_bytes, memory=place.memory)

    memory.reach(frame, target, len(parts), move)


def _load_some(frame: Frame, instruction: Instruction, source: Instruction, parts: list[Local], size: int) -> None:
    """Load as many bytes as the last source says, all or none without a loop; what is not read is not touched."""
    body = frame.body
    with frame.temporary(ValType.I32) as left:
        frame.push_source(instruction, 3, ScalarType.U32)
        body.tee(left)
        body.i32_const(size)
        body.op("i32.ge_u")
        with body.if_():
            _load_all(frame, source, parts)
            body.else_()
            for part in parts:
                (body.i64_const if part.type is ValType.I64 else body.i32_const)(0)
                body.set(part)
            body.get(left)
            with body.if_():
                _load_bytes(frame, source, parts, left)


def _load_bytes(frame: Frame, source: Instruction, parts: list[Local], left: Local) -> None:
    """Load the first ``left`` bytes, the last one first."""
    body = frame.body
    bytes_ = replace(source, types=(ScalarType.U8,))
    width = parts[0].type.name.lower()
    with frame.temporary(ValType.I64) as address, body.loop() as again:
        body.get(left)
        body.i32_const(1)
        body.op("i32.sub")
        body.set(left)
        memory.push_address(frame, source)
        body.get(left)
        body.op("i64.extend_i32_u", "i64.add")
        body.set(address)
        _make_room(frame, parts)

        def move(place: Place) -> None:
            memory.push_loaded(frame, ScalarType.U8, place)
            if width == "i64":
                body.op("i64.extend_i32_u")
            body.get(parts[0])
            body.op(f"{width}.or")
            body.set(parts[0])

        memory.reach_at(frame, bytes_, address, move)
        body.get(left)
        body.br_if(again)


def _make_room(frame: Frame, parts: list[Local]) -> None:
    """Shift all parts, as one number, up by a byte."""
    body = frame.body
    name = parts[0].type.name.lower()
    constant = body.i64_const if name == "i64" else body.i32_const
    bits = 64 if name == "i64" else 32
    for number in reversed(range(len(parts))):
        body.get(parts[number])
        constant(8)
        body.op(f"{name}.shl")
        if number:
            body.get(parts[number - 1])
            constant(bits - 8)
            body.op(f"{name}.shr_u", f"{name}.or")
        body.set(parts[number])
