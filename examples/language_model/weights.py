"""The file of weights: bytes for matrices, a scale for each of their columns. The guest reads the same layout."""

# ruff: noqa: INP001 - beside the scripts that use it.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Units of the layer, and room for characters. In language_model.c too.
UNITS = 160
CHARACTERS_MAX = 48
#: The state is kept in 16 bits: -1 to 1 as -32767 to 32767.
STATE_ONE = 32767

Bytes = NDArray[np.int8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights as the guest has them. A column's real weights are its bytes times its scale.

    ``state_scale`` and ``output_scale`` have 1 / 32767 in them, for the state that they meet is an integer.
    """

    input_scale: Floats
    state_scale: Floats
    input_bias: Floats
    state_bias: Floats
    output_scale: Floats
    output_bias: Floats
    input: Bytes
    state: Bytes
    output: Bytes
    characters: bytes


_FLOATS = (
    ("input_scale", 3 * UNITS),
    ("state_scale", 3 * UNITS),
    ("input_bias", 3 * UNITS),
    ("state_bias", 3 * UNITS),
    ("output_scale", CHARACTERS_MAX),
    ("output_bias", CHARACTERS_MAX),
)
_BYTES = (
    ("input", (CHARACTERS_MAX, 3 * UNITS)),
    ("state", (UNITS, 3 * UNITS)),
    ("output", (UNITS, CHARACTERS_MAX)),
)
#: The bias of a character that there is not: it is never the next one.
_NEVER = -1e4


def quantise(characters: str, trained: Mapping[str, Floats]) -> bytes:
    """The file of weights that were trained."""
    more = CHARACTERS_MAX - len(characters)
    matrices = {
        "input": np.pad(trained["input"], ((0, more), (0, 0))),
        "state": trained["state"],
        "output": np.pad(trained["output"], ((0, 0), (0, more))),
    }
    found: dict[str, NDArray[np.generic]] = {
        "input_bias": trained["input_bias"],
        "state_bias": trained["state_bias"],
        "output_bias": np.pad(trained["output_bias"], (0, more), constant_values=_NEVER),
    }
    for name, matrix in matrices.items():
        scale = np.maximum(np.abs(matrix).max(0), 1e-8) / 127
        found[name] = np.rint(matrix / scale).astype(np.int8)
        found[f"{name}_scale"] = scale / (1 if name == "input" else STATE_ONE)
    pieces = [found[name].astype("<f4").tobytes() for name, _ in _FLOATS]
    pieces += [found[name].tobytes() for name, _ in _BYTES]
    return b"".join([*pieces, characters.encode("ascii").ljust(CHARACTERS_MAX, b"\0")])


def read(data: bytes) -> Weights:
    """The weights of a file."""
    found: dict[str, NDArray[np.generic]] = {}
    at = 0
    for name, count in _FLOATS:
        found[name] = np.frombuffer(data, "<f4", count, at)
        at += 4 * count
    for name, shape in _BYTES:
        found[name] = np.frombuffer(data, np.int8, shape[0] * shape[1], at).reshape(shape)
        at += shape[0] * shape[1]
    return Weights(**found, characters=data[at:].rstrip(b"\0"))  # type: ignore[arg-type]
