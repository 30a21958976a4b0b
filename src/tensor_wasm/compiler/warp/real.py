"""Matrix products of floats.

f16, bf16, tf32: products are exact in f64; they are added to C there, and the sum is rounded once to the type of D.
A GPU keeps fewer bits while it sums, and truncates, in an order that the ISA leaves open: results differ in the last
bits of f32, and are the same where all partial sums are exact. The low 13 bits of a tf32 are not looked at.

f64: a chain of fused multiply-adds from C on, in the order of depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tensor_wasm.compiler.values.formula import Value, read
from tensor_wasm.compiler.warp.fragments import GROUP, V128, Fragments
from tensor_wasm.compiler.warp.halves import (
    double_without_nan,
    half_from_double,
    single_from_double,
    single_from_half,
)
from tensor_wasm.compiler.warp.mailbox import Resolver, shift, shuffle, vector, words
from tensor_wasm.compiler.warp.product import Product
from tensor_wasm.wasm import Body, Local

_TF32_MASK: Final = 0xFFFF_E000

#: A matrix row of sums: columns 0 and 1, 2 and 3, and so on. A vector t is what lane t of a group has of C and D.
_Sums = Sequence[Local]


def write_real(resolver: Resolver, product: Product) -> None:
    """Write a product of f16, bf16 or tf32."""
    fragments = Fragments(resolver, product)
    spread = [_spread(fragments, t) for t in range(GROUP)]
    sums = [[resolver.local(V128) for _ in range(GROUP)] for _ in range(product.halves)]
    with fragments.groups():
        for half, row in enumerate(sums):
            for t, total in enumerate(row):
                resolver.set(total, _addend(fragments, half, t))
        for t in range(GROUP):
            _multiply(fragments, t, spread[t], sums)
        for t in range(GROUP):
            _give(fragments, t, [row[t] for row in sums])


def write_double(resolver: Resolver, product: Product) -> None:
    """Write the product of f64."""
    fragments = Fragments(resolver, product)
    spread = [[resolver.let(pair) for pair in fragments.column_pairs(t)] for t in range(GROUP)]
    sums = [resolver.local(V128) for _ in range(GROUP)]
    with fragments.groups():
        for t, total in enumerate(sums):
            resolver.set(total, fragments.addend("v128.load", 0, t))
        for t in range(GROUP):
            element = resolver.let(fragments.row(t))
            _add(resolver, [sums], [resolver.let(_repeated(element, "f64x2", 0))], spread[t])
        for t, total in enumerate(sums):
            value = resolver.let(double_without_nan(resolver, read(total)))
            for column in range(2):
                fragments.give(t, [(2 * column, value)], 64, column)


def _spread(fragments: Fragments, t: int) -> list[list[list[Value]]]:
    """The rows of B that the lanes t have, as f64: by word, by element of a word, by columns."""
    scope = fragments.scope
    found = []
    for of_word in fragments.columns(t):
        low, high = (_elements(scope, fragments.product.b, scope.let(value)) for value in of_word)
        found.append(
            [
                [scope.let(double) for single in (first, second) for double in _doubles(scope.let(single))]
                for first, second in zip(low, high, strict=True)
            ]
        )
    return found


def _multiply(fragments: Fragments, t: int, b: list[list[list[Value]]], sums: Sequence[_Sums]) -> None:
    """Add the products of the elements of A that lane t of the group has."""
    scope, product = fragments.scope, fragments.product
    mine = scope.let(fragments.row(t))
    for element, single in enumerate(_elements(scope, product.a, mine)):
        doubles = [scope.let(double) for double in _doubles(scope.let(single))]
        for place, of_word in enumerate(b):
            words_of_a = range(place * product.halves, (place + 1) * product.halves)
            factors = [scope.let(_repeated(doubles[word // 2], "f64x2", word % 2)) for word in words_of_a]
            _add(scope, sums, factors, of_word[element])


def _add(scope: Resolver, sums: Sequence[_Sums], factors: Sequence[Value], row: Sequence[Value]) -> None:
    """Add to each row of sums its factor times a row of B. Each vector of B is read once for both rows."""
    for place, columns in enumerate(row):
        for totals, factor in zip(sums, factors, strict=True):
            scope.set(totals[place], vector("f64x2.relaxed_madd", factor, columns, read(totals[place])))


def _elements(scope: Resolver, kind: str, value: Value) -> list[Value]:
    """The elements of words as f32x4: of each word the first, then the second where it holds two."""
    match kind:
        case "f16":
            return [single_from_half(scope, value), single_from_half(scope, value, is_high=True)]
        case "bf16":
            return [shift("i32x4.shl", value, 16), vector("v128.and", value, words(0xFFFF_0000))]
        case _:
            return [vector("v128.and", value, words(_TF32_MASK))]


def _doubles(single: Value) -> tuple[Value, Value]:
    upper = shuffle(single, single, (2, 3, 2, 3))
    return vector("f64x2.promote_low_f32x4", single), vector("f64x2.promote_low_f32x4", upper)


def _repeated(value: Value, shape: str, element: int) -> Value:
    """One element of a vector in all of them."""

    def push(body: Body) -> None:
        value.push(body)
        body.lane(f"{shape}.extract_lane", element)
        body.op(f"{shape}.splat")

    return Value(V128, push)


def _addend(fragments: Fragments, half: int, t: int) -> Value:
    if fragments.product.c == "f16":
        pair = fragments.addend("v128.load32_zero", half, t)
        single = single_from_half(fragments.scope, vector("i32x4.extend_low_i16x8_u", pair))
    else:
        single = fragments.addend("v128.load64_zero", half, t)
    return vector("f64x2.promote_low_f32x4", single)


def _give(fragments: Fragments, t: int, totals: Sequence[Local]) -> None:
    scope = fragments.scope
    if fragments.product.d == "f16":
        halves = [scope.let(half_from_double(scope, read(total))) for total in totals]
        packed = [scope.let(vector("i16x8.narrow_i32x4_u", half, half)) for half in halves]
        fragments.give(t, list(enumerate(packed)), 32)
    else:
        singles = [scope.let(single_from_double(scope, read(total))) for total in totals]
        fragments.give(t, [(2 * half, single) for half, single in enumerate(singles)], 64)
