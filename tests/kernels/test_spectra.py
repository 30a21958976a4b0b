"""Transforms against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("spectra", "radix_2")
@pytest.mark.parametrize(("rows", "size", "block"), [(1, 1, 1), (1, 2, 1), (3, 64, 33), (2, 256, 128), (1, 512, 1024)])
def test_radix_2(machine: Machine, code: CompiledKernel, rows: int, size: int, block: int) -> None:
    x = normal(rows, size).astype(np.complex128) + 1j * normal(rows, size + 1)[:, 1:]
    out = np.zeros_like(x)
    machine.run(code, rows, block, x, out, size, shared_bytes=32 * size)
    np.testing.assert_allclose(out, np.fft.fft(x), rtol=1e-11, atol=1e-11)


@variants("spectra", "radix_4")
@pytest.mark.parametrize(("rows", "size", "block"), [(1, 1, 1), (2, 4, 1), (3, 64, 33), (2, 256, 64), (1, 1024, 1024)])
def test_radix_4(machine: Machine, code: CompiledKernel, rows: int, size: int, block: int) -> None:
    x = (normal(rows, size) + 1j * normal(rows, size + 1)[:, 1:]).astype(np.complex64)
    out = np.zeros_like(x)
    machine.run(code, rows, block, x, out, size, shared_bytes=16 * size)
    np.testing.assert_allclose(out, np.fft.fft(x.astype(np.complex128)), rtol=1e-3, atol=1e-3)


@variants("spectra", "cosine_8")
@pytest.mark.parametrize("tiles", [1, 4, 7])
def test_cosine_8(machine: Machine, code: CompiledKernel, tiles: int) -> None:
    x = normal(tiles, 8, 8)
    out, back = np.zeros_like(x), np.zeros_like(x)
    machine.run(code, -(-tiles // 4), (8, 4), x, out, back, tiles)
    to, at = np.mgrid[:8, :8]
    matrix = np.where(to == 0, np.sqrt(1 / 8), 0.5) * np.cos(np.pi / 16 * (2 * at + 1) * to)
    np.testing.assert_allclose(out, matrix @ x.astype(np.float64) @ matrix.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(back, x, rtol=1e-3, atol=1e-4)


@variants("spectra", "walsh")
@pytest.mark.parametrize("block", [1, 8, 32, 256, 1024])
def test_walsh(machine: Machine, code: CompiledKernel, block: int) -> None:
    x = generator(block).integers(-999, 999, (2, block)).astype(np.int32)
    out = np.zeros_like(x)
    machine.run(code, 2, block, x, out, shared_bytes=4 * block)
    matrix = np.ones((1, 1), int)
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    assert (out == x @ matrix).all()


@variants("spectra", "haar")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (8, 1), (64, 33), (512, 100), (256, 1024)])
def test_haar(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, out = normal(2, size), np.zeros((2, size), np.float32)
    machine.run(code, 2, block, x, out, size, shared_bytes=4 * size)
    expected, length = x.astype(np.float64), size
    while length > 1:
        even, odd = expected[:, :length:2].copy(), expected[:, 1:length:2].copy()
        expected[:, : length // 2], expected[:, length // 2 : length] = even + odd, even - odd
        expected[:, :length] /= np.sqrt(2)
        length //= 2
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


@variants("spectra", "exact_convolution")
@pytest.mark.parametrize(("bits", "block"), [(0, 1), (3, 33), (7, 64), (8, 1024)])
def test_exact_convolution(machine: Machine, code: CompiledKernel, bits: int, block: int) -> None:
    size, prime = 1 << bits, 998244353
    a, b = generator(bits).integers(0, prime, (2, size)).astype(np.uint32)
    out = np.zeros(size, np.uint32)
    machine.run(code, 1, block, a.copy(), b.copy(), out, bits, shared_bytes=8 * size)
    p, q = a.tolist(), b.tolist()
    assert out.tolist() == [sum(p[i] * q[(k - i) % size] for i in range(size)) % prime for k in range(size)]


@variants("spectra", "tones")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 33), (120, 1024)])
def test_tones(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, out = normal(size), np.zeros(size, np.complex128)
    machine.run(code, -(-size // block), block, x, out, size, size)
    np.testing.assert_allclose(out, np.fft.fft(x.astype(np.float64)), rtol=1e-7, atol=1e-7)
