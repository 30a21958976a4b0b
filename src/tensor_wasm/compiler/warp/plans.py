"""What a warp operation asks of the lowering: which operands go into the mailbox, and which results come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tensor_wasm.ptx.program import ScalarType


class Operand(NamedTuple):
    """A source of an instruction by its position, and the type as which it goes into the mailbox."""

    position: int
    type: ScalarType


@dataclass(frozen=True, slots=True)
class Plan:
    """A warp operation.

    - ``resolver``: its key in ``RESOLVERS``.
    - ``operands``: what goes into the operand words from 1 on, in order.
    - ``mask``: the position of the source that is the membermask; None for all lanes.
    - ``results``: the type of each destination, in the order of the result words from 0 on.
    - ``waits``: whether the lanes of the mask wait for each other; False when it is about those that are there.
    """

    resolver: str
    operands: tuple[Operand, ...] = ()
    mask: int | None = None
    results: tuple[ScalarType, ...] = ()
    waits: bool = True


def word_count(kind: ScalarType) -> int:
    """How many words a value of a type takes in a mailbox."""
    return max(kind.bits // 32, 1)
