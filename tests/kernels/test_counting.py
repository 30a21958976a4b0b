"""Counts and groups against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, kernel, normal, variants
from tensor_wasm.compiler import CompiledKernel


@variants("counting", "histogram")
@pytest.mark.parametrize(("size", "grid", "block"), [(0, 1, 32), (1, 1, 1), (5000, 3, 256), (999, 2, 77)])
def test_histogram(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    data = generator(size).integers(0, 256, size).astype(np.uint8)
    bins = np.arange(64, dtype=np.uint32)
    machine.run(code, grid, block, data, bins, size)
    assert (bins == np.arange(64) + np.bincount(data >> 2, minlength=64)).all()


@variants("counting", "kmeans")
@pytest.mark.parametrize(("size", "centres", "block"), [(1, 1, 1), (100, 3, 33), (1000, 7, 256), (500, 20, 1024)])
def test_kmeans(machine: Machine, code: CompiledKernel, size: int, centres: int, block: int) -> None:
    points = generator(size).integers(-50, 50, (size, 2)).astype(np.float32)  # sums are exact
    middle = normal(centres, 2) * 30
    assigned, sums, counts = np.zeros(size, np.int32), np.zeros((centres, 2), np.float32), np.zeros(centres, np.int32)
    blocks = -(-size // block)
    machine.run(code, blocks, block, points, middle, assigned, sums, counts, size, centres, shared_bytes=8 * centres)
    difference = points[:, None] - middle
    squares = difference * difference
    expected = (squares[..., 0] + squares[..., 1]).argmin(axis=1)
    assert (assigned == expected).all()
    assert (counts == np.bincount(expected, minlength=centres)).all()
    assert (sums == [points[expected == c].sum(axis=0) for c in range(centres)]).all()


@variants("counting", "bfs_step")
@pytest.mark.parametrize(("size", "edges", "block"), [(1, 0, 1), (60, 150, 7), (500, 1200, 64), (2000, 9000, 1024)])
def test_breadth_first_search(machine: Machine, code: CompiledKernel, size: int, edges: int, block: int) -> None:
    pairs = generator(size).integers(0, size, (edges, 2))
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.searchsorted(pairs[:, 0], np.arange(size + 1)).astype(np.int32)
    targets = np.append(pairs[:, 1], 0).astype(np.int32)
    level = np.full(size, -1, np.int32)
    level[0] = 0
    frontier, count, depth = np.zeros(size, np.int32), 1, 1
    while count:
        following, found = np.zeros(size, np.int32), np.zeros(1, np.int32)
        machine.run(code, 2, block, starts, targets, level, frontier, count, following, found, depth)
        frontier, count, depth = following, int(found[0]), depth + 1
    assert level.tolist() == _levels(size, pairs.tolist())


def _levels(size: int, pairs: list[list[int]]) -> list[int]:
    reached = {0: 0}
    now = [0]
    neighbours: dict[int, list[int]] = {}
    for source, target in pairs:
        neighbours.setdefault(source, []).append(target)
    while now:
        following = []
        for node in now:
            for other in neighbours.get(node, []):
                if other not in reached:
                    reached[other] = reached[node] + 1
                    following.append(other)
        now = following
    return [reached.get(node, -1) for node in range(size)]


@variants("counting", "filter")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (1000, 256), (2000, 1024)])
def test_filter_with_one_atomic_a_warp(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(0, 100, size).astype(np.int32)
    out, count = np.full(size, -1, np.int32), np.zeros(1, np.int32)
    machine.run(code, -(-size // block), block, x, out, count, size, 40)
    assert count[0] == (x < 40).sum()
    assert sorted(out[: count[0]].tolist()) == sorted(x[x < 40].tolist())
    assert (out[count[0] :] == -1).all()


@variants("counting", "group_count")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 31), (1000, 256), (1500, 1024)])
def test_one_atomic_for_each_key_of_a_warp(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    keys = generator(size).integers(0, 6, size).astype(np.int32)
    counts, leaders = np.zeros(6, np.int32), np.zeros(1, np.int32)
    machine.run(code, -(-size // block), block, keys, counts, leaders, size)
    assert (counts == np.bincount(keys, minlength=6)).all()
    warps = [
        keys[first : min(first + 32, base + block, size)]
        for base in range(0, size, block)
        for first in range(base, min(base + block, size), 32)
    ]
    assert leaders[0] == sum(len(np.unique(warp)) for warp in warps)


@variants("counting", "hash_insert")
@pytest.mark.parametrize(("size", "capacity", "block"), [(1, 1, 1), (50, 64, 33), (1000, 701, 256), (1024, 300, 1024)])
def test_hash_table(machine: Machine, code: CompiledKernel, size: int, capacity: int, block: int) -> None:
    distinct = generator(capacity).integers(0, 2**32 - 1, max(1, capacity * 9 // 10)).astype(np.uint32)
    keys = generator(size).choice(distinct, size)
    values = generator(size, 1).integers(0, 1000, size).astype(np.uint32)
    table, sums = np.full(capacity, 0xFFFFFFFF, np.uint32), np.zeros(capacity, np.uint32)
    machine.run(code, -(-size // block), block, keys, values, table, sums, capacity, size)
    expected: dict[int, int] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        expected[key] = expected.get(key, 0) + value
    filled = table != 0xFFFFFFFF
    assert filled.sum() == len(expected)
    assert dict(zip(table[filled].tolist(), sums[filled].tolist(), strict=True)) == expected


def test_components_of_a_graph(machine: Machine) -> None:
    groups = generator(5).integers(0, 9, 400)
    edges = np.array(
        [(i, j) for i, j in generator(6).integers(0, 400, (20_000, 2)) if groups[i] == groups[j]], np.int32
    )
    labels, rounds = np.arange(400, dtype=np.int32), 0
    is_changed = np.ones(1, np.int32)
    while is_changed[0]:
        is_changed[0] = 0
        machine.run(kernel("counting", "label_step"), -(-len(edges) // 128), 128, edges, labels, is_changed, len(edges))
        rounds += 1
        assert rounds < 100
    assert (labels == [np.nonzero(groups == group)[0][0] for group in groups]).all()
