"""Float arithmetic (PTX ISA, "Floating Point Instructions"): sums, products, quotients, roots, extremes.

Rounding to nearest is WebAssembly's own; the directed modes are helpers of
:mod:`tensor_wasm.compiler.values.rounding`. Nothing is fused that the text does not fuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tensor_wasm.compiler.values.formula import Value, absolute
from tensor_wasm.compiler.values.lanes import fixed, fused, is_single, pick, with_sign
from tensor_wasm.compiler.values.operation import Operation, canonical_nan
from tensor_wasm.ptx.program import ScalarType


def add(operation: Operation) -> None:
    """``add``."""
    operation.finish(_rounded(operation, "add", operation.real(0), operation.real(1)))


def subtract(operation: Operation) -> None:
    """``sub``."""
    a, b = operation.real(0), operation.real(1)
    result = a - b if operation.rounding == "rn" else _rounded(operation, "add", a, -b)
    operation.finish(result)


def multiply(operation: Operation) -> None:
    """``mul``."""
    operation.finish(_rounded(operation, "mul", operation.real(0), operation.real(1)))


def multiply_add(operation: Operation) -> None:
    """``fma``, and ``mad`` of floats, which is the same."""
    a, b, c = (operation.real(position) for position in range(3))
    operation.finish(_rounded(operation, "fma", a, b, c))


def divide(operation: Operation) -> None:
    """``div``: correctly rounded also for ``.full``, and for ``.approx`` where the ISA gives a bound.

    ``.approx`` goes by way of the reciprocal, so for ``|b|`` above 2**126 the quotient is 0 or NaN.
    """
    a, b = operation.real(0), operation.real(1)
    if operation.has("approx"):
        is_out_of_range = absolute(b).compare("gt", 2.0**126)
        operation.finish(pick(is_out_of_range, a * with_sign(0.0, b), a / b))
    else:
        operation.finish(_rounded(operation, "div", a, b))


def reciprocal(operation: Operation) -> None:
    """``rcp``; ``rcp.approx`` is correctly rounded."""
    if operation.type is ScalarType.F64 and operation.has("approx"):
        operation.finish(operation.call("reciprocal.approx.f64", operation.source(0)))
        return
    a = operation.real(0)
    operation.finish(_rounded(operation, "div", fixed(a, 1.0), a))


def square_root(operation: Operation) -> None:
    """``sqrt``; ``sqrt.approx`` is correctly rounded."""
    operation.finish(_rounded(operation, "sqrt", operation.real(0)))


def reciprocal_root(operation: Operation) -> None:
    """``rsqrt.approx``: two roundings, within 2**-22.9 for f32."""
    if operation.type is ScalarType.F64 and operation.is_flushing:
        operation.finish(operation.call("reciprocal_root.approx.f64", operation.source(0)))
        return
    a = operation.real(0)
    operation.finish(fixed(a, 1.0) / a.unary("sqrt"))


_NEAREST: Final[dict[str, Callable[..., Value]]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "sqrt": lambda a: a.unary("sqrt"),
    "fma": fused,
}


def _rounded(operation: Operation, name: str, *operands: Value) -> Value:
    """An operation in the instruction's rounding mode. Down is up of the negated result, which costs two signs."""
    mode = operation.rounding
    kind = "f32" if is_single(operands[0]) else "f64"
    if mode == "rn":
        return _NEAREST[name](*operands)
    if name == "sqrt":  # never negative: down is towards zero
        return operation.call(f"sqrt.{'rp' if mode == 'rp' else 'rz'}.{kind}", *operands)
    if mode in ("rp", "rz"):
        return operation.call(f"{name}.{mode}.{kind}", *operands)
    if name == "add":
        a, b = operands
        return -operation.call(f"add.rp.{kind}", -a, -b)
    if name == "fma":
        a, b, c = operands
        return -operation.call(f"fma.rp.{kind}", -a, b, -c)
    a, b = operands
    return -operation.call(f"{name}.rp.{kind}", -a, b)


def negate(operation: Operation) -> None:
    """``neg``."""
    operation.finish(-operation.source(0))


def magnitude(operation: Operation) -> None:
    """``abs``."""
    operation.finish(absolute(operation.source(0)))


def copy_sign(operation: Operation) -> None:
    """``copysign``: the sign of ``a`` on the magnitude of ``b``."""
    with_sign(operation.source(1), operation.source(0)).push(operation.body)


def minimum(operation: Operation) -> None:
    """``min{.NaN}{.xorsign.abs}`` of two or three operands; -0 is below +0."""
    _extreme(operation, "min")


def maximum(operation: Operation) -> None:
    """``max{.NaN}{.xorsign.abs}`` of two or three operands; -0 is below +0."""
    _extreme(operation, "max")


def _extreme(operation: Operation, name: str) -> None:
    count = len(operation.instruction.sources)
    operands = [operation.real(position) for position in range(count)]
    values = [absolute(value) for value in operands] if operation.has("abs") else operands
    result = values[0]
    for position in range(1, count):
        if operation.has("NaN"):
            result = result.binary(name, values[position])
        else:
            result = _number(operation, name, result, values[position], position)
    if operation.has("xorsign"):
        result = operation.let(result)
        signs = operands[0].bits()
        for operand in operands[1:]:
            signs = signs ^ operand.bits()
        result = pick(result.is_nan(), result, with_sign(result, signs.as_float()))
    if operation.has("NaN"):
        result = operation.let(result)
        result = pick(result.is_nan(), canonical_nan(result), result)
    operation.finish(result)


def _number(operation: Operation, name: str, a: Value, b: Value, position: int) -> Value:
    """The extreme of those of ``a`` and ``b`` that are numbers."""
    bits = operation.constant(position)
    if position > 1:
        a = operation.let(a)
    if bits is not None and _decides_alone(bits, operation.type, name):
        return pick(a.compare("lt" if name == "min" else "gt", b), a, b)
    return pick(a.is_nan(), b, pick(b.is_nan(), a, a.binary(name, b)))


def _decides_alone(bits: int, kind: ScalarType, name: str) -> bool:
    """Whether with this constant one comparison is enough: it is a number, and no zero that the other could beat."""
    infinity = 0x7F80_0000 if kind is ScalarType.F32 else 0x7FF0_0000_0000_0000
    sign = 1 << kind.bits - 1
    size = bits & (sign - 1)
    is_beatable = name == "min" if bits < sign else name == "max"
    # Subnormal constants may be flushed to zeros, so they count as such.
    least_normal = infinity & -infinity
    return size <= infinity and not (size < least_normal and is_beatable)


def hyperbolic_tangent(operation: Operation) -> None:
    """``tanh.approx``."""
    _approximate(operation, "tanh.f32")


def sine(operation: Operation) -> None:
    """``sin.approx``."""
    _approximate(operation, "sin.f32")


def cosine(operation: Operation) -> None:
    """``cos.approx``."""
    _approximate(operation, "cos.f32")


def logarithm(operation: Operation) -> None:
    """``lg2.approx``."""
    _approximate(operation, "lg2.f32")


def exponential(operation: Operation) -> None:
    """``ex2.approx``."""
    _approximate(operation, "ex2.f32")


def _approximate(operation: Operation, helper: str) -> None:
    operation.finish(operation.call(helper, operation.real(0)))
