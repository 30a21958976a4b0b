"""Neighbourhoods against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("stencils", "five_point")
@pytest.mark.parametrize(
    ("width", "height", "block"), [(1, 1, (1, 1)), (40, 30, (16, 8)), (33, 65, (32, 32)), (20, 21, (7, 3))]
)
def test_five_point(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    x, y = normal(height, width), np.zeros((height, width), np.float32)
    grid = (-(-width // block[0]), -(-height // block[1]))
    machine.run(code, grid, block, x, y, width, height, shared_bytes=4 * (block[0] + 2) * (block[1] + 2))
    p = np.pad(x.astype(np.float64), 1)
    expected = p[1:-1, :-2] + p[1:-1, 2:] + p[:-2, 1:-1] + p[2:, 1:-1] - 4 * x
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@variants("stencils", "convolve")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (10, 7), (100, 32), (1000, 256), (257, 255)])
def test_convolve(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, y = normal(size), np.zeros(size, np.float32)
    machine.run(code, -(-size // block), block, x, y, size)
    taps = np.array([1, -2, 3, -4, 5, -6, 7, 8, 7, -6, 5, -4, 3, -2, 1], np.float64)
    expected = np.convolve(np.pad(x.astype(np.float64), 7), taps, "valid")
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@variants("stencils", "convolve_2d")
@pytest.mark.parametrize(
    ("channels", "kept", "width", "height", "block"),
    [(1, 1, 1, 1, (1, 1, 1)), (3, 4, 10, 12, (8, 4, 2)), (2, 5, 17, 3, (5, 3, 3))],
)
def test_convolve_2d(
    machine: Machine, code: CompiledKernel, channels: int, kept: int, width: int, height: int, block: tuple[int, ...]
) -> None:
    x, filters = normal(channels, height, width), normal(kept, channels, 3, 3)
    y = np.zeros((kept, height, width), np.float32)
    grid = tuple(-(-size // b) for size, b in zip((width, height, kept), block, strict=True))
    machine.run(code, grid, block, x, filters, y, channels, kept, width, height)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2)
    )
    np.testing.assert_allclose(y, np.einsum("cyxji,kcji->kyx", windows, filters), rtol=1e-4, atol=1e-4)


@variants("stencils", "jacobi")
@pytest.mark.parametrize(("size", "block", "most"), [(1, 1, 5), (8, 10, 1000), (16, 256, 1000), (12, 1024, 7)])
def test_jacobi(machine: Machine, code: CompiledKernel, size: int, block: int, most: int) -> None:
    field = normal(size, size).astype(np.float64)
    expected, taken = field.copy(), 0
    while True:
        after = expected.copy()
        after[1:-1, 1:-1] = 0.25 * (expected[1:-1, :-2] + expected[1:-1, 2:] + expected[:-2, 1:-1] + expected[2:, 1:-1])
        moved = (np.abs(after - expected) > 1e-3).any()
        expected, taken = after, taken + 1
        if not moved or taken >= most:
            break
    steps = np.zeros(1, np.int32)
    machine.run(code, 1, block, field, size, 1e-3, most, steps, shared_bytes=16 * size * size)
    assert steps[0] == taken
    np.testing.assert_allclose(field, expected, rtol=1e-12, atol=1e-12)


@variants("stencils", "seven_point")
@pytest.mark.parametrize(
    ("shape", "block"), [((1, 1, 1), (1, 1, 1)), ((9, 10, 11), (4, 4, 4)), ((3, 20, 33), (32, 2, 2))]
)
def test_seven_point(
    machine: Machine, code: CompiledKernel, shape: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    x, y = normal(*shape).astype(np.float64), np.zeros(shape)
    nz, ny, nx = shape
    grid = (-(-nx // block[0]), -(-ny // block[1]), -(-nz // block[2]))
    machine.run(code, grid, block, x, y, nx, ny, nz)
    p = np.pad(x, 1, mode="edge")
    inner = slice(1, -1)
    expected = -6 * x + p[inner, inner, :-2] + p[inner, inner, 2:] + p[inner, :-2, inner] + p[inner, 2:, inner]
    expected += p[:-2, inner, inner] + p[2:, inner, inner]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@variants("stencils", "life")
@pytest.mark.parametrize(("width", "height", "grid", "block"), [(1, 1, 1, 1), (40, 33, 3, 100), (64, 8, 1, 1024)])
def test_life(machine: Machine, code: CompiledKernel, width: int, height: int, grid: int, block: int) -> None:
    cells = generator(width).integers(0, 2, (height, width)).astype(np.uint8)
    after = np.zeros_like(cells)
    machine.run(code, grid, block, cells, after, width, height)
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    count = sum(np.roll(cells, shift, (0, 1)).astype(int) for shift in shifts)
    assert (after == ((count == 3) | ((count == 2) & (cells == 1)))).all()
