"""Wide integers against Python's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, variants
from tensor_wasm.compiler import CompiledKernel

_LONG = (1 << 64) - 1
_WIDE = (1 << 128) - 1
_COUNTS = pytest.mark.parametrize(("count", "block"), [(1, 1), (50, 33), (130, 1024)])


def _random(count: int, words: int, seed: int = 0) -> np.ndarray:
    """u64 of all sizes, with edges among them."""
    random = generator(count, words, seed)
    x = random.integers(0, 2**64, (count, words), dtype=np.uint64)
    x >>= random.integers(0, 64, (count, words), dtype=np.uint64)
    edges = np.array([0, 1, _LONG, 1 << 63, (1 << 63) - 1], np.uint64)
    return np.where(random.random(x.shape) < 0.2, edges[random.integers(0, 5, x.shape)], x)


def _number(words: np.ndarray) -> int:
    return int.from_bytes(words.tobytes(), "little")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def _cut(a: int, b: int) -> int:
    """A quotient rounded towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@variants("wide", "arithmetic")
@_COUNTS
def test_arithmetic(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, y, out = _random(count, 2), _random(count, 2, 1), np.zeros((count, 18), np.uint64)
    y[: count // 5] = x[: count // 5]
    machine.run(code, -(-count // block), block, x, y, out, count)
    for p, q, found in zip(x, y, out, strict=True):
        a, b = _number(p), _number(q)
        sa, sb, by, al, bl = _signed(a, 128), _signed(b, 128), b & 127, a & _LONG, b & _LONG
        product = _signed(al, 64) * _signed(bl, 64)
        expected = [a + b, a - b, a * b, al * bl, product, a << by, a >> by, sa >> by]
        assert [_number(found[2 * k : 2 * k + 2]) for k in range(8)] == [v & _WIDE for v in expected]
        assert found[16] == (a < b) | (sa < sb) << 1 | (a == b) << 2
        assert found[17] == (al * bl >> 64) ^ (product >> 64 & _LONG)


@variants("wide", "long_division")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (40, 33), (60, 1024)])
def test_long_division(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, y = _random(count, 2), np.maximum(_random(count, 1)[:, 0], 1)
    quotients, rests = np.zeros_like(x), np.zeros_like(y)
    machine.run(code, -(-count // block), block, x, y, quotients, rests, count)
    for p, b, quotient, rest in zip(x, y.tolist(), quotients, rests.tolist(), strict=True):
        assert (_number(quotient), rest) == divmod(_number(p), b)


@variants("wide", "quotients")
@_COUNTS
def test_quotients(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, y = _random(count, 1)[:, 0].copy(), np.maximum(_random(count, 1, 1)[:, 0], 1)
    out = np.zeros((count, 8), np.uint64)
    machine.run(code, -(-count // block), block, x, y, out, count)
    for a, b, found in zip(x.tolist(), y.tolist(), out.tolist(), strict=True):
        sa, sb = _signed(a, 64), _signed(b, 64) | 2
        signed = _cut(sa, sb)
        assert found[:2] == [a // b, a % b]
        assert found[2:4] == [signed & _LONG, (sa - signed * sb) & _LONG]
        assert found[4:6] == [a // 1000000007, _cut(sa, 12345) & _LONG]
        assert found[6:] == [a % 10, (sa + 7 * _cut(sa, -7)) & _LONG]


@variants("wide", "chains")
@_COUNTS
def test_chains(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, y = _random(count, 4), _random(count, 4, 1)
    y[: count // 4] = ~x[: count // 4]  # carries through
    sums, differences, carries = np.zeros_like(x), np.zeros_like(x), np.zeros((count, 2), np.uint32)
    machine.run(code, -(-count // block), block, x, y, sums, differences, carries, count)
    for p, q, s, d, carry in zip(x, y, sums, differences, carries.tolist(), strict=True):
        a, b = _number(p), _number(q)
        assert _number(s) == (a + b) % (1 << 256)
        assert _number(d) == (a - b) % (1 << 256)
        assert carry == [a + b >> 256, 0xFFFFFFFF if a < b else 0]


@variants("wide", "montgomery")
@pytest.mark.parametrize("modulus", [(1 << 128) - 159, (1 << 127) - 1, 0x123456789ABCDEF0123456789ABCDEF1])
@_COUNTS
def test_montgomery(machine: Machine, code: CompiledKernel, modulus: int, count: int, block: int) -> None:
    x, y = _random(count, 2), _random(count, 2, 1)
    for numbers in (x, y):
        for k, row in enumerate(numbers):
            numbers[k] = np.frombuffer((_number(row) % modulus).to_bytes(16, "little"), np.uint64)
    out, m = np.zeros_like(x), np.frombuffer(modulus.to_bytes(16, "little"), np.uint32)
    machine.run(code, -(-count // block), block, x, y, m, -pow(modulus, -1, 1 << 32) % (1 << 32), out, count)
    shrink = pow(1 << 128, -1, modulus)
    for p, q, found in zip(x, y, out, strict=True):
        assert _number(found) == _number(p) * _number(q) * shrink % modulus


@variants("wide", "powers")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (40, 33), (50, 1024)])
def test_powers(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    base, modulus = _random(count, 1)[:, 0].copy(), np.maximum(_random(count, 1, 1)[:, 0] >> np.uint64(1), 1)
    exponent, out = generator(count).integers(0, 2000, count).astype(np.uint32), np.zeros(count, np.uint64)
    machine.run(code, -(-count // block), block, base, exponent, modulus, out, count)
    expected = [pow(b, e, m) for b, e, m in zip(base.tolist(), exponent.tolist(), modulus.tolist(), strict=True)]
    assert out.tolist() == expected


@variants("wide", "divisors")
@_COUNTS
def test_divisors(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, y = _random(count, 1)[:, 0] & np.uint64(_LONG - 11), _random(count, 1, 1)[:, 0] & np.uint64(_LONG - 11)
    common, root = np.zeros_like(x), np.zeros(count, np.uint32)
    machine.run(code, -(-count // block), block, x, y, common, root, count)
    assert common.tolist() == [math.gcd(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert root.tolist() == [math.isqrt(a) for a in x.tolist()]


@variants("wide", "turn_bits")
@pytest.mark.parametrize("block", [32, 96, 1024])
def test_turn_bits(machine: Machine, code: CompiledKernel, block: int) -> None:
    x = generator(block).integers(0, 2**32, 2 * block, dtype=np.uint64).astype(np.uint32)
    out, by_votes = np.zeros_like(x), np.zeros_like(x)
    machine.run(code, 2, block, x, out, by_votes)
    bits = x.reshape(-1, 32)[:, :, None] >> np.arange(32, dtype=np.uint32) & 1
    turned = (bits.transpose(0, 2, 1) << np.arange(32, dtype=np.uint32)).sum(axis=2)
    assert (out == turned.reshape(-1)).all()
    assert (by_votes == out).all()


@variants("wide", "bits")
@_COUNTS
def test_bits(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, masks, out = _random(count, 1)[:, 0].copy(), _random(count, 1, 1)[:, 0].copy(), np.zeros((count, 6), np.uint64)
    machine.run(code, -(-count // block), block, x, masks, out, count)
    for v, mask, found in zip(x.tolist(), masks.tolist(), out.tolist(), strict=True):
        bits = [v >> k & 1 for k in range(64)]
        chosen = [bit for k, bit in enumerate(bits) if mask >> k & 1]
        assert found[0] == sum(bits[8 * (k % 8) + k // 8] << k for k in range(64))
        assert found[1] == sum(bit << 2 * k for k, bit in enumerate(bits[:32]))
        assert found[2] == v.bit_count() | (64 - v.bit_length()) << 8 | (v & -v).bit_length() << 16
        assert found[3] == sum(bit << 63 - k for k, bit in enumerate(bits))
        assert found[4] == sum(bit << k for k, bit in enumerate(chosen))
        assert found[5] == (v >> (mask & 63)) + (_signed(v, 64) >> (mask >> 58)) & _LONG
