"""The part of the gate that checks argv against the kernel and packs the parameter block."""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.abi import Code, Tag, limits
from tensor_wasm.abi.argv import VALUE_BYTES
from tensor_wasm.dispatch import scratch
from tensor_wasm.dispatch.gate_words import GUEST, I32, SCRATCH, load_guest_size
from tensor_wasm.wasm import Body, Function, Label, Local, Module


@dataclass(frozen=True, slots=True)
class _Walk:
    """Locals of the walk over argv: the record at ``at``, its ``value``, the parameter's ``entry``."""

    at: Local
    end: Local
    tag: Local
    value: Local
    entry: Local
    left: Local
    mismatch: Local


def lower(module: Module) -> Function:
    """``(descriptor, argv, length) -> code``: check argv against the kernel and pack it into the parameter block.

    The form of every record comes before its fit to the kernel, so a mismatch is only noted during the walk.
    """
    function = module.function([I32, I32, I32], [I32], name="lower")
    body, (descriptor, at, length) = function.code, function.parameters
    walk = _Walk(at, *(body.local(I32) for _ in range(6)))
    records = body.local(I32)
    _return_if(body, Code.ARGV_TOO_LARGE, length, limits.ARGV_MAX_BYTES)
    _sum(body, at, length, walk.end)
    body.get(descriptor)
    body.memory("i32.load", scratch.DESCRIPTOR_COUNT, memory=SCRATCH)
    body.set(walk.left)
    body.get(descriptor)
    body.i32_const(scratch.DESCRIPTOR_PARAMETERS)
    body.op("i32.add")
    body.set(walk.entry)
    with body.block() as done, body.loop() as again:
        body.get(at)
        body.get(walk.end)
        body.op("i32.eq")
        body.br_if(done)
        _step(body, records, 1)
        _return_if(body, Code.ARGV_TOO_LARGE, records, limits.ARGV_MAX_RECORDS)
        _match(body, walk)
        _take_record(body, walk)
        _step(body, walk.entry, 4)
        _step(body, walk.left, -1)
        body.br(again)
    body.i32_const(Code.INVALID_ARGUMENTS)
    body.i32_const(Code.OK)
    body.get(walk.mismatch)
    body.get(walk.left)
    body.op("i32.or", "select")
    return function


def _sum(body: Body, left: Local, right: Local, into: Local) -> None:
    body.get(left)
    body.get(right)
    body.op("i32.add")
    body.set(into)


def _step(body: Body, local: Local, by: int) -> None:
    body.get(local)
    body.i32_const(by)
    body.op("i32.add")
    body.set(local)


def _return_if(body: Body, code: Code, value: Local, above: int) -> None:
    """Refuse when ``value``, unsigned, is greater than ``above``."""
    body.get(value)
    body.i32_const(above)
    body.op("i32.gt_u")
    with body.if_():
        body.i32_const(code)
        body.op("return")


def _match(body: Body, walk: _Walk) -> None:
    """Read the tag; note a mismatch when there is no parameter left or it does not take the tag."""
    body.get(walk.at)
    body.memory("i32.load8_u", memory=GUEST)
    body.tee(walk.tag)
    body.i32_const(15)
    body.op("i32.gt_u")
    body.get(walk.left)
    body.i32_const(0)
    body.op("i32.le_s", "i32.or")
    body.get(walk.mismatch)
    body.op("i32.or")
    body.tee(walk.mismatch)
    body.op("i32.eqz")
    with body.if_():
        body.get(walk.entry)
        body.memory("i32.load16_u", memory=SCRATCH)
        body.get(walk.tag)
        body.op("i32.shr_u")
        body.i32_const(1)
        body.op("i32.and", "i32.eqz")
        body.set(walk.mismatch)


def _take_record(body: Body, walk: _Walk) -> None:
    """Step over the record; its value goes to the parameter unless something did not fit."""
    with body.block() as next_record:
        with body.block() as pointer:
            with body.block() as wide:
                with body.block() as narrow:
                    with body.block() as unknown:
                        _branch_by_tag(body, walk.tag, {4: narrow, 8: wide}, pointer, unknown)
                    body.i32_const(Code.INVALID_ARGUMENTS)
                    body.op("return")
                _step_over(body, walk, 4)
                _store_parameter(body, walk, "i32.load", "i32.store", next_record)
                body.br(next_record)
            _step_over(body, walk, 8)
            _store_parameter(body, walk, "i64.load", "i64.store", next_record)
            body.br(next_record)
        _step_over(body, walk, 8)
        _check_window(body, walk)
        _store_parameter(body, walk, "i64.load32_u", "i64.store", next_record)


def _branch_by_tag(body: Body, tag: Local, by_size: dict[int, Label], pointer: Label, unknown: Label) -> None:
    targets = [unknown] * (max(VALUE_BYTES) + 1)
    for known, size in VALUE_BYTES.items():
        targets[known] = by_size[size]
    targets[Tag.POINTER] = pointer
    body.get(tag)
    body.br_table(targets, unknown)


def _step_over(body: Body, walk: _Walk, size: int) -> None:
    """``value`` is the record's value, ``at`` the next record; refuse a record that is cut short."""
    body.get(walk.end)
    body.get(walk.at)
    body.op("i32.sub")
    body.i32_const(1 + size)
    body.op("i32.lt_u")
    with body.if_():
        body.i32_const(Code.INVALID_ARGUMENTS)
        body.op("return")
    body.get(walk.at)
    body.i32_const(1)
    body.op("i32.add")
    body.set(walk.value)
    _step(body, walk.at, 1 + size)


def _check_window(body: Body, walk: _Walk) -> None:
    """Refuse a pointer whose window (u32 offset, u32 length) is not inside guest memory."""
    for offset in (0, 4):
        body.get(walk.value)
        body.memory("i64.load32_u", offset, align=0, memory=GUEST)
    body.op("i64.add")
    load_guest_size(body)
    body.op("i64.gt_u")
    with body.if_():
        body.i32_const(Code.INVALID_POINTER)
        body.op("return")


def _store_parameter(body: Body, walk: _Walk, load: str, store: str, mismatched: Label) -> None:
    body.get(walk.mismatch)
    body.br_if(mismatched)
    body.get(walk.entry)
    body.memory("i32.load16_u", 2, memory=SCRATCH)
    body.get(walk.value)
    body.memory(load, align=0, memory=GUEST)
    body.memory(store, scratch.PARAMETERS, align=0, memory=SCRATCH)
