"""f16 and bf16: their layouts, and their way to f32 or f64 and back, for one number or the lanes of a vector.

Halves are bit patterns in i32. :func:`widen` ignores what is above their 16 bits; :func:`narrow` leaves zeros there.
Widening is exact. Narrowing rounds once, from f32 or from f64, so a formula that is exact in f64 is correctly rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.values.formula import F32, F64, I32, Scope, Value, absolute, select
from tensor_wasm.compiler.values.helper import Helper, Writer
from tensor_wasm.compiler.values.lanes import Lanes, fixed, is_double, pick
from tensor_wasm.ptx.program import ScalarType

#: The NaN that GPUs make, in either layout.
NAN: Final = 0x7FFF
SIGN: Final = 0x8000
DIRECTED: Final = ("rz", "rm", "rp")


@dataclass(frozen=True, slots=True)
class Layout:
    """A 16-bit float. ``fraction_bits`` are stored; ``exponent_max`` is the largest exponent of a finite number."""

    name: str
    fraction_bits: int
    exponent_max: int

    @property
    def infinity(self) -> int:
        """The pattern of infinity, which is also the mask of the exponent."""
        return 0x7FFF >> self.fraction_bits << self.fraction_bits

    @property
    def one(self) -> int:
        """The pattern of 1."""
        return self.exponent_max << self.fraction_bits

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float((2 - 2.0**-self.fraction_bits) * 2.0**self.exponent_max)


F16: Final = Layout("f16", 10, 15)
BF16: Final = Layout("bf16", 7, 127)
#: The layout of each type, or of each half of it.
LAYOUTS: Final[Mapping[ScalarType, Layout]] = MappingProxyType(
    {ScalarType.F16: F16, ScalarType.F16X2: F16, ScalarType.BF16: BF16, ScalarType.BF16X2: BF16}
)


def widen(scope: Scope, layout: Layout, half: Value) -> Value:
    """A half as an f32."""
    return (half << 16).as_float() if layout is BF16 else _scaled_down(scope, half) * 2.0**112


def ordered(scope: Scope, layout: Layout, half: Value) -> Value:
    """An f32 that compares with others of this function as the half does with theirs; cheaper than :func:`widen`."""
    return (half << 16).as_float() if layout is BF16 else _scaled_down(scope, half)


def _scaled_down(scope: Scope, half: Value) -> Value:
    """An f16 times 2**-112 as an f32: the fields are in place, only the exponent's bias differs.

    The exponent of infinities and NaN must become all ones: one step up carries from it into the bit above, which is
    otherwise clear, and times seven that bit is what is missing.
    """
    moved = scope.let((half << 16).shr_s(3) & 0x8FFF_E000)
    carried = scope.let((moved + 0x0080_0000) & 0x1000_0000)
    return (moved | ((carried << 3) - carried)).as_float()


def narrow(scope: Scope, layout: Layout, number: Value) -> Value:
    """An f32 or f64 as a half, rounded to nearest, ties to even; every NaN becomes :data:`NAN`."""
    number = scope.let(number)
    bits = scope.let(number.bits())
    digits, bias, width = (52, 1023, 64) if is_double(number) else (23, 127, 32)
    size = scope.let(bits & (1 << width - 1) - 1)
    if layout is BF16 and width == 32:
        half = (bits + ((bits.shr_u(16) & 1) + 0x7FFF)).shr_u(16)
    else:
        half = _nearest_pattern(scope, layout, size) | bits.shr_u(width - 16) & SIGN
    # Of lanes floats are the faster to compare, of scalars integers.
    is_nan = number.is_nan() if isinstance(number, Lanes) else size.compare("gt_s", 2 * bias + 1 << digits)
    return as_word(pick(is_nan, fixed(bits, NAN), half))


def _nearest_pattern(scope: Scope, layout: Layout, size: Value) -> Value:
    """The half next to a number that is not negative, from and to bit patterns.

    It is rounded by a sum in which it is the smaller operand, and whose last bit is worth as much as the half's. The
    larger operand is a power of two that follows from the number's exponent. The number of units that were added,
    with the exponent times the units of a binade, is the pattern; a carry out of the fraction raises the exponent.
    """
    digits, bias = (52, 1023) if is_double(size) else (23, 127)
    dropped = digits - layout.fraction_bits
    exponent_min = 1 - layout.exponent_max
    at_most = scope.let(_limited(size, "min", bias + layout.exponent_max + 1 << digits))
    power = _limited(at_most, "max", bias + exponent_min << digits) & (2 * bias + 1 << digits)
    total = scope.let((at_most.as_float() + (power + (dropped << digits)).as_float()).bits())
    units = total & (1 << layout.fraction_bits + 2) - 1
    return total.shr_u(dropped) + units - (bias + exponent_min + dropped << layout.fraction_bits)


def _limited(size: Value, extreme: str, limit: int) -> Value:
    """The ``"min"`` or ``"max"`` of the pattern of a number that is not negative and a limit; of NaN the limit."""
    bound = fixed(size, limit)
    if not isinstance(size, Lanes):
        return select(size.compare("lt_s" if extreme == "min" else "gt_s", limit), size, bound)
    if is_double(size):  # there is no such instruction for 64-bit integers; floats are ordered as their patterns are
        return bound.as_float().binary(f"p{extreme}", size.as_float()).bits()
    return size.binary(f"{extreme}_s", bound)


def as_word(value: Value) -> Value:
    """An integer as i32; lanes stay as they are."""
    return value if isinstance(value, Lanes) else value.to(I32)


def flush(scope: Scope, layout: Layout, half: Value) -> Value:
    """A half with subnormal numbers turned into zeros of their sign."""
    half = scope.let(half)
    return scope.let(pick((half & layout.infinity).is_zero(), half & SIGN, half))


def signed_as(magnitude: Value, sign: Value) -> Value:
    """A float of ``magnitude``, which is not negative, with the sign of ``sign``."""
    if not isinstance(magnitude, Lanes):
        return magnitude.binary("copysign", sign)
    top = -(1 << 63) if is_double(magnitude) else -(1 << 31)
    return (magnitude.bits() | sign.bits() & top).as_float()


def fused(scope: Scope, layout: Layout, a: Value, b: Value, c: Value) -> Value:
    """``a * b + c`` of halves widened to f32, as an f64 that :func:`narrow` rounds as it would the exact sum.

    Products are exact in f64. Where the sum is not, one operand is smaller than the last bit of the other. Beside a
    product of f16 that is exact in f32 and a result in range this only happens when the sum is next to ``c``, far from
    the middle between two halves. A product of bf16 may be such a middle: a ``c`` that is less than 2**-30 of it
    counts as that much, which moves the sum as little past the middle as ``c`` did.
    """
    if layout is F16:
        return (a * b).to(F64) + c.to(F64)
    product = scope.let(a.to(F64) * b.to(F64))
    addend = scope.let(c.to(F64))
    size = scope.let(absolute(product))
    # NaN for infinite products, so that these stay alone.
    least = scope.let(size - size * (1 - 2.0**-30))
    is_lost = absolute(addend).compare("lt", least) & addend.compare("ne", 0.0)
    return product + pick(is_lost, signed_as(least, addend), addend)


# --- helper functions ---------------------------------------------------------------------------------------


def _directed(layout: Layout, mode: str, writer: Writer, number: Value) -> Value:
    """Rounded to nearest, and one step back where that went the wrong way."""
    half = writer.let(narrow(writer, layout, number))
    wide = writer.let(widen(writer, layout, half).to(number.type))
    if mode == "rz":
        return half - absolute(wide).compare("gt", absolute(number))
    is_wrong = wide.compare("lt" if mode == "rp" else "gt", number)
    up, down = (1, -1) if mode == "rp" else (-1, 1)
    step = pick(half & SIGN, fixed(half, down), fixed(half, up))
    return half + pick(is_wrong, step, 0)


def _widened(layout: Layout, writer: Writer, half: Value) -> Value:
    return widen(writer, layout, half)


def _nearest(layout: Layout, writer: Writer, number: Value) -> Value:
    return narrow(writer, layout, number)


def _helpers() -> dict[str, Helper]:
    helpers = {}
    for layout in (F16, BF16):
        helpers[f"{layout.name}.to_f32"] = Helper((I32,), F32, partial(_widened, layout))
        for kind in (F32, F64):
            name = f"{layout.name}.from_{kind.name.lower()}"
            helpers[name] = Helper((kind,), I32, partial(_nearest, layout))
            for mode in DIRECTED:
                helpers[f"{name}.{mode}"] = Helper((kind,), I32, partial(_directed, layout, mode))
    return helpers


#: For the library: ``f16.to_f32``, ``f16.from_f32``, ``f16.from_f64``, with ``.rz .rm .rp`` behind; ``bf16`` likewise.
HELPERS: Final = _helpers()
