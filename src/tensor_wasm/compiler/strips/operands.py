"""Operands of a strip as lanes, a unit at a time.

A *unit* is what one vector instruction does at a time: four lanes of 32 bits, or two of 64. Sources come as
:class:`~tensor_wasm.compiler.values.lanes.Lanes`; predicates as all ones or 0, in the unit's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.shapes import Line, Shape
from tensor_wasm.compiler.strips.strip import Strip, is_double
from tensor_wasm.compiler.values.formula import I32, Value, combine
from tensor_wasm.compiler.values.lanes import Lanes, fill
from tensor_wasm.compiler.values.operation import Operation
from tensor_wasm.ptx.program import Immediate, Instruction, Operand, Register, ScalarType, Special
from tensor_wasm.wasm import Body, ValType

V128 = ValType.V128
_SHAPES: Final = {ValType.I32: "i32x4", ValType.I64: "i64x2", ValType.F32: "f32x4", ValType.F64: "f64x2"}
#: Modes of rounding that no vector instruction has.
DIRECTED: Final = frozenset({"rz", "rm", "rp"})


class LaneOperation(Operation):
    """One unit of an instruction while it is written."""

    __slots__ = ("_is_wide", "strip", "unit")

    def __init__(self, strip: Strip, instruction: Instruction, unit: int, *, is_wide: bool) -> None:
        super().__init__(strip.body, instruction, self._no_push, strip.first.library)
        self.strip = strip
        self.unit = unit
        self._is_wide = is_wide

    @staticmethod
    def _no_push(_position: int, _kind: ScalarType) -> None:
        raise AssertionError("lanes are no numbers")

    def source(self, position: int, kind: ScalarType | None = None) -> Value:
        """Source ``position`` as lanes of ``kind`` (default: the instruction's own type)."""
        kind = self.type if kind is None else kind
        value = lanes_of(self.strip, self.instruction.sources[position], kind, self.unit, is_wide=self._is_wide)
        if position in self.instruction.negated:
            return value.like(combine("v128.not", V128, value).push)
        return value

    def amount(self, position: int) -> Value:
        """A uniform source as a number, u32."""
        strip, operand = self.strip, self.instruction.sources[position]
        return Value(I32, lambda _body: strip.first.push(operand, ScalarType.U32))

    def call(self, helper: str, *arguments: Value) -> Value:
        """The result of a helper function for lanes."""
        # "fma.rp.f32" is "fma.rp.f32x4" for lanes.
        value = super().call(f"{helper}x4", *arguments)
        return Lanes("f32x4", value.push)


def lanes_of(strip: Strip, operand: Operand, kind: ScalarType, unit: int, *, is_wide: bool) -> Lanes:
    """An operand as the lanes of a unit; a predicate of a wide unit is widened."""
    if kind is ScalarType.PRED:
        return _truths(strip, operand, unit, is_wide=is_wide)
    shape = _SHAPES[carrier(kind)]
    match operand:
        case Immediate(bits):
            return Lanes(shape, fill("i64x2" if is_double(kind) else "i32x4", bits).push)
        case Register() if strip.shape(operand) is Shape.VARYING:
            local = strip.vectors(operand)[unit]
            return Lanes(shape, lambda body: body.get(local))
        case Special("laneid"):
            return Lanes(shape, lambda body: _push_lane_id(strip, body, unit))
    line = strip.shapes.line(operand)
    if line is not None:
        return Lanes(shape, lambda body: _push_line(strip, body, operand, line, unit, is_long=is_double(kind)))

    def push(body: Body) -> None:
        strip.first.push(operand, kind)
        body.op(f"{shape}.splat")

    return Lanes(shape, push)


def _push_line(strip: Strip, body: Body, operand: Operand, line: Line, unit: int, *, is_long: bool) -> None:
    """Push a unit of a linear operand."""
    if not is_long:
        strip.first.push(operand, ScalarType.B32)
        body.op("i32x4.splat")
        _push_steps(body, line.step, 4 * unit, 4)
        body.op("i32x4.add")
        return
    strip.first.push(operand, ScalarType.B64)
    body.op("i64x2.splat")
    if not line.is_wide:
        _push_steps(body, line.step, 2 * unit, 2)
        body.op("i64x2.add")
        return
    assert isinstance(operand, Register)
    sign = "s" if line.is_signed else "u"
    body.get(strip.origin(operand))
    body.op("i32x4.splat")
    _push_steps(body, line.origin_step, 2 * unit, 4)
    body.op("i32x4.add", f"i64x2.extend_low_i32x4_{sign}")
    body.get(strip.origin(operand))
    body.op(f"i64.extend_i32_{sign}", "i64x2.splat", "i64x2.sub")
    if line.scale != 1:
        body.i64_const(line.scale)
        body.op("i64x2.splat", "i64x2.mul")
    body.op("i64x2.add")


def _push_steps(body: Body, step: int, first: int, count: int) -> None:
    """Push what some lanes are from the first one of the strip."""
    size = 16 // count
    body.v128_const(
        b"".join(((first + lane) * step % (1 << 8 * size)).to_bytes(size, "little") for lane in range(count))
    )


def _push_lane_id(strip: Strip, body: Body, unit: int) -> None:
    body.get(strip.first.coordinates.thread)
    body.op("i32x4.splat")
    body.v128_const(b"".join((4 * unit + lane).to_bytes(4, "little") for lane in range(4)))
    body.op("i32x4.add")
    fill("i32x4", 31).push(body)
    body.op("v128.and")


def _truths(strip: Strip, operand: Operand, unit: int, *, is_wide: bool) -> Lanes:
    shape = "i64x2" if is_wide else "i32x4"
    if isinstance(operand, Register) and strip.shape(operand) is Shape.VARYING:
        local = strip.vectors(operand)[unit // 2 if is_wide else unit]

        def push(body: Body) -> None:
            body.get(local)
            if is_wide:
                body.op(f"i64x2.extend_{'high' if unit % 2 else 'low'}_i32x4_s")

        return Lanes(shape, push)

    def push_same(body: Body) -> None:
        body.i32_const(0)
        strip.first.push(operand, ScalarType.PRED)
        body.op("i32.sub")
        if is_wide:
            body.op("i64.extend_i32_s")
        body.op(f"{shape}.splat")

    return Lanes(shape, push_same)


#: Writes a unit's results on the stack, one a destination, the first deepest.
Emit = Callable[[LaneOperation], None]


def narrow_source(operation: LaneOperation, position: int) -> Lanes:
    """The four lanes of 32 bits of which a wide unit is a half."""
    return lanes_of(
        operation.strip, operation.instruction.sources[position], operation.type, operation.unit // 2, is_wide=False
    )


def cut(body: Body, bits: int) -> None:
    """Clear what lanes of 32 bits have above their low ``bits``."""
    fill("i32x4", (1 << bits) - 1).push(body)
    body.op("v128.and")


# --- what fits ------------------------------------------------------------------------------------------------


def is_own(operand: Special) -> bool:
    """Whether lanes have values of a special register that no vector has."""
    return operand.name.startswith("lanemask") or operand.name == "warpid"


def words_only(instruction: Instruction) -> bool:
    """Whether all types are predicates or of 32 or 64 bits, and none is a packed one."""
    return all(kind.bits in (32, 64) or kind is ScalarType.PRED for kind in instruction.types) and not any(
        kind.kind == "x" or kind is ScalarType.F16 for kind in instruction.types
    )


def matches(instruction: Instruction, kinds: Sequence[ScalarType | None] | None = None) -> bool:
    """Whether registers have the widths of the types their places say (None: the instruction's own)."""
    places = kinds or [None] * len(instruction.sources)
    for operand, kind in zip(instruction.sources, places, strict=False):
        want = kind or instruction.type
        if isinstance(operand, Register) and (
            operand.type.bits != want.bits or (operand.type is ScalarType.PRED) != (want is ScalarType.PRED)
        ):
            return False
        if isinstance(operand, Special) and operand.type.bits != want.bits and operand.name in ("tid", "laneid"):
            return False
    return True
