"""Matrices against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("matrices", "transpose", without=("unfused",))
@pytest.mark.parametrize(("rows", "columns", "high"), [(1, 1, 8), (32, 32, 8), (33, 70, 32), (5, 100, 1), (64, 31, 5)])
def test_transpose(machine: Machine, code: CompiledKernel, rows: int, columns: int, high: int) -> None:
    x = normal(rows, columns)
    out = np.zeros((columns, rows), np.float32)
    machine.run(code, (-(-columns // 32), -(-rows // 32)), (32, high), x, out, rows, columns)
    assert (out == x.T).all()


@variants("matrices", "matmul_naive")
@pytest.mark.parametrize(
    ("batch", "shape", "block"),
    [(1, (1, 1, 1), (1, 1)), (2, (17, 33, 9), (16, 16)), (3, (8, 40, 31), (32, 4)), (1, (70, 3, 64), (1, 7))],
)
def test_matmul_naive(
    machine: Machine, code: CompiledKernel, batch: int, shape: tuple[int, int, int], block: tuple[int, int]
) -> None:
    m, n, k = shape
    a, b, c = normal(batch, m, k), normal(batch, k, n), np.zeros((batch, m, n), np.float32)
    machine.run(code, (-(-n // block[0]), -(-m // block[1]), batch), block, a, b, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-5)


@variants("matrices", "matmul_registers")
@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 64, 8), (65, 70, 17), (100, 20, 33), (130, 129, 40)])
def test_matmul_registers(machine: Machine, code: CompiledKernel, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b, c = normal(m, k), normal(k, n), np.zeros((m, n), np.float32)
    machine.run(code, (-(-n // 64), -(-m // 64)), (8, 8), a, b, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-5)


@variants("matrices", "gemv")
@pytest.mark.parametrize(("rows", "columns", "block"), [(1, 2, 1), (5, 100, 33), (3, 2048, 1024), (20, 6, 64)])
def test_gemv(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    a, x = normal(rows, columns).astype(np.float64), normal(columns).astype(np.float64)
    y = np.zeros(rows)
    machine.run(code, rows, block, a, x, y, rows, columns)
    np.testing.assert_allclose(y, a @ x, rtol=1e-12, atol=1e-12)


@variants("matrices", "spmv")
@pytest.mark.parametrize(("rows", "columns", "block"), [(1, 1, 32), (50, 40, 64), (33, 200, 96), (100, 7, 1024)])
def test_spmv(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    dense = np.where(generator(rows, columns).random((rows, columns)) < 0.2, normal(rows, columns), 0)
    row, column = np.nonzero(dense)
    starts = np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)
    x, y = normal(columns), np.full(rows, 9, np.float32)
    values = np.append(dense[row, column], 0).astype(np.float32)  # never empty
    places = np.append(column, 0).astype(np.int32)
    machine.run(code, -(-rows * 32 // block), block, starts, places, values, x, y, rows)
    np.testing.assert_allclose(y, dense.astype(np.float64) @ x, rtol=1e-4, atol=1e-5)


@variants("matrices", "lu")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (5, 32), (16, 256), (23, 50), (30, 1024)])
def test_lu(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a = normal(2, size, size) + size * np.eye(size, dtype=np.float32)
    found = a.copy()
    machine.run(code, 2, block, found, size, shared_bytes=4 * size * size)
    lower = np.tril(found.astype(np.float64), -1) + np.eye(size)
    np.testing.assert_allclose(lower @ np.triu(found.astype(np.float64)), a, rtol=1e-4, atol=1e-4)
