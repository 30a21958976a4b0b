"""Where the elements of matrix products lie, written down shape by shape as the PTX ISA's tables have them.

Each function gives row and column of element ``i`` of a lane, with g = lane // 4 and t = lane % 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Place = Callable[[int, int, int], tuple[int, int]]

#: By shape, then bits of an element: the number of elements a lane has of A, and their places.
A: Mapping[tuple[str, int], tuple[int, Place]] = {
    ("m16n8k8", 16): (4, lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1))),
    ("m16n8k16", 16): (
        8,
        lambda g, t, i: (g if i in (0, 1, 4, 5) else g + 8, t * 2 + (i & 1) + (0 if i < 4 else 8)),
    ),
    ("m16n8k4", 32): (2, lambda g, t, i: (g if i == 0 else g + 8, t)),
    ("m16n8k8", 32): (4, lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4)),
    ("m8n8k4", 64): (1, lambda g, t, i: (g, t)),
    ("m8n8k16", 8): (4, lambda g, t, i: (g, t * 4 + i)),
    ("m16n8k16", 8): (8, lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3))),
    ("m16n8k32", 8): (
        16,
        lambda g, t, i: (g if i < 4 or 8 <= i < 12 else g + 8, t * 4 + (i & 3) + (0 if i < 8 else 16)),
    ),
    ("m8n8k32", 4): (8, lambda g, t, i: (g, t * 8 + i)),
    ("m16n8k32", 4): (16, lambda g, t, i: (g if i < 8 else g + 8, t * 8 + (i & 7))),
    ("m16n8k64", 4): (
        32,
        lambda g, t, i: (g if i < 8 or 16 <= i < 24 else g + 8, t * 8 + (i & 7) + (0 if i < 16 else 32)),
    ),
    ("m8n8k128", 1): (32, lambda g, t, i: (g, t * 32 + i)),
    ("m16n8k128", 1): (64, lambda g, t, i: (g if i < 32 else g + 8, t * 32 + (i & 31))),
    ("m16n8k256", 1): (
        128,
        lambda g, t, i: (g if i < 32 or 64 <= i < 96 else g + 8, t * 32 + (i & 31) + (0 if i < 64 else 128)),
    ),
}

#: As :data:`A`, for B.
B: Mapping[tuple[str, int], tuple[int, Place]] = {
    ("m16n8k8", 16): (2, lambda g, t, i: (t * 2 + i, g)),
    ("m16n8k16", 16): (4, lambda g, t, i: (t * 2 + (i & 1) + (0 if i < 2 else 8), g)),
    ("m16n8k4", 32): (1, lambda g, t, i: (t, g)),
    ("m16n8k8", 32): (2, lambda g, t, i: (t if i == 0 else t + 4, g)),
    ("m8n8k4", 64): (1, lambda g, t, i: (t, g)),
    ("m8n8k16", 8): (4, lambda g, t, i: (t * 4 + i, g)),
    ("m16n8k16", 8): (4, lambda g, t, i: (t * 4 + i, g)),
    ("m16n8k32", 8): (8, lambda g, t, i: (t * 4 + (i & 3) + (0 if i < 4 else 16), g)),
    ("m8n8k32", 4): (8, lambda g, t, i: (t * 8 + i, g)),
    ("m16n8k32", 4): (8, lambda g, t, i: (t * 8 + i, g)),
    ("m16n8k64", 4): (16, lambda g, t, i: (t * 8 + (i & 7) + (0 if i < 8 else 32), g)),
    ("m8n8k128", 1): (32, lambda g, t, i: (t * 32 + i, g)),
    ("m16n8k128", 1): (32, lambda g, t, i: (t * 32 + i, g)),
    ("m16n8k256", 1): (64, lambda g, t, i: (t * 32 + (i & 31) + (0 if i < 32 else 128), g)),
}


def _place_c(g: int, t: int, i: int) -> tuple[int, int]:
    return (g if i < 2 else g + 8, t * 2 + (i & 1))


def layout(letter: str, shape: str, bits: int) -> tuple[int, Place]:
    """Elements a lane has, and their places, of matrix ``"a"``, ``"b"`` or ``"c"`` (which is also that of D)."""
    if letter == "c":
        return (4 if shape.startswith("m16") else 2), _place_c
    return (A if letter == "a" else B)[shape, bits]


def scatter(matrix: np.ndarray, letter: str, shape: str, bits: int) -> np.ndarray:
    """The words of each lane (32 lanes, any number) for a matrix of unsigned bit patterns of ``bits`` each."""
    count, place = layout(letter, shape, bits)
    words = np.zeros((32, count * bits // 32), dtype=np.uint32)
    for lane in range(32):
        whole = 0
        for i in range(count):
            whole |= int(matrix[place(lane // 4, lane % 4, i)]) << (bits * i)
        words[lane] = np.frombuffer(whole.to_bytes(count * bits // 8, "little"), dtype="<u4")
    return words


def collect(words: np.ndarray, shape: str, bits: int) -> np.ndarray:
    """D as a matrix of unsigned bit patterns, from the result words of each lane."""
    count, place = layout("c", shape, bits)
    rows = int(shape[1 : shape.index("n")])
    matrix = np.zeros((rows, 8), dtype=np.uint64)
    for lane in range(32):
        whole = int.from_bytes(words[lane].astype("<u4").tobytes(), "little")
        for i in range(count):
            matrix[place(lane // 4, lane % 4, i)] = whole >> (bits * i) & ((1 << bits) - 1)
    return matrix


def of_members(matrix: np.ndarray, letter: str, shape: str, bits: int, members: int) -> np.ndarray:
    """A matrix with zeros for the elements of lanes that are not in ``members``."""
    count, place = layout(letter, shape, bits)
    found = np.zeros_like(matrix)
    for lane in range(32):
        for i in range(count if members >> lane & 1 else 0):
            where = place(lane // 4, lane % 4, i)
            found[where] = matrix[where]
    return found
