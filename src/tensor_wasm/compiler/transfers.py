"""Memory operations that are more than a load or a store: ``atom`` and ``red``, ``cp.async``, rows for ``ldmatrix``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.memory import Place
from tensor_wasm.compiler.values.updates import update as update_value
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Address, Immediate, Instruction, Register, ScalarType, Space, Symbol
from tensor_wasm.wasm import Local, ValType

#: Types of which WebAssembly has a sum, or bits and exchanges, in one instruction.
_INTEGERS: Final = frozenset(
    kind for kind in ScalarType if kind.ptx_name in ["b16", "b32", "b64", "u32", "u64", "s32", "s64"]
)

#: Elements of 16 bits in a row that a lane loads for ``ldmatrix``.
_ROW_ELEMENTS = 8

#: What ``cp.async`` can copy at a time: bytes, and the elements that are moved.
_COPIES = {4: (ScalarType.U32, 1), 8: (ScalarType.U64, 1), 16: (ScalarType.U64, 2)}


#: Updates that are one instruction of WebAssembly's, by what PTX and WebAssembly call them.
_NATIVE: Final[Mapping[str, str]] = MappingProxyType(
    {"add": "add", "and": "and", "or": "or", "xor": "xor", "exch": "xchg", "cas": "cmpxchg"}
)


def update(frame: Frame, instruction: Instruction) -> None:
    """Lower ``atom`` and ``red``: in the block's own shared memory with a load and a store, elsewhere atomically.

    The threads of a block run on one core, those of other blocks may run on others.
    """
    write = _update_alone if instruction.space is Space.SHARED else _update_among_cores
    with frame.guarded(instruction.guard):
        memory.reach(frame, instruction, 1, lambda place: write(frame, instruction, place))


def _update_alone(frame: Frame, instruction: Instruction, place: Place) -> None:
    kind = instruction.type
    with frame.temporary(carrier(kind)) as old:
        memory.push_loaded(frame, kind, place)
        frame.body.set(old)
        frame.body.get(place.base)
        _push_updated(frame, instruction, lambda: frame.body.get(old))
        frame.body.memory(memory.store_name(carrier(kind), kind), place.offset, memory=place.memory)
        _keep_old(frame, instruction, lambda: frame.body.get(old))


def _update_among_cores(frame: Frame, instruction: Instruction, place: Place) -> None:
    body, kind = frame.body, instruction.type
    integer = ValType.I64 if kind.bits == 64 else ValType.I32
    with frame.temporary(integer) as old:

        def push_old() -> None:
            body.get(old)
            if carrier(kind) is not integer:
                body.op(f"{carrier(kind).name.lower()}.reinterpret_{integer.name.lower()}")

        operation = next((m for m in instruction.modifiers if m in _NATIVE), None)
        if operation is not None and carrier(kind) is integer and kind in _INTEGERS:
            body.get(place.base)
            for position in range(2 if operation == "cas" else 1):
                frame.push_source(instruction, position, kind)
            _atomic(frame, kind, f"rmw.{_NATIVE[operation]}", place)
            body.set(old)
        else:
            _try_until_done(frame, instruction, place, old, push_old)
        _keep_old(frame, instruction, push_old)


def _try_until_done(
    frame: Frame, instruction: Instruction, place: Place, old: Local, push_old: Callable[[], None]
) -> None:
    """Compute the new value, and exchange it for the old one as long as another thread was faster."""
    body, kind = frame.body, instruction.type
    name = old.type.name.lower()
    with frame.temporary(old.type) as new, frame.temporary(old.type) as seen:
        body.get(place.base)
        _atomic(frame, kind, "load", place)
        body.set(old)
        with body.block() as done, body.loop() as again:
            _push_updated(frame, instruction, push_old)
            if carrier(kind) is not old.type:
                body.op(f"{name}.reinterpret_{carrier(kind).name.lower()}")
            body.set(new)
            body.get(place.base)
            body.get(old)
            body.get(new)
            _atomic(frame, kind, "rmw.cmpxchg", place)
            body.tee(seen)
            body.get(old)
            body.op(f"{name}.eq")
            body.br_if(done)
            body.get(seen)
            body.set(old)
            body.br(again)


def _push_updated(frame: Frame, instruction: Instruction, push_old: Callable[[], None]) -> None:
    def push(position: int, as_type: ScalarType) -> None:
        frame.push_source(instruction, position, as_type)

    update_value(frame.body, instruction, push_old, push, frame.library)


def _keep_old(frame: Frame, instruction: Instruction, push_old: Callable[[], None]) -> None:
    for register in instruction.destinations:
        if register is not None:
            push_old()
            frame.keep(register, instruction.type)


def _atomic(frame: Frame, kind: ScalarType, operation: str, place: Place) -> None:
    """An atomic access of ``kind``'s width. Traps on a misaligned address: who calls has checked that."""
    name = "i64" if kind.bits == 64 else "i32"
    if kind.bits == 16:
        group, _, which = operation.partition(".")
        operation = f"{group}16.{which}_u" if which else f"{group}16_u"
    frame.body.memory(f"{name}.atomic.{operation}", place.offset, memory=place.memory)


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
