"""Texts and sequences against Python's own."""

from __future__ import annotations

import base64
from itertools import pairwise

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, variants
from tensor_wasm.compiler import CompiledKernel


def _letters(text: str | bytes) -> np.ndarray:
    return np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)


def _random(size: int, alphabet: str, seed: int = 0) -> str:
    return "".join(generator(size, seed).choice(list(alphabet), size).tolist())


@pytest.mark.parametrize("pattern", ["a", "ab", "aabaa", "bbbbbb", "z"])
@pytest.mark.parametrize(("size", "piece", "grid", "block"), [(1, 1, 1, 1), (500, 10, 2, 33), (1000, 1, 1, 1024)])
class TestSearch:
    @variants("texts", "kmp")
    def test_kmp(
        self, machine: Machine, code: CompiledKernel, pattern: str, size: int, piece: int, grid: int, block: int
    ) -> None:
        self._check(machine, code, pattern, size, piece, grid, block, 4 * len(pattern) + 4)

    @variants("texts", "horspool")
    def test_horspool(
        self, machine: Machine, code: CompiledKernel, pattern: str, size: int, piece: int, grid: int, block: int
    ) -> None:
        self._check(machine, code, pattern, size, piece, grid, block, 0)

    def _check(
        self,
        machine: Machine,
        code: CompiledKernel,
        pattern: str,
        size: int,
        piece: int,
        grid: int,
        block: int,
        shared_bytes: int,
    ) -> None:
        text = _random(size, "aab")
        places, count = np.zeros(size, np.int32), np.zeros(1, np.int32)
        arguments = (_letters(text), size, _letters(pattern), len(pattern), piece, places, count)
        machine.run(code, grid, block, *arguments, shared_bytes=shared_bytes)
        assert sorted(places[: count[0]].tolist()) == [i for i in range(size) if text.startswith(pattern, i)]


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row = row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (letter != other)))
    return row[-1]


@variants("texts", "bit_parallel")
@pytest.mark.parametrize("wanted", [1, 20, 64])
@pytest.mark.parametrize(("count", "block"), [(1, 1), (35, 33), (20, 1024)])
def test_bit_parallel(machine: Machine, code: CompiledKernel, wanted: int, count: int, block: int) -> None:
    words = [_random(int(size), "abc", k) for k, size in enumerate(generator(count).integers(0, 40, count))]
    starts, out = np.cumsum([0, *map(len, words)]).astype(np.int32), np.zeros(count, np.int32)
    pattern = _random(wanted, "abc", 99)
    arguments = (_letters("".join(words) + " "), starts, _letters(pattern), wanted, out, count)
    machine.run(code, -(-count // block), block, *arguments)
    assert out.tolist() == [_distance(pattern, word) for word in words]


@variants("texts", "smith_waterman")
@pytest.mark.parametrize(("first", "second", "block"), [(1, 1, 1), (20, 30, 32), (50, 17, 33), (60, 40, 1024)])
def test_smith_waterman(machine: Machine, code: CompiledKernel, first: int, second: int, block: int) -> None:
    a, b, best = _random(first, "abc"), _random(second, "abc", 1), np.zeros(1, np.int32)
    machine.run(code, 1, block, _letters(a), _letters(b), first, second, best, shared_bytes=28 * (first + 1))
    score = np.zeros((first + 1, second + 1), int)
    down, across = np.full(score.shape, -1000), np.full(score.shape, -1000)
    for i in range(1, first + 1):
        for j in range(1, second + 1):
            down[i, j] = max(down[i - 1, j] - 1, score[i - 1, j] - 3)
            across[i, j] = max(across[i, j - 1] - 1, score[i, j - 1] - 3)
            match = score[i - 1, j - 1] + (2 if a[i - 1] == b[j - 1] else -1)
            score[i, j] = max(0, match, down[i, j], across[i, j])
    assert best[0] == score.max()


@variants("texts", "common")
@pytest.mark.parametrize(("la", "lb", "count", "block"), [(1, 1, 1, 1), (20, 30, 35, 33), (40, 60, 10, 1024)])
def test_common(machine: Machine, code: CompiledKernel, la: int, lb: int, count: int, block: int) -> None:
    a = [_random(la, "abcd", k) for k in range(count)]
    b = [_random(lb, "abcd", 100 + k) for k in range(count)]
    out = np.zeros(count, np.int32)
    machine.run(code, -(-count // block), block, _letters("".join(a)), _letters("".join(b)), la, lb, out, count)
    for first, second, found in zip(a, b, out.tolist(), strict=True):
        row = [0] * (lb + 1)
        for letter in first:
            before, row = row, [0]
            for j, other in enumerate(second, 1):
                row.append(before[j - 1] + 1 if letter == other else max(before[j], row[-1]))
        assert found == row[-1]


@variants("texts", "count")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 33), (900, 64), (700, 1024)])
def test_count(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    text = _random(size, "ab  é\n€𝄞")
    data = _letters(text)
    words, characters = np.zeros(1, np.int32), np.zeros(1, np.int32)
    machine.run(code, -(-len(data) // block), block, data, words, characters, len(data))
    assert (words[0], characters[0]) == (len(text.split()), size)


@variants("texts", "base64")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (2, 32), (3, 32), (100, 33), (1001, 1024)])
def test_base64(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    data = generator(size).integers(0, 256, size).astype(np.uint8)
    out = np.zeros(-(-size // 3) * 4, np.uint8)
    machine.run(code, -(-len(out) // 4 // block) or 1, block, data, out, size)
    assert out.tobytes() == base64.b64encode(data.tobytes())


@variants("texts", "parse")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (50, 33), (70, 1024)])
def test_parse(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    random = generator(count)
    values = random.standard_normal(count) * 10.0 ** random.integers(-6, 6, count)
    forms = ["{:.3f}", "{:+.5e}", "{:.0f}", "{:.4E}"]
    texts = [forms[k % 4].format(value) for k, value in enumerate(values.tolist())]
    starts, out = np.cumsum([0, *map(len, texts)]).astype(np.int32), np.zeros(count)
    whole = "".join(texts)
    machine.run(code, -(-count // block), block, _letters(whole + " "), starts, out, count)
    np.testing.assert_allclose(out, [float(whole[a:b]) for a, b in pairwise(starts.tolist())], rtol=1e-15)
