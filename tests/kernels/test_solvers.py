"""Systems of equations against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_WORD = 0xFFFFFFFF


def _dominant(n: int) -> np.ndarray:
    return normal(n, n).astype(np.float64) + 2 * n * np.eye(n)


@variants("solvers", "jacobi_round")
@pytest.mark.parametrize(("size", "block"), [(1, 32), (20, 96), (50, 1024)])
def test_jacobi_round(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a, b, x = _dominant(size), normal(size).astype(np.float64), np.zeros(size)
    for _ in range(3):
        following, change = np.zeros(size), np.zeros(1)
        machine.run(code, -(-size * 32 // block), block, a, b, x, following, change, size)
        expected = (b - a @ x + np.diag(a) * x) / np.diag(a)
        np.testing.assert_allclose(following, expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(change[0], np.abs(expected - x).sum(), rtol=1e-9)
        x = following


@variants("solvers", "lower_solve")
@pytest.mark.parametrize(("size", "sides", "block"), [(1, 1, 1), (20, 3, 33), (45, 2, 1024)])
def test_lower_solve(machine: Machine, code: CompiledKernel, size: int, sides: int, block: int) -> None:
    lower, b = np.tril(_dominant(size)), normal(sides, size).astype(np.float64)
    x = np.zeros_like(b)
    machine.run(code, sides, block, lower, b, x, size, shared_bytes=8 * size)
    np.testing.assert_allclose(x @ lower.T, b, rtol=1e-10, atol=1e-10)


@variants("solvers", "cholesky")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (9, 33), (24, 256), (17, 1024)])
def test_cholesky(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    root = normal(2, size, size)
    a = (root @ root.transpose(0, 2, 1) + size * np.eye(size)).astype(np.float32)
    found = a.copy()
    machine.run(code, 2, block, found, size)
    np.testing.assert_allclose(np.tril(found), np.linalg.cholesky(a.astype(np.float64)), rtol=1e-3, atol=1e-4)


def _diagonals(systems: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    low, high, right = (normal(systems, n + k)[:, :n].astype(np.float64) for k in range(3))
    return low, np.abs(low) + np.abs(high) + 1, high, right


def _solved(low: np.ndarray, mid: np.ndarray, high: np.ndarray, right: np.ndarray) -> np.ndarray:
    wide = [np.diag(m) + np.diag(a[1:], -1) + np.diag(c[:-1], 1) for a, m, c in zip(low, mid, high, strict=True)]
    return np.linalg.solve(np.stack(wide), right[..., None])[..., 0]


@variants("solvers", "thomas")
@pytest.mark.parametrize(("systems", "size", "block"), [(1, 1, 1), (40, 17, 33), (9, 40, 1024)])
def test_thomas(machine: Machine, code: CompiledKernel, systems: int, size: int, block: int) -> None:
    given = _diagonals(systems, size)
    low, mid, high, x = (part.T.copy() for part in given)
    machine.run(code, -(-systems // block), block, low, mid, high, x, np.zeros_like(x), size, systems)
    np.testing.assert_allclose(x.T, _solved(*given), rtol=1e-9, atol=1e-11)


@variants("solvers", "cyclic")
@pytest.mark.parametrize(("systems", "size"), [(1, 1), (3, 33), (2, 64), (1, 200), (2, 77)])
def test_cyclic(machine: Machine, code: CompiledKernel, systems: int, size: int) -> None:
    given = tuple(part.astype(np.float32) for part in _diagonals(systems, size))
    x = np.zeros_like(given[0])
    machine.run(code, systems, size, *given, x, shared_bytes=16 * size)
    np.testing.assert_allclose(x, _solved(*(part.astype(np.float64) for part in given)), rtol=1e-3, atol=1e-4)


@variants("solvers", "conjugate")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (20, 32), (50, 64), (30, 256)])
def test_conjugate(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a = np.where(generator(size).random((size, size)) < 0.1, normal(size, size), 0).astype(np.float64)
    a = a + a.T
    a += np.diag(np.abs(a).sum(axis=1) + 1)
    rows, columns = np.nonzero(a)
    starts = np.searchsorted(rows, np.arange(size + 1)).astype(np.int32)
    b, rounds = normal(size).astype(np.float64), np.zeros(1, np.int32)
    x, r, p, q = (np.zeros(size) for _ in range(4))
    values = a[rows, columns]
    machine.run(code, 1, block, starts, columns.astype(np.int32), values, b, x, r, p, q, size, 1e-20, rounds)
    np.testing.assert_allclose(a @ x, b, rtol=1e-8, atol=1e-9)
    assert 0 < rounds[0] <= size + 5


@variants("solvers", "inverse")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (5, 33), (32, 64), (20, 1024)])
def test_inverse(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    a = normal(2, size, size) + np.roll(3 * np.eye(size, dtype=np.float32), 1, axis=0)  # wants pivots
    found = np.zeros_like(a)
    machine.run(code, 2, block, a, found, size)
    expected = np.linalg.inv(a.astype(np.float64))
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


@variants("solvers", "pendulums")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (40, 33), (50, 1024)])
def test_pendulums(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    state = normal(count, 2).astype(np.float64)
    expected = state.T.copy()

    def slope(y: np.ndarray) -> np.ndarray:
        return np.stack([y[1], -np.sin(y[0]) - 0.1 * y[1]])

    for _ in range(10):
        first = slope(expected)
        second = slope(expected + 0.025 * first)
        third = slope(expected + 0.025 * second)
        fourth = slope(expected + 0.05 * third)
        expected = expected + 0.05 / 6 * (first + 2 * second + 2 * third + fourth)
    machine.run(code, -(-count // block), block, state, 0.1, 0.05, 10, count)
    np.testing.assert_allclose(state, expected.T, rtol=1e-12, atol=1e-13)


@variants("solvers", "spins")
@pytest.mark.parametrize(("width", "height", "block"), [(2, 2, (1, 1)), (20, 14, (8, 4)), (34, 8, (32, 32))])
def test_spins(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    board = np.where(generator(width).random((height, width)) < 0.5, -1, 1).astype(np.int8)
    chances = np.array([1, math.exp(-1), math.exp(-2)], np.float32)
    expected = board.astype(int)
    places = np.arange(height * width).reshape(height, width)
    for turn in range(4):
        machine.run(code, (-(-width // block[0]), -(-height // block[1])), block, board, chances, width, height, turn)
        around = sum(np.roll(expected, by, axis) for by in (1, -1) for axis in (0, 1))
        energy = expected * around
        h = (places * 2654435761 & _WORD) ^ (turn * 2246822519 & _WORD)
        h = (h ^ h >> 15) * 2246822519 & _WORD
        h = (h ^ h >> 13) * 3266489917 & _WORD
        h ^= h >> 16
        chance = chances[np.maximum(energy, 0) // 2]
        flips = (energy <= 0) | ((h >> 8) / 2**24 < chance)
        mine = np.add.outer(np.arange(height), np.arange(width)) + turn & 1 == 0
        expected = np.where(flips & mine, -expected, expected)
        assert (board == expected).all()
