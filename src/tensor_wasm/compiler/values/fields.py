"""Bit fields: extract, insert, masks, sign extension, the n-th set bit (PTX ISA, ``bfe bfi bmsk szext fns``)."""

from __future__ import annotations

from typing import Final

from tensor_wasm.compiler.values.formula import I32, I64, Value, constant, read, select
from tensor_wasm.compiler.values.helper import Helper, Writer
from tensor_wasm.compiler.values.lanes import fixed
from tensor_wasm.compiler.values.operation import Operation, all_ones
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.wasm import ValType

_U32 = ScalarType.U32


def extract(operation: Operation) -> None:
    """``bfe``: ``c`` bits of ``a`` from bit ``b`` on; both are bytes. A signed type copies the field's top bit."""
    a = operation.source(0)
    position, length = operation.constant(1, _U32), operation.constant(2, _U32)
    if position is None or length is None:
        place, count = operation.source(1, _U32), operation.source(2, _U32)
        result = operation.call(f"extract.{operation.type.ptx_name}", a, place, count)
    else:
        result = _extract_known(a, position & 0xFF, length & 0xFF, operation.type)
    result.push(operation.body)


def _extract_known(a: Value, position: int, length: int, kind: ScalarType) -> Value:
    width = kind.bits
    if length == 0:
        return fixed(a, 0)
    if kind.is_signed:
        if position + length >= width:
            return a.shr_s(min(position, width - 1))
        return (a << (width - position - length)).shr_s(width - length)
    if position >= width:
        return fixed(a, 0)
    field = a.shr_u(position)
    return field if position + length >= width else field & ((1 << length) - 1)


def insert(operation: Operation) -> None:
    """``bfi``: ``b`` with ``d`` bits from bit ``c`` on replaced by the low bits of ``a``; ``c`` and ``d`` are bytes."""
    a, b = operation.source(0), operation.source(1)
    position, length = operation.constant(2, _U32), operation.constant(3, _U32)
    if position is None or length is None:
        place, count = operation.source(2, _U32), operation.source(3, _U32)
        result = operation.call(f"insert.b{operation.type.bits}", a, b, place, count)
    else:
        result = _insert_known(a, b, position & 0xFF, length & 0xFF, operation.type.bits)
    result.push(operation.body)


def _insert_known(a: Value, b: Value, position: int, length: int, width: int) -> Value:
    everything = (1 << width) - 1
    mask = ((1 << length) - 1) << position & everything
    if mask == 0:
        return b
    return (b & (mask ^ everything)) | ((a << position) & mask)


def bit_mask(operation: Operation) -> None:
    """``bmsk.clamp``, ``bmsk.wrap``: ``b`` ones from bit ``a`` on."""
    mode = "clamp" if operation.has("clamp") else "wrap"
    operation.call(f"mask.{mode}", operation.source(0), operation.source(1)).push(operation.body)


def extend(operation: Operation) -> None:
    """``szext.clamp``, ``szext.wrap``: the low ``b`` bits of ``a``, extended by the type's sign."""
    mode = "clamp" if operation.has("clamp") else "wrap"
    name = f"extend.{mode}.{operation.type.ptx_name}"
    operation.call(name, operation.source(0), operation.source(1, _U32)).push(operation.body)


def find_nth(operation: Operation) -> None:
    """``fns``: the place of the ``c``-th set bit of ``a`` from bit ``b`` on, downwards for a negative ``c``."""
    operands = (operation.source(position, ScalarType.B32) for position in range(3))
    operation.call("find_nth", *operands).push(operation.body)


# --- helpers ------------------------------------------------------------------------------------------------


def _extract_unsigned(_writer: Writer, a: Value, position: Value, length: Value) -> Value:
    width = _width(a)
    place, count = position & 0xFF, length & 0xFF
    field = select(place.compare("lt_u", width), a.shr_u(place.to(a.type)), 0)
    mask = (constant(a.type, 1) << count.to(a.type)) - 1
    return select(count.compare("lt_u", width), field & mask, field)


def _extract_signed(writer: Writer, a: Value, position: Value, length: Value) -> Value:
    width = _width(a)
    place, count = writer.let(position & 0xFF), writer.let(length & 0xFF)
    field = writer.let(a.shr_s(_at_most(place, width - 1).to(a.type)))
    unused = (constant(I32, width) - count).to(a.type)
    narrow = (field << unused).shr_s(unused)
    reaches_top = (place + count).compare("ge_u", width)
    return select(count.is_zero(), constant(a.type, 0), select(reaches_top, field, narrow))


def _insert(writer: Writer, a: Value, b: Value, position: Value, length: Value) -> Value:
    width = _width(a)
    place, count = writer.let(position & 0xFF), writer.let(length & 0xFF)
    ones = (constant(a.type, 1) << count.to(a.type)) - 1
    mask = select(count.compare("lt_u", width), ones, all_ones(a.type))
    at_place = writer.let(mask << place.to(a.type))
    inserted = (b & (at_place ^ -1)) | ((a << place.to(a.type)) & at_place)
    return select(place.compare("lt_u", width), inserted, b)


def _mask_wrap(writer: Writer, position: Value, length: Value) -> Value:
    """Ones from ``position`` on, less those from its end on; bits 4 to 0 of the operands count."""
    start, count = writer.let(position & 31), writer.let(length & 31)
    end = writer.let(start + count)
    beyond = select(end.compare("lt_u", 32), all_ones(I32) << end, 0)
    return (all_ones(I32) << start) & (beyond ^ -1)


def _mask_clamp(writer: Writer, position: Value, length: Value) -> Value:
    start = all_ones(I32) << position
    end = writer.let(position + length)
    is_open = length.compare("ge_u", 32) | end.compare("ge_u", 32)
    beyond = select(is_open, constant(I32, 0), all_ones(I32) << end)
    return select(position.compare("lt_u", 32), start & (beyond ^ -1), 0)


def _extend_helper(*, is_signed: bool, is_clamped: bool) -> Helper:
    def formula(writer: Writer, a: Value, length: Value) -> Value:
        count = writer.let(length & 31)
        unused = constant(I32, 32) - count
        top = a << unused
        field = select(count.is_zero(), constant(I32, 0), top.shr_s(unused) if is_signed else top.shr_u(unused))
        return select(length.compare("ge_u", 32), a, field) if is_clamped else field

    return Helper((I32, I32), I32, formula)


def _find_nth(writer: Writer, mask: Value, base: Value, offset: Value) -> Value:
    """Walks from ``base`` on, one bit a turn; a shift count below 0 or above 31 ends the walk."""
    body = writer.body
    place, left = writer.local(I32), writer.local(I32)
    step = writer.let(select(offset.compare("gt_s", 0), constant(I32, 1), -1))
    is_only_base = offset.is_zero()
    base.push(body)
    body.set(place)
    select(offset.compare("gt_s", 0), offset, -offset).push(body)
    body.set(left)
    with body.loop() as again:
        writer.give(read(place).compare("ge_u", 32), all_ones(I32))
        is_set = mask.shr_u(read(place)) & 1
        (read(left) - is_set).push(body)
        body.set(left)
        # With offset 0 only the base itself counts: `left` goes from 0 to -1 there, or nothing is found.
        writer.give(is_only_base, select(is_set, read(place), -1))
        writer.give(read(left).is_zero(), read(place))
        (read(place) + step).push(body)
        body.set(place)
        body.br(again)
    return all_ones(I32)


def _width(value: Value) -> int:
    return 64 if value.type is I64 else 32


def _at_most(value: Value, limit: int) -> Value:
    return select(value.compare("lt_u", limit), value, limit)


def _typed_helpers() -> dict[str, Helper]:
    helpers = {}
    for kind, bits in ((ValType.I32, 32), (ValType.I64, 64)):
        helpers[f"extract.u{bits}"] = Helper((kind, I32, I32), kind, _extract_unsigned)
        helpers[f"extract.s{bits}"] = Helper((kind, I32, I32), kind, _extract_signed)
        helpers[f"insert.b{bits}"] = Helper((kind, kind, I32, I32), kind, _insert)
    return helpers


HELPERS: Final = {
    **_typed_helpers(),
    "mask.wrap": Helper((I32, I32), I32, _mask_wrap),
    "mask.clamp": Helper((I32, I32), I32, _mask_clamp),
    "extend.clamp.u32": _extend_helper(is_signed=False, is_clamped=True),
    "extend.wrap.u32": _extend_helper(is_signed=False, is_clamped=False),
    "extend.clamp.s32": _extend_helper(is_signed=True, is_clamped=True),
    "extend.wrap.s32": _extend_helper(is_signed=True, is_clamped=False),
    "find_nth": Helper((I32, I32, I32), I32, _find_nth),
}
