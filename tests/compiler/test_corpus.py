"""Kernels as NVIDIA's compiler and Numba emit them, against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.text import compiled
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.ptx import read

_CORPUS = Path(__file__).parents[1] / "corpus"
_SEED = 55
_SIZES = [1, 2, 31, 32, 33, 127, 1000, 1024, 4099]
_BLOCKS = [1, 7, 32, 96, 256, 1024]


def _kernel(file: str, entry: str | None = None) -> CompiledKernel:
    """A kernel of a file, or the only one there is."""
    text = (_CORPUS / f"{file}.ptx").read_text()
    if entry is None:
        (kernel,) = read(text).kernels
        entry = kernel.name
    return compiled(text, entry)


def _numbers(count: int) -> np.ndarray:
    return np.random.default_rng(_SEED + count).standard_normal(count).astype(np.float32)


@pytest.mark.parametrize("block", _BLOCKS)
@pytest.mark.parametrize("size", _SIZES)
def test_vector_add_is_numpys(machine: Machine, size: int, block: int) -> None:
    a, b, c = _numbers(size), _numbers(size)[::-1].copy(), np.full(size + 8, 9, np.float32)
    machine.run(_kernel("vector_add"), -(-size // block), block, a, b, c, size)
    assert (c[:size] == a + b).all()
    assert (c[size:] == 9).all()


@pytest.mark.parametrize("block", [(8, 4, 1), (4, 4, 2), (1, 16, 1), (3, 5, 2)])
def test_vector_add_of_a_block_with_more_axes_uses_only_x(machine: Machine, block: tuple[int, int, int]) -> None:
    size = 100
    a, b, c = _numbers(size), _numbers(size), np.zeros(size, np.float32)
    machine.run(_kernel("vector_add"), (-(-size // block[0]), 2, 1), block, a, b, c, size)
    assert (c == a + b).all()


def _fused(y: np.ndarray, a: np.float32, x: np.ndarray) -> np.ndarray:
    """a * x + y rounded once: the product of two f32 is exact in f64; the sum is rounded to odd, then to f32."""
    product = x.astype(np.float64) * np.float64(a)
    wide = y.astype(np.float64)
    total = product + wide
    shadow = total - product
    error = (product - (total - shadow)) + (wide - shadow)
    bits = total.view(np.int64)
    toward = np.where((error != 0) & (bits & 1 == 0), np.where((error > 0) == (total > 0), 1, -1), 0)
    return (bits + toward).view(np.float64).astype(np.float32)


@pytest.mark.parametrize("block", _BLOCKS)
@pytest.mark.parametrize("size", _SIZES)
def test_numba_saxpy_is_numpys_rounded_once(machine: Machine, size: int, block: int) -> None:
    x, y, a = _numbers(size), _numbers(size)[::-1].copy(), np.float32(1.7)
    expected = _fused(y, a, x)

    def array(data: np.ndarray) -> tuple[object, ...]:
        return (0, 0, data.size, 4, data, data.size, 4)

    machine.run(_kernel("numba_saxpy"), -(-size // block), block, size, a, *array(x), *array(y))
    assert (y == expected).all()


@pytest.mark.parametrize("size", [1, 100, 127, 128, 129, 255, 256, 257, 1000])
def test_triton_add_is_numpys(machine: Machine, size: int) -> None:
    kernel = _kernel("triton_add")
    assert kernel.reqntid == (128, 1, 1)
    x, y, out = _numbers(size), _numbers(size)[::-1].copy(), np.full(size + 300, 9, np.float32)
    machine.run(kernel, -(-size // 256), 128, x, y, out, size, 0, 0)
    assert (out[:size] == x + y).all()
    assert (out[size:] == 9).all()


def _halves(count: int, *, scale: float = 1.0) -> np.ndarray:
    """Numbers of many sizes, with both zeros, infinities and the smallest and largest numbers among them."""
    values = (_numbers(count) * scale).astype(np.float16)
    special = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00], np.uint16).view(np.float16)
    values[: min(count, 64) : 3] = np.resize(special, values[: min(count, 64) : 3].shape)
    return values


@pytest.mark.parametrize("block", [7, 32, 256])
@pytest.mark.parametrize("size", _SIZES)
def test_half_axpy_is_rounded_once(machine: Machine, size: int, block: int) -> None:
    a, x, y = np.float16(1.7), _halves(size), _halves(size, scale=3.0)[::-1].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        # A product of halves is exact in f64, and so is each of these sums.
        expected = (np.float64(a) * x.astype(np.float64) + y.astype(np.float64)).astype(np.float16)
    machine.run(_kernel("half_axpy", "half_axpy"), -(-size // block), block, x, y, a, size)
    is_nan = np.isnan(expected)
    assert (np.isnan(y) == is_nan).all()
    assert (y.view(np.uint16) == expected.view(np.uint16))[~is_nan].all()


@pytest.mark.parametrize("size", _SIZES)
def test_half_to_float_scale_is_numpys(machine: Machine, size: int) -> None:
    a, x, y = np.float32(0.3), _halves(size), np.zeros(size, np.float32)
    machine.run(_kernel("half_axpy", "half_to_float_scale"), -(-size // 128), 128, x, y, a, size)
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities
        expected = _fused(np.full(size, np.float16(a), np.float32), a, x.astype(np.float32))
    is_finite = np.isfinite(x)
    assert (y == expected)[is_finite].all()
    assert (y == x)[np.isinf(x)].all()


@pytest.mark.parametrize("size", _SIZES)
def test_half2_add_is_numpys(machine: Machine, size: int) -> None:
    x, y, z = _halves(2 * size), _halves(2 * size, scale=100.0)[::-1].copy(), np.zeros(2 * size, np.float16)
    machine.run(_kernel("half_axpy", "half2_add"), -(-size // 64), 64, x, y, z, size)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x + y
    is_nan = np.isnan(expected)
    assert (np.isnan(z) == is_nan).all()
    assert (z.view(np.uint16) == expected.view(np.uint16))[~is_nan].all()
