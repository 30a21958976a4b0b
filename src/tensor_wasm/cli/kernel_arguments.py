"""What ``kernel run`` takes: shapes, arguments, and where results go."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.cli.failures import Failure, usage
from tensor_wasm.cli.npy import read_npy
from tensor_wasm.cli.output import safe

_INTEGERS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")
_FLOATS = ("f16", "f32", "f64")

#: Element types by the names that this command line has for them.
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(f"{'f' if name[0] == 'f' else name[0]}{int(name[1:]) // 8}") for name in (*_INTEGERS, *_FLOATS)
}

_INTEGER_TEXT = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,32}|[0-9]{1,40})")
_SHAPE_TEXT = re.compile(r"[0-9]{1,18}(x[0-9]{1,18}){0,7}")

FORMS = (
    "FILE.npy, npy:FILE, TYPE:VALUE (i32:5, f32:1.5), zeros:TYPE:SHAPE (zeros:f32:1000, zeros:f64:20x30), "
    "bytes:HEX, or a number"
)


def read_axes(option: str, text: str) -> tuple[int, ...]:
    """``X``, ``X,Y`` or ``X,Y,Z``. A usage failure says what to write."""
    parts = text.split(",")
    if not (1 <= len(parts) <= 3 and all(re.fullmatch("[0-9]{1,12}", part) for part in parts)):
        raise usage(f"{option} must be X, X,Y or X,Y,Z, not {safe(text[:60])}")
    return tuple(map(int, parts))


def read_argument(text: str, limit_bytes: int) -> object:
    """One ``--arg``: an array, a NumPy scalar, bytes, or a Python number that takes the parameter's type.

    ``limit_bytes`` bounds arrays. Raises a usage :class:`Failure`.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "npy":
        return read_npy(rest, limit_bytes)
    if colon and kind == "zeros":
        return _zeros(rest, limit_bytes)
    if colon and kind in DTYPES:
        return _scalar(kind, rest)
    if colon and kind == "bytes":
        try:
            return bytes.fromhex(rest)
        except ValueError:
            raise usage(f"--arg {safe(text[:60])}: bytes are pairs of hexadecimal digits") from None
    if text.endswith(".npy"):
        return read_npy(text, limit_bytes)
    if _INTEGER_TEXT.fullmatch(text):
        return int(text, 0 if "x" in text.lower() else 10)
    try:
        if text.lstrip("+-").isdecimal():
            raise ValueError  # an integer of more digits than any type has
        return float(text)
    except ValueError:
        raise usage(f"--arg {safe(text[:60])} is none of: {FORMS}") from None


def _scalar(kind: str, text: str) -> np.generic:
    wanted = f"--arg {kind}:{safe(text[:60])}"
    dtype = DTYPES[kind]
    if kind in _INTEGERS:
        if not _INTEGER_TEXT.fullmatch(text):
            raise usage(f"{wanted}: an integer is written in decimal, or as 0x and hexadecimal digits")
        value = int(text, 0 if "x" in text.lower() else 10)
        bounds = np.iinfo(dtype)
        if not bounds.min <= value <= bounds.max:
            raise usage(f"{wanted} is out of range: {kind} is from {bounds.min} to {bounds.max}")
        integer: np.generic = dtype.type(value)
        return integer
    try:
        real = float(text)
    except ValueError:
        raise usage(f"{wanted}: it is no number") from None
    with np.errstate(over="ignore"):
        result: np.generic = dtype.type(real)
    if math.isfinite(real) and not np.isfinite(result):
        raise usage(f"{wanted} is out of range: {kind} goes to {np.finfo(dtype).max:g}")
    return result


def _zeros(text: str, limit_bytes: int) -> NDArray[Any]:
    kind, _, shape_text = text.partition(":")
    if kind not in DTYPES or not _SHAPE_TEXT.fullmatch(shape_text):
        types = " ".join(DTYPES)
        raise usage(f"--arg zeros:{safe(text[:60])}: write zeros:TYPE:SHAPE, such as zeros:f32:20x30; types: {types}")
    shape = tuple(map(int, shape_text.split("x")))
    size = math.prod(shape) * DTYPES[kind].itemsize
    if size > limit_bytes:
        raise Failure("too_large", f"zeros:{text} has {size:,} bytes; the device takes {limit_bytes:,}")
    return np.zeros(shape, DTYPES[kind])


def read_saves(texts: tuple[str, ...], arguments: list[object]) -> list[tuple[int, str]]:
    """``--save POSITION=FILE`` options: which argument goes to which file. A usage failure says what is wrong."""
    saves = []
    for text in texts:
        position, equals, path = text.partition("=")
        if not (equals and path and re.fullmatch("[0-9]{1,6}", position)):
            raise usage(f"--save must be POSITION=FILE.npy, such as 2=sum.npy, not {safe(text[:60])}")
        index = int(position)
        if index >= len(arguments) or not isinstance(arguments[index], np.ndarray):
            arrays = ", ".join(str(n) for n, argument in enumerate(arguments) if isinstance(argument, np.ndarray))
            raise usage(f"--save {index}: only arrays can be saved, here {arrays or 'none'}; positions count from 0")
        saves.append((index, path))
    return saves
