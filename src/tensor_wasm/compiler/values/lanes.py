"""Formulas over the lanes of a v128: what :class:`.formula.Value` is for one number, :class:`Lanes` is for several.

A formula that chooses by :func:`pick` can be written once for both. A comparison of lanes gives lanes of all ones or
all zeros, which ``&`` and ``|`` combine as they do the 0 and 1 of scalars.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from tensor_wasm.compiler.values.formula import I32, Value, combine, constant, select
from tensor_wasm.compiler.values.formula import fused as fused_scalar
from tensor_wasm.wasm import Body, ValType

_BYTES: Final = {"i32x4": "<i", "i64x2": "<q", "f32x4": "<f", "f64x2": "<d"}
_INTEGERS: Final = {"f32x4": "i32x4", "f64x2": "i64x2", "i32x4": "i32x4", "i64x2": "i64x2"}
_FLOATS: Final = {"i32x4": "f32x4", "i64x2": "f64x2"}
_SHIFTS: Final = ("shl", "shr_s", "shr_u")
_BITWISE: Final = ("and", "or", "xor")


class Lanes(Value):
    """An expression of lanes; ``shape`` is ``"i32x4"``, ``"i64x2"``, ``"f32x4"`` or ``"f64x2"``."""

    __slots__ = ("shape",)

    def __init__(self, shape: str, push: Callable[[Body], None]) -> None:
        super().__init__(ValType.V128, push)
        self.shape = shape

    def like(self, push: Callable[[Body], None]) -> Lanes:
        """Other lanes of this shape."""
        return Lanes(self.shape, push)

    def binary(self, name: str, other: Value | float, result: ValType | None = None) -> Lanes:  # noqa: ARG002
        """``name`` without its shape, applied to each lane of this and ``other``; a shift takes one i32 amount.

        ``result`` is a scalar's affair.
        """
        if name in _SHIFTS:
            right = other if isinstance(other, Value) else constant(I32, other)
        else:
            right = other if isinstance(other, Value) else fill(self.shape, other)
        if name == "copysign":
            sign = fill(_INTEGERS[self.shape], -(1 << 31 if self.shape == "f32x4" else 1 << 63))
            return self.like(combine("v128.bitselect", ValType.V128, right, self, sign).push)
        if self.shape == "i64x2" and name.endswith("_u") and name not in _SHIFTS:
            # There is no unsigned comparison of this shape: with their top bits inverted the order is the signed one.
            top = fill(self.shape, -(1 << 63))
            mine, other = (self.like(combine("v128.xor", ValType.V128, side, top).push) for side in (self, right))
            return mine.binary(f"{name[:-1]}s", other)
        prefix = "v128" if name in _BITWISE else self.shape
        return self.like(combine(f"{prefix}.{name}", ValType.V128, self, right).push)

    def unary(self, name: str) -> Lanes:
        """``name`` without its shape, applied to each lane."""
        return self.like(combine(f"{self.shape}.{name}", ValType.V128, self).push)

    def compare(self, relation: str, other: Value | float) -> Lanes:
        """All ones in the lanes where the comparison holds, else zeros."""
        return Lanes(_INTEGERS[self.shape], self.binary(relation, other).push)

    def is_zero(self) -> Lanes:
        """All ones in the lanes that are 0, else zeros."""
        return self.compare("eq", 0)

    def __neg__(self) -> Lanes:
        return self.unary("neg")

    def to(self, kind: ValType, *, signed: bool = False) -> Value:  # noqa: ARG002
        """The two low lanes of f32x4 as f64x2; otherwise the lanes must be of ``kind`` already."""
        if self.shape == "f32x4" and kind is ValType.F64:
            return Lanes("f64x2", combine("f64x2.promote_low_f32x4", ValType.V128, self).push)
        if self.shape.startswith(kind.name.lower()):
            return self
        raise ValueError(f"no change from {self.shape} to {kind.name} keeps the numbers")

    def bits(self) -> Lanes:
        """Floats' bit patterns as integers."""
        return Lanes(_INTEGERS[self.shape], self.push)

    def as_float(self) -> Lanes:
        """The floats that have these integers' bit patterns."""
        return Lanes(_FLOATS[self.shape], self.push)


def fill(shape: str, value: float) -> Lanes:
    """The same number in every lane; an integer may be given signed or unsigned."""
    layout = _BYTES[shape]
    if shape.startswith("i"):
        size = 8 * struct.calcsize(layout)
        value = (int(value) + (1 << size - 1)) % (1 << size) - (1 << size - 1)
    lane = struct.pack(layout, value)
    return Lanes(shape, lambda body: body.v128_const(lane * (16 // len(lane))))


def pick(condition: Value, then: Value, otherwise: Value | float) -> Value:
    """``then`` where ``condition`` (what a comparison gives) holds, else ``otherwise``, scalar or lane by lane."""
    if not isinstance(condition, Lanes):
        return select(condition, then, otherwise)
    assert isinstance(then, Lanes)
    other = otherwise if isinstance(otherwise, Value) else fill(then.shape, otherwise)
    return then.like(combine("v128.bitselect", ValType.V128, then, other, condition).push)


def fixed(sample: Value, value: float) -> Value:
    """A constant of the type or shape that ``sample`` has."""
    return fill(sample.shape, value) if isinstance(sample, Lanes) else constant(sample.type, value)


def is_double(value: Value) -> bool:
    """Whether a number, or each lane, has 64 bits."""
    if isinstance(value, Lanes):
        return value.shape in ("f64x2", "i64x2")
    return value.type in (ValType.F64, ValType.I64)


def is_single(value: Value) -> bool:
    """Whether a number, or each lane, is an f32."""
    return value.shape == "f32x4" if isinstance(value, Lanes) else value.type is ValType.F32


def fused(a: Value, b: Value, c: Value) -> Value:
    """``a * b + c`` of floats or lanes of them, rounded once, to nearest."""
    if not isinstance(a, Lanes):
        return fused_scalar(a, b, c)
    return a.like(combine(f"{a.shape}.relaxed_madd", ValType.V128, a, b, c).push)


def with_sign(magnitude: Value | float, sign: Value) -> Value:
    """A float, or lanes of them, of ``magnitude`` with the sign bit of ``sign``."""
    base = magnitude if isinstance(magnitude, Value) else fixed(sign, magnitude)
    return base.binary("copysign", sign)
