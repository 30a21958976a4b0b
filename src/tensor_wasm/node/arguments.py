"""Arguments of an invocation, as JSON gives them, as an export's parameters: exactly or not at all, never wrapped."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from tensor_wasm.errors import InvalidArguments, TooManyArguments
from tensor_wasm.node.model import Export

#: Signed and unsigned readings of the same bits are both taken.
_INTEGER_RANGES = {"i32": (-(1 << 31), (1 << 32) - 1), "i64": (-(1 << 63), (1 << 64) - 1)}
_INTEGER_BITS = {"i32": 32, "i64": 64}
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_F32_MAX = 3.4028235677973366e38  # the least number that rounds beyond f32's range
_EXACT_FLOAT_MAX = 1 << 1024
_SUPPORTED = ("i32", "i64", "f32", "f64")


def convert(export: Export, args: Sequence[object]) -> list[int | float]:
    """``args`` as values of the export's parameters.

    Raises :class:`InvalidArguments` for a wrong count, type or range, :class:`TooManyArguments` for more than the
    export takes.
    """
    expected = len(export.parameters)
    if len(args) > expected:
        raise TooManyArguments(f"{_shown(export)} takes {expected} arguments, not {len(args)}")
    if len(args) < expected:
        raise InvalidArguments(f"{_shown(export)} takes {expected} arguments, not {len(args)}")
    for kind in (*export.parameters, *export.results):
        if kind not in _SUPPORTED:
            raise InvalidArguments(f"{_shown(export)} has a {kind}, which cannot be passed from outside")
    return [_value(export, position, kind, args[position]) for position, kind in enumerate(export.parameters)]


def _shown(export: Export) -> str:
    return f"{export.name}({', '.join(export.parameters)})"


def _value(export: Export, position: int, kind: str, value: object) -> int | float:
    if kind in _INTEGER_RANGES:
        return _integer(export, position, kind, value)
    if isinstance(value, str) and value in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        wanted = 'a number, or one of the strings "NaN", "Infinity", "-Infinity"'
        raise InvalidArguments(f"argument {position} of {_shown(export)} must be {wanted}")
    if isinstance(value, int) and abs(value) >= _EXACT_FLOAT_MAX:
        raise InvalidArguments(f"argument {position} of {_shown(export)} is out of the range of {kind}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number) or (kind == "f32" and abs(number) >= _F32_MAX):
        raise InvalidArguments(f"argument {position} of {_shown(export)} is out of the range of {kind}")
    return struct.unpack("<f", struct.pack("<f", number))[0] if kind == "f32" else number


def _integer(export: Export, position: int, kind: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) <= 1 << 53:
        value = int(value)  # 3.0 is the integer 3; beyond 2^53 a float no longer says which integer was meant
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArguments(f"argument {position} of {_shown(export)} must be an integer")
    low, high = _INTEGER_RANGES[kind]
    if not low <= value <= high:
        raise InvalidArguments(
            f"argument {position} of {_shown(export)} is out of the range of {kind}: {low} to {high}"
        )
    bits = _INTEGER_BITS[kind]
    return value - (1 << bits) if value >> (bits - 1) > 0 else value
