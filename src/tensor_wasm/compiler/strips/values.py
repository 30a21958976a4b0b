"""Arithmetic of a strip: instructions whose formulas work on vectors as they do on numbers, and some of their own.

Units and their sources are those of :mod:`.operands`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler import values
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips.conversions import converter
from tensor_wasm.compiler.strips.operands import (
    DIRECTED,
    Emit,
    LaneOperation,
    cut,
    is_own,
    matches,
    narrow_source,
    words_only,
)
from tensor_wasm.compiler.strips.strip import Mask, Strip, is_double, shuffle
from tensor_wasm.compiler.values.formula import I32, Value, combine, constant, read
from tensor_wasm.compiler.values.lanes import Lanes, fixed, pick
from tensor_wasm.ptx.program import Immediate, Instruction, Operand, Register, ScalarType, Special
from tensor_wasm.wasm import Body, ValType

V128 = ValType.V128
_EVEN, _ODD = (0, 2, 4, 6), (1, 3, 5, 7)
#: Relations that hold for the one side of a bound.
_ORDERED: Final = frozenset({"lt", "le", "gt", "ge"})


# --- which, and how -------------------------------------------------------------------------------------------


def emitter(strip: Strip, instruction: Instruction) -> Emit | None:
    """What writes a unit of an instruction, None for one that has no vector form."""
    if not _fits(instruction) or not _gives_its_type(instruction):
        return None
    own = _OWN.get(instruction.root)
    if own is not None:
        return own(strip, instruction)
    allowed = _GENERIC.get(instruction.root)
    if allowed is None or not values.handles(instruction) or not allowed(instruction):
        return None
    return values.row(instruction).emit


def _fits(instruction: Instruction) -> bool:
    """Whether no source is a special register that has no vector form."""
    return not any(isinstance(operand, Special) and is_own(operand) for operand in instruction.sources)


def _gives_its_type(instruction: Instruction) -> bool:
    """Whether results have the width of their registers: lanes are not extended or cut when they are kept."""
    if not values.handles(instruction):
        return False
    for register, kind in zip(instruction.destinations, values.result_types(instruction), strict=True):
        if register is None:
            continue
        if (register.type is ScalarType.PRED) != (kind is ScalarType.PRED):
            return False
        if register.type is not ScalarType.PRED and (
            is_double(register.type) != is_double(kind) or (kind.bits >= 32 and register.type.bits != kind.bits)
        ):
            return False
    return True


def is_wide_unit(instruction: Instruction) -> bool:
    """Whether a unit of the instruction has two lanes."""
    if instruction.root == "cvt":
        return any(map(is_double, instruction.types))
    if "wide" in instruction.modifiers:
        return True
    return any(map(is_double, instruction.types))


def _plain_integer(instruction: Instruction) -> bool:
    return (
        words_only(instruction)
        and matches(instruction)
        and not {"sat", "cc", "hi", "wide", "relu"} & set(instruction.modifiers)
        and not instruction.type.is_float
    )


def _plain(instruction: Instruction) -> bool:
    """Integers without carry, or floats rounded to nearest."""
    if not words_only(instruction) or not matches(instruction):
        return False
    if instruction.type.is_float:
        # In other modes there are helpers for f32.
        return instruction.type is ScalarType.F32 or not DIRECTED & set(instruction.modifiers)
    return _plain_integer(instruction)


def _approximate(instruction: Instruction) -> bool:
    return instruction.type is ScalarType.F32 and matches(instruction)


def _real(instruction: Instruction) -> bool:
    return _plain(instruction) and instruction.type.is_float


def _coarse(instruction: Instruction) -> bool:
    """Not the f64 approximations, which are helpers."""
    return _real(instruction) and (
        instruction.type is ScalarType.F32 or not {"ftz", "approx"} & set(instruction.modifiers)
    )


def _bits(instruction: Instruction) -> bool:
    return matches(instruction) and (instruction.type.bits in (16, 32, 64) or instruction.type is ScalarType.PRED)


def _known_field(count: int) -> Callable[[Instruction], bool]:
    """A bit field whose place and length, the last two sources, are constants."""

    def check(instruction: Instruction) -> bool:
        u32 = ScalarType.U32
        kinds = [*[None] * count, u32, u32]
        return (
            words_only(instruction)
            and matches(instruction, kinds)
            and all(isinstance(source, Immediate) for source in instruction.sources[-2:])
        )

    return check


def _table(instruction: Instruction) -> bool:
    return len(instruction.destinations) == 1 and matches(instruction, [None] * 3)


_GENERIC: Final[Mapping[str, Callable[[Instruction], bool]]] = MappingProxyType(
    {
        "add": _plain,
        "sub": _plain,
        "mul": _plain,
        "mad": _plain,
        "fma": _real,
        "div": _real,
        "rcp": _coarse,
        "sqrt": _real,
        "rsqrt": _coarse,
        "neg": _plain,
        "abs": _plain,
        "min": _plain,
        "max": _plain,
        "copysign": _real,
        "and": _bits,
        "or": _bits,
        "xor": _bits,
        "not": _bits,
        "bfe": _known_field(1),
        "bfi": _known_field(2),
        "lop3": _table,
        "ex2": _approximate,
        "lg2": _approximate,
        "sin": _approximate,
        "cos": _approximate,
        "tanh": _approximate,
    }
)


# --- comparisons and selections -------------------------------------------------------------------------------


class _HalfWords(LaneOperation):
    """As its base, for 16-bit integers: lanes hold them extended by their sign."""

    __slots__ = ()

    def source(self, position: int, kind: ScalarType | None = None) -> Value:
        """Source ``position``, sign-extended where the type is signed."""
        value = super().source(position, kind)
        if kind is not None or not self.type.is_signed:
            return value
        return self.let((value << 16).shr_s(16))


def _compare_half_words(instruction: Instruction) -> Emit | None:
    if instruction.type.kind not in "bus" or not matches(instruction, [None, None, ScalarType.PRED]):
        return None
    if not values.handles(instruction) or any(isinstance(source, Special) for source in instruction.sources):
        return None
    row = values.row(instruction)

    def emit(operation: LaneOperation) -> None:
        with _HalfWords(operation.strip, instruction, operation.unit, is_wide=False) as narrow:
            row.emit(narrow)

    return emit


def _set_predicate(_strip: Strip, instruction: Instruction) -> Emit | None:
    if instruction.type.bits == 16:
        return _compare_half_words(instruction)
    if not words_only(instruction) or not matches(instruction, [None, None, ScalarType.PRED]):
        return None
    return values.row(instruction).emit if values.handles(instruction) else None


def _choose(_strip: Strip, instruction: Instruction) -> Emit | None:
    bits = instruction.type.bits
    if bits not in (16, 32, 64) or not matches(instruction, [None, None, ScalarType.PRED]):
        return None

    def emit(operation: LaneOperation) -> None:
        truth = operation.source(2, ScalarType.PRED)
        pick(truth, operation.source(0), operation.source(1)).push(operation.body)

    return emit


# --- shifts, products, counts -----------------------------------------------------------------------------------


def _shift(strip: Strip, instruction: Instruction) -> Emit | None:
    """Shifts by what is the same for all lanes; amounts from the width on give 0 or the sign."""
    if not words_only(instruction) or not matches(instruction, [None, ScalarType.U32]):
        return None
    if strip.shapes.operand(instruction.sources[1]) is not Shape.UNIFORM:
        return None
    if isinstance(instruction.sources[1], Immediate):
        return values.row(instruction).emit
    bits = instruction.type.bits

    def emit(operation: LaneOperation) -> None:
        value, amount = operation.source(0), operation.amount(1)
        if instruction.root == "shr" and instruction.type.is_signed:
            limited = pick(amount.compare("lt_u", bits - 1), amount, bits - 1)
            value.shr_s(limited).push(operation.body)
            return
        shifted = value << amount if instruction.root == "shl" else value.shr_u(amount)
        inside = Lanes(
            "i32x4",
            combine("i32x4.splat", V128, combine("i32.sub", I32, fixed(amount, 0), amount.compare("lt_u", bits))).push,
        )
        (shifted & inside).push(operation.body)

    return emit


def _funnel(strip: Strip, instruction: Instruction) -> Emit | None:
    """``shf`` by what is the same for all lanes."""
    amount = instruction.sources[2]
    if not matches(instruction):
        return None
    if not isinstance(amount, Immediate):
        return _funnel_by_register(strip, instruction)
    known = amount.bits & 31 if "wrap" in instruction.modifiers else min(amount.bits, 32)
    is_left = "l" in instruction.modifiers

    def emit(operation: LaneOperation) -> None:
        low, high = operation.source(0), operation.source(1)
        keep, other = (high, low) if is_left else (low, high)
        if known in (0, 32):
            (other if known else keep).push(operation.body)
        elif is_left:
            ((high << known) | low.shr_u(32 - known)).push(operation.body)
        else:
            (low.shr_u(known) | (high << (32 - known))).push(operation.body)

    return emit


def _funnel_by_register(strip: Strip, instruction: Instruction) -> Emit | None:
    if "wrap" not in instruction.modifiers or strip.shapes.operand(instruction.sources[2]) is not Shape.UNIFORM:
        return None
    is_left = "l" in instruction.modifiers

    def emit(operation: LaneOperation) -> None:
        low, high, amount = operation.source(0), operation.source(1), operation.amount(2)
        # Vectors shift modulo 32; a shift by 32 less 0 is one by 1 and one by 31.
        rest = fixed(amount, 31) - (amount & 31)
        if is_left:
            ((high << amount) | low.shr_u(1).shr_u(rest)).push(operation.body)
        else:
            (low.shr_u(amount) | (high << 1 << rest)).push(operation.body)

    return emit


def _permute(_strip: Strip, instruction: Instruction) -> Emit | None:
    """``prmt`` with constant nibbles that copy no signs."""
    selector = instruction.sources[2]
    if instruction.modifiers or not isinstance(selector, Immediate) or selector.bits & 0x8888:
        return None
    if not matches(instruction):
        return None
    nibbles = [selector.bits >> 4 * index & 7 for index in range(4)]

    def emit(operation: LaneOperation) -> None:
        for position in (0, 1):
            operation.source(position).push(operation.body)
        places = [nibble + (0 if nibble < 4 else 12) for nibble in nibbles]
        operation.body.shuffle([4 * lane + place for lane in range(4) for place in places])

    return emit


def _population(_strip: Strip, instruction: Instruction) -> Emit | None:
    if instruction.type.bits != 32 or not matches(instruction):
        return None

    def emit(operation: LaneOperation) -> None:
        operation.source(0).push(operation.body)
        operation.body.op("i8x16.popcnt", "i16x8.extadd_pairwise_i8x16_u", "i32x4.extadd_pairwise_i16x8_u")

    return emit


def _product(_strip: Strip, instruction: Instruction) -> Emit | None:
    """``mul`` and ``mad``: also ``.wide`` and ``.hi`` of 32 bits."""
    modifiers = set(instruction.modifiers)
    is_float = instruction.type.is_float
    if is_float or not {"wide", "hi"} & modifiers:
        return values.row(instruction).emit if values.handles(instruction) and _plain(instruction) else None
    if instruction.type.bits != 32 or "sat" in modifiers or "cc" in modifiers:
        return None
    third = ScalarType.U64 if "wide" in modifiers else None
    if not matches(instruction, [None, None, third]):
        return None
    sign = "s" if instruction.type.is_signed else "u"

    def emit(operation: LaneOperation) -> None:
        body = operation.body
        if "wide" in modifiers:
            half = "high" if operation.unit % 2 else "low"
            for position in (0, 1):
                narrow_source(operation, position).push(body)
            body.op(f"i64x2.extmul_{half}_i32x4_{sign}")
            if instruction.root == "mad":
                operation.source(2, ScalarType.U64).push(body)
                body.op("i64x2.add")
            return
        for half in ("low", "high"):
            for position in (0, 1):
                operation.source(position).push(body)
            body.op(f"i64x2.extmul_{half}_i32x4_{sign}")
        shuffle(body, _ODD)
        if instruction.root == "mad":
            operation.source(2).push(body)
            body.op("i32x4.add")

    return emit


_OWN: Final[Mapping[str, Callable[[Strip, Instruction], Emit | None]]] = MappingProxyType(
    {
        "setp": _set_predicate,
        "selp": _choose,
        "shl": _shift,
        "shr": _shift,
        "shf": _funnel,
        "prmt": _permute,
        "popc": _population,
        "mul": _product,
        "mad": _product,
        "cvt": converter,
    }
)


def emit_units(strip: Strip, instruction: Instruction, emit: Emit) -> None:
    """Write all units of an instruction, and keep their results where its guard and the mask say."""
    mask = strip.guarded_mask(instruction.guard)
    is_wide = is_wide_unit(instruction)
    destinations = instruction.destinations
    is_truth = all(register is None or register.type is ScalarType.PRED for register in destinations)
    narrows = instruction.root == "cvt" and is_wide and not is_double(instruction.types[0])
    if is_truth and is_wide and instruction.root == "setp":
        _emit_wide_truths(strip, instruction, emit, mask)
    else:
        units = strip.width // (2 if is_wide and not narrows else 4)
        for unit in range(units):
            with LaneOperation(strip, instruction, unit, is_wide=is_wide) as operation:
                emit(operation)
                for register in reversed(destinations):
                    if register is None:
                        strip.body.op("drop")
                        continue
                    if register.type.bits == 16 and instruction.root == "not":
                        cut(strip.body, 16)
                    blend = mask if strip.must_blend(register, instruction.guard) else None
                    strip.set_vector(register, unit, blend)
    if is_truth and not strip.assumes:
        _find_truths(strip, instruction, mask)
    strip.release_mask(mask)


def _find_truths(strip: Strip, instruction: Instruction, mask: Mask) -> None:
    """Set the bits of predicates whose vectors were set."""
    body = strip.body
    reach = constant(I32, strip.width - 1)
    ends = ends_of_comparison(strip, instruction, reach)
    if ends is None:
        for register in instruction.destinations:
            if register is not None:
                strip.find_bits(register)
        return
    # A comparison of what is in line gives the same for all lanes where it does for both ends, if nothing wraps.
    same = body.local(ValType.I32)
    ends.first.push(body)
    body.tee(same)
    ends.last.push(body)
    body.op("i32.eq")
    ends.is_in_order.push(body)
    body.op("i32.and")
    with body.if_():
        body.i32_const(0)
        body.get(same)
        body.op("i32.sub")
        body.i32_const(strip.all_bits)
        body.op("i32.and")
        strip.set_bits(ends.register, mask if strip.must_blend(ends.register, instruction.guard) else None)
        body.else_()
        strip.find_bits(ends.register)
    body.release(same)


@dataclass(frozen=True, slots=True)
class Ends:
    """A comparison of a linear value with a uniform one, for the first lane and a later one.

    ``first`` and ``last`` are whether it holds there, ``is_in_order`` whether the linear value does not wrap between.
    """

    register: Register
    first: Value
    last: Value
    is_in_order: Value


def ends_of_comparison(strip: Strip, instruction: Instruction, reach: Value) -> Ends | None:
    """The ends of such a comparison, ``reach`` lanes apart; None for what is none of 32-bit integers."""
    kind, sources = instruction.type, instruction.sources
    relation = next((name for name in instruction.modifiers if name in _ORDERED), None)
    (register, *more) = instruction.destinations
    if relation is None or more or register is None or len(sources) != 2 or kind.bits != 32 or kind.is_float:
        return None
    shapes = [strip.shapes.operand(source) for source in sources]
    if sorted(shapes) != [Shape.UNIFORM, Shape.LINEAR]:
        return None
    linear = shapes.index(Shape.LINEAR)
    line = strip.shapes.line(sources[linear])
    assert line is not None
    sign = "s" if kind.is_signed else "u"
    sides = [Value(I32, partial(_push_scalar, strip, source, kind)) for source in sources]
    last = list(sides)
    last[linear] = sides[linear] + reach * line.step
    return Ends(
        register,
        sides[0].compare(f"{relation}_{sign}", sides[1]),
        last[0].compare(f"{relation}_{sign}", last[1]),
        last[linear].compare(f"{'ge' if line.step > 0 else 'le'}_{sign}", sides[linear]),
    )


def _push_scalar(strip: Strip, source: Operand, kind: ScalarType, _body: Body) -> None:
    strip.first.push(source, kind)


def _emit_wide_truths(strip: Strip, instruction: Instruction, emit: Emit, mask: Mask) -> None:
    """Comparisons of 64 bits: two units make the predicate of four lanes."""
    body = strip.body
    for quad in range(strip.quads):
        found = []
        for half in (0, 1):
            with LaneOperation(strip, instruction, 2 * quad + half, is_wide=True) as operation:
                emit(operation)
                parts = [body.local(V128) for _ in instruction.destinations]
                for part in reversed(parts):
                    body.set(part)
                found.append(parts)
        for position, register in enumerate(instruction.destinations):
            if register is not None:
                for parts in found:
                    read(parts[position]).push(body)
                shuffle(body, _EVEN)
                strip.set_vector(register, quad, mask if strip.must_blend(register, instruction.guard) else None)
        body.release(*(part for parts in found for part in parts))
