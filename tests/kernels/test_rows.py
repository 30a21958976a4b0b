"""What networks do to rows, against NumPy in f64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import normal, variants
from tensor_wasm.compiler import CompiledKernel

_SHAPES = [(1, 1, 1), (3, 10, 7), (2, 100, 32), (4, 333, 96), (1, 2000, 1024)]


@variants("rows", "layernorm")
@pytest.mark.parametrize(("rows", "columns", "block"), _SHAPES)
def test_layernorm(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    x, y = normal(rows, columns) * 3 + 1, np.zeros((rows, columns), np.float32)
    gain, bias = normal(2, columns)
    machine.run(code, rows, block, x, gain.copy(), bias.copy(), y, columns, 1e-5, shared_bytes=4 * block)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * gain + bias
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@variants("rows", "softmax_online")
@pytest.mark.parametrize(("rows", "columns", "block"), _SHAPES)
def test_softmax_online(machine: Machine, code: CompiledKernel, rows: int, columns: int, block: int) -> None:
    x, y = normal(rows, columns) * 5, np.zeros((rows, columns), np.float32)
    machine.run(code, rows, block, x, y, columns, shared_bytes=8 * block)
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(y, powers / powers.sum(axis=1, keepdims=True), rtol=2e-5, atol=1e-7)


@variants("rows", "attention")
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("heads", "queries", "keys", "block"), [(1, 1, 1, 32), (2, 40, 33, 32), (1, 70, 100, 48), (3, 5, 64, 7)]
)
def test_attention(
    machine: Machine, code: CompiledKernel, heads: int, queries: int, keys: int, block: int, is_causal: bool
) -> None:
    q, k, v = normal(heads, queries, 16), normal(heads, keys, 16), normal(heads, keys, 16)[:, ::-1].copy()
    out = np.zeros_like(q)
    machine.run(code, (-(-queries // block), heads), block, q, k, v, out, queries, keys, 0.25, int(is_causal))
    scores = 0.25 * np.einsum("hqd,hkd->hqk", q.astype(np.float64), k)
    if is_causal:
        scores[:, np.arange(keys) > np.arange(queries)[:, None]] = -np.inf
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = np.einsum("hqk,hkd->hqd", powers / powers.sum(axis=2, keepdims=True), v)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


_ACTIVATIONS = [
    lambda v: max(v, 0.0),
    lambda v: 1 / (1 + math.exp(-v)),
    math.tanh,
    lambda v: 0.5 * v * (1 + math.erf(v * math.sqrt(0.5))),
    lambda v: math.log1p(math.exp(v)),
    lambda v: v if v > 0 else math.expm1(v),
    lambda v: v / (1 + abs(v)),
]


@variants("rows", "activate")
@pytest.mark.parametrize("which", range(len(_ACTIVATIONS)))
def test_activations(machine: Machine, code: CompiledKernel, which: int) -> None:
    x = np.concatenate([np.linspace(-30, 30, 500), [0.0, -0.0, 1e-6, 1e-20]]).astype(np.float32)
    y = np.zeros_like(x)
    machine.run(code, 3, 199, x, y, len(x), which)
    expected = [_ACTIVATIONS[which](v) for v in x.tolist()]
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-6)
