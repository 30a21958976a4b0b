"""Kernels in Python as people write them for Triton. `plan` names the types and the constants of each variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from triton.language.extra import libdevice


@dataclass
class Planned:
    """A kernel with the types of its arguments, and for each variant the constants and the number of warps."""

    function: Any
    signature: dict[str, str]
    plans: dict[str, dict[str, Any]]


def plan(signature: str, **plans: dict[str, Any]) -> Callable[[Any], Planned]:
    """``signature`` is `name: type` by commas, `*` for a pointer; the plan called `default` is the one without a word.

    ``aligned`` names the arguments that are multiples of 16, as Triton finds out when it launches.
    """
    types = dict(part.replace(" ", "").split(":") for part in signature.split(","))
    named = {"" if word == "default" else word: values for word, values in plans.items()}
    return lambda function: Planned(function, types, named)


@plan(
    "x: *fp32, y: *fp32, out: *fp32, n: i32",
    default={"BLOCK": 256},
    wide={"BLOCK": 1024},
    narrow={"BLOCK": 64, "num_warps": 1},
    aligned={"BLOCK": 1024, "aligned": ("x", "y", "out", "n")},
)
@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out + at, tl.load(x + at, mask) + tl.load(y + at, mask), mask)


@plan(
    "x: *fp32, out: *fp32, columns: i32",
    default={"BLOCK": 128},
    wide={"BLOCK": 1024, "num_warps": 8},
    aligned={"BLOCK": 1024, "aligned": ("x", "out", "columns")},
)
@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    mask = at < columns
    values = tl.load(x + row * columns + at, mask, other=-float("inf"))
    powers = tl.exp(values - tl.max(values, axis=0))
    tl.store(out + row * columns + at, powers / tl.sum(powers, axis=0), mask)


@plan(
    "x: *fp32, gain: *fp32, bias: *fp32, out: *fp32, columns: i32, epsilon: fp32",
    default={"BLOCK": 128},
    narrow={"BLOCK": 32, "num_warps": 1},
)
@triton.jit
def layernorm(x, gain, bias, out, columns, epsilon, BLOCK: tl.constexpr):
    """Rows of any length, in pieces."""
    row = tl.program_id(0)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total += tl.load(x + row * columns + at, at < columns, other=0.0)
    mean = tl.sum(total, axis=0) / columns
    square = tl.zeros([BLOCK], dtype=tl.float32)
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        centred = tl.where(at < columns, tl.load(x + row * columns + at, at < columns, other=0.0) - mean, 0.0)
        square += centred * centred
    scale = 1 / tl.sqrt(tl.sum(square, axis=0) / columns + epsilon)
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        mask = at < columns
        value = (tl.load(x + row * columns + at, mask) - mean) * scale
        tl.store(out + row * columns + at, value * tl.load(gain + at, mask) + tl.load(bias + at, mask), mask)


@triton.jit
def product(
    a, b, c, m, n, k, precision: tl.constexpr, kind: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    """One tile of a product of row-major matrices."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    total = tl.zeros((M, N), dtype=kind)
    for first in range(0, k, K):
        inner = first + tl.arange(0, K)
        tile_a = tl.load(a + rows[:, None] * k + inner[None, :], (rows[:, None] < m) & (inner[None, :] < k), other=0)
        tile_b = tl.load(
            b + inner[:, None] * n + columns[None, :], (inner[:, None] < k) & (columns[None, :] < n), other=0
        )
        total = tl.dot(tile_a, tile_b, total, input_precision=precision, out_dtype=kind)
    tl.store(c + rows[:, None] * n + columns[None, :], total, (rows[:, None] < m) & (columns[None, :] < n))


@plan(
    "a: *fp16, b: *fp16, c: *fp32, m: i32, n: i32, k: i32",
    default={"M": 32, "N": 32, "K": 32},
    wide={"M": 64, "N": 64, "K": 32},
    aligned={"M": 64, "N": 32, "K": 32, "aligned": ("a", "b", "c", "n", "k")},
)
@triton.jit
def matmul_f16(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    product(a, b, c, m, n, k, "ieee", tl.float32, M, N, K)


@plan(
    "a: *bf16, b: *bf16, c: *fp32, m: i32, n: i32, k: i32",
    default={"M": 32, "N": 32, "K": 16},
    aligned={"M": 32, "N": 32, "K": 16, "aligned": ("a", "b", "c", "n", "k")},
)
@triton.jit
def matmul_bf16(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    product(a, b, c, m, n, k, "ieee", tl.float32, M, N, K)


@plan("a: *fp32, b: *fp32, c: *fp32, m: i32, n: i32, k: i32", default={"M": 32, "N": 32, "K": 16})
@triton.jit
def matmul_f32(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    product(a, b, c, m, n, k, "ieee", tl.float32, M, N, K)


@plan(
    "a: *fp32, b: *fp32, c: *fp32, m: i32, n: i32, k: i32",
    default={"M": 32, "N": 32, "K": 32},
    aligned={"M": 32, "N": 32, "K": 32, "aligned": ("a", "b", "c", "n", "k")},
)
@triton.jit
def matmul_tf32(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    product(a, b, c, m, n, k, "tf32", tl.float32, M, N, K)


@plan(
    "a: *i8, b: *i8, c: *i32, m: i32, n: i32, k: i32",
    default={"M": 32, "N": 32, "K": 32},
    aligned={"M": 32, "N": 32, "K": 32, "aligned": ("a", "b", "c", "n", "k")},
)
@triton.jit
def matmul_s8(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    product(a, b, c, m, n, k, "ieee", tl.int32, M, N, K)


@plan(
    "q: *fp16, k: *fp16, v: *fp16, out: *fp16, queries: i32, keys: i32, scale: fp32",
    default={"M": 32, "N": 32, "D": 32, "CAUSAL": False},
    causal={"M": 32, "N": 32, "D": 64, "CAUSAL": True},
    aligned={"M": 32, "N": 32, "D": 32, "CAUSAL": False, "aligned": ("q", "k", "v", "out")},
)
@triton.jit
def attention(
    q, k, v, out, queries, keys, scale, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr
):
    """Online softmax over tiles of keys; the second grid axis is the head."""
    q += tl.program_id(1) * queries * D
    k += tl.program_id(1) * keys * D
    v += tl.program_id(1) * keys * D
    out += tl.program_id(1) * queries * D
    rows, depth = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D)
    mine = tl.load(q + rows[:, None] * D + depth[None, :], rows[:, None] < queries, other=0.0)
    highest = tl.full((M,), -float("inf"), dtype=tl.float32)
    weight = tl.zeros((M,), dtype=tl.float32)
    total = tl.zeros((M, D), dtype=tl.float32)
    for first in range(0, keys, N):
        at = first + tl.arange(0, N)
        key = tl.load(k + at[None, :] * D + depth[:, None], at[None, :] < keys, other=0.0)
        scores = tl.dot(mine, key) * scale
        seen = at[None, :] < keys
        if CAUSAL:
            seen = seen & (at[None, :] <= rows[:, None])
        scores = tl.where(seen, scores, -1e30)
        now = tl.maximum(highest, tl.max(scores, axis=1))
        powers = tl.where(seen, tl.exp(scores - now[:, None]), 0.0)
        fade = tl.exp(highest - now)
        weight = weight * fade + tl.sum(powers, axis=1)
        value = tl.load(v + at[:, None] * D + depth[None, :], at[:, None] < keys, other=0.0)
        total = tl.dot(powers.to(tl.float16), value, total * fade[:, None])
        highest = now
    tl.store(
        out + rows[:, None] * D + depth[None, :], (total / weight[:, None]).to(tl.float16), rows[:, None] < queries
    )


@plan("x: *fp32, out: *fp32, n: i32, share: fp32, seed: i32", default={"BLOCK": 512})
@triton.jit
def dropout(x, out, n, share, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    kept = tl.rand(seed, at) > share
    tl.store(out + at, tl.where(kept, tl.load(x + at, mask) / (1 - share), 0.0), mask)


@plan("out: *i32, n: i32, seed: i32", default={"BLOCK": 128})
@triton.jit
def random_words(out, n, seed, BLOCK: tl.constexpr):
    """Philox, four words a place."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    for word in tl.static_range(4):
        tl.store(out + 4 * at + word, tl.randint4x(seed, at)[word], at < n)


@plan(
    "x: *fp32, sums: *fp32, highest: *fp32, lowest: *fp32, columns: i32",
    default={"ROWS": 4, "BLOCK": 64},
    narrow={"ROWS": 16, "BLOCK": 16, "num_warps": 1},
)
@triton.jit
def reductions(x, sums, highest, lowest, columns, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Of rows in two dimensions: sum, maximum, minimum. Whole tiles of rows."""
    rows, at = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    place, mask = rows[:, None] * columns + at[None, :], at[None, :] < columns
    tl.store(sums + rows, tl.sum(tl.load(x + place, mask, other=0.0), axis=1))
    tl.store(highest + rows, tl.max(tl.load(x + place, mask, other=-float("inf")), axis=1))
    tl.store(lowest + rows, tl.min(tl.load(x + place, mask, other=float("inf")), axis=1))


@plan(
    "x: *fp32, largest: *i32, smallest: *i32, columns: i32", default={"BLOCK": 256}, wide={"BLOCK": 512, "num_warps": 8}
)
@triton.jit
def argmax(x, largest, smallest, columns, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    mask = at < columns
    tl.store(largest + row, tl.argmax(tl.load(x + row * columns + at, mask, other=-float("inf")), axis=0))
    tl.store(smallest + row, tl.argmin(tl.load(x + row * columns + at, mask, other=float("inf")), axis=0))


@triton.jit
def recurrence(factor, value, next_factor, next_value):
    """y = factor y + value, of two steps at once."""
    return factor * next_factor, value * next_factor + next_value


@plan(
    "x: *i64, sums: *i64, products: *fp32, factors: *fp32, values: *fp32, out: *fp32, columns: i32",
    default={"BLOCK": 128},
)
@triton.jit
def scans(x, sums, products, factors, values, out, columns, BLOCK: tl.constexpr):
    """Sums, products from the end, and a linear recurrence."""
    at = tl.arange(0, BLOCK)
    place, mask = tl.program_id(0) * columns + at, at < columns
    tl.store(sums + place, tl.cumsum(tl.load(x + place, mask, other=0), axis=0), mask)
    factor = tl.load(factors + place, mask, other=1.0)
    tl.store(products + place, tl.cumprod(factor, axis=0, reverse=True), mask)
    value = tl.load(values + place, mask, other=0.0)
    _, result = tl.associative_scan((factor, value), 0, recurrence)
    tl.store(out + place, result, mask)


@plan("x: *i32, bins: *i32, n: i32", default={"BLOCK": 256, "BINS": 64})
@triton.jit
def histogram(x, bins, n, BLOCK: tl.constexpr, BINS: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    counts = tl.histogram(tl.load(x + at, mask, other=0), BINS, mask=mask)
    tl.atomic_add(bins + tl.arange(0, BINS), counts)


@plan("x: *fp32, out: *fp32, columns: i32", default={"BLOCK": 128}, narrow={"BLOCK": 32, "num_warps": 1})
@triton.jit
def sort(x, out, columns, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    place, mask = tl.program_id(0) * columns + at, at < columns
    tl.store(out + place, tl.sort(tl.load(x + place, mask, other=float("inf"))), mask)


@plan("x: *fp32, out: *fp32, n: i32", default={"BLOCK": 256})
@triton.jit
def activations(x, out, n, BLOCK: tl.constexpr):
    """GELU by erf, GELU by tanh, SiLU, softplus."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    v = tl.load(x + at, mask, other=0.0)
    tl.store(out + at, 0.5 * v * (1 + tl.erf(v * 0.70710678)), mask)
    tl.store(out + n + at, 0.5 * v * (1 + libdevice.tanh(0.79788456 * (v + 0.044715 * v * v * v))), mask)
    tl.store(out + 2 * n + at, v * tl.sigmoid(v), mask)
    tl.store(out + 3 * n + at, tl.where(v > 20, v, libdevice.log1p(tl.exp(v))), mask)


@plan("x: *fp64, out: *fp64, n: i32", default={"BLOCK": 128})
@triton.jit
def doubles(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    v = tl.load(x + at, mask, other=1.0)
    tl.store(out + at, tl.sqrt(tl.abs(v)) + libdevice.cbrt(v), mask)
    tl.store(out + n + at, tl.fma(v, v, 1.0) / (1 + tl.abs(v)), mask)
    tl.store(out + 2 * n + at, tl.floor(v) + libdevice.exp(-v * v), mask)


@plan("x: *fp32, out: *fp32, rows: i32, columns: i32", default={"TILE": 32}, narrow={"TILE": 16, "num_warps": 2})
@triton.jit
def transpose(x, out, rows, columns, TILE: tl.constexpr):
    down, across = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1) * TILE + tl.arange(0, TILE)
    tile = tl.load(x + down[:, None] * columns + across[None, :], (down[:, None] < rows) & (across[None, :] < columns))
    tl.store(
        out + across[:, None] * rows + down[None, :],
        tl.trans(tile),
        (across[:, None] < columns) & (down[None, :] < rows),
    )


@plan("table: *fp32, places: *i32, out: *fp32, columns: i32, n: i32", default={"BLOCK": 64})
@triton.jit
def embedding(table, places, out, columns, n, BLOCK: tl.constexpr):
    """Rows of a table by number, summed by atomics into one row of two."""
    row = tl.program_id(0)
    which = tl.load(places + row)
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        mask = at < columns
        tl.atomic_add(out + (row % 2) * columns + at, tl.load(table + which * columns + at, mask), mask)


@plan("x: *fp32, low: *i8, scales: *fp32, back: *fp16, columns: i32", default={"BLOCK": 128})
@triton.jit
def quantise(x, low, scales, back, columns, BLOCK: tl.constexpr):
    """Rows to eight bits by their largest size, and back to halves."""
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    place, mask = row * columns + at, at < columns
    v = tl.load(x + place, mask, other=0.0)
    scale = tl.max(tl.abs(v), axis=0) / 127
    level = libdevice.rint(v / scale).to(tl.int8)
    tl.store(low + place, level, mask)
    tl.store(scales + row, scale)
    tl.store(back + place, (level.to(tl.float32) * scale).to(tl.float16), mask)


@plan("lock: *i32, account: *i32, best: *i32, x: *i32, n: i32", default={"BLOCK": 128})
@triton.jit
def locked(lock, account, best, x, n, BLOCK: tl.constexpr):
    """A lock around an update that is no atomic; a maximum by one."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, at < n, other=0)
    total = tl.sum(v, axis=0)
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    tl.store(account, tl.load(account) + total)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)
    tl.atomic_max(best, tl.max(v, axis=0))


@plan(
    "x: *fp32, weights: *fp32, out: *fp32, height: i32, width: i32",
    default={"ROWS": 4, "COLUMNS": 32, "SIDE": 3},
    five={"ROWS": 8, "COLUMNS": 16, "SIDE": 5},
)
@triton.jit
def convolve(x, weights, out, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIDE: tl.constexpr):
    """Outside is zero; the third grid axis is the image."""
    x += tl.program_id(2) * height * width
    out += tl.program_id(2) * height * width
    down, across = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for i in tl.static_range(SIDE):
        for j in tl.static_range(SIDE):
            y, z = down[:, None] + (i - SIDE // 2), across[None, :] + (j - SIDE // 2)
            inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
            total += tl.load(weights + i * SIDE + j) * tl.load(x + y * width + z, inside, other=0.0)
    tl.store(out + down[:, None] * width + across[None, :], total, (down[:, None] < height) & (across[None, :] < width))
