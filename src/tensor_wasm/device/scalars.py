"""Arguments by value: Python and NumPy scalars to the bytes of a kernel parameter, by the parameter's PTX type."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.errors import KernelArgumentError


@dataclass(frozen=True, slots=True)
class ScalarRule:
    """What a parameter of one PTX type takes.

    ``numpy`` are the NumPy types, as the part of ``dtype.str`` after the byte order. ``integers`` is the range of
    Python ints, None when none is taken; a range's ints are packed modulo 2 ** bits. ``real`` is the
    :mod:`struct` code of Python floats and ints, ``e`` ``f`` ``d``, or ``bf16``; empty when floats are not taken.
    """

    numpy: frozenset[str]
    integers: range | None = None
    real: str = ""


def _integer(bits: int, *, signed: bool = False, also: str = "") -> ScalarRule:
    size = bits // 8
    kinds = {f"i{size}", f"u{size}", *also.split()}
    # A C compiler says u32 of an int too, so an unsigned type takes both ranges.
    return ScalarRule(frozenset(kinds), range(-(1 << bits - 1), 1 << (bits - 1 if signed else bits)))


RULES: dict[str, ScalarRule] = {
    "u8": _integer(8, also="b1"),
    "s8": _integer(8, signed=True, also="b1"),
    "b8": _integer(8, also="b1"),
    "u16": _integer(16),
    "s16": _integer(16, signed=True),
    "b16": _integer(16, also="f2"),
    "u32": _integer(32),
    "s32": _integer(32, signed=True),
    "b32": _integer(32, also="f4"),
    "u64": _integer(64),
    "s64": _integer(64, signed=True),
    "b64": _integer(64, also="f8"),
    "f16": ScalarRule(frozenset({"f2"}), real="e"),
    "bf16": ScalarRule(frozenset(), real="bf16"),
    "f32": ScalarRule(frozenset({"f4"}), real="f"),
    "f64": ScalarRule(frozenset({"f8"}), real="d"),
}

#: Types that an array can be passed for.
POINTER_KINDS = frozenset({"u64", "s64", "b64"})

_NAMES = {
    "b1": "numpy.bool_",
    **{f"i{size}": f"numpy.int{8 * size}" for size in (1, 2, 4, 8)},
    **{f"u{size}": f"numpy.uint{8 * size}" for size in (1, 2, 4, 8)},
    **{f"f{size}": f"numpy.float{8 * size}" for size in (2, 4, 8)},
}


def scalar_bytes(parameter: ParameterLayout, argument: object) -> bytes:
    """The bytes of a parameter given by value. Raises :class:`KernelArgumentError` that says what it takes."""
    rule = RULES.get(parameter.kind)
    if rule is None:
        data = _opaque_bytes(parameter, argument)
    elif isinstance(argument, np.generic):
        data = argument.tobytes() if argument.dtype.str[1:] in rule.numpy else None
    elif isinstance(argument, int):
        data = _from_integer(parameter, rule, argument)
    elif isinstance(argument, float):
        data = _from_real(parameter, rule, argument)
    else:
        data = None
    if data is None:
        raise KernelArgumentError(f"it takes {expected(parameter)}, not {described(argument)}")
    return data


def _opaque_bytes(parameter: ParameterLayout, argument: object) -> bytes | None:
    """Of a struct, and of types that neither Python nor NumPy has: any value of the very size."""
    if isinstance(argument, np.generic) and not argument.dtype.hasobject:
        data = argument.tobytes()
    elif isinstance(argument, bytes | bytearray | memoryview):
        data = bytes(argument)
    else:
        return None
    return data if len(data) == parameter.size_bytes else None


def _from_integer(parameter: ParameterLayout, rule: ScalarRule, value: int) -> bytes | None:
    if rule.integers is None:
        return _from_real(parameter, rule, value)
    if value not in rule.integers:
        low, high = rule.integers.start, rule.integers.stop - 1
        raise KernelArgumentError(f"{described(value)} is out of the range of {parameter.kind}, {low} to {high}")
    bits = 8 * parameter.size_bytes
    return (value & (1 << bits) - 1).to_bytes(parameter.size_bytes, "little")


def _from_real(parameter: ParameterLayout, rule: ScalarRule, value: float) -> bytes | None:
    if not rule.real:
        return None
    try:
        if rule.real == "bf16":
            return _bfloat16(float(value))
        return struct.pack(f"<{rule.real}", float(value))
    except OverflowError:
        raise KernelArgumentError(f"{described(value)} is out of the range of {parameter.kind}") from None


def _bfloat16(value: float) -> bytes:
    """The upper half of an f32, rounded to nearest even. Raises :class:`OverflowError` for a finite value too large.

    An f64 is first rounded to odd: then the second rounding cannot go wrong.
    """
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if math.isnan(value):
        return struct.pack("<H", bits >> 16 | 0x40)
    (single,) = struct.unpack("<f", struct.pack("<I", bits))
    if single != value:
        if abs(single) > abs(value):
            bits -= 1
        bits |= 1
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    if math.isfinite(value) and rounded & 0x7FFF_0000 >= 0x7F80_0000:
        raise OverflowError
    return struct.pack("<H", rounded >> 16)


def expected(parameter: ParameterLayout) -> str:
    """What a parameter takes, in words."""
    rule = RULES.get(parameter.kind)
    if rule is None:
        return f"bytes or a NumPy scalar of exactly {parameter.size_bytes} bytes"
    kinds = sorted(_NAMES[kind] for kind in rule.numpy)
    if rule.integers is not None:
        kinds = ["an int", *kinds]
    if rule.real:
        kinds = ["a float", "an int", *kinds]
    if parameter.kind in POINTER_KINDS:
        kinds = ["an array", *kinds]
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]]) if len(kinds) > 1 else kinds[0]


def described(argument: object) -> str:
    """An argument in an error message: its type, and its value where that is short."""
    kind = type(argument)
    name = f"numpy.{kind.__name__}" if isinstance(argument, np.generic | np.ndarray) else kind.__name__
    if isinstance(argument, bytes | bytearray | memoryview):
        return f"{name} of {len(bytes(argument))} bytes"
    if isinstance(argument, np.void):
        return f"{name} of {argument.nbytes} bytes"
    if isinstance(argument, np.ndarray):
        return f"an array ({argument.dtype}, shape {argument.shape})"
    if isinstance(argument, int) and argument.bit_length() > 200:
        return f"{name} of {argument.bit_length()} bits"
    if isinstance(argument, int | float | np.number):
        return f"{name} {argument}"
    return "None" if argument is None else name
