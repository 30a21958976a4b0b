"""Graphs against plain Python."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_SIZES = pytest.mark.parametrize(("nodes", "block"), [(1, 1), (40, 33), (150, 64), (200, 1024)])


def _edges(nodes: int, each: int = 3) -> np.ndarray:
    """Directed edges without loops or doubles, sorted."""
    pairs = generator(nodes, each).integers(0, nodes, (each * nodes, 2))
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).astype(np.int32).reshape(-1, 2)


def _both(edges: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0).astype(np.int32).reshape(-1, 2)


def _rows(edges: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each node's neighbours start, and the neighbours; never empty."""
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    starts = np.searchsorted(edges[order, 0], np.arange(nodes + 1)).astype(np.int32)
    return starts, np.append(edges[order, 1], 0).astype(np.int32)


@variants("graphs", "breadth_first")
@_SIZES
def test_breadth_first(machine: Machine, code: CompiledKernel, nodes: int, block: int) -> None:
    edges = _edges(nodes, 2)
    starts, targets = _rows(edges, nodes)
    level, parent = np.zeros(nodes, np.int32), np.zeros(nodes, np.int32)
    machine.run(code, 1, block, starts, targets, level, parent, 0, nodes)
    expected, queue = {0: 0}, deque([0])
    while queue:
        node = queue.popleft()
        for other in targets[starts[node] : starts[node + 1]].tolist():
            if other not in expected:
                expected[other] = expected[node] + 1
                queue.append(other)
    assert level.tolist() == [expected.get(node, -1) for node in range(nodes)]
    known = {tuple(edge) for edge in edges.tolist()}
    for node in range(nodes):
        if level[node] > 0:
            assert (parent[node], node) in known
            assert level[parent[node]] == level[node] - 1
        else:
            assert parent[node] == -1


@variants("graphs", "page_rank")
@_SIZES
def test_page_rank(machine: Machine, code: CompiledKernel, nodes: int, block: int) -> None:
    edges = _edges(nodes)
    starts, sources = _rows(edges[:, ::-1], nodes)
    degree = np.maximum(np.bincount(edges[:, 0], minlength=nodes), 1).astype(np.int32)
    rank, following, change = generator(nodes).random(nodes), np.zeros(nodes), np.zeros(1)
    arguments = (starts, sources, degree, rank, following, change, 0.85, nodes)
    machine.run(code, -(-nodes // block), block, *arguments)
    expected = np.zeros(nodes)
    np.add.at(expected, edges[:, 1], (rank / degree)[edges[:, 0]])
    expected = 0.15 / nodes + 0.85 * expected
    np.testing.assert_allclose(following, expected, rtol=1e-12)
    np.testing.assert_allclose(change[0], np.abs(expected - rank).sum(), rtol=1e-12)


@variants("graphs", "push_rank")
@pytest.mark.parametrize(("nodes", "grid", "block"), [(2, 1, 1), (40, 2, 33), (200, 1, 1024)])
def test_push_rank(machine: Machine, code: CompiledKernel, nodes: int, grid: int, block: int) -> None:
    edges = _edges(nodes)
    degree = np.maximum(np.bincount(edges[:, 0], minlength=nodes), 1).astype(np.int32)
    rank, following = generator(nodes).random(nodes).astype(np.float32), np.ones(nodes, np.float32)
    machine.run(code, grid, block, edges, degree, rank, following, len(edges))
    expected = np.ones(nodes)
    np.add.at(expected, edges[:, 1], (rank.astype(np.float64) / degree)[edges[:, 0]])
    np.testing.assert_allclose(following, expected, rtol=1e-5)


@variants("graphs", "relax")
@pytest.mark.parametrize(("nodes", "block"), [(2, 1), (40, 33), (100, 1024)])
def test_relax(machine: Machine, code: CompiledKernel, nodes: int, block: int) -> None:
    edges = _edges(nodes)
    lengths = generator(nodes, 1).integers(1, 50, len(edges)).astype(np.uint32)
    distance = np.full(nodes, 2**32 - 1, np.uint32)
    distance[0] = 0
    for _ in range(nodes + 1):
        changed = np.zeros(1, np.int32)
        machine.run(code, -(-len(edges) // block), block, edges, lengths, distance, changed, len(edges))
        if not changed[0]:
            break
    assert not changed[0]
    expected = np.full(nodes, np.inf)
    expected[0] = 0
    for _ in range(nodes):
        np.minimum.at(expected, edges[:, 1], expected[edges[:, 0]] + lengths)
    assert distance.tolist() == [2**32 - 1 if np.isinf(d) else int(d) for d in expected]


@variants("graphs", "triangles")
@pytest.mark.parametrize(("nodes", "block"), [(3, 32), (30, 96), (60, 1024)])
def test_triangles(machine: Machine, code: CompiledKernel, nodes: int, block: int) -> None:
    edges = _both(_edges(nodes, 4))
    starts, targets = _rows(edges, nodes)
    total = np.zeros(1, np.uint64)
    machine.run(code, -(-len(edges) * 32 // block), block, starts, targets, edges, total, len(edges))
    matrix = np.zeros((nodes, nodes), np.int64)
    matrix[edges[:, 0], edges[:, 1]] = 1
    assert total[0] == np.trace(matrix @ matrix @ matrix)


@variants("graphs", "colour")
@_SIZES
def test_colour(machine: Machine, code: CompiledKernel, nodes: int, block: int) -> None:
    edges = _both(_edges(nodes))
    starts, targets = _rows(edges, nodes)
    weight = generator(nodes, 5).integers(0, 50, nodes).astype(np.uint32)  # many that are equal
    colours = np.full(nodes, -1, np.int32)
    for _ in range(nodes):
        after, left = np.zeros(nodes, np.int32), np.zeros(1, np.int32)
        machine.run(code, -(-nodes // block), block, starts, targets, weight, colours, after, left, nodes)
        colours = after
        assert left[0] == (colours < 0).sum()
        if not left[0]:
            break
    expected = np.full(nodes, -1)
    for node in sorted(range(nodes), key=lambda node: (int(weight[node]), node), reverse=True):
        near = {int(expected[other]) for other in targets[starts[node] : starts[node + 1]]}
        expected[node] = next(c for c in range(nodes) if c not in near)
    assert (colours == expected).all()


@variants("graphs", "find_roots")
@_SIZES
def test_find_roots(machine: Machine, code: CompiledKernel, nodes: int, block: int) -> None:
    parent = np.array([generator(nodes, i).integers(max(0, i - 3), i + 1) for i in range(nodes)], np.int32)
    expected = []
    for node in range(nodes):
        root = node
        while parent[root] != root:
            root = int(parent[root])
        expected.append(root)
    machine.run(code, 1, block, parent, nodes)
    assert parent.tolist() == expected


@variants("graphs", "through_node")
@pytest.mark.parametrize("nodes", [1, 16, 23])
def test_through_node(machine: Machine, code: CompiledKernel, nodes: int) -> None:
    distance = generator(nodes).integers(1, 99, (nodes, nodes)).astype(np.float32)
    distance[generator(nodes, 1).random((nodes, nodes)) < 0.5] = np.inf
    expected = distance.copy()
    for k in range(nodes):
        machine.run(code, (-(-nodes // 16), -(-nodes // 16)), (16, 16), distance, k, nodes)
        through = expected[:, k : k + 1] + expected[k : k + 1]
        through[k], through[:, k] = np.inf, np.inf
        expected = np.minimum(expected, through)
    assert (distance == expected).all()


@variants("graphs", "centres")
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (100, 2, 33), (700, 1, 1024)])
def test_centres(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    points = generator(size).integers(-9, 9, (size, 3)).astype(np.float32)
    group = generator(size, 1).integers(0, 8, size).astype(np.uint8)
    sums, sizes, expected = np.zeros((8, 3), np.float32), np.zeros(8, np.int32), np.zeros((8, 3))
    machine.run(code, grid, block, points, group, sums, sizes, size)
    np.add.at(expected, group, points)
    assert (sums == expected).all()
    assert (sizes == np.bincount(group, minlength=8)).all()


@variants("graphs", "private_histogram")
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (1000, 2, 33), (3000, 1, 256), (0, 1, 32)])
def test_private_histogram(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x = (normal(size) * 200 + 500).clip(0, 1023).astype(np.uint16)
    bins = np.zeros(1024, np.uint32)
    machine.run(code, grid, block, x, bins, size, shared_bytes=2048 * -(-block // 32))
    assert (bins == np.bincount(x, minlength=1024)).all()
