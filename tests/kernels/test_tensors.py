"""Matrix instructions against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_TILES = pytest.mark.parametrize("tiles", [(1, 1, 1), (2, 3, 1), (1, 2, 3)])
_SHAPES = pytest.mark.parametrize("shape", [(1, 1, 1), (32, 32, 8), (33, 5, 9), (40, 70, 20)])


@variants("tensors", "halves_by_eights")
@_TILES
def test_halves_by_eights(machine: Machine, code: CompiledKernel, tiles: tuple[int, int, int]) -> None:
    m, n, k = tiles[0] * 16, tiles[1] * 8, tiles[2] * 8
    a, b, c = normal(m, k).astype(np.float16), normal(k, n).astype(np.float16), np.zeros((m, n), np.float32)
    machine.run(code, (tiles[1], tiles[0]), 32, a, b, c, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-4, atol=1e-4)


@variants("tensors", "sums_of_halves")
@_TILES
def test_sums_of_halves(machine: Machine, code: CompiledKernel, tiles: tuple[int, int, int]) -> None:
    m, n, k = tiles[0] * 16, tiles[1] * 8, tiles[2] * 16
    a, b, c = normal(m, k).astype(np.float16), normal(k, n).astype(np.float16), np.zeros((m, n), np.float16)
    machine.run(code, (tiles[1], tiles[0]), 32, a, b, c, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-2, atol=2e-2)


@variants("tensors", "bfloats")
@_TILES
def test_bfloats(machine: Machine, code: CompiledKernel, tiles: tuple[int, int, int]) -> None:
    m, n, k = tiles[0] * 16, tiles[1] * 8, tiles[2] * 16
    a, b = ((x.view(np.uint32) >> 16).astype(np.uint16) for x in (normal(m, k), normal(k, n)))
    c = np.zeros((m, n), np.float32)
    machine.run(code, (tiles[1], tiles[0]), 32, a, b, c, n, k)
    wide = [(x.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for x in (a, b)]
    np.testing.assert_allclose(c, wide[0] @ wide[1], rtol=1e-4, atol=1e-4)


def _tensor_float(x: np.ndarray) -> np.ndarray:
    """Eleven bits, ties away from zero."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


@variants("tensors", "tensor_floats")
@_TILES
def test_tensor_floats(machine: Machine, code: CompiledKernel, tiles: tuple[int, int, int]) -> None:
    m, n, k = tiles[0] * 16, tiles[1] * 8, tiles[2] * 8
    a, b, c = normal(m, k), normal(k, n), np.zeros((m, n), np.float32)
    machine.run(code, (tiles[1], tiles[0]), 32, a, b, c, n, k)
    np.testing.assert_allclose(c, _tensor_float(a) @ _tensor_float(b), rtol=1e-5, atol=1e-5)


@variants("tensors", "signed_bytes")
@_TILES
def test_signed_bytes(machine: Machine, code: CompiledKernel, tiles: tuple[int, int, int]) -> None:
    m, n, k = tiles[0] * 16, tiles[1] * 8, tiles[2] * 32
    a = generator(m, k).integers(-128, 128, (m, k)).astype(np.int8)
    b = generator(n, k, 1).integers(-128, 128, (n, k)).astype(np.int8)
    c = np.zeros((m, n), np.int32)
    machine.run(code, (tiles[1], tiles[0]), 32, a, b, c, n, k)
    assert (c == a.astype(int) @ b.T.astype(int)).all()


@variants("tensors", "attention")
@pytest.mark.parametrize(("heads", "queries", "keys"), [(1, 1, 1), (2, 16, 17), (1, 30, 40), (3, 7, 16)])
def test_attention(machine: Machine, code: CompiledKernel, heads: int, queries: int, keys: int) -> None:
    q = normal(heads, queries, 32).astype(np.float16)
    k, v = normal(2, heads, keys, 32).astype(np.float16)
    out = np.zeros(q.shape, np.float32)
    machine.run(code, (-(-queries // 16), heads), 32, q, k, v, out, queries, keys, 0.3)
    scores = 0.3 * q.astype(np.float64) @ k.astype(np.float64).transpose(0, 2, 1)
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = powers / powers.sum(axis=2, keepdims=True) @ v.astype(np.float64)
    np.testing.assert_allclose(out, expected, rtol=5e-3, atol=2e-3)


@variants("tensors", "doubles")
@_SHAPES
def test_doubles(machine: Machine, code: CompiledKernel, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b, c = normal(m, k).astype(np.float64), normal(k, n).astype(np.float64), np.zeros((m, n))
    machine.run(code, (-(-n // 32), -(-m // 32)), (8, 8), a, b, c, m, n, k)
    np.testing.assert_allclose(c, a @ b, rtol=1e-12, atol=1e-12)


@variants("tensors", "buffered")
@pytest.mark.parametrize("shape", [(1, 4, 4), (16, 16, 16), (17, 20, 36), (33, 40, 8)])
def test_buffered(machine: Machine, code: CompiledKernel, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b, c = normal(m, k), normal(k, n), np.zeros((m, n), np.float32)
    machine.run(code, (-(-n // 16), -(-m // 16)), (16, 16), a, b, c, m, n, k)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)
