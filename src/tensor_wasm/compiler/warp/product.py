"""The forms of ``mma``: shapes and types of elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COLUMNS: Final = 8
ELEMENT_BITS: Final = {
    "f64": 64, "f32": 32, "tf32": 32, "s32": 32, "f16": 16, "bf16": 16, "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1,
}  # fmt: skip
_WARP_WORD_BITS: Final = 32 * 32


@dataclass(frozen=True, slots=True)
class Product:
    """D = A * B + C with ``rows`` rows, 8 columns and a depth; the types of elements are named as in PTX.

    ``joined`` is what combines two single bits, ``"xor"`` or ``"and"``; empty for numbers.
    """

    rows: int
    depth: int
    d: str
    a: str
    b: str
    c: str
    is_saturating: bool = False
    joined: str = ""

    @property
    def shape(self) -> str:
        """As in an opcode: ``m16n8k8``."""
        return f"m{self.rows}n{COLUMNS}k{self.depth}"

    @property
    def key(self) -> str:
        """A name of its own."""
        saturating = "satfinite" if self.is_saturating else ""
        parts = ("mma", self.shape, saturating, self.d, self.a, self.b, self.c, self.joined)
        return ".".join(part for part in parts if part)

    @property
    def halves(self) -> int:
        """How many rows of A, C and D the four lanes of a group have: each eighth."""
        return self.rows // 8

    @property
    def a_words(self) -> int:
        """Words of a lane's part of A."""
        return _words(self.rows * self.depth, self.a)

    @property
    def b_words(self) -> int:
        """Words of a lane's part of B."""
        return _words(self.depth * COLUMNS, self.b)

    @property
    def c_words(self) -> int:
        """Words of a lane's part of C."""
        return _words(self.rows * COLUMNS, self.c)

    @property
    def d_words(self) -> int:
        """Words of a lane's part of D."""
        return _words(self.rows * COLUMNS, self.d)


def _words(elements: int, kind: str) -> int:
    return elements * ELEMENT_BITS[kind] // _WARP_WORD_BITS
