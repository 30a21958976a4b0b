"""Threads that go each their own way, against plain Python."""

from __future__ import annotations

import heapq
import re
from itertools import pairwise

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_WORD = 0xFFFFFFFF
_COUNTS = pytest.mark.parametrize(("count", "block"), [(1, 1), (50, 33), (70, 1024)])


def _signed(value: int) -> int:
    value &= _WORD
    return value - (1 << 32) if value >> 31 else value


def _interpreted(program: list[tuple[int, ...]], value: int, thread: int, limit: int) -> list[int]:
    r, at, steps = [value, thread, 0, 0, 0, 0, 0, 0], 0, 0
    while steps < limit:
        code, to, first, second, number = program[at]
        at += 1
        a, b = r[first], r[second]
        if code == 12:
            break
        if code in (10, 11):
            at = number if code == 11 or a else at
        else:
            quotient = (abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)) if b else 0
            results = (number, a + b, a - b, a * b, quotient, a & b, a ^ b, (a & _WORD) >> (b & 31), a < b, max(a, b))
            r[to] = _signed(int(results[code]))
        steps += 1
    return [r[2], steps]


@variants("machines", "interpret")
@_COUNTS
def test_interpret(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    program = [  # a number's digits summed with its thread, its bits mixed in
        (0, 3, 0, 0, 10),
        (0, 4, 0, 0, 3),
        (4, 5, 0, 3, 0),
        (3, 6, 5, 3, 0),
        (2, 6, 0, 6, 0),
        (1, 2, 2, 6, 0),
        (6, 2, 2, 1, 0),
        (1, 0, 5, 7, 0),
        (7, 6, 0, 4, 0),
        (5, 6, 6, 3, 0),
        (9, 2, 2, 6, 0),
        (8, 6, 7, 0, 0),
        (10, 0, 6, 0, 2),
        (12, 0, 0, 0, 0),
    ]
    layout = np.dtype([("code", "u1"), ("to", "u1"), ("a", "u1"), ("b", "u1"), ("value", "<i4")])
    inputs = generator(count).integers(-(2**31), 2**31, count).astype(np.int32)
    inputs[::2] = np.abs(inputs[::2]) >> generator(count, 1).integers(1, 31, len(inputs[::2]))
    out = np.zeros((count, 2), np.int32)
    machine.run(code, -(-count // block), block, np.array(program, layout), inputs, out, 100, count)
    assert out.tolist() == [_interpreted(program, value, i, 100) for i, value in enumerate(inputs.tolist())]


@variants("machines", "queens")
@pytest.mark.parametrize(
    ("size", "block", "expected"), [(4, 1, 2), (5, 32, 10), (6, 33, 4), (7, 1024, 40), (8, 64, 92)]
)
def test_queens(machine: Machine, code: CompiledKernel, size: int, block: int, expected: int) -> None:
    ways = np.zeros(1, np.uint64)
    machine.run(code, -(-size * size // block), block, size, ways)
    assert ways[0] == expected


@variants("machines", "quicksort")
@pytest.mark.parametrize("width", [1, 2, 31, 64])
@_COUNTS
def test_quicksort(machine: Machine, code: CompiledKernel, width: int, count: int, block: int) -> None:
    rows = generator(count, width).integers(-20, 20, (count, width)).astype(np.int32)
    expected = np.sort(rows, axis=1)
    machine.run(code, -(-count // block), block, rows, width, count)
    assert (rows == expected).all()


@variants("machines", "rays")
@pytest.mark.parametrize(("width", "height", "block"), [(1, 1, (1, 1)), (33, 20, (8, 4)), (20, 25, (32, 32))])
def test_rays(machine: Machine, code: CompiledKernel, width: int, height: int, block: tuple[int, int]) -> None:
    spheres = np.concatenate([normal(9, 3) * [1.5, 1.5, 1] + [0, 0, 5], np.full((9, 1), 0.6)], axis=1).astype(
        np.float32
    )
    bright, first = np.zeros((height, width), np.float32), np.zeros((height, width), np.int32)
    grid = (-(-width // block[0]), -(-height // block[1]))
    machine.run(code, grid, block, spheres, 9, bright, first, width, height)
    differing = 0
    for y in range(height):
        for x in range(width):
            way = np.array([(x - width / 2) / width, (y - height / 2) / width, 1])
            value, hit = _traced(spheres.astype(np.float64), way / np.linalg.norm(way))
            differing += hit != first[y, x] or abs(value - bright[y, x]) > 1e-3
    assert differing <= width * height // 100  # a ray that only just meets a sphere may miss it


def _traced(spheres: np.ndarray, way: np.ndarray) -> tuple[float, int]:
    place, share, total, seen = np.zeros(3), 1.0, 0.0, -1
    for bounce in range(4):
        offset = spheres[:, :3] - place
        along = offset @ way
        inside = along**2 - (offset**2).sum(axis=1) + spheres[:, 3] ** 2
        t = np.where(inside >= 0, along - np.sqrt(np.maximum(inside, 0)), np.inf)
        t[t <= 1e-3] = np.inf
        which = int(t.argmin()) if np.isfinite(t).any() else -1
        seen = which if bounce == 0 else seen
        if which < 0:
            return total + share * (0.5 + 0.5 * way[1]), seen
        place = place + way * t[which]
        normal_way = (place - spheres[which, :3]) / spheres[which, 3]
        total += share * 0.4 * max(0.0, -normal_way[1])
        share *= 0.5
        way = way - 2 * (way @ normal_way) * normal_way
    return total, seen


@variants("machines", "automaton")
@_COUNTS
def test_automaton(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    table = np.array([[2, 1, 6, 6], [2, 6, 6, 6], [2, 6, 3, 6], [4, 6, 6, 6], [4, 6, 6, 6], [6] * 4, [6] * 4], np.uint8)
    texts = ["".join(generator(count, k).choice(list("1234567-.x"), k % 6).tolist()) for k in range(count)]
    starts = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    text, last = np.frombuffer(("".join(texts) + " ").encode(), np.uint8), np.zeros(count, np.uint8)
    machine.run(code, -(-count // block), block, table, 7, text, starts, last, count, shared_bytes=28)
    for found, given in zip(last.tolist(), texts, strict=True):
        assert (found in (2, 4)) == bool(re.fullmatch(r"[-+]?\d+(\.\d+)?", given))


def _tree(text: bytes) -> tuple[np.ndarray, dict[int, list[int]]]:
    """Huffman's tree as the kernel reads it, the root first, and each letter's bits."""
    heap = [(text.count(letter), n, letter) for n, letter in enumerate(sorted(set(text)))]
    heapq.heapify(heap)
    serial = 300
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a[0] + b[0], serial, (a[2], b[2])))
        serial += 1
    nodes: list[tuple[list[int], int, int]] = []
    codes: dict[int, list[int]] = {}

    def add(what: object, path: list[int]) -> int:
        place = len(nodes)
        nodes.append(([0, 0], 0, 0))
        if isinstance(what, tuple):
            nodes[place] = ([add(what[0], [*path, 0]), add(what[1], [*path, 1])], 0, 0)
        else:
            nodes[place] = ([0, 0], what, 1)
            codes[what] = path
        return place

    add(heap[0][2], [])
    return np.array(nodes, np.dtype([("child", "<i2", 2), ("letter", "u1"), ("is_leaf", "u1")])), codes


@variants("machines", "huffman")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (40, 33), (50, 1024)])
def test_huffman(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    texts = [bytes(generator(count, k).geometric(0.3, k % 20 + 1).clip(1, 9).astype(np.uint8)) for k in range(count)]
    tree, codes = _tree(b"".join(texts) + bytes(range(1, 10)))
    packed = [[bit for letter in text for bit in codes[letter]] for text in texts]
    lengths = np.array([len(piece) for piece in packed], np.int32)
    starts = np.append(0, lengths.cumsum()[:-1]).astype(np.int32)
    bits = np.array([bit for piece in packed for bit in piece] + [0] * 32)
    words = np.packbits(bits, bitorder="little")
    words = np.append(words, np.zeros(-len(words) % 4, np.uint8)).view(np.uint32)
    out = np.full((count, 25), 9, np.uint8)
    machine.run(code, -(-count // block), block, tree, words, starts, lengths, out, 25, count)
    assert [row.tobytes() for row in out] == [text.ljust(25, b"\0") for text in texts]


@variants("machines", "unpack")
@_COUNTS
def test_unpack(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    pieces, expected = [], []
    for k in range(count):
        random, packed, line = generator(count, k), bytearray(), bytearray()
        for _ in range(k % 5):
            letters, copy = int(random.integers(1, 8)), int(random.integers(0, 16))
            packed.append(letters << 4 | copy)
            more = random.integers(0, 256, letters).astype(np.uint8).tobytes()
            packed += more
            line += more
            if copy:
                packed.append(int(random.integers(1, len(line) + 1)))
                for _ in range(copy):
                    line.append(line[-packed[-1]])
        pieces.append(bytes(packed))
        expected.append(bytes(line))
    starts = np.cumsum([0, *map(len, pieces)]).astype(np.int32)
    data = np.frombuffer(b"".join(pieces) + b" ", np.uint8)
    out, sizes = np.zeros((count, 100), np.uint8), np.zeros(count, np.int32)
    machine.run(code, -(-count // block), block, data, starts, out, sizes, 100, count)
    assert [row[:size].tobytes() for row, size in zip(out, sizes, strict=True)] == expected
    assert [b - a for a, b in pairwise(starts.tolist())] == [len(piece) for piece in pieces]


@variants("machines", "ants")
@pytest.mark.parametrize(("count", "side", "block"), [(1, 3, 1), (40, 31, 33), (33, 32, 1024)])
def test_ants(machine: Machine, code: CompiledKernel, count: int, side: int, block: int) -> None:
    boards = generator(count).integers(0, 2**side, (count, side)).astype(np.uint32)
    expected, ends, finals = boards.copy(), np.zeros((count, 2), np.int32), []
    for i, board in enumerate(expected):
        x, y, way = i % side, side // 2, 0
        for _ in range(60):
            black = int(board[y]) >> x & 1
            board[y] ^= np.uint32(1 << x)
            way = (way + (3 if black else 1)) % 4
            x, y = (x + (0, 1, 0, -1)[way]) % side, (y + (-1, 0, 1, 0)[way]) % side
        finals.append([x, y])
    machine.run(code, -(-count // block), block, boards, side, 60, ends, count)
    assert (boards == expected).all()
    assert ends.tolist() == finals
