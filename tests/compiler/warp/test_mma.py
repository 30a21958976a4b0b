"""``mma``: products of matrices against NumPy, in layouts written down from the ISA's tables."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.warp.harness import ALL, Warps, lanes_of
from compiler.warp.layouts import collect, of_members, scatter
from tensor_wasm.compiler.warp.mma import PRODUCTS
from tensor_wasm.compiler.warp.product import ELEMENT_BITS, Product

REAL = sorted((p for p in PRODUCTS if p.a in ("f16", "bf16", "tf32", "f64")), key=lambda p: p.key)
INTEGRAL = sorted((p for p in PRODUCTS if p.a[0] in "su"), key=lambda p: p.key)
BITS = sorted((p for p in PRODUCTS if p.a == "b1"), key=lambda p: p.key)


def encode(values: np.ndarray, kind: str) -> np.ndarray:
    """Bit patterns of numbers, rounded to the type."""
    match kind:
        case "f16":
            return values.astype(np.float16).view(np.uint16).astype(np.uint64)
        case "bf16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint64)
        case "tf32" | "f32":
            return values.astype(np.float32).view(np.uint32).astype(np.uint64)
        case "f64":
            return values.astype(np.float64).view(np.uint64)
        case _:
            return values.astype(np.int64).view(np.uint64) & np.uint64((1 << ELEMENT_BITS[kind]) - 1)


def decode(bits: np.ndarray, kind: str) -> np.ndarray:
    """The numbers of bit patterns, as f64 or i64."""
    match kind:
        case "f16":
            return bits.astype(np.uint16).view(np.float16).astype(np.float64)
        case "bf16":
            return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        case "tf32":
            return (bits.astype(np.uint32) & np.uint32(0xFFFF_E000)).view(np.float32).astype(np.float64)
        case "f32":
            return bits.astype(np.uint32).view(np.float32).astype(np.float64)
        case "f64":
            return bits.view(np.float64)
        case _:
            width = ELEMENT_BITS[kind]
            values = bits.astype(np.int64)
            return values - (values >> (width - 1) << width) if kind.startswith("s") else values


def run(warps: Warps, product: Product, a: np.ndarray, b: np.ndarray, c: np.ndarray, members: int = ALL) -> np.ndarray:
    """The result words for bit patterns of A, B and C."""
    parts = [
        scatter(matrix, letter, product.shape, ELEMENT_BITS[kind])
        for matrix, letter, kind in ((a, "a", product.a), (b, "b", product.b), (c, "c", product.c))
    ]
    assert [part.shape[1] for part in parts] == [product.a_words, product.b_words, product.c_words]
    return warps.resolve(product.key, np.concatenate(parts, axis=1), members)


def multiply(warps: Warps, product: Product, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The bit patterns of D."""
    results = run(warps, product, a, b, c)
    return collect(results[:, : product.d_words], product.shape, ELEMENT_BITS[product.d])


def shapes(product: Product) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return (product.rows, product.depth), (product.depth, 8), (product.rows, 8)


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return decode(encode(values, kind), kind)


def key_of(product: Product) -> str:
    return product.key


@pytest.mark.parametrize("product", REAL, ids=key_of)
def test_small_integers_are_exact(product: Product, warps: Warps, chance: np.random.Generator) -> None:
    for _ in range(3):
        a, b, c = (chance.integers(-8, 9, shape).astype(np.float64) for shape in shapes(product))
        found = multiply(warps, product, encode(a, product.a), encode(b, product.b), encode(c, product.c))
        assert np.array_equal(decode(found, product.d), a @ b + c)


@pytest.mark.parametrize("product", REAL, ids=key_of)
def test_the_sum_is_rounded_once(product: Product, warps: Warps, chance: np.random.Generator) -> None:
    for scale in (1.0, 2.0**-10, 2.0**6):
        a, b, c = (
            encode(chance.normal(size=shape) * factor, kind)
            for shape, kind, factor in zip(
                shapes(product), (product.a, product.b, product.c), (scale, 1.0, scale), strict=True
            )
        )
        found = decode(multiply(warps, product, a, b, c), product.d)
        exact = (decode(a, product.a) @ decode(b, product.b)).astype(np.longdouble) + decode(c, product.c)
        wanted = rounded(exact.astype(np.float64), product.d)
        if product.d == "f16":
            # Seldom is the sum so near a tie that the order of the additions in f64 could decide.
            assert np.array_equal(found, wanted)
        else:
            digits = 51 if product.d == "f64" else 24
            size = np.abs(decode(a, product.a)) @ np.abs(decode(b, product.b)) + np.abs(decode(c, product.c))
            bound = np.abs(wanted) * 2.0**-digits * (product.d == "f32") + size * 2.0**-49
            assert np.all(np.abs(found - exact.astype(np.float64)) <= bound)


@pytest.mark.parametrize("product", REAL, ids=key_of)
def test_any_bits_behave_as_floats(product: Product, warps: Warps, chance: np.random.Generator) -> None:
    # One element of each row is of any bits, NaN and infinities among them; B selects it.
    if product.a == "f64":
        a = chance.integers(0, 1 << 64, shapes(product)[0], dtype=np.uint64)
    else:
        a = chance.integers(0, 1 << ELEMENT_BITS[product.a], shapes(product)[0]).astype(np.uint64)
    column = int(chance.integers(0, product.depth))
    a[:, :column] = a[:, column + 1 :] = 0
    b = np.zeros(shapes(product)[1])
    b[column] = [1, -1, 0.5, 2, 1, -2, 0.25, 4]
    c = np.zeros(shapes(product)[2])
    found = decode(multiply(warps, product, a, encode(b, product.b), encode(c, product.c)), product.d)
    with np.errstate(all="ignore"):
        wanted = rounded(decode(a, product.a)[:, [column]] * b[column], product.d)
    assert np.array_equal(found, wanted, equal_nan=True)


@pytest.mark.parametrize("product", REAL, ids=key_of)
def test_not_a_number_is_the_canonical_one(product: Product, warps: Warps) -> None:
    a, b, c = (np.zeros(shape) for shape in shapes(product))
    a[3, 2], b[2, 5] = np.inf, 1.0
    found = multiply(warps, product, encode(a, product.a), encode(b, product.b), encode(c, product.c))
    # Infinity times the zeros of the other columns.
    bits = ELEMENT_BITS[product.d]
    assert int(found[3, 0]) == (1 << (bits - 1)) - 1
    assert decode(found, product.d)[3, 5] == np.inf
    assert not decode(found, product.d)[np.arange(product.rows) != 3].any()


@pytest.mark.parametrize("product", [p for p in REAL if p.d == "f16"], ids=key_of)
def test_a_half_overflows_to_infinity_where_it_rounds_up(product: Product, warps: Warps) -> None:
    a, b, c = (np.zeros(shape) for shape in shapes(product))
    a[:4, 0], b[0, 0] = [65504, -65504, 65504, 65504], 1.0
    a[:4, 1], b[1, 0] = [15.99, -16, 16, -16], 1.0
    found = decode(multiply(warps, product, *map(encode, (a, b, c), (product.a, product.b, product.c))), "f16")
    assert found[:4, 0].tolist() == [65504, -np.inf, np.inf, 65472]


def integers(chance: np.random.Generator, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Random bit patterns, many of them extreme."""
    bits = ELEMENT_BITS[kind]
    extremes = np.array([0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1], dtype=np.uint64)
    anything = chance.integers(0, 1 << bits, shape, dtype=np.uint64)
    return np.where(chance.integers(0, 2, shape) == 1, chance.choice(extremes, shape), anything)


@pytest.mark.parametrize("product", INTEGRAL, ids=key_of)
def test_integers_are_exact_and_wrap_or_saturate(product: Product, warps: Warps, chance: np.random.Generator) -> None:
    for _ in range(2):
        a, b, c = (
            integers(chance, kind, shape)
            for kind, shape in zip((product.a, product.b, product.c), shapes(product), strict=True)
        )
        found = decode(multiply(warps, product, a, b, c), "s32")
        total = decode(a, product.a) @ decode(b, product.b) + decode(c, "s32")
        wanted = np.clip(total, -(2**31), 2**31 - 1) if product.is_saturating else total.astype(np.int32)
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("product", BITS, ids=key_of)
def test_single_bits_are_joined_and_counted(product: Product, warps: Warps, chance: np.random.Generator) -> None:
    a, b = (chance.integers(0, 2, shape) for shape in shapes(product)[:2])
    c = integers(chance, "s32", shapes(product)[2])
    found = decode(multiply(warps, product, a, b, c), "s32")
    pairs = a[:, :, None] ^ b[None] if product.joined == "xor" else a[:, :, None] & b[None]
    assert np.array_equal(found, (pairs.sum(axis=1) + decode(c, "s32")).astype(np.int32))


@pytest.mark.parametrize(
    "product", [p for p in (*REAL, *INTEGRAL, *BITS) if p.a in ("f16", "tf32", "f64", "s8", "u4", "b1")], ids=key_of
)
def test_lanes_that_do_not_take_part_have_zeros_and_get_nothing(
    product: Product, warps: Warps, chance: np.random.Generator
) -> None:
    kinds = (product.a, product.b, product.c)
    a, b, c = (encode(chance.integers(0, 2, shape), kind) for shape, kind in zip(shapes(product), kinds, strict=True))
    for members in [0, 1, 0x7FFF_FFFF, *chance.integers(1, 1 << 32, 3).tolist()]:
        known_a, known_b = (
            decode(of_members(matrix, letter, product.shape, ELEMENT_BITS[kind], members), kind)
            for matrix, letter, kind in ((a, "a", product.a), (b, "b", product.b))
        )
        if product.joined == "xor":
            total = (known_a[:, :, None] ^ known_b[None]).sum(axis=1) + decode(c, product.c)
        else:
            total = known_a @ known_b + decode(c, product.c)
        wanted = scatter(encode(total, product.d), "c", product.shape, ELEMENT_BITS[product.d])
        found = run(warps, product, a, b, c, members)
        lanes = lanes_of(members)
        assert np.array_equal(found[lanes, : product.d_words], wanted[lanes]), hex(members)


def test_a_product_of_doubles_is_fused(warps: Warps) -> None:
    product = Product(8, 4, "f64", "f64", "f64", "f64")
    a, b, c = (np.zeros(shape) for shape in shapes(product))
    a[0, 0] = b[0, 0] = 1 + 2.0**-52
    c[0, 0] = -(1 + 2.0**-51)
    found = multiply(warps, product, *map(encode, (a, b, c), ("f64",) * 3))
    assert decode(found, "f64")[0, 0] == 2.0**-104


def test_sums_do_not_lose_small_products_among_large_ones(warps: Warps) -> None:
    product = Product(16, 16, "f32", "f16", "f16", "f32")
    a, b, c = (np.zeros(shape) for shape in shapes(product))
    a[:, 0], a[:, 1], a[:, 2] = 60000, 2.0**-10, -60000
    b[:3] = [[60000], [1], [60000]]
    found = multiply(warps, product, *map(encode, (a, b, c), ("f16", "f16", "f32")))
    assert np.all(decode(found, "f32") == 2.0**-10)
