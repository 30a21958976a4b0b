"""Vectors of floats of 16 bits to and from wider ones, without a rounding too many."""

from __future__ import annotations

import struct
from typing import Final

from tensor_wasm.compiler.values.formula import Scope, Value
from tensor_wasm.compiler.warp.mailbox import quads, shift, shuffle, vector, words

#: Between the exponent bias of f16, moved up to where f32 has its exponent, and that of f32.
_REBIAS: Final = 2.0**112
#: What the largest finite f16, 65504, is rounded up to: the infinity of f16, as a number.
_OVERFLOW: Final = 65536.0
_MINIMUM_EXPONENT: Final = 1023 - 14
_F64_EXPONENT: Final = 0x7FF << 52
_HALF_NAN: Final = 0x7FFF
_SINGLE_NAN: Final = 0x7FFF_FFFF
_DOUBLE_NAN: Final = 0x7FFF_FFFF_FFFF_FFFF


def single_from_half(scope: Scope, bits: Value, *, is_high: bool = False) -> Value:
    """The f32x4 of the f16 in the low or high half of each 32-bit word; the other half does not matter."""
    upper = bits if is_high else shift("i32x4.shl", bits, 16)
    moved = vector("v128.and", shift("i32x4.shr_s", upper, 3), words(0x8FFF_E000))
    # Read with f32's bias the number is too small by a power of two; f16's subnormal numbers come out right as well.
    number = scope.let(vector("f32x4.mul", moved, _singles(_REBIAS)))
    is_infinite = vector("f32x4.ge", vector("f32x4.abs", number), _singles(_OVERFLOW))
    return vector("v128.or", number, vector("v128.and", is_infinite, words(0x7F80_0000)))


def half_from_double(scope: Scope, value: Value) -> Value:
    """The f16 nearest to each of an f64x2, ties to even, as words 0 and 1; any NaN gives the canonical one.

    Adding and subtracting 2 ** (e + 42), with e the exponent of the magnitude, rounds it to the 11 bits of f16, or
    to fewer where f16 is subnormal.
    """
    kept = scope.let(value)
    limited = scope.let(vector("f64x2.min", vector("f64x2.abs", kept), _doubles(_OVERFLOW)))
    exponent = scope.let(vector("v128.and", limited, quads(_F64_EXPONENT)))
    least = quads(_MINIMUM_EXPONENT << 52)
    exponent = vector("v128.bitselect", exponent, least, vector("i64x2.gt_s", exponent, least))
    anchor = scope.let(vector("i64x2.add", exponent, quads(42 << 52)))
    rounded = vector("f64x2.sub", vector("f64x2.add", limited, anchor), anchor)
    scaled = vector("f32x4.mul", vector("f32x4.demote_f64x2_zero", rounded), _singles(1 / _REBIAS))
    sign = vector("v128.and", shift("i32x4.shr_u", vector("f32x4.demote_f64x2_zero", kept), 16), words(0x8000))
    bits = vector("v128.or", shift("i32x4.shr_u", scaled, 13), sign)
    return _without_nan(kept, bits, _HALF_NAN)


def single_from_double(scope: Scope, value: Value) -> Value:
    """Each of an f64x2 rounded to f32, as words 0 and 1; any NaN gives the canonical one."""
    kept = scope.let(value)
    return _without_nan(kept, vector("f32x4.demote_f64x2_zero", kept), _SINGLE_NAN)


def double_without_nan(scope: Scope, value: Value) -> Value:
    """An f64x2 with the canonical NaN for any."""
    kept = scope.let(value)
    return vector("v128.bitselect", quads(_DOUBLE_NAN), kept, vector("f64x2.ne", kept, kept))


def _without_nan(value: Value, bits: Value, nan: int) -> Value:
    """Words 0 and 1 of ``bits``, but ``nan`` where the f64x2 is NaN."""
    truths = vector("f64x2.ne", value, value)
    return vector("v128.bitselect", words(nan), bits, shuffle(truths, truths, (0, 2, 0, 2)))


def _singles(value: float) -> bytes:
    return struct.pack("<f", value) * 4


def _doubles(value: float) -> bytes:
    return struct.pack("<d", value) * 2
