"""Halves and matrix instructions against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("halves", "pairs")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (33, 32), (1000, 100), (1024, 1024)])
def test_pairs(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, y = normal(2, 2 * size).astype(np.float16)
    a = np.array([1.5, -0.3], np.float16)
    out = np.zeros(2 * size, np.float16)
    machine.run(code, -(-size // block), block, x, y, out, a.view(np.uint32)[0], size)
    product = np.tile(a, size).astype(np.float64) * x + y
    assert (out == np.maximum(product.astype(np.float16), y) - x).all()


@variants("halves", "half_dot")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 32), (5, 100), (2, 1000)])
def test_half_dot(machine: Machine, code: CompiledKernel, rows: int, columns: int) -> None:
    a, b = normal(2, rows, columns).astype(np.float16)
    out = np.zeros(rows, np.float16)
    machine.run(code, rows, 32, a, b, out, columns)
    expected = (a.astype(np.float64) * b).sum(axis=1)
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


@variants("halves", "bfloat")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 32), (1000, 333)])
def test_bfloat(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(0, 2**32, size, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.where(np.isnan(x), np.float32(1.5), x).astype(np.float32)
    out, back = np.zeros(size, np.uint16), np.zeros(size, np.float32)
    machine.run(code, -(-size // block), block, x, out, back, size)
    bits = x.view(np.uint32).astype(np.uint64)
    expected = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    assert (out == expected).all()
    assert (back.view(np.uint32) == expected << np.uint64(16)).all()


@variants("halves", "mma_f16")
@pytest.mark.parametrize("tiles", [(1, 1, 1), (2, 3, 1), (1, 2, 5), (3, 1, 4)])
def test_matrix_instructions(machine: Machine, code: CompiledKernel, tiles: tuple[int, int, int]) -> None:
    m, n, k = tiles[0] * 16, tiles[1] * 8, tiles[2] * 16
    a, b, c = normal(m, k).astype(np.float16), normal(k, n).astype(np.float16), np.zeros((m, n), np.float32)
    machine.run(code, (tiles[1], tiles[0]), 32, a, b, c, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-4)


@variants("halves", "mma_shared")
@pytest.mark.parametrize("blocks", [1, 3])
def test_matrices_from_shared_memory(machine: Machine, code: CompiledKernel, blocks: int) -> None:
    a, b = normal(blocks, 16, 16).astype(np.float16), normal(blocks, 16, 8).astype(np.float16)
    c = np.zeros((blocks, 16, 8), np.float32)
    machine.run(code, blocks, 32, a, b, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-4)


@variants("halves", "half_atomics")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 32), (200, 100)])
def test_half_atomics(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-3, 4, (size, 2)).astype(np.float16)  # sums stay exact
    pair, one = np.array([1, 2], np.float16), np.array([0.5, 9], np.float16)
    machine.run(code, -(-size // block), block, pair, one, x, size)
    assert (pair == np.array([1, 2]) + x.astype(np.float64).sum(axis=0)).all()
    assert one.tolist() == [0.5 + x[:, 0].sum(dtype=np.float64), 9]
