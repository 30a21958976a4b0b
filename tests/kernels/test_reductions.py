"""Reductions against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine, axes
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("reductions", "sum_tree")
@pytest.mark.parametrize(
    ("size", "grid", "block"),
    [(0, 1, 1), (1, 1, 1), (77, 1, 7), (1000, 3, 100), (5000, 2, 1024), (513, 5, 33), (40, 2, 32)],
)
def test_sum_tree(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x = generator(size).integers(-(2**31), 2**31, size).astype(np.int32)
    total = np.array([5], np.int64)
    machine.run(code, grid, block, x, total, size, shared_bytes=8 * block)
    assert total[0] == 5 + x.sum(dtype=np.int64)


@variants("reductions", "sum_shuffle")
@pytest.mark.parametrize(
    ("grid", "block", "per_block"),
    [
        (1, 1, 9),
        (4, 32, 100),
        (3, 33, 100),
        (2, 1024, 3000),
        ((2, 3), (8, 8), 70),
        ((2, 2, 2), (3, 5, 7), 300),
        ((1, 1, 3), (2, 1, 64), 129),
        ((1, 5), (1, 1, 31), 31),
    ],
)
def test_sum_shuffle(
    machine: Machine, code: CompiledKernel, grid: tuple[int, ...], block: tuple[int, ...], per_block: int
) -> None:
    blocks = int(np.prod(axes(grid)))
    x = generator(per_block).integers(-50, 50, (blocks, per_block)).astype(np.float32)
    out = np.zeros(blocks, np.float32)
    machine.run(code, grid, block, x, out, per_block)
    assert (out == x.sum(axis=1)).all()


@variants("reductions", "argmax")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (5, 64), (1000, 37), (3000, 1024), (100, 96)])
def test_argmax(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-9, 9, size).astype(np.float32)  # many that are equal
    best, place = np.zeros(1, np.float32), np.zeros(1, np.int32)
    machine.run(code, 1, block, x, best, place, size)
    assert (best[0], place[0]) == (x.max(), x.argmax())


@variants("reductions", "census")
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (50, 1, 50), (100, 2, 64), (999, 1, 1024), (90, 4, 31)])
def test_census(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x = generator(size, block).integers(-3, 20, size).astype(np.int32)
    x[size // 2 :][x[size // 2 :] == 3] = 4
    out = np.zeros((grid, block, 4), np.int32)
    machine.run(code, grid, block, x, out, size)
    padded = np.zeros(grid * block, np.int32)
    padded[:size] = x[: grid * block]
    for found, values in zip(out, padded.reshape(grid, block), strict=True):
        rounds = max(0, -(-int(values.max()) // 2))
        expected = [(values > 0).sum(), (values != 3).all(), (values == 7).any(), rounds]
        assert (found == np.array(expected, np.int32)).all()


@variants("reductions", "reduce_each")
@pytest.mark.parametrize("block", [1, 32, 33, 70, 1024])
def test_reduce_each(machine: Machine, code: CompiledKernel, block: int) -> None:
    x = generator(block).integers(-(2**31), 2**31, 2 * block).astype(np.int32)
    out = np.zeros((2 * block, 8), np.int32)
    machine.run(code, 2, block, x, out)
    for start in [b * block + w for b in range(2) for w in range(0, block, 32)]:
        warp = x[start : min(start + 32, (start // block + 1) * block)]
        bits = warp.view(np.uint32)
        expected = np.array(
            [
                bits.sum(dtype=np.uint32),
                warp.min(),
                warp.max(),
                bits.sum(dtype=np.uint32),
                bits.max(),
                np.bitwise_and.reduce(bits),
                np.bitwise_or.reduce(bits),
                np.bitwise_xor.reduce(bits),
            ],
            np.int64,
        )
        assert (out[start : start + len(warp)] == expected.astype(np.int32)).all()


@variants("reductions", "moments")
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 31), (3, 1000)])
def test_moments(machine: Machine, code: CompiledKernel, rows: int, size: int) -> None:
    x = normal(rows, size).astype(np.float64) + 1e4
    out = np.zeros((rows, 2))
    machine.run(code, rows, 32, x, out, size)
    np.testing.assert_allclose(out[:, 0], x.mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(out[:, 1], x.var(axis=1), rtol=1e-9, atol=1e-12)
