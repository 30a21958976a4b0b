"""Formulas over WebAssembly values, written as one writes them on paper.

A :class:`Value` is a pure expression of one WebAssembly type: ``a * b + c`` builds it, :meth:`Value.push` writes its
instructions. Writing it twice computes it twice; :meth:`Scope.let` keeps it in a local instead. Integer operators
wrap; a comparison gives an i32 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from tensor_wasm.wasm import Body, Local, ValType

I32, I64, F32, F64 = ValType.I32, ValType.I64, ValType.F32, ValType.F64

_PREFIX: Final = {I32: "i32", I64: "i64", F32: "f32", F64: "f64", ValType.V128: "v128"}
_TYPE_OF: Final = {prefix: kind for kind, prefix in _PREFIX.items()}
_ABSOLUTE_MASK: Final = {I32: 0x7FFF_FFFF, I64: 0x7FFF_FFFF_FFFF_FFFF}


class Value:
    """An expression of type ``type``; ``push`` writes the instructions that leave it on the stack."""

    __slots__ = ("push", "type")

    def __init__(self, kind: ValType, push: Callable[[Body], None]) -> None:
        self.type = kind
        self.push = push

    def like(self, push: Callable[[Body], None]) -> Value:
        """Another value of this one's type."""
        return Value(self.type, push)

    def binary(self, name: str, other: Value | float, result: ValType | None = None) -> Value:
        """``name`` without its type prefix (``"shr_s"``) applied to this and ``other``."""
        right = other if isinstance(other, Value) else constant(self.type, other)
        return combine(f"{_PREFIX[self.type]}.{name}", result or self.type, self, right)

    def unary(self, name: str) -> Value:
        """``name`` without its type prefix (``"sqrt"``) applied to this."""
        return combine(f"{_PREFIX[self.type]}.{name}", self.type, self)

    def __add__(self, other: Value | float) -> Value:
        return self.binary("add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self.binary("sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self.binary("mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.binary("div", other)

    def __and__(self, other: Value | int) -> Value:
        return self.binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self.binary("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self.binary("xor", other)

    def __lshift__(self, other: Value | int) -> Value:
        return self.binary("shl", other)

    def __neg__(self) -> Value:
        if self.type in (F32, F64):
            return self.unary("neg")
        return constant(self.type, 0) - self

    def compare(self, relation: str, other: Value | float) -> Value:
        """A comparison (``"lt_u"``): i32 0 or 1."""
        return self.binary(relation, other, I32)

    def is_zero(self) -> Value:
        """``eqz`` of an integer."""
        return combine(f"{_PREFIX[self.type]}.eqz", I32, self)

    def is_nan(self) -> Value:
        """Whether a float is NaN."""
        return self.compare("ne", self)

    def shr_s(self, amount: Value | int) -> Value:
        """Arithmetic shift right."""
        return self.binary("shr_s", amount)

    def shr_u(self, amount: Value | int) -> Value:
        """Logical shift right."""
        return self.binary("shr_u", amount)

    def to(self, kind: ValType, *, signed: bool = False) -> Value:
        """Between i32 and i64 by wrapping or extending, between f32 and f64 by rounding to nearest or exactly."""
        match self.type, kind:
            case (ValType.I64, ValType.I32):
                return combine("i32.wrap_i64", I32, self)
            case (ValType.I32, ValType.I64):
                return combine("i64.extend_i32_s" if signed else "i64.extend_i32_u", I64, self)
            case (ValType.F64, ValType.F32):
                return combine("f32.demote_f64", F32, self)
            case (ValType.F32, ValType.F64):
                return combine("f64.promote_f32", F64, self)
            case _ if self.type is kind:
                return self
            case _:
                raise ValueError(f"no change from {self.type.name} to {kind.name} keeps the number")

    def bits(self) -> Value:
        """A float's bit pattern as an integer."""
        kind = I32 if self.type is F32 else I64
        return combine(f"{_PREFIX[kind]}.reinterpret_{_PREFIX[self.type]}", kind, self)

    def as_float(self) -> Value:
        """The float that has this integer's bit pattern."""
        kind = F32 if self.type is I32 else F64
        return combine(f"{_PREFIX[kind]}.reinterpret_{_PREFIX[self.type]}", kind, self)


def combine(name: str, result: ValType, *operands: Value) -> Value:
    """The plain instruction ``name`` applied to operands, of type ``result``."""

    def push(body: Body) -> None:
        for operand in operands:
            operand.push(body)
        body.op(name)

    return Value(result, push)


def apply(name: str, *operands: Value) -> Value:
    """The plain scalar instruction ``name`` (not a comparison): its prefix says the type of the result."""
    return combine(name, _TYPE_OF[name.partition(".")[0]], *operands)


def constant(kind: ValType, value: float) -> Value:
    """A number of a scalar type."""
    match kind:
        case ValType.I32:
            return Value(kind, lambda body: body.i32_const(int(value)))
        case ValType.I64:
            return Value(kind, lambda body: body.i64_const(int(value)))
        case ValType.F32:
            return Value(kind, lambda body: body.f32_const(value))
        case _:
            return Value(kind, lambda body: body.f64_const(value))


def select(condition: Value, then: Value, otherwise: Value | float) -> Value:
    """``then`` where ``condition`` (i32) is not zero, else ``otherwise``; both are computed."""
    other = otherwise if isinstance(otherwise, Value) else constant(then.type, otherwise)
    return combine("select", then.type, then, other, condition)


def choose(condition: Value, then: Value, otherwise: Value | float) -> Value:
    """As :func:`select`, by a branch: only the side taken is computed, so the other may trap."""
    other = otherwise if isinstance(otherwise, Value) else constant(then.type, otherwise)

    def push(body: Body) -> None:
        condition.push(body)
        with body.if_(then.type):
            then.push(body)
            body.else_()
            other.push(body)

    return Value(then.type, push)


def fused(a: Value, b: Value, c: Value) -> Value:
    """``a * b + c`` of f32 or f64, rounded once, to nearest.

    ``relaxed_madd`` is exact in Wasmtime's deterministic mode. With splat and extract it costs 0.48 ns where an f32
    sum costs 0.42; by way of f64, which rounds twice, it would be 0.79.
    """
    shape = "f32x4" if a.type is F32 else "f64x2"

    def push(body: Body) -> None:
        for operand in (a, b, c):
            operand.push(body)
            body.op(f"{shape}.splat")
        body.op(f"{shape}.relaxed_madd")
        body.lane(f"{shape}.extract_lane", 0)

    return Value(a.type, push)


def absolute(value: Value) -> Value:
    """A float's magnitude, by its bits."""
    return value.unary("abs")


class Scope:
    """Locals of a body for as long as a formula is written; a ``with`` statement gives them back."""

    __slots__ = ("_locals", "body")

    def __init__(self, body: Body) -> None:
        self.body = body
        self._locals: list[Local] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.body.release(*self._locals)
        self._locals.clear()

    def local(self, kind: ValType) -> Local:
        """A local that holds until the scope ends."""
        local = self.body.local(kind)
        self._locals.append(local)
        return local

    def let(self, value: Value) -> Value:
        """Compute ``value`` now; what comes back reads it."""
        local = self.local(value.type)
        value.push(self.body)
        self.body.set(local)
        return value.like(lambda body: body.get(local))


def read(local: Local) -> Value:
    """The value a local holds at the time it is pushed."""
    return Value(local.type, lambda body: body.get(local))
