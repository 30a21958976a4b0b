"""Lowering of ``emit``: a record of values into the kernel's buffer (see :mod:`.records`)."""

from __future__ import annotations

from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.library import Library
from tensor_wasm.compiler.records import ASSERTION_BYTES, HEAD_BYTES, record_of
from tensor_wasm.ptx.program import Emit, Instruction
from tensor_wasm.wasm import Function, Module, ValType

_SCRATCH = 1
_USED, _DROPPED = 0, 4


def emit(frame: Frame, instruction: Instruction) -> None:
    """Write the record of one thread, or count it as dropped; after that of a failed assertion the launch ends."""
    body, buffer = frame.body, frame.region.records
    assert isinstance(instruction, Emit)
    assert buffer is not None
    record = record_of(instruction)
    is_assertion = record.what == "assert"
    with frame.guarded(instruction.guard), frame.temporary(ValType.I32) as at:
        body.get(frame.ground.base)
        body.i32_const(buffer.offset)
        body.op("i32.add")
        body.i32_const(record.size_bytes)
        body.i32_const(buffer.size_bytes - HEAD_BYTES - (0 if is_assertion else ASSERTION_BYTES))
        body.call(frame.library.function("reserve_record", _reserve))
        body.tee(at)
        with body.if_():
            body.get(at)
            body.i32_const(frame.region.record_numbers[record])
            body.memory("i32.store", 0, align=0, memory=_SCRATCH)
            place = 4
            for position, kind in enumerate(instruction.types):
                body.get(at)
                frame.push_source(instruction, position, kind)
                body.memory(f"{carrier(kind).name.lower()}.store", place, align=0, memory=_SCRATCH)
                place += kind.size_bytes
        if is_assertion:
            frame.faults.assertion(body)


def _reserve(_library: Library, module: Module) -> Function:
    """``(buffer, size, limit) -> address``: room for a record, or 0 where it would go past ``limit`` bytes."""
    function = module.function((ValType.I32,) * 3, (ValType.I32,), name="reserve_record")
    buffer, size, limit = function.parameters
    body = function.code
    end = body.local(ValType.I32)
    body.get(buffer)
    body.memory("i32.load", _USED, memory=_SCRATCH)
    body.get(size)
    body.op("i32.add")
    body.tee(end)
    body.get(limit)
    body.op("i32.gt_u")
    with body.if_():
        body.get(buffer)
        body.get(buffer)
        body.memory("i32.load", _DROPPED, memory=_SCRATCH)
        body.i32_const(1)
        body.op("i32.add")
        body.memory("i32.store", _DROPPED, memory=_SCRATCH)
        body.i32_const(0)
        body.op("return")
    body.get(buffer)
    body.get(end)
    body.memory("i32.store", _USED, memory=_SCRATCH)
    body.get(buffer)
    body.get(end)
    body.get(size)
    body.op("i32.sub", "i32.add")
    body.i32_const(HEAD_BYTES)
    body.op("i32.add")
    return function
