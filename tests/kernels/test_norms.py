"""Layers of networks against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_ROWS = pytest.mark.parametrize(
    ("rows", "columns", "block"), [(1, 1, 32), (3, 40, 32), (2, 100, 96), (2, 700, 256), (1, 1030, 1024)]
)


@variants("norms", "rms_norm")
@_ROWS
def test_rms_norm(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    x, gain, y = normal(rows, columns), normal(2, columns)[0], np.zeros((rows, columns), np.float32)
    machine.run(code, rows, block, x, gain, y, columns, 1e-5)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * gain
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@variants("norms", "group_norm")
@pytest.mark.parametrize(
    ("images", "channels", "groups", "points", "block"),
    [(1, 1, 1, 1, 32), (2, 6, 3, 25, 64), (1, 8, 2, 49, 96), (2, 4, 4, 70, 1024)],
)
def test_group_norm(
    machine: Machine, code: CompiledKernel, images: int, channels: int, groups: int, points: int, block: int
) -> None:
    x, y = normal(images, channels, points) + 2, np.zeros((images, channels, points), np.float32)
    gain, bias = normal(2, channels)
    machine.run(code, (groups, images), block, x, gain, bias, y, channels, groups, points, 1e-5)
    wide = x.astype(np.float64).reshape(images, groups, -1)
    scaled = (wide - wide.mean(axis=2, keepdims=True)) / np.sqrt(wide.var(axis=2, keepdims=True) + 1e-5)
    expected = scaled.reshape(x.shape) * gain[:, None] + bias[:, None]
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@variants("norms", "softmax_gradient")
@_ROWS
def test_softmax_gradient(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    y, dy = _softmax(normal(rows, columns)).astype(np.float32), normal(rows, columns + 1)[:, 1:].copy()
    dx = np.zeros_like(y)
    machine.run(code, rows, block, y, dy, dx, columns)
    wide = y.astype(np.float64)
    expected = wide * (dy - (wide * dy).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(dx, expected, rtol=1e-3, atol=1e-6)


@variants("norms", "cross_entropy")
@_ROWS
def test_cross_entropy(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    x, labels = 3 * normal(rows, columns), generator(rows).integers(0, columns, rows).astype(np.int32)
    labels[1:2] = -1
    loss, dx = np.full(rows, 9, np.float32), np.full((rows, columns), 9, np.float32)
    machine.run(code, rows, block, x, labels, loss, dx, columns)
    shares = _softmax(x)
    kept = labels >= 0
    expected = np.where(kept, -np.log(shares[np.arange(rows), labels]), 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-4)
    wanted = np.zeros_like(shares)
    wanted[kept, labels[kept]] = 1
    np.testing.assert_allclose(dx, np.where(kept[:, None], shares - wanted, 0), rtol=1e-3, atol=1e-6)


@variants("norms", "rotary")
@pytest.mark.parametrize(("places", "depth", "block"), [(1, 2, 1), (40, 16, 8), (9, 50, 33), (3, 64, 1024)])
def test_rotary(machine: Machine, code: CompiledKernel, places: int, depth: int, block: int) -> None:
    x = normal(places, depth)
    if block < depth // 2:
        block = depth // 2
    given = x.astype(np.float64).reshape(places, -1, 2) @ [1, 1j]
    angles = np.arange(places)[:, None] * 10_000.0 ** (-2 * np.arange(depth // 2) / depth)
    machine.run(code, places, block, x, depth, 10_000.0)
    turned = given * np.exp(1j * angles)
    np.testing.assert_allclose(x.reshape(places, -1, 2) @ [1, 1j], turned, rtol=1e-3, atol=1e-4)


@variants("norms", "adam")
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (100, 2, 33), (300, 1, 1024)])
def test_adam(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    weights, gradient, mean = normal(3, size)
    weights, mean, square = weights.copy(), mean.copy(), normal(size) ** 2
    rates = np.array([0.01, 0.9, 0.99, 1e-6, 0.1], np.float32)
    wide = [x.astype(np.float64) for x in (weights, gradient, mean, square)]
    machine.run(code, grid, block, weights, gradient, mean, square, rates.tobytes(), 3, size)
    m, s = 0.9 * wide[2] + 0.1 * wide[1], 0.99 * wide[3] + 0.01 * wide[1] ** 2
    step = m / (1 - 0.9**3) / (np.sqrt(s / (1 - 0.99**3)) + 1e-6) + 0.1 * wide[0]
    np.testing.assert_allclose(weights, wide[0] - 0.01 * step, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(mean, m, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(square, s, rtol=1e-4, atol=1e-6)


@variants("norms", "table_gradient")
@pytest.mark.parametrize(("count", "columns", "block"), [(1, 1, 1), (30, 50, 33), (9, 100, 1024)])
def test_table_gradient(machine: Machine, code: CompiledKernel, count: int, columns: int, block: int) -> None:
    places = generator(count).integers(0, 6, count).astype(np.int32)
    gradient = generator(columns).integers(-9, 9, (count, columns)).astype(np.float32)
    table, expected = np.ones((6, columns), np.float32), np.ones((6, columns), np.float32)
    machine.run(code, count, block, places, gradient, table, columns)
    np.add.at(expected, places, gradient)
    assert (table == expected).all()


@variants("norms", "top")
@pytest.mark.parametrize(
    ("rows", "columns", "k", "block"), [(1, 1, 1, 1), (3, 50, 5, 33), (2, 200, 32, 256), (1, 99, 9, 1024)]
)
def test_top(machine: Machine, code: CompiledKernel, rows: int, columns: int, k: int, block: int) -> None:
    x = generator(rows, columns).integers(-20, 20, (rows, columns)).astype(np.float32)  # many that are equal
    values, places = np.zeros((rows, k), np.float32), np.zeros((rows, k), np.int32)
    machine.run(code, rows, block, x, values, places, columns, k)
    order = np.argsort(-x, axis=1, kind="stable")[:, :k]
    assert (places == order).all()
    assert (values == np.take_along_axis(x, order, axis=1)).all()
