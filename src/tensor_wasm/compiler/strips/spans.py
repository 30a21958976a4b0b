"""Spans: by how much a linear value of the last lane exceeds that of the first, modulo the width.

Sums with what is uniform leave a span as it is, so that one test shows many accesses to be contiguous. A span that is
known when the code is written is a constant; widening makes one anew, from the ends, since it may have wrapped.
"""

from __future__ import annotations

from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips.strip import Strip, is_double
from tensor_wasm.ptx.program import Instruction, Operand, Register, ScalarType, Special, Symbol
from tensor_wasm.wasm import Body, ValType

I32, I64 = ValType.I32, ValType.I64


def push(strip: Strip, operand: Operand, kind: ValType) -> None:
    """Push the span of an operand, an i32 or i64; of what is uniform it is 0."""
    body = strip.body
    known = strip.shapes.step(operand)
    if known is not None or strip.shapes.operand(operand) is Shape.UNIFORM:
        _constant(body, kind, (known or 0) * (strip.width - 1))
        return
    match operand:
        case Register():
            body.get(strip.span(operand))
        case Symbol():
            _constant(body, kind, strip.first.region.local_bytes * (strip.width - 1))
        case Special():  # %tid.x
            _constant(body, kind, strip.width - 1)


def set_span(strip: Strip, instruction: Instruction, register: Register) -> None:
    """Set the span of an instruction's linear result, its first lane being set after this."""
    if strip.shapes.step(register) is not None:
        return
    body = strip.body
    kind = I64 if is_double(register.type) else I32
    _push_result(strip, instruction, kind)
    body.set(strip.span(register))


def _push_result(strip: Strip, instruction: Instruction, kind: ValType) -> None:
    body, name = strip.body, kind.name.lower()
    sources = instruction.sources
    root = instruction.root
    if "wide" in instruction.modifiers or (root == "cvt" and _widens(instruction)):
        _push_widened(strip, instruction)
    elif root in ("mul", "mad"):
        product = 0 if strip.shapes.operand(sources[1]) is Shape.UNIFORM else 1
        push(strip, sources[product], kind)
        strip.first.push(sources[1 - product], instruction.type)
        body.op(f"{name}.mul")
    elif root == "shl":
        push(strip, sources[0], kind)
        strip.first.push(sources[1], ScalarType.U32)
        _shift(body, kind)
    elif root == "neg":
        _constant(body, kind, 0)
        push(strip, sources[0], kind)
        body.op(f"{name}.sub")
    elif root in ("add", "sub"):
        push(strip, sources[0], kind)
        push(strip, sources[1], kind)
        body.op(f"{name}.{root}")
    elif root == "cvt" and is_double(instruction.types[1]) and kind is I32:
        push(strip, sources[0], I64)
        body.op("i32.wrap_i64")
    else:  # copies
        push(strip, sources[0], kind)
    if root == "mad":
        push(strip, sources[2], kind)
        body.op(f"{name}.add")


def _widens(instruction: Instruction) -> bool:
    target, source = instruction.types
    return is_double(target) and not is_double(source)


def _push_widened(strip: Strip, instruction: Instruction) -> None:
    """The widened last less the widened first, times the other factor of a product."""
    body = strip.body
    sources = instruction.sources
    is_product = instruction.root != "cvt"
    linear = 0 if not is_product or strip.shapes.operand(sources[1]) is Shape.UNIFORM else 1
    kind = instruction.types[-1]
    extend = "i64.extend_i32_s" if kind.is_signed else "i64.extend_i32_u"
    strip.first.push(sources[linear], kind)
    push(strip, sources[linear], I32)
    body.op("i32.add", extend)
    strip.first.push(sources[linear], kind)
    body.op(extend, "i64.sub")
    if is_product:
        strip.first.push(sources[1 - linear], kind)
        body.op(extend, "i64.mul")


def _shift(body: Body, kind: ValType) -> None:
    """``shl`` as PTX has it: nothing is left for amounts from the width on."""
    name, bits = kind.name.lower(), 64 if kind is I64 else 32
    amount = body.local(I32)
    body.set(amount)
    body.get(amount)
    if kind is I64:
        body.op("i64.extend_i32_u")
    body.op(f"{name}.shl")
    _constant(body, kind, 0)
    body.get(amount)
    body.i32_const(bits)
    body.op("i32.lt_u", "select")
    body.release(amount)


def _constant(body: Body, kind: ValType, value: int) -> None:
    (body.i64_const if kind is I64 else body.i32_const)(value)
