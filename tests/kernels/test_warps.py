"""What threads of a warp tell each other, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine, axes
from kernels.loading import generator, variants
from tensor_wasm.compiler import CompiledKernel


def mask(lanes: np.ndarray) -> int:
    """The bits of the lanes for which this is true."""
    return sum(1 << lane for lane in np.nonzero(lanes)[0].tolist())


def _shuffled(warp: list[int], lane: int, by: int) -> list[int]:
    by &= 31
    up, down = (lane - by if lane >= by else lane), (lane + by if lane + by < 32 else lane)
    segment8, segment16 = lane & ~7, lane & ~15
    sources = [
        (by + lane) % 32,
        up,
        down,
        lane ^ by,
        segment8 + by % 8,
        lane - 3 if lane - 3 >= segment16 else lane,
        lane + 3 if lane + 3 < segment8 + 8 else lane,
        lane ^ 1,
    ]
    return [warp[source] for source in sources]


@variants("warps", "shuffles")
@pytest.mark.parametrize("by", [0, 1, 5, 16, 31, 32, 37])
def test_shuffles(machine: Machine, code: CompiledKernel, by: int) -> None:
    x = generator(by).integers(-1000, 1000, 128).astype(np.int32)
    out = np.zeros((128, 8), np.int32)
    machine.run(code, 2, 64, x, out, by)
    for i in range(128):
        assert list(out[i]) == _shuffled(list(x[i & ~31 : (i | 31) + 1]), i % 32, by), i


@variants("warps", "halves_of_warps")
@pytest.mark.parametrize(("grid", "block"), [(1, 32), (2, 96), (1, 1024)])
def test_halves_of_warps(machine: Machine, code: CompiledKernel, grid: int, block: int) -> None:
    x = generator(block).integers(-1000, 1000, grid * block).astype(np.int32)
    out = np.zeros_like(x)
    machine.run(code, grid, block, x, out)
    warps = x.reshape(-1, 32)
    odd, even = warps[:, 1::2].sum(axis=1), -warps[:, ::2].max(axis=1)
    # Each lane adds what the mirrored one has: that one is of the other half.
    assert (out.reshape(-1, 32) == (odd + even)[:, None]).all()


@variants("warps", "votes")
@pytest.mark.parametrize(("grid", "block"), [(1, 32), (3, 64), (1, 1024)])
def test_votes(machine: Machine, code: CompiledKernel, grid: int, block: int) -> None:
    x = generator(block).integers(0, 100, grid * block).astype(np.int32)
    x[:32] += 1
    x[32:40] = 104
    out = np.zeros((grid * block, 8), np.uint32)
    machine.run(code, grid, block, x, out)

    for i in range(grid * block):
        warp, v = x[i & ~31 : (i | 31) + 1], x[i]
        same = bool((warp // 100 == v // 100).all())
        expected = [
            mask(warp & 1 == 1),
            int((warp > 0).all()),
            int((warp > 90).any()),
            mask(warp % 4 == v % 4),
            0xFFFFFFFF if same else 0,
            int(same),
            mask(warp % 3 == v % 3),
        ]
        assert list(out[i, :7]) == expected, i


@variants("warps", "votes")
@pytest.mark.parametrize(("grid", "block"), [(1, 32), (3, 64), (1, 1024)])
def test_activemask_of_a_branch_has_only_its_lanes(
    machine: Machine, code: CompiledKernel, grid: int, block: int
) -> None:
    x = generator(block).integers(0, 100, grid * block).astype(np.int32)
    out = np.zeros((grid * block, 8), np.uint32)
    machine.run(code, grid, block, x, out)
    for i in range(grid * block):
        # The lanes of the other branch store the complement of theirs, which is the same.
        assert out[i, 7] == mask(x[i & ~31 : (i | 31) + 1] & 2 != 0), i


@variants("warps", "collatz")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (40, 7), (300, 64), (1500, 1024)])
def test_collatz(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = np.arange(1, size + 1, dtype=np.int32)
    steps, crowd = np.zeros(size, np.int32), np.zeros(size, np.uint32)
    machine.run(code, -(-size // block), block, x, steps, crowd, size)

    def length(n: int) -> int:
        count = 0
        while n > 1:
            n = 3 * n + 1 if n % 2 else n // 2
            count += 1
        return count

    assert steps.tolist() == [length(n) for n in x.tolist()]
    assert (crowd <= min(32, block)).all()
    assert ((crowd > 0) == (steps > 0)).all()


@variants("warps", "early_exit")
@pytest.mark.parametrize("block", [1, 31, 64, 100, 1024])
def test_threads_that_left_are_not_waited_for(machine: Machine, code: CompiledKernel, block: int) -> None:
    limits = generator(block).integers(0, 12, block).astype(np.int32)
    limits[64:96] = 2  # a whole warp leaves at once
    out = np.zeros(10, np.int32)
    machine.run(code, 1, block, limits, out, 10)
    limits[0] = 10
    assert out.tolist() == [(limits > r).sum() for r in range(10)]


@variants("warps", "pipeline")
@pytest.mark.parametrize("rounds", [1, 2, 3, 10])
def test_producers_and_consumers(machine: Machine, code: CompiledKernel, rounds: int) -> None:
    x = generator(rounds).integers(-1000, 1000, (rounds, 64)).astype(np.int32)
    out = np.zeros_like(x)
    machine.run(code, 1, 128, x, out, rounds)
    assert (out == 2 * x[:, ::-1]).all()


@variants("warps", "identity")
@pytest.mark.parametrize(
    ("grid", "block"), [(1, 1), (2, 33), ((2, 3), (5, 7)), ((1, 2, 3), (3, 4, 5)), (1, 1024), ((3, 1, 2), (1, 1, 64))]
)
def test_identity(machine: Machine, code: CompiledKernel, grid: tuple[int, ...], block: tuple[int, ...]) -> None:
    (gx, gy, gz), (bx, by, bz) = axes(grid), axes(block)
    blocks, threads = gx * gy * gz, bx * by * bz
    out = np.zeros((blocks, threads, 8), np.uint32)
    machine.run(code, grid, block, out)
    thread, number = np.arange(threads), np.arange(blocks)[:, None]
    lane = thread % 32
    assert (out[..., 0] == lane).all()
    assert (out[..., 1] == (1 << lane) - 1).all()
    assert (out[..., 2] == (0xFFFFFFFF << lane & 0xFFFFFFFF)).all()
    assert (out[..., 3] == 1 << lane).all()
    assert (out[..., 4] == (thread % bx | thread // bx % by << 10 | thread // bx // by << 20)).all()
    assert (out[..., 5] == (number % gx | number // gx % gy << 10 | number // gx // gy << 20)).all()
    assert (out[..., 6] == 32).all()
    there = np.minimum(threads - thread // 32 * 32, 32)
    assert (out[..., 7] == (1 << there) - 1).all()
