"""How the matrices of a product lie in the registers of a warp, and the code that goes through them.

Every shape but m8n8k4 of f16 has the same layout (PTX ISA, "Matrix Fragments for mma"). Let g = lane // 4 and
t = lane % 4, and a word hold e elements, the first lowest:

- A: word r has row ``g + 8 * (r % h)`` with h = m / 8, columns ``e * t + 4 * e * (r // h)`` and on.
- B: word r has column g, rows ``e * t + 4 * e * r`` and on.
- C and D: elements 0 and 1 are row g, columns ``2 * t`` and ``2 * t + 1``; 2 and 3 the same of row ``g + 8``.

So the four lanes of one g, a *group*, have the rows g and g + 8 of A, C and D. The code first spreads B over local
variables, each vector with neighbouring columns, then goes through the groups.

Lanes that do not take part have zeros in their parts of A and B and get no results; the ISA leaves that open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tensor_wasm.compiler.values.formula import I32, Value, read
from tensor_wasm.compiler.warp.mailbox import (
    FIRST,
    IN_OFFSET,
    MAILBOX_BYTES,
    OUT_OFFSET,
    WORD_BYTES,
    Resolver,
    shift,
    shuffle,
    vector,
    words,
)
from tensor_wasm.compiler.warp.product import COLUMNS, Product
from tensor_wasm.wasm import Body, ValType

V128: Final = ValType.V128
#: Lanes of a group.
GROUP: Final = 4
#: log2 of what addresses in a mailbox are a multiple of.
_ALIGNMENT: Final = 2


class Fragments:
    """Access to the matrices of a product while its resolver is written."""

    __slots__ = ("_address", "_members", "product", "scope")

    def __init__(self, scope: Resolver, product: Product) -> None:
        self.scope = scope
        self.product = product
        # Where the current group's mailboxes start; in each word the members, those of the group lowest.
        self._address = scope.local(I32)
        self._members = scope.local(V128)
        scope.set(self._address, scope.mail)
        scope.set(self._members, vector("i32x4.splat", scope.members))

    @contextmanager
    def groups(self) -> Iterator[None]:
        """What is written inside runs for each group; lanes are then counted from the group's first."""
        scope = self.scope
        with scope.each_four() as address:
            scope.set(self._address, read(address))
            yield
            scope.set(self._members, shift("i32x4.shr_u", read(self._members), GROUP))

    def columns(self, t: int) -> list[tuple[Value, Value]]:
        """What the lanes t of all groups have of B: for each word of a lane, that of columns 0 to 3, and 4 to 7."""
        scope = self.scope
        quarters = [scope.let(value) for value in self.column_pairs(t)]
        return [
            (
                shuffle(quarters[0], quarters[1], (word, 2 + word, 4 + word, 6 + word)),
                shuffle(quarters[2], quarters[3], (word, 2 + word, 4 + word, 6 + word)),
            )
            for word in range(self.product.b_words)
        ]

    def column_pairs(self, t: int) -> list[Value]:
        """What the lanes t of all groups have of B: two words of columns 0 and 1, of 2 and 3, and so on.

        Where a lane has one word the second has no meaning.
        """
        return [
            self._of_members(
                self._two(FIRST + self.product.a_words, low, low + GROUP), (low, low, low + GROUP, low + GROUP)
            )
            for low in range(t, GROUP * COLUMNS, 2 * GROUP)
        ]

    def row(self, t: int) -> Value:
        """The first four words of lane t's part of A; where it has fewer the others have no meaning."""
        return self._of_members(self._load("v128.load", FIRST, t), (t, t, t, t))

    def addend(self, load: str, half: int, t: int) -> Value:
        """What lane t has of row g + 8 * half of C, by an instruction ``load``."""
        return self._load(load, self._addend_word(half), t)

    def addend_pair(self, half: int, t: int) -> Value:
        """Two words of C of lane t, then two of lane t + 1."""
        return self._two(self._addend_word(half), t, t + 1)

    def give(self, t: int, results: Sequence[tuple[int, Value]], bits: int, element: int = 0) -> None:
        """Store an element of ``bits`` of each vector as a result word, or two, of lane t.

        If it does not take part it gets back what it has. A branch would be no gain: the engine moves into it all
        that only this lane needs, and so takes apart what could run side by side.
        """
        scope = self.scope
        is_member = scope.let(self._is_member((t, t, t, t)))
        for word, value in results:
            offset = OUT_OFFSET + WORD_BYTES * word + MAILBOX_BYTES * t
            scope.body.get(self._address)
            value.push(scope.body)
            scope.body.get(self._address)
            scope.body.memory(f"v128.load{bits}_splat", offset, align=_ALIGNMENT, memory=scope.memory)
            is_member.push(scope.body)
            scope.body.op("v128.bitselect")
            scope.body.memory_lane(f"v128.store{bits}_lane", element, offset, align=_ALIGNMENT, memory=scope.memory)

    def _addend_word(self, half: int) -> int:
        product = self.product
        return FIRST + product.a_words + product.b_words + product.c_words // product.halves * half

    def _of_members(self, value: Value, lanes: Sequence[int]) -> Value:
        """A vector with zeros for the words of lanes that do not take part; ``lanes`` names that of each word."""
        return vector("v128.and", value, self._is_member(lanes))

    def _is_member(self, lanes: Sequence[int]) -> Value:
        """All bits of a word set where its lane takes part."""
        bits = words(*(1 << lane for lane in lanes))
        return vector("i32x4.eq", vector("v128.and", read(self._members), bits), bits)

    def _load(self, name: str, word: int, lane: int) -> Value:
        def push(body: Body) -> None:
            body.get(self._address)
            body.memory(name, _place(word, lane), align=_ALIGNMENT, memory=self.scope.memory)

        return Value(V128, push)

    def _two(self, word: int, first: int, second: int) -> Value:
        """Two words of one lane and two of another."""
        held = self.scope.local(V128)
        low = self._load("v128.load64_zero", word, first)

        def push(body: Body) -> None:
            low.push(body)
            body.set(held)
            body.get(self._address)
            body.get(held)
            offset = _place(word, second)
            body.memory_lane("v128.load64_lane", 1, offset, align=_ALIGNMENT, memory=self.scope.memory)

        return Value(V128, push)


def _place(word: int, lane: int) -> int:
    return IN_OFFSET + WORD_BYTES * word + MAILBOX_BYTES * lane
