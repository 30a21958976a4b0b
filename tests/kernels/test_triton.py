"""What Triton makes of Python against NumPy. Its kernels say themselves how many threads a block has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

#: Dynamic shared memory, as much as any of these kernels takes.
_SHARED_BYTES = 49_152

_WORD = 0xFFFFFFFF


def launch(machine: Machine, code: CompiledKernel, grid: int | tuple[int, ...], *arguments: Any) -> None:
    """Two more parameters are for scratch and profiles, null without."""
    assert code.reqntid is not None
    machine.run(code, grid, code.reqntid, *arguments, 0, 0, shared_bytes=_SHARED_BYTES)


@variants("from_triton/add")
@pytest.mark.parametrize("size", [1, 63, 64, 257, 1000, 4096])
def test_add(machine: Machine, code: CompiledKernel, variant: str, size: int) -> None:
    size = -(-size // 16) * 16 if variant == "aligned" else size
    x, y = normal(2, size)
    out = np.full(size + 300, 9, np.float32)
    launch(machine, code, -(-size // 64), x, y, out, size)
    assert (out[:size] == x + y).all()
    assert (out[size:] == 9).all()


@variants("from_triton/softmax")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 16), (2, 127), (3, 128), (2, 1000), (1, 1024)])
def test_softmax(machine: Machine, code: CompiledKernel, variant: str, rows: int, columns: int) -> None:
    columns = -(-columns // 16) * 16 if variant == "aligned" else columns
    columns = columns if variant else min(columns, 128)
    x, out = 5 * normal(rows, columns), np.zeros((rows, columns), np.float32)
    launch(machine, code, rows, x, out, columns)
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(out, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)


@variants("from_triton/layernorm")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 31), (3, 128), (2, 500)])
def test_layernorm(machine: Machine, code: CompiledKernel, rows: int, columns: int) -> None:
    x, out = normal(rows, columns) + 3, np.zeros((rows, columns), np.float32)
    gain, bias = normal(2, columns)
    launch(machine, code, rows, x, gain, bias, out, columns, 1e-5)
    wide = x.astype(np.float64)
    scaled = (wide - wide.mean(axis=1, keepdims=True)) / np.sqrt(wide.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(out, scaled * gain + bias, rtol=1e-3, atol=1e-4)


_SHAPES = pytest.mark.parametrize("shape", [(1, 1, 1), (32, 32, 32), (33, 70, 40), (5, 20, 70)])


def _even(shape: tuple[int, int, int], variant: str) -> tuple[int, int, int]:
    m, n, k = shape
    return (m, -(-n // 16) * 16, -(-k // 16) * 16) if variant == "aligned" else shape


@variants("from_triton/matmul_f16")
@_SHAPES
def test_matmul_f16(machine: Machine, code: CompiledKernel, variant: str, shape: tuple[int, int, int]) -> None:
    m, n, k = _even(shape, variant)
    a, b, c = normal(m, k).astype(np.float16), normal(k, n).astype(np.float16), np.zeros((m, n), np.float32)
    launch(machine, code, (-(-m // 32), -(-n // 32)), a, b, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-4)


def _cut(x: np.ndarray, bits: int) -> np.ndarray:
    """The lowest bits of f32 cleared."""
    return (x.view(np.uint32) & np.uint32(_WORD << bits & _WORD)).view(np.float32)


@variants("from_triton/matmul_bf16")
@_SHAPES
def test_matmul_bf16(machine: Machine, code: CompiledKernel, variant: str, shape: tuple[int, int, int]) -> None:
    m, n, k = _even(shape, variant)
    a, b, c = _cut(normal(m, k), 16), _cut(normal(k, n), 16), np.zeros((m, n), np.float32)
    halves = [(x.view(np.uint32) >> 16).astype(np.uint16) for x in (a, b)]
    launch(machine, code, (-(-m // 32), -(-n // 32)), *halves, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-4)


@variants("from_triton/matmul_f32")
@_SHAPES
def test_matmul_f32(machine: Machine, code: CompiledKernel, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b, c = normal(m, k), normal(k, n), np.zeros((m, n), np.float32)
    launch(machine, code, (-(-m // 32), -(-n // 32)), a, b, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-5)


@variants("from_triton/matmul_tf32")
@_SHAPES
def test_matmul_tf32(machine: Machine, code: CompiledKernel, variant: str, shape: tuple[int, int, int]) -> None:
    m, n, k = _even(shape, variant)
    a, b, c = _cut(normal(m, k), 13), _cut(normal(k, n), 13), np.zeros((m, n), np.float32)
    launch(machine, code, (-(-m // 32), -(-n // 32)), a, b, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)


@variants("from_triton/matmul_s8")
@_SHAPES
def test_matmul_s8(machine: Machine, code: CompiledKernel, variant: str, shape: tuple[int, int, int]) -> None:
    m, n, k = _even(shape, variant)
    a = generator(m, k).integers(-128, 128, (m, k)).astype(np.int8)
    b, c = generator(k, n).integers(-128, 128, (k, n)).astype(np.int8), np.zeros((m, n), np.int32)
    launch(machine, code, (-(-m // 32), -(-n // 32)), a, b, c, m, n, k)
    assert (c == a.astype(np.int64) @ b.astype(np.int64)).all()


@variants("from_triton/attention")
@pytest.mark.parametrize(("heads", "queries", "keys"), [(1, 1, 1), (2, 32, 33), (1, 50, 70)])
def test_attention(machine: Machine, code: CompiledKernel, variant: str, heads: int, queries: int, keys: int) -> None:
    depth = 64 if variant == "causal" else 32
    q = normal(heads, queries, depth).astype(np.float16)
    k, v = (normal(heads, keys, depth + n)[:, :, :depth].astype(np.float16) for n in (1, 2))
    out = np.zeros_like(q)
    launch(machine, code, (-(-queries // 32), heads), q, k, v, out, queries, keys, 0.2)
    scores = 0.2 * q.astype(np.float64) @ k.astype(np.float64).transpose(0, 2, 1)
    if variant == "causal":
        scores[:, np.arange(keys)[None, :] > np.arange(queries)[:, None]] = -np.inf
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = powers / powers.sum(axis=2, keepdims=True) @ v.astype(np.float64)
    np.testing.assert_allclose(out, expected, rtol=1e-2, atol=3e-3)


def _philox(place: int, seed: int) -> list[int]:
    """Ten rounds on the place, with the seed as the key."""
    a, b, c, d, k0, k1 = place, 0, 0, 0, seed, 0
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = q >> 32 ^ b ^ k0, q & _WORD, p >> 32 ^ d ^ k1, p & _WORD
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return [a, b, c, d]


@variants("from_triton/random_words")
@pytest.mark.parametrize("size", [1, 127, 200])
def test_random_words(machine: Machine, code: CompiledKernel, size: int) -> None:
    out = np.zeros((size, 4), np.uint32)
    launch(machine, code, -(-size // 128), out, size, 1234567)
    assert out.tolist() == [_philox(place, 1234567) for place in range(size)]


@variants("from_triton/dropout")
@pytest.mark.parametrize("size", [1, 511, 700])
def test_dropout(machine: Machine, code: CompiledKernel, size: int) -> None:
    x, out = normal(size) + 5, np.zeros(size, np.float32)
    launch(machine, code, -(-size // 512), x, out, size, 0.3, 99)
    words = np.array([_philox(place, 99)[0] for place in range(size)], np.uint32).view(np.int32).astype(np.int64)
    uniform = np.where(words < 0, -words - 1, words) / 2**31
    expected = np.where(uniform > 0.3, x.astype(np.float64) / 0.7, 0)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@variants("from_triton/reductions")
@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (32, 13), (16, 64)])
def test_reductions(machine: Machine, code: CompiledKernel, variant: str, rows: int, columns: int) -> None:
    columns = min(columns, 16) if variant else columns
    x = normal(rows, columns)
    sums, highest, lowest = np.zeros((3, rows), np.float32)
    sums, highest, lowest = sums.copy(), highest.copy(), lowest.copy()
    launch(machine, code, rows // (16 if variant else 4), x, sums, highest, lowest, columns)
    np.testing.assert_allclose(sums, x.sum(axis=1, dtype=np.float64), rtol=1e-5, atol=1e-5)
    assert (highest == x.max(axis=1)).all()
    assert (lowest == x.min(axis=1)).all()


@variants("from_triton/argmax")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 100), (2, 256)])
def test_argmax(machine: Machine, code: CompiledKernel, rows: int, columns: int) -> None:
    x = generator(rows, columns).integers(-9, 9, (rows, columns)).astype(np.float32)  # many that are equal
    largest, smallest = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    launch(machine, code, rows, x, largest, smallest, columns)
    assert (largest == x.argmax(axis=1)).all()
    assert (smallest == x.argmin(axis=1)).all()


@variants("from_triton/scans")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 100), (2, 128)])
def test_scans(machine: Machine, code: CompiledKernel, rows: int, columns: int) -> None:
    x = generator(rows, columns).integers(-(2**50), 2**50, (rows, columns))
    sums, products, out = np.zeros_like(x), np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    factors, values = (0.9 + 0.2 * normal(rows, columns)), normal(rows, columns + 1)[:, 1:].copy()
    launch(machine, code, rows, x, sums, products, factors, values, out, columns)
    assert (sums == x.cumsum(axis=1)).all()
    wide = factors.astype(np.float64)
    np.testing.assert_allclose(products, wide[:, ::-1].cumprod(axis=1)[:, ::-1], rtol=1e-4)
    now, expected = np.zeros(rows), np.zeros(x.shape)
    for j in range(columns):
        now = now * wide[:, j] + values[:, j]
        expected[:, j] = now
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3)


@variants("from_triton/histogram")
@pytest.mark.parametrize("size", [1, 255, 700])
def test_histogram(machine: Machine, code: CompiledKernel, size: int) -> None:
    x, bins = generator(size).integers(0, 64, size).astype(np.int32), np.full(64, 3, np.int32)
    launch(machine, code, -(-size // 256), x, bins, size)
    assert (bins == 3 + np.bincount(x, minlength=64)).all()


@variants("from_triton/sort")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 30), (2, 128)])
def test_sort(machine: Machine, code: CompiledKernel, variant: str, rows: int, columns: int) -> None:
    columns = min(columns, 32) if variant else columns
    x, out = normal(rows, columns), np.zeros((rows, columns), np.float32)
    launch(machine, code, rows, x, out, columns)
    assert (out == np.sort(x, axis=1)).all()


@variants("from_triton/activations")
@pytest.mark.parametrize("size", [1, 255, 700])
def test_activations(machine: Machine, code: CompiledKernel, size: int) -> None:
    x, out = 4 * normal(size), np.zeros((4, size), np.float32)
    launch(machine, code, -(-size // 256), x, out, size)
    v = x.astype(np.float64)
    expected = [
        0.5 * v * (1 + np.vectorize(math.erf)(v / math.sqrt(2))),
        0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
        v / (1 + np.exp(-v)),
        np.log1p(np.exp(v)),
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-5)


@variants("from_triton/doubles")
@pytest.mark.parametrize("size", [1, 127, 300])
def test_doubles(machine: Machine, code: CompiledKernel, size: int) -> None:
    x, out = normal(size).astype(np.float64), np.zeros((3, size))
    launch(machine, code, -(-size // 128), x, out, size)
    expected = [np.sqrt(np.abs(x)) + np.cbrt(x), (x * x + 1) / (1 + np.abs(x)), np.floor(x) + np.exp(-x * x)]
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-13)


@variants("from_triton/transpose")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (32, 32), (33, 70), (5, 100)])
def test_transpose(machine: Machine, code: CompiledKernel, rows: int, columns: int) -> None:
    x, out = normal(rows, columns), np.zeros((columns, rows), np.float32)
    launch(machine, code, (-(-rows // 16), -(-columns // 16)), x, out, rows, columns)
    assert (out == x.T).all()


@variants("from_triton/embedding")
@pytest.mark.parametrize(("size", "columns"), [(1, 1), (5, 64), (9, 100)])
def test_embedding(machine: Machine, code: CompiledKernel, size: int, columns: int) -> None:
    table = generator(columns).integers(-9, 9, (20, columns)).astype(np.float32)
    places, out = generator(size).integers(0, 20, size).astype(np.int32), np.zeros((2, columns), np.float32)
    launch(machine, code, size, table, places, out, columns, size)
    assert (out[0] == table[places[::2]].sum(axis=0)).all()
    assert (out[1] == table[places[1::2]].sum(axis=0)).all()


@variants("from_triton/quantise")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 100), (2, 128)])
def test_quantise(machine: Machine, code: CompiledKernel, rows: int, columns: int) -> None:
    x, low = normal(rows, columns), np.zeros((rows, columns), np.int8)
    scales, back = np.zeros(rows, np.float32), np.zeros((rows, columns), np.float16)
    launch(machine, code, rows, x, low, scales, back, columns)
    expected = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    np.testing.assert_allclose(scales, expected[:, 0], rtol=1e-6)
    assert np.abs(low - x / expected.astype(np.float64)).max() <= 0.5001
    np.testing.assert_allclose(back, low * expected, rtol=1e-3)


@variants("from_triton/locked")
@pytest.mark.parametrize("size", [1, 127, 700])
def test_locked(machine: Machine, code: CompiledKernel, size: int) -> None:
    x = generator(size).integers(-999, 999, size).astype(np.int32)
    lock, account, best = np.zeros((3, 1), np.int32)
    lock, account, best = lock.copy(), account + 5, best - 9999
    launch(machine, code, -(-size // 128), lock, account, best, x, size)
    padded = np.append(x, np.zeros(-size % 128, np.int32))
    assert (lock[0], account[0], best[0]) == (0, 5 + x.sum(), padded.max())


@variants("from_triton/convolve")
@pytest.mark.parametrize(("images", "height", "width"), [(1, 1, 1), (2, 9, 33), (1, 17, 20)])
def test_convolve(machine: Machine, code: CompiledKernel, variant: str, images: int, height: int, width: int) -> None:
    side = 5 if variant else 3
    x, weights = normal(images, height, width), normal(side, side)
    out = np.zeros_like(x)
    launch(machine, code, (-(-height // 4), -(-width // 16), images), x, weights, out, height, width)
    half = side // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (half, half), (half, half)))
    expected = sum(weights[i, j] * padded[:, i : i + height, j : j + width] for i in range(side) for j in range(side))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
