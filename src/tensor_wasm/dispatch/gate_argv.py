"""The part of the gate that checks argv against the kernel and packs the parameter block."""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.abi import Code, Tag, limits
from tensor_wasm.abi.argv import VALUE_BYTES
from tensor_wasm.dispatch import scratch
from tensor_wasm.dispatch.gate_words import GUEST, I32, I64, SCRATCH, load_guest_size
from tensor_wasm.wasm import Body, Function, Label, Local, Module


@dataclass(frozen=True, slots=True)
class _Walk:
    """Locals of the walk over argv: the record at ``at``, its ``value``, the parameter's ``entry``.

    ``last_tag`` is the last one that is known; ``window`` is where the next window's entry goes, if they are listed.
    """

    last_tag: Local
    at: Local
    end: Local
    tag: Local
    value: Local
    entry: Local
    left: Local
    mismatch: Local
    window: Local | None


def lower(module: Module, *, has_windows: bool = False) -> Function:
    """``(descriptor, argv, length, last tag) -> code``: check argv against the kernel, and pack the parameter block.

    With ``has_windows`` guest pointers are listed in scratch memory, as they are on a device that does not see the
    guest's memory, and device pointers have 64 bits. The form of every record comes before its fit to the kernel, so a
    mismatch is only noted during the walk.
    """
    function = module.function([I32] * 4, [I32], name="lower")
    body, (descriptor, at, length, last_tag) = function.code, function.parameters
    end, tag, value, entry, left, mismatch = (body.local(I32) for _ in range(6))
    records = body.local(I32)
    window = body.local(I32) if has_windows else None
    walk = _Walk(last_tag, at, end, tag, value, entry, left, mismatch, window)
    if window is not None:
        body.i32_const(scratch.WINDOWS)
        body.set(window)
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
        _step(body, walk.entry, scratch.PARAMETER_ENTRY_BYTES)
        _step(body, walk.left, -1)
        body.br(again)
    if window is not None:
        _count_windows(body, window)
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
        body.memory("i32.load16_u", scratch.PARAMETER_TAGS, memory=SCRATCH)
        body.get(walk.tag)
        body.op("i32.shr_u")
        body.i32_const(1)
        body.op("i32.and", "i32.eqz")
        body.set(walk.mismatch)


def _take_record(body: Body, walk: _Walk) -> None:
    """Step over the record; its value goes to the parameter unless something did not fit."""
    with body.block() as next_record:
        with body.block() as other:
            with body.block() as pointer:
                with body.block() as wide:
                    with body.block() as narrow:
                        by_size = {4: narrow, 8: wide}
                        plain = {tag: by_size[VALUE_BYTES[tag]] for tag in Tag if tag < Tag.POINTER}
                        _branch_by_tag(body, walk.tag, {**plain, Tag.POINTER: pointer}, other)
                    _step_over(body, walk, 4)
                    _store_parameter(body, walk, "i32.load", "i32.store", next_record)
                    body.br(next_record)
                _step_over(body, walk, 8)
                _store_parameter(body, walk, "i64.load", "i64.store", next_record)
                body.br(next_record)
            _step_over(body, walk, 8)
            _check_window(body, walk)
            _store_parameter(body, walk, "i64.load32_u", "i64.store", next_record)
            if walk.window is not None:
                _list_window(body, walk, walk.window)
            body.br(next_record)
        _take_newer_record(body, walk, next_record)


def _take_newer_record(body: Body, walk: _Walk, next_record: Label) -> None:
    """As :func:`_take_record`, for tags that only newer versions of the module have, and for what is no tag."""
    with body.block() as unknown:
        body.get(walk.tag)
        body.get(walk.last_tag)
        body.op("i32.gt_u")
        body.br_if(unknown)
        with body.block() as structure:
            with body.block() as half:
                with body.block() as device:
                    own = {Tag.DEVICE_POINTER: device, Tag.F16: half, Tag.STRUCT: structure}
                    _branch_by_tag(body, walk.tag, own, unknown)
                _take_device_pointer(body, walk, next_record)
                body.br(next_record)
            _step_over(body, walk, VALUE_BYTES[Tag.F16])
            _store_parameter(body, walk, "i32.load16_u", "i32.store16", next_record)
            body.br(next_record)
        _take_structure(body, walk, next_record)
        body.br(next_record)
    body.i32_const(Code.INVALID_ARGUMENTS)
    body.op("return")


def _branch_by_tag(body: Body, tag: Local, labels: dict[Tag, Label], other: Label) -> None:
    body.get(tag)
    body.br_table([labels.get(Tag(value), other) if value else other for value in range(max(labels) + 1)], other)


def _take_device_pointer(body: Body, walk: _Walk, mismatched: Label) -> None:
    """Look a handle up in the table that the host keeps; the parameter is the allocation's address and the offset."""
    _step_over(body, walk, VALUE_BYTES[Tag.DEVICE_POINTER])
    found = body.local(I32)
    handle = body.local(I64)
    body.get(walk.value)
    body.memory("i64.load", align=0, memory=GUEST)
    body.tee(handle)
    body.i64_const(1)
    body.op("i64.sub", "i32.wrap_i64")
    body.i32_const(limits.ALLOCATIONS_MAX - 1)
    body.op("i32.and")
    body.i32_const(scratch.DEVICE_BYTES)
    body.op("i32.mul")
    body.i32_const(0)
    body.memory("i32.load", scratch.DEVICE_TABLE, memory=SCRATCH)
    body.op("i32.add")
    body.set(found)
    # Handle 0 would be found where there is none; without a table, what is found is nothing.
    body.get(handle)
    body.op("i64.eqz")
    body.i32_const(0)
    body.memory("i32.load", scratch.DEVICE_TABLE, memory=SCRATCH)
    body.op("i32.eqz", "i32.or")
    body.get(found)
    body.memory("i64.load", scratch.DEVICE_HANDLE, memory=SCRATCH)
    body.get(handle)
    body.op("i64.ne", "i32.or")
    with body.if_():
        body.i32_const(Code.INVALID_HANDLE)
        body.op("return")
    body.get(walk.value)
    body.memory("i64.load", 8, align=0, memory=GUEST)
    body.get(found)
    body.memory("i64.load32_u", scratch.DEVICE_SIZE, memory=SCRATCH)
    body.op("i64.gt_u")
    with body.if_():
        body.i32_const(Code.INVALID_POINTER)
        body.op("return")
    _push_place(body, walk, mismatched)
    body.get(found)
    body.memory("i64.load32_u", scratch.DEVICE_ADDRESS, memory=SCRATCH)
    if walk.window is not None:
        body.i64_const(scratch.DEVICE_ADDRESS_SHIFT)
        body.op("i64.shl")
        body.i32_const(0)
        body.memory("i64.load", scratch.GPU_BASE, memory=SCRATCH)
        body.op("i64.add")
    body.get(walk.value)
    body.memory("i64.load", 8, align=0, memory=GUEST)
    body.op("i64.add")
    body.memory("i64.store", scratch.PARAMETERS, align=0, memory=SCRATCH)
    body.release(found, handle)


def _take_structure(body: Body, walk: _Walk, mismatched: Label) -> None:
    """Copy a structure's bytes; a parameter of another size does not take it."""
    length = body.local(I32)
    _step_over(body, walk, VALUE_BYTES[Tag.STRUCT])
    body.get(walk.value)
    body.memory("i32.load16_u", align=0, memory=GUEST)
    body.set(length)
    body.get(walk.end)
    body.get(walk.at)
    body.op("i32.sub")
    body.get(length)
    body.op("i32.lt_u")
    with body.if_():
        body.i32_const(Code.INVALID_ARGUMENTS)
        body.op("return")
    _sum(body, walk.at, length, walk.at)
    body.get(walk.mismatch)
    body.op("i32.eqz")
    with body.if_():
        body.get(walk.entry)
        body.memory("i32.load16_u", scratch.PARAMETER_SIZE, memory=SCRATCH)
        body.get(length)
        body.op("i32.ne")
        body.set(walk.mismatch)
    _push_place(body, walk, mismatched)
    body.i32_const(scratch.PARAMETERS)
    body.op("i32.add")
    body.get(walk.value)
    body.i32_const(VALUE_BYTES[Tag.STRUCT])
    body.op("i32.add")
    body.get(length)
    body.memory_copy(SCRATCH, GUEST)
    body.release(length)


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


def _list_window(body: Body, walk: _Walk, window: Local) -> None:
    """Enter the pointer that was taken. There are no more of them than argv may have records."""
    body.get(window)
    body.get(walk.entry)
    body.memory("i32.load16_u", scratch.PARAMETER_OFFSET, memory=SCRATCH)
    body.memory("i32.store", scratch.WINDOW_PARAMETER, memory=SCRATCH)
    body.get(window)
    body.get(walk.value)
    body.memory("i64.load", align=0, memory=GUEST)
    body.memory("i64.store", scratch.WINDOW_START, align=2, memory=SCRATCH)
    _step(body, window, scratch.WINDOW_BYTES)


def _count_windows(body: Body, window: Local) -> None:
    body.i32_const(0)
    body.get(window)
    body.i32_const(scratch.WINDOWS)
    body.op("i32.sub")
    body.i32_const(scratch.WINDOW_BYTES)
    body.op("i32.div_u")
    body.memory("i32.store", scratch.WINDOW_COUNT, memory=SCRATCH)


def _store_parameter(body: Body, walk: _Walk, load: str, store: str, mismatched: Label) -> None:
    _push_place(body, walk, mismatched)
    body.get(walk.value)
    body.memory(load, align=0, memory=GUEST)
    body.memory(store, scratch.PARAMETERS, align=0, memory=SCRATCH)


def _push_place(body: Body, walk: _Walk, mismatched: Label) -> None:
    """Push the parameter's offset in the block; where something did not fit, go on without it."""
    body.get(walk.mismatch)
    body.br_if(mismatched)
    body.get(walk.entry)
    body.memory("i32.load16_u", scratch.PARAMETER_OFFSET, memory=SCRATCH)
