"""Arithmetic on floats against NumPy and Python's math, in f64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("numerics", "fft")
@pytest.mark.parametrize(("bits", "block"), [(1, 1), (5, 16), (6, 7), (9, 100), (11, 1024)])
def test_fft(machine: Machine, code: CompiledKernel, bits: int, block: int) -> None:
    size = 1 << bits
    x = (normal(2, size) + 1j * normal(2, size)[::-1]).astype(np.complex64)
    expected = np.fft.fft(x.astype(np.complex128), axis=1)
    data = x.view(np.float32).copy()
    machine.run(code, 2, block, data, bits, shared_bytes=8 * size)
    np.testing.assert_allclose(data.view(np.complex64), expected, rtol=0, atol=1e-5 * size)


@variants("numerics", "nbody")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 32), (100, 33), (200, 256)])
def test_nbody(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    bodies = normal(size, 4)
    bodies[:, 3] = np.abs(bodies[:, 3])
    forces = np.zeros((size, 3), np.float32)
    machine.run(code, -(-size // block), block, bodies, forces, size, 0.01, shared_bytes=16 * block)
    wide = bodies.astype(np.float64)
    apart = wide[None, :, :3] - wide[:, None, :3]
    pull = wide[:, 3] / ((apart**2).sum(axis=2) + np.float32(0.01)) ** 1.5
    expected = (apart * pull[..., None]).sum(axis=1)
    np.testing.assert_allclose(forces, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()))


@variants("numerics", "black_scholes")
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (100, 2, 33), (1000, 2, 256), (1500, 1, 1024)])
def test_black_scholes(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    random = generator(size)
    price, strike = random.uniform(5, 30, (2, size)).astype(np.float32)
    years = random.uniform(0.25, 10, size).astype(np.float32)
    calls, puts = np.zeros(size, np.float32), np.zeros(size, np.float32)
    machine.run(code, grid, block, price.copy(), strike.copy(), years, calls, puts, 0.02, 0.3, size)

    def normal_part(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    for i in range(size):
        s, k, t = float(price[i]), float(strike[i]), float(years[i])
        d1 = (math.log(s / k) + (0.02 + 0.045) * t) / (0.3 * math.sqrt(t))
        d2, discounted = d1 - 0.3 * math.sqrt(t), k * math.exp(-0.02 * t)
        assert calls[i] == pytest.approx(s * normal_part(d1) - discounted * normal_part(d2), rel=1e-4, abs=1e-4)
        assert puts[i] == pytest.approx(discounted * normal_part(-d2) - s * normal_part(-d1), rel=1e-4, abs=1e-4)


@variants("numerics", "mandelbrot")
@pytest.mark.parametrize(("width", "height", "block"), [(1, 1, (1, 1)), (40, 30, (16, 16)), (33, 17, (32, 5))])
def test_mandelbrot(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    out = np.zeros((height, width), np.uint16)
    grid = (-(-width // block[0]), -(-height // block[1]))
    machine.run(code, grid, block, out, width, height, -2.0, -1.25, 0.08, 200)
    cx, cy = np.meshgrid(-2.0 + np.arange(width) * 0.08, -1.25 + np.arange(height) * 0.08)
    x, y, expected = np.zeros_like(cx), np.zeros_like(cx), np.zeros((height, width), int)
    inside = np.ones((height, width), bool)
    for _ in range(200):
        xx, yy = x * x, y * y
        inside &= xx + yy <= 4
        expected += inside
        x, y = np.where(inside, xx - yy + cx, 0), np.where(inside, 2 * x * y + cy, 0)
    assert (out == expected).all()


def _ties_away(v: float) -> float:
    return math.copysign(math.floor(abs(v) + 0.5), v)


_FUNCTIONS: list[Callable[[float], float]] = [
    math.exp,
    lambda v: math.log(abs(v) + 0.25),
    math.exp2,
    lambda v: math.log2(abs(v) + 0.25),
    math.cbrt,
    lambda v: math.hypot(v, 3),
    lambda v: math.atan2(v, 2),
    lambda v: math.asin(v / 16),
    math.sinh,
    math.erfc,
    lambda v: math.pow(abs(v) + 0.5, float(np.float32(1.7))),
    lambda v: round(v * 4) + math.floor(v) + math.ceil(v) + math.trunc(v) + _ties_away(v),
    lambda v: math.fmod(v, float(np.float32(1.3))),
    lambda v: math.sqrt(abs(v)) / (1 + v * v),
    lambda v: math.log1p(abs(v)),
]
#: fmodf of fast mathematics rounds a quotient: near a multiple it may be off by a whole divisor, as on a device.
_FMOD = 12


@variants("numerics", "functions")
@pytest.mark.parametrize("which", range(len(_FUNCTIONS)))
def test_functions(machine: Machine, code: CompiledKernel, which: int) -> None:
    x = np.concatenate([np.linspace(-9, 9, 700), [0.0, -0.0, 0.5, -2.5, 1e-7, 3.0]]).astype(np.float32)
    y = np.zeros_like(x)
    machine.run(code, 3, 250, x, y, len(x), which)
    expected = np.array([_FUNCTIONS[which](v) for v in x.tolist()])
    if which == _FMOD:
        off = np.abs(y - expected)
        assert (np.minimum(off, np.abs(off - 1.3)) < 1e-5).all()
    else:
        np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-6)


_DOUBLE_FUNCTIONS: list[Callable[[float], float]] = [
    math.exp,
    lambda v: math.log(abs(v) + 0.25),
    lambda v: math.sqrt(abs(v)) / (1 + v * v),
    math.tanh,
    math.erf,
    math.atan,
    lambda v: round(v * 4) + math.floor(v) + math.ceil(v) + math.trunc(v),
    math.cbrt,
]


@variants("numerics", "functions_double", without=("fast",))
@pytest.mark.parametrize("which", range(len(_DOUBLE_FUNCTIONS)))
def test_functions_of_doubles(machine: Machine, code: CompiledKernel, which: int) -> None:
    x = np.concatenate([np.linspace(-20, 20, 500), [0.0, -0.0, 0.5, -2.5, 1e-9, 1e-300]])
    y = np.zeros_like(x)
    machine.run(code, 2, 256, x, y, len(x), which)
    expected = [_DOUBLE_FUNCTIONS[which](v) for v in x.tolist()]
    np.testing.assert_allclose(y[: len(x)], expected, rtol=1e-15 * 8, atol=1e-15)


@variants("numerics", "newton")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 7), (1000, 1024)])
def test_newton(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).uniform(0.01, 1e6, size).astype(np.float32)
    y, rounds = np.zeros_like(x), np.zeros(size, np.int32)
    machine.run(code, -(-size // block), block, x, y, rounds, size)
    np.testing.assert_allclose(y, np.sqrt(x.astype(np.float64)), rtol=2e-6)
    assert ((rounds > 0) & (rounds < 60)).all()
