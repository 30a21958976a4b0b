"""One element at a time against NumPy and Python's exact numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_SIZES = pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (300, 1024)])


@variants("elements", "axpy_by_fours")
@pytest.mark.parametrize(
    ("size", "grid", "block"), [(0, 1, 1), (3, 1, 1), (101, 2, 33), (1000, 1, 32), (5000, 2, 1024)]
)
def test_axpy_by_fours(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x, y = normal(2, size).copy()
    y = y.copy()
    expected = 1.7 * x.astype(np.float64) + y
    machine.run(code, grid, block, x, y, 1.7, size)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@variants("elements", "strided")
@pytest.mark.parametrize(("steps", "grid", "block"), [((1, 3), 1, 1), ((2, 1), 2, 33), ((5, 4), 1, 1024)])
def test_strided(machine: Machine, code: CompiledKernel, steps: tuple[int, int], grid: int, block: int) -> None:
    size = 150
    x, out = normal(size * 5), np.full(size * 5, 9, np.float32)
    machine.run(code, grid, block, x, out, *steps, size)
    expected = np.full(size * 5, 9, np.float32)
    expected[: size * steps[1] : steps[1]] = x[: size * steps[0] : steps[0]] * 2 + 1
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@variants("elements", "blend")
@_SIZES
def test_blend(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a, b = generator(size).integers(0, 256, (2, size, 4)).astype(np.uint8)
    average, total = np.zeros_like(a), np.zeros_like(a)
    machine.run(code, -(-size // block), block, a, b, average, total, size)
    wide = a.astype(int) + b
    assert (average == wide // 2).all()
    assert (total == np.minimum(wide, 255)).all()


@variants("elements", "fractions")
@_SIZES
def test_fractions(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a, b = generator(size).integers(-(2**15), 2**15, (2, size)).astype(np.int16)
    a[0] = b[0] = -(2**15)
    out = np.zeros_like(a)
    machine.run(code, -(-size // block), block, a, b, out, size)
    product = (a.astype(int) * b + 0x4000) >> 15
    assert (out == np.clip(product + a, -(2**15), 2**15 - 1)).all()


@variants("elements", "quantise")
@_SIZES
def test_quantise(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, low, back = 9 * normal(size), np.zeros(size, np.int8), np.zeros(size, np.float32)
    machine.run(code, -(-size // block), block, x, low, back, 0.125, size)
    assert (low == np.clip(np.rint(x * 8), -127, 127)).all()
    assert (back == low / np.float32(8)).all()


@variants("elements", "polynomial")
@_SIZES
def test_polynomial(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, factors, y = normal(size).astype(np.float64), generator(7).standard_normal(7), np.zeros(size)
    machine.run(code, -(-size // block), block, x, y, factors, 6, size)
    expected = np.sqrt(np.abs(np.polynomial.polynomial.polyval(x, factors))) / (1 + x * x)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


@variants("elements", "conjugates")
@_SIZES
def test_conjugates(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a, b = (normal(size, 2 + n)[:, :2].copy().view(np.complex64)[:, 0] for n in range(2))
    out, length = np.zeros(size, np.complex64), np.zeros(size, np.float32)
    machine.run(code, -(-size // block), block, a, b, out, length, size)
    np.testing.assert_allclose(out, a.astype(np.complex128) * b.conj(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(length, np.abs(a.astype(np.complex128)), rtol=1e-6)


@variants("elements", "grey")
@pytest.mark.parametrize(("width", "height", "block"), [(1, 1, (1, 1)), (33, 20, (8, 4)), (50, 9, (32, 32))])
def test_grey(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    picture = generator(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    out = np.full((height, width + 5), 7, np.uint8)
    machine.run(code, (-(-width // block[0]), -(-height // block[1])), block, picture, out, width, height, width + 5)
    assert (out[:, :width] == (picture.astype(int) @ np.array([77, 150, 29])) >> 8).all()
    assert (out[:, width:] == 7).all()


def _doubles(size: int) -> np.ndarray:
    """Of all sizes, with ties and the edges of the integers among them."""
    x = generator(size).standard_normal(size) * 10.0 ** generator(size, 1).integers(-2, 22, size)
    edges = [0.5, 1.5, -0.5, -2.5, 2**31 - 0.5, 2**31, -(2**31) - 1, 2**32, 2**63, 2**64, -(2**63), -0.0, 1e300, -1e300]
    x[-len(edges) :] = edges[:size]
    return x


def _kept(value: int, bits: int, *, is_signed: bool = True) -> int:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    return max(low, min(high, value))


@variants("elements", "to_integers")
@_SIZES
def test_to_integers(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, out = _doubles(size), np.zeros((size, 10), np.int64)
    machine.run(code, -(-size // block), block, x, out, size)
    for v, found in zip(x.tolist(), out.tolist(), strict=True):
        cut, even = math.trunc(v), round(v)
        with np.errstate(over="ignore"):
            single = float(np.float32(v))
        wide = _kept(math.trunc(max(-1e30, min(1e30, single))), 32)
        assert found[:3] == [_kept(cut, 32), _kept(cut, 32, is_signed=False), _kept(cut, 64)]
        assert found[3] % 2**64 == _kept(cut, 64, is_signed=False)
        assert found[4:8] == [_kept(even, 32), _kept(math.ceil(v), 32), _kept(math.floor(v), 32), wide]
        assert found[8:] == [(_kept(cut, 32) + 2**15) % 2**16 - 2**15, _kept(even, 64)]


def _single(value: int) -> float:
    """Rounded once: through a fraction, as NumPy goes through a double."""
    if not value:
        return 0.0
    bits = abs(value).bit_length()
    unit = Fraction(1 << max(0, bits - 24))
    return float(round(value / unit) * unit)


@variants("elements", "from_integers")
@_SIZES
def test_from_integers(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    shifts = generator(size, 2).integers(0, 63, size)
    x = generator(size).integers(-(2**63), 2**63 - 1, size) >> shifts
    out = np.zeros((size, 8))
    machine.run(code, -(-size // block), block, x, out, size)
    for v, found in zip(x.tolist(), out.tolist(), strict=True):
        unsigned, half = v % 2**64, (v + 2**31) % 2**32 - 2**31
        unit = 1 << max(0, abs(v).bit_length() - 24)
        assert found[:4] == [float(v), float(unsigned), _single(v), _single(unsigned)]
        assert found[4:6] == [_single(half), _single(v % 2**32)]
        assert found[6:] == [float((v + 128) % 256 - 128), float(math.trunc(Fraction(v, unit)) * unit)]


def _fused(a: float, b: float, c: float) -> float:
    return float(Fraction(a) * Fraction(b) + Fraction(c))


@variants("elements", "roundings")
@_SIZES
def test_roundings(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, y = normal(2, size).astype(np.float64) * 20
    x[: size // 3] = np.round(x[: size // 3]) + 0.5
    out = np.zeros((size, 10))
    machine.run(code, -(-size // block), block, x, y, out, size)
    for a, b, found in zip(x.tolist(), y.tolist(), out.tolist(), strict=True):
        away = math.copysign(math.floor(abs(a) + 0.5), a)
        assert found[:4] == [math.copysign(a, b), min(a, b), max(a, b), math.trunc(a)]
        assert found[4:7] == [round(a), math.floor(a) - math.ceil(b), math.fmod(a, b)]
        assert found[7:] == [max(a - b, 0), away, _fused(a, b, -a)]


@variants("elements", "box")
@pytest.mark.parametrize("block", [(1, 1, 1), (4, 2, 3), (32, 1, 2), (16, 8, 8)])
def test_box(machine: Machine, code: CompiledKernel, block: tuple[int, int, int]) -> None:
    size, start, pitch = np.array([17, 5, 6], np.int32), np.array([2, 3, 1], np.int32), np.array([23, 9], np.int32)
    x = generator(9).integers(0, 2**31, (8, 9, 23)).astype(np.int32)
    out = np.zeros((6, 5, 17), np.int32)
    grid = tuple(-(-int(length) // wide) for length, wide in zip(size, block, strict=True))
    machine.run(code, grid, block, x, out, size.tobytes(), start.tobytes(), pitch.tobytes())
    assert (out == x[1:7, 3:8, 2:19]).all()
