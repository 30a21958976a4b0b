"""Matrix products of integers of 8 and 4 bits, and of single bits.

Sums wrap, or with ``.satfinite`` are limited to s32: only the addition of C, which comes last, can leave it. Single
bits are joined by ``xor`` or ``and`` and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.compiler.values.formula import Value, read
from tensor_wasm.compiler.warp.fragments import GROUP, V128, Fragments
from tensor_wasm.compiler.warp.mailbox import Resolver, shift, vector, words
from tensor_wasm.compiler.warp.product import ELEMENT_BITS, Product
from tensor_wasm.wasm import Body, Local

#: The two vectors of four columns that a row takes.
_SPANS = 2


def write_integral(resolver: Resolver, product: Product) -> None:
    """Write a product of integers or single bits."""
    fragments = Fragments(resolver, product)
    spread = [_spread(fragments, t) for t in range(GROUP)]
    sums = [[resolver.local(V128) for _ in range(_SPANS)] for _ in range(product.halves)]
    with fragments.groups():
        for total in (total for row in sums for total in row):
            resolver.body.v128_const(words(0))
            resolver.body.set(total)
        for t in range(GROUP):
            _multiply(fragments, t, spread[t], sums)
        for span in range(_SPANS):
            _give(fragments, span, [row[span] for row in sums])


def _spread(fragments: Fragments, t: int) -> list[list[tuple[Value, Value]]]:
    """What the lanes t have of B: by word, by part of a word, by columns."""
    scope = fragments.scope
    found = []
    for low, high in fragments.columns(t):
        low_parts, high_parts = (_parts(fragments.product.b, scope.let(value)) for value in (low, high))
        found.append(
            [(scope.let(first), scope.let(second)) for first, second in zip(low_parts, high_parts, strict=True)]
        )
    return found


def _parts(kind: str, value: Value) -> list[Value]:
    """Words as vectors of i16 that hold every other byte, every fourth half byte; single bits as they are."""
    bits = ELEMENT_BITS[kind]
    if bits == 1:
        return [value]
    right = "i16x8.shr_s" if kind.startswith("s") else "i16x8.shr_u"
    return [
        shift(right, shift("i16x8.shl", value, 16 - bits - at) if at < 16 - bits else value, 16 - bits)
        for at in range(0, 16, bits)
    ]


def _multiply(
    fragments: Fragments, t: int, b: list[list[tuple[Value, Value]]], sums: Sequence[Sequence[Local]]
) -> None:
    """Add the products of the elements of A that lane t of the group has."""
    scope, product = fragments.scope, fragments.product
    mine = scope.let(fragments.row(t))
    for part, elements in enumerate(scope.let(value) for value in _parts(product.a, mine)):
        for word in range(product.a_words):
            place, half = divmod(word, product.halves)
            factor = scope.let(_repeated(elements, word))
            for total, columns in zip(sums[half], b[place][part], strict=True):
                scope.set(total, vector("i32x4.add", read(total), _dot(product.joined, factor, columns)))


def _repeated(value: Value, word: int) -> Value:
    def push(body: Body) -> None:
        value.push(body)
        body.lane("i32x4.extract_lane", word)
        body.op("i32x4.splat")

    return Value(V128, push)


def _dot(joined: str, first: Value, second: Value) -> Value:
    """For each word the sum of the products of its two i16, or the number of bits that are joined."""
    if not joined:
        return vector("i32x4.dot_i16x8_s", first, second)
    counts = vector("i8x16.popcnt", vector(f"v128.{joined}", first, second))
    return vector("i32x4.extadd_pairwise_i16x8_u", vector("i16x8.extadd_pairwise_i8x16_u", counts))


def _give(fragments: Fragments, span: int, totals: Sequence[Local]) -> None:
    """Add C and store the results of two lanes of the group, which have four columns."""
    scope = fragments.scope
    results = []
    for half, total in enumerate(totals):
        addend = scope.let(fragments.addend_pair(half, 2 * span))
        result = _saturated(scope, read(total), addend) if fragments.product.is_saturating else _sum(total, addend)
        results.append((2 * half, scope.let(result)))
    for element in range(2):
        fragments.give(2 * span + element, results, 64, element)


def _sum(total: Local, addend: Value) -> Value:
    return vector("i32x4.add", read(total), addend)


def _saturated(scope: Resolver, first: Value, second: Value) -> Value:
    wrapped = scope.let(vector("i32x4.add", first, second))
    overflow = vector("v128.and", vector("v128.xor", first, wrapped), vector("v128.xor", second, wrapped))
    limit = vector("v128.xor", shift("i32x4.shr_s", first, 31), words(0x7FFF_FFFF))
    return vector("v128.bitselect", limit, wrapped, shift("i32x4.shr_s", overflow, 31))
