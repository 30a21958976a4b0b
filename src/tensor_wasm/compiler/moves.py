"""``mov`` in all its forms, ``cvta`` and ``isspacep``: values moved and addresses classified, nothing computed."""

from __future__ import annotations

from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.region import SHARED_WINDOW
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction, ScalarType, Space
from tensor_wasm.wasm import Local, ValType

_BITS = {8: ScalarType.B8, 16: ScalarType.B16, 32: ScalarType.B32, 64: ScalarType.B64}


def move(frame: Frame, instruction: Instruction) -> None:
    """Lower ``mov``: a value, an address, several registers packed into one, or one unpacked into several."""
    parts = max(len(instruction.sources), len(instruction.destinations))
    if parts == 1:
        _single(frame, instruction, instruction.type)
        return
    part = _BITS.get(instruction.type.bits // parts)
    if part is None or carrier(instruction.type) is ValType.F32 or instruction.type.bits not in (16, 32, 64):
        text = f"{instruction.text} cannot move {parts} parts"
        raise PtxError(text, instruction.line, instruction.column)
    with frame.guarded(instruction.guard):
        if len(instruction.sources) == parts:
            _pack(frame, instruction, part)
        else:
            _unpack(frame, instruction, part)


def convert_address(frame: Frame, instruction: Instruction) -> None:
    """Lower ``cvta`` both ways: an address is the same number in every space but the shared (see :mod:`.region`)."""
    if instruction.space is not Space.SHARED:
        _single(frame, instruction, instruction.type)
        return
    register = instruction.destinations[0]
    if register is None:
        return
    frame.push_source(instruction, 0, ScalarType.U64)
    frame.body.i64_const(SHARED_WINDOW)
    frame.body.op("i64.sub" if "to" in instruction.modifiers else "i64.add")
    frame.store_where(instruction.guard, register, ScalarType.U64)


def is_in_space(frame: Frame, instruction: Instruction) -> None:
    """Lower ``isspacep``."""
    with frame.guarded(instruction.guard):
        _push_is_in_space(frame, instruction)
        frame.store(instruction.destinations[0], ScalarType.PRED)


def _single(frame: Frame, instruction: Instruction, kind: ScalarType) -> None:
    register = instruction.destinations[0]
    if register is None:
        return
    frame.push_source(instruction, 0, kind)
    frame.store_where(instruction.guard, register, kind)


def _pack(frame: Frame, instruction: Instruction, part: ScalarType) -> None:
    """The first source goes to the lowest bits."""
    body = frame.body
    whole = _BITS[instruction.type.bits]
    name = carrier(whole).name.lower()
    for position in range(len(instruction.sources)):
        frame.push_source(instruction, position, part)
        if carrier(whole) is ValType.I64 and carrier(part) is ValType.I32:
            body.op("i64.extend_i32_u")
        if position:
            _push_constant(frame, whole, position * part.bits)
            body.op(f"{name}.shl", f"{name}.or")
    frame.store(instruction.destinations[0], whole)


def _unpack(frame: Frame, instruction: Instruction, part: ScalarType) -> None:
    """The lowest bits go to the first destination."""
    body = frame.body
    whole = _BITS[instruction.type.bits]
    name = carrier(whole).name.lower()
    for position, register in enumerate(instruction.destinations):
        if register is None:
            continue
        frame.push_source(instruction, 0, whole)
        if position:
            _push_constant(frame, whole, position * part.bits)
            body.op(f"{name}.shr_u")
        if carrier(whole) is ValType.I64 and carrier(part) is ValType.I32:
            body.op("i32.wrap_i64")
        frame.store(register, part)


def _push_constant(frame: Frame, kind: ScalarType, value: int) -> None:
    if carrier(kind) is ValType.I64:
        frame.body.i64_const(value)
    else:
        frame.body.i32_const(value)


def _push_is_in_space(frame: Frame, instruction: Instruction) -> None:
    body = frame.body
    space = instruction.space
    if space is Space.PARAM:
        _push_is_within(frame, instruction, frame.ground.parameter_window, 0, frame.kernel.parameter_bytes)
        return
    if space is Space.SHARED:
        frame.push_source(instruction, 0, ScalarType.U64)
        body.i64_const(32)
        body.op("i64.shr_u")
        body.i64_const(SHARED_WINDOW >> 32)
        body.op("i64.eq")
        return
    start, end = frame.region.bounds.get(space, (0, 0)) if space is not None else (0, 0)
    if space is Space.LOCAL:
        _push_is_within(frame, instruction, frame.local_window, start, start + frame.region.local_bytes)
        return
    _push_is_within(frame, instruction, frame.ground.window, start, end)
    if space is Space.GLOBAL:
        frame.push_source(instruction, 0, ScalarType.U64)
        body.i64_const(32)
        body.op("i64.shr_u", "i64.eqz", "i32.or")


def _push_is_within(frame: Frame, instruction: Instruction, window: Local, start: int, end: int) -> None:
    """Push whether the source is an address from ``start`` up to ``end`` after a windowed one."""
    body = frame.body
    frame.push_source(instruction, 0, ScalarType.U64)
    body.get(window)
    body.op("i64.sub")
    if start:
        body.i64_const(start)
        body.op("i64.sub")
    body.i64_const(end - start)
    body.op("i64.lt_u")
