"""What Numba makes of Python against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_LONG = 0xFFFFFFFFFFFFFFFF
_WORD = 0xFFFFFFFF


def array(data: np.ndarray, *, strides: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None) -> Any:
    """What stands for an array: two pointers that kernels ignore, count, item's size, data, shape and strides."""
    shape = data.shape if shape is None else shape
    return (0, 0, math.prod(shape), data.itemsize, data, *shape, *(data.strides if strides is None else strides))


def blocks(size: int, block: int) -> int:
    return max(1, -(-size // block))


@variants("from_numba/saxpy")
@pytest.mark.parametrize(("size", "block"), [(0, 1), (1, 1), (100, 33), (1000, 1024)])
def test_saxpy(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, y = normal(2, size)
    y = y.copy()
    expected = 1.7 * x.astype(np.float64) + y
    machine.run(code, blocks(size, block), block, size, 1.7, *array(x), *array(y))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@variants("from_numba/stencil_2d")
@pytest.mark.parametrize(
    ("shape", "block"), [((1, 1), (1, 1)), ((17, 40), (8, 8)), ((5, 70), (1, 31)), ((33, 9), (32, 32))]
)
def test_stencil_2d(machine: Machine, code: CompiledKernel, shape: tuple[int, int], block: tuple[int, int]) -> None:
    x, out = normal(*shape), np.zeros(shape, np.float32)
    machine.run(code, (blocks(shape[0], block[0]), blocks(shape[1], block[1])), block, *array(x), *array(out))
    expected = x.astype(np.float64)
    wide = x.astype(np.float64)
    expected[1:-1, 1:-1] = (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]) / 4
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@variants("from_numba/stencil_3d")
@pytest.mark.parametrize(("shape", "block"), [((1, 1, 1), (1, 1, 1)), ((5, 6, 7), (2, 3, 5)), ((3, 9, 4), (8, 8, 16))])
def test_stencil_3d(
    machine: Machine, code: CompiledKernel, shape: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    x, out = normal(*shape), np.zeros(shape, np.float32)
    grid = tuple(blocks(*pair) for pair in zip(shape, block, strict=True))
    machine.run(code, grid, block, *array(x), *array(out))
    padded = np.pad(x.astype(np.float64), 1)
    expected = -6 * padded
    for axis in range(3):
        expected += np.roll(padded, 1, axis) + np.roll(padded, -1, axis)
    np.testing.assert_allclose(out, expected[1:-1, 1:-1, 1:-1], rtol=1e-4, atol=1e-5)


@variants("from_numba/matmul_tiled")
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 8, 8), (17, 9, 20), (5, 30, 3)])
def test_matmul_tiled(machine: Machine, code: CompiledKernel, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b, c = normal(m, k), normal(k, n), np.zeros((m, n), np.float32)
    machine.run(code, (blocks(n, 8), blocks(m, 8)), (8, 8), *array(a), *array(b), *array(c))
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-5)


@variants("from_numba/sum_shared")
@pytest.mark.parametrize(("size", "grid", "block"), [(0, 1, 1), (9, 1, 7), (1000, 3, 33), (700, 2, 256)])
def test_sum_shared(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x, out = normal(size).astype(np.float64), np.zeros(grid)
    machine.run(code, grid, block, *array(x), *array(out))
    np.testing.assert_allclose(out.sum(), x.sum(), rtol=1e-12, atol=1e-12)
    first = np.arange(size) // block % grid == 0
    np.testing.assert_allclose(out[0], x[first].sum(), rtol=1e-12, atol=1e-12)


@variants("from_numba/sum_shuffle")
@pytest.mark.parametrize(("size", "block"), [(1, 32), (100, 32), (1000, 96), (1024, 1024)])
def test_sum_shuffle(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, out = generator(size).integers(-1000, 1000, size).astype(np.int32), np.array([5], np.int32)
    machine.run(code, blocks(size, block), block, *array(x), *array(out))
    assert out[0] == 5 + x.sum()


@variants("from_numba/histogram")
@pytest.mark.parametrize(("size", "grid", "block"), [(0, 1, 1), (100, 1, 33), (3000, 2, 256), (2000, 1, 1024)])
def test_histogram(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x, bins = generator(size).integers(0, 256, size).astype(np.uint8), np.zeros(256, np.int32)
    machine.run(code, grid, block, *array(x), *array(bins))
    assert (bins == np.bincount(x, minlength=256)).all()


@variants("from_numba/prefix_scan")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (200, 128), (1000, 1024)])
def test_prefix_scan(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, out = generator(size).integers(-(2**40), 2**40, size), np.zeros(size, np.int64)
    machine.run(code, blocks(size, block), block, *array(x), *array(out), shared_bytes=16 * block)
    for first in range(0, size, block):
        assert (out[first : first + block] == x[first : first + block].cumsum()).all()


@variants("from_numba/mandelbrot")
@pytest.mark.parametrize(("shape", "block"), [((1, 1), (1, 1)), ((20, 30), (8, 8)), ((9, 33), (3, 11))])
def test_mandelbrot(machine: Machine, code: CompiledKernel, shape: tuple[int, int], block: tuple[int, int]) -> None:
    out = np.full(shape, -1, np.int32)
    grid = (blocks(shape[0], block[0]), blocks(shape[1], block[1]))
    machine.run(code, grid, block, *array(out), -2.03, -1.21, 0.11, 60)
    differing = 0
    for (y, x), found in np.ndenumerate(out):
        c, z, count = complex(-2.03 + x * 0.11, -1.21 + y * 0.11), 0j, 60
        for n in range(60):
            if abs(z) > 2:
                count = n
                break
            z = z * z + c
        differing += found != count
    assert differing <= out.size // 200  # products and sums rounded together move a point on the edge


@variants("from_numba/nbody")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 32), (130, 33), (100, 128)])
def test_nbody(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    bodies, forces = normal(size, 4), np.zeros((size, 3), np.float32)
    machine.run(code, blocks(size, block), block, *array(bodies), *array(forces), 0.01)
    wide = bodies.astype(np.float64)
    difference = wide[None, :, :3] - wide[:, None, :3]
    inverse = ((difference**2).sum(axis=2) + 0.01) ** -1.5
    expected = (difference * (inverse * wide[None, :, 3])[:, :, None]).sum(axis=1)
    np.testing.assert_allclose(forces, expected, rtol=1e-3, atol=1e-3)


@variants("from_numba/black_scholes")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (77, 32), (200, 256)])
def test_black_scholes(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    random = generator(size)
    price, strike, years = random.uniform(5, 30, size), random.uniform(1, 100, size), random.uniform(0.25, 10, size)
    calls, puts = np.zeros(size), np.zeros(size)
    values = [part for values in (price, strike, years, calls, puts) for part in array(values)]
    machine.run(code, blocks(size, block), block, *values, 0.02, 0.3)
    root = 0.3 * np.sqrt(years)
    d1 = (np.log(price / strike) + (0.02 + 0.045) * years) / root
    cdf = np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2)
    discounted = strike * np.exp(-0.02 * years)
    np.testing.assert_allclose(calls, price * cdf(d1) - discounted * cdf(d1 - root), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(puts, discounted * cdf(root - d1) - price * cdf(-d1), rtol=1e-9, atol=1e-9)


@variants("from_numba/bitonic")
@pytest.mark.parametrize("block", [1, 33, 256])
def test_bitonic(machine: Machine, code: CompiledKernel, block: int) -> None:
    x = normal(2, 256)
    expected = np.sort(x, axis=1)
    machine.run(code, 2, block, *array(x.reshape(-1)))
    assert (x == expected).all()


@variants("from_numba/local_sort")
@pytest.mark.parametrize(("rows", "columns", "block"), [(1, 1, 1), (40, 16, 32), (50, 9, 33)])
def test_local_sort(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    x = generator(rows).integers(-9, 9, (rows, columns)).astype(np.int32)
    out = np.zeros_like(x)
    machine.run(code, blocks(rows, block), block, *array(x), *array(out))
    assert (out == np.sort(x, axis=1)).all()


@variants("from_numba/hashes")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])
def test_hashes(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(0, 2**64, size, dtype=np.uint64)
    wide, narrow = np.zeros_like(x), np.zeros(size, np.uint32)
    machine.run(code, blocks(size, block), block, *array(x), *array(wide), *array(narrow))
    for value, found, short in zip(x.tolist(), wide.tolist(), narrow.tolist(), strict=True):
        h = value ^ value >> 33
        h = h * 0xFF51AFD7ED558CCD & _LONG
        h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _LONG
        assert found == h ^ h >> 33
        k = (value & _WORD) * 0xCC9E2D51 & _WORD
        assert short == (k << 15 | k >> 17) * 0x1B873593 & _WORD


@variants("from_numba/complex_numbers")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])
def test_complex_numbers(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, y = (normal(size, 2 + n).astype(np.float32)[:, :2].copy().view(np.complex64)[:, 0] for n in range(2))
    out, length = np.zeros(size, np.complex64), np.zeros(size, np.float32)
    machine.run(code, blocks(size, block), block, *array(x), *array(y), *array(out), *array(length))
    wide = x.astype(np.complex128), y.astype(np.complex128)
    np.testing.assert_allclose(out, wide[0] * wide[1] + wide[0].conj() / (wide[1] + 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(length, np.abs(wide[0]), rtol=1e-6)


@variants("from_numba/floor_division")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (500, 1024)])
def test_floor_division(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    random = generator(size)
    x = random.integers(-(2**31), 2**31, size).astype(np.int32)
    y = random.integers(-9, 9, size).astype(np.int32)
    y[y == 0] = 2**31 - 1
    quotient, rest = np.zeros_like(x), np.zeros_like(x)
    machine.run(code, blocks(size, block), block, *array(x), *array(y), *array(quotient), *array(rest))
    assert (quotient == x // y).all()
    assert (rest == x % y).all()


@variants("from_numba/functions")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (70, 33), (130, 128)])
def test_functions(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = 3 * normal(size).astype(np.float64)
    x[: size // 4] = np.round(x[: size // 4]) + 0.5
    out = np.zeros((10, size))
    machine.run(code, blocks(size, block), block, *array(x), *array(out))
    expected = [
        x**3,
        np.abs(x) ** 0.7,
        np.sin(x) * np.cos(x),
        np.tanh(x),
        np.arctan2(x, 2),
        np.floor(x) + np.ceil(x),
        np.rint(x),
        np.hypot(x, 3),
        np.log1p(np.abs(x)) + np.expm1(-np.abs(x)),
        [math.gamma(abs(v) + 1) for v in x],
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)


@variants("from_numba/collatz")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])
def test_collatz(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    start = generator(size).integers(1, 10_000, size)
    steps, is_long = np.full(size, -1, np.int32), np.zeros(size, np.bool_)
    machine.run(code, blocks(size, block), block, *array(start), *array(steps), *array(is_long))
    for first, found in zip(start.tolist(), steps.tolist(), strict=True):
        n, count = first, 0
        while n != 1:
            n, count = (3 * n + 1 if n & 1 else n >> 1), count + 1
        assert found == count
    assert (is_long == (steps > 50)).all()


@variants("from_numba/grey")
@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(("shape", "block"), [((1, 1), (1, 1)), ((20, 31), (8, 4)), ((33, 9), (32, 32))])
def test_grey(
    machine: Machine, code: CompiledKernel, shape: tuple[int, int], block: tuple[int, int], is_turned: bool
) -> None:
    height, width = shape
    picture = generator(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    seen = picture.transpose(1, 0, 2) if is_turned else picture
    out = np.zeros(seen.shape[:2], np.uint8)
    given = array(picture, shape=seen.shape, strides=seen.strides)
    grid = (blocks(out.shape[0], block[0]), blocks(out.shape[1], block[1]))
    machine.run(code, grid, block, *given, *array(out))
    assert (out == (seen.astype(np.int64) @ np.array([77, 150, 29])) >> 8).all()


@variants("from_numba/extremes")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])
def test_extremes(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, bounds, count = normal(size), np.array([-np.inf, np.inf], np.float32), np.array([1], np.int32)
    machine.run(code, blocks(size, block), block, *array(x), *array(bounds), *array(count))
    assert bounds.tolist() == [x.max(), x.min()]
    assert count[0] == 1 + 3 * (x > 0).sum()


@variants("from_numba/votes")
@pytest.mark.parametrize("block", [32, 96, 1024])
def test_votes(machine: Machine, code: CompiledKernel, block: int) -> None:
    x = generator(block).integers(0, 99, 2 * block).astype(np.int32)
    ballots, ranks = np.zeros(2 * block, np.uint32), np.zeros(2 * block, np.int32)
    machine.run(code, 2, block, *array(x), *array(ballots), *array(ranks))
    for first in range(0, 2 * block, 32):
        odd = x[first : first + 32] & 1
        ballot = sum(int(bit) << lane for lane, bit in enumerate(odd))
        assert (ballots[first : first + 32] == ballot).all()
        expected = np.where(odd, odd.cumsum() - 1, ballot.bit_length() - 32)
        assert (ranks[first : first + 32] == expected).all()


@variants("from_numba/records")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])
def test_records(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    random = generator(size)
    points = np.zeros(size, np.dtype([("x", np.int16), ("y", np.int16), ("weight", np.float32)], align=True))
    points["x"], points["y"] = random.integers(-999, 999, (2, size))
    points["weight"] = random.integers(-9, 9, size)
    out = np.zeros(13)
    machine.run(code, blocks(size, block), block, *array(points), *array(out), 7)
    expected = np.zeros(13)
    np.add.at(expected, (points["x"] // 7 + points["y"] // 7) % 13, points["weight"])
    assert (out == expected).all()


@variants("from_numba/interpolate")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])
def test_interpolate(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    places = np.sort(normal(20) * 3).astype(np.float32)
    values, out = normal(20, 1)[:, 0].copy(), np.zeros(size, np.float32)
    x = generator(size).uniform(places[0], places[-1], size).astype(np.float32)
    machine.run(code, blocks(size, block), block, *array(places), *array(values), *array(x), *array(out))
    np.testing.assert_allclose(out, np.interp(x, places, values), rtol=1e-4, atol=1e-4)
