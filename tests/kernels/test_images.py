"""Pictures and volumes against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_FLAT = pytest.mark.parametrize(
    ("width", "height", "block"), [(1, 1, (1, 1)), (33, 17, (8, 4)), (20, 9, (31, 3)), (40, 35, (32, 32))]
)
_DEEP = pytest.mark.parametrize(
    ("shape", "block"),
    [((1, 1, 1), (1, 1, 1)), ((5, 6, 9), (4, 3, 2)), ((3, 7, 40), (32, 1, 1)), ((9, 9, 5), (8, 8, 16))],
)


def _grid(lengths: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-length // wide) for length, wide in zip(lengths, block, strict=True))


def _convolved(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    half, (height, width) = len(weights) // 2, x.shape[-2:]
    padded = np.pad(x.astype(np.float64), [(0, 0)] * (x.ndim - 2) + [(half, half)] * 2)
    return sum(w * padded[..., i : i + height, j : j + width] for (i, j), w in np.ndenumerate(weights))


_IMAGES = pytest.mark.parametrize("images", [1, 2])


@variants("images", "conv_3")
@_IMAGES
@_FLAT
def test_conv_3(
    machine: Machine, code: CompiledKernel, images: int, width: int, height: int, block: tuple[int, int]
) -> None:
    _check_direct(machine, code, (images, height, width), block, 3)


@variants("images", "conv_5")
@_IMAGES
@_FLAT
def test_conv_5(
    machine: Machine, code: CompiledKernel, images: int, width: int, height: int, block: tuple[int, int]
) -> None:
    _check_direct(machine, code, (images, height, width), block, 5)


@variants("images", "conv_7")
@_IMAGES
@_FLAT
def test_conv_7(
    machine: Machine, code: CompiledKernel, images: int, width: int, height: int, block: tuple[int, int]
) -> None:
    _check_direct(machine, code, (images, height, width), block, 7)


def _check_direct(
    machine: Machine, code: CompiledKernel, shape: tuple[int, int, int], block: tuple[int, int], side: int
) -> None:
    images, height, width = shape
    x, weights = normal(*shape), normal(side, side)
    out = np.zeros_like(x)
    machine.run(code, (*_grid((width, height), block), images), block, x, weights, out, width, height)
    np.testing.assert_allclose(out, _convolved(x, weights), rtol=1e-4, atol=1e-4)


@variants("images", "depthwise")
@_FLAT
def test_depthwise(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    x, weights = normal(3, 2 * height + 1, 2 * width + 1), normal(3, 3, 3)
    out = np.zeros((3, height, width), np.float32)
    sizes = (2 * width + 1, 2 * height + 1, width, height)
    machine.run(code, (*_grid((width, height), block), 3), block, x, weights, out, *sizes)
    full = np.stack([_convolved(x[c], weights[c]) for c in range(3)])
    np.testing.assert_allclose(out, full[:, 1:-1:2, 1:-1:2], rtol=1e-4, atol=1e-4)


@variants("images", "max_pool")
@_FLAT
def test_max_pool(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    x, across, down = normal(height, width), (width + 1) // 2, (height + 1) // 2
    out, which = np.zeros((down, across), np.float32), np.full((down, across), 9, np.uint8)
    machine.run(code, _grid((across, down), block), block, x, out, which, width, height)
    padded = np.pad(x, ((0, height % 2), (0, width % 2)), constant_values=-np.inf)
    groups = padded.reshape(down, 2, across, 2).transpose(0, 2, 1, 3).reshape(down, across, 4)
    assert (out == groups.max(axis=2)).all()
    assert (which == groups.argmax(axis=2)).all()


@variants("images", "resize")
@pytest.mark.parametrize("size", [(1, 1), (10, 33), (50, 7)])
@_FLAT
def test_resize(
    machine: Machine, code: CompiledKernel, size: tuple[int, int], width: int, height: int, block: tuple[int, int]
) -> None:
    x, out = normal(height, width), np.zeros(size, np.float32)
    machine.run(code, _grid(size[::-1], block), block, x, out, width, height, size[1], size[0])
    u = np.maximum((np.arange(size[1]) + 0.5) * width / size[1] - 0.5, 0)
    v = np.maximum((np.arange(size[0]) + 0.5) * height / size[0] - 0.5, 0)
    rows = np.stack([np.interp(u, np.arange(width), row) for row in x])
    expected = np.stack([np.interp(v, np.arange(height), column) for column in rows.T]).T
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


@variants("images", "running_sums")
@pytest.mark.parametrize(
    ("width", "height", "r", "block"), [(1, 1, 2, 1), (30, 40, 3, 33), (9, 70, 12, 64), (50, 8, 0, 1024)]
)
def test_running_sums(machine: Machine, code: CompiledKernel, width: int, height: int, r: int, block: int) -> None:
    x = generator(width).integers(-999, 999, (height, width)).astype(np.int32)
    out = np.zeros_like(x)
    machine.run(code, -(-height // block), block, x, out, width, height, r)
    padded = np.pad(x, ((0, 0), (r, r)), mode="edge")
    assert (out == sum(padded[:, k : k + width] for k in range(2 * r + 1))).all()


@variants("images", "sobel")
@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (33, 17), (20, 40)])
def test_sobel(machine: Machine, code: CompiledKernel, width: int, height: int) -> None:
    x = generator(width).integers(0, 60, (height, width)).astype(np.uint8)
    out = np.zeros_like(x)
    machine.run(code, _grid((width, height), (16, 16)), (16, 16), x, out, width, height)
    p = np.pad(x.astype(int), 1, mode="edge")
    smooth = p[:-2] + 2 * p[1:-1] + p[2:]
    slope = (p[2:] - p[:-2])[:, :-2] + 2 * (p[2:] - p[:-2])[:, 1:-1] + (p[2:] - p[:-2])[:, 2:]
    assert (out == np.minimum(255, np.abs(smooth[:, 2:] - smooth[:, :-2]) + np.abs(slope))).all()


@variants("images", "median")
@_FLAT
def test_median(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    x, out = normal(height, width), np.zeros((height, width), np.float32)
    machine.run(code, _grid((width, height), block), block, x, out, width, height)
    p = np.pad(x, 1, mode="edge")
    assert (out == np.median([p[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)).all()


@variants("images", "seven_points")
@_DEEP
def test_seven_points(
    machine: Machine, code: CompiledKernel, shape: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    x, out = normal(*shape), np.zeros(shape, np.float32)
    halo = 4 * int(np.prod([wide + 2 for wide in block]))
    machine.run(code, _grid(shape[::-1], block), block, x, out, *shape[::-1], shared_bytes=halo)
    padded = np.pad(x.astype(np.float64), 1)
    expected = -6 * padded
    for axis in range(3):
        expected += np.roll(padded, 1, axis) + np.roll(padded, -1, axis)
    np.testing.assert_allclose(out, expected[1:-1, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


@variants("images", "around")
@_DEEP
def test_around(
    machine: Machine, code: CompiledKernel, shape: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    x, out = normal(*shape).astype(np.float64), np.zeros(shape)
    machine.run(code, _grid(shape[::-1], block), block, x, out, *shape[::-1])
    expected = 3 * x
    for step in np.ndindex(3, 3, 3):
        expected = expected + np.roll(x, [s - 1 for s in step], (0, 1, 2))
    np.testing.assert_allclose(out, expected / 30, rtol=1e-12, atol=1e-12)


@variants("images", "columns")
@pytest.mark.parametrize("depth", [2, 3, 9])
@_FLAT
def test_columns(
    machine: Machine, code: CompiledKernel, depth: int, width: int, height: int, block: tuple[int, int]
) -> None:
    x, out = normal(depth, height, width), np.zeros((depth, height, width), np.float32)
    machine.run(code, _grid((width, height), block), block, x, out, width, height, depth)
    expected = x.astype(np.float64)
    expected[1:-1] = (x[:-2].astype(np.float64) + 2 * x[1:-1] + x[2:]) / 4
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
