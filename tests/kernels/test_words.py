"""Integers: hashes against Python's own, random numbers and bits against plain arithmetic."""

from __future__ import annotations

import hashlib
import zlib
from itertools import pairwise

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, variants
from tensor_wasm.compiler import CompiledKernel

_WORD = 0xFFFFFFFF
_LONG = 0xFFFFFFFFFFFFFFFF


@variants("words", "sha256")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (56, 32), (100, 77)])
def test_sha256(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    messages = generator(count).integers(0, 256, (count, 55)).astype(np.uint8)
    lengths = (np.arange(count) % 56).astype(np.int32)
    digests = np.zeros((count, 32), np.uint8)
    machine.run(code, -(-count // block), block, messages, lengths, digests, 55, count)
    for message, length, digest in zip(messages, lengths, digests, strict=True):
        assert digest.tobytes() == hashlib.sha256(message[:length].tobytes()).digest()


@variants("words", "crc32")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (50, 32), (200, 100)])
def test_crc32(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    starts = np.append(0, generator(count).integers(0, 40, count).cumsum()).astype(np.int32)
    data = generator(count, 1).integers(0, 256, starts[-1] + 1).astype(np.uint8)
    out = np.zeros(count, np.uint32)
    machine.run(code, -(-count // block), block, data, starts, out, count)
    whole = data.tobytes()
    assert out.tolist() == [zlib.crc32(whole[a:b]) for a, b in pairwise(starts)]


@variants("words", "mix64")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (100, 33), (1000, 1024)])
def test_mix64(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x = generator(count).integers(0, 2**64, count, dtype=np.uint64)
    out = np.zeros_like(x)
    machine.run(code, -(-count // block), block, x, out, count)
    assert out.tolist() == [_mixed(value) for value in x.tolist()]


def _mixed(value: int) -> int:
    number = 0xCBF29CE484222325
    for byte in value.to_bytes(8, "little"):
        number = (number ^ byte) * 0x100000001B3 & _LONG
    number = number + 0x9E3779B97F4A7C15 & _LONG
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _LONG
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _LONG
    return number ^ number >> 31


@variants("words", "random_words")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (40, 32), (100, 64)])
def test_random_words(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    pcg, xorshift = np.zeros((2, count, 10), np.uint32)
    pcg, xorshift = pcg.copy(), xorshift.copy()
    machine.run(code, -(-count // block), block, pcg, xorshift, 10, count)
    for i in range(count):
        state, (x, y, z, w) = 42 + i, (123456789 + i, 362436069, 521288629, 88675123)
        for k in range(10):
            old, state = state, (state * 6364136223846793005 + 1442695040888963407) & _LONG
            shifted, by = ((old >> 18 ^ old) >> 27) & _WORD, old >> 59
            assert pcg[i, k] == (shifted >> by | shifted << (-by & 31)) & _WORD
            t = (x ^ x << 11) & _WORD
            x, y, z, w = y, z, w, w ^ w >> 19 ^ t ^ t >> 8
            assert xorshift[i, k] == w


@variants("words", "philox")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (70, 32), (200, 1024)])
def test_philox(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    out = np.zeros((count, 4), np.uint32)
    machine.run(code, -(-count // block), block, out, 0xDEADBEEF, 0x12345678, count)
    for i in range(count):
        a, b, c, d, k0, k1 = i, 1, 2, 3, 0xDEADBEEF, 0x12345678
        for _ in range(10):
            p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
            a, b, c, d = q >> 32 ^ b ^ k0, q & _WORD, p >> 32 ^ d ^ k1, p & _WORD
            k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
        assert out[i].tolist() == [a, b, c, d]


@variants("words", "search")
@pytest.mark.parametrize("pattern", ["a", "ab", "abab", "bbbbbb", "z"])
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (500, 2, 33), (2000, 1, 1024)])
def test_search(machine: Machine, code: CompiledKernel, pattern: str, size: int, grid: int, block: int) -> None:
    text = "".join(generator(size).choice(["a", "b"], size).tolist())
    places, count = np.zeros(size, np.int32), np.zeros(1, np.int32)
    letters = np.frombuffer(text.encode(), np.uint8)
    wanted = np.frombuffer(pattern.encode(), np.uint8)
    machine.run(code, grid, block, letters, size, wanted, len(pattern), places, count, shared_bytes=len(pattern))
    assert sorted(places[: count[0]].tolist()) == [i for i in range(size) if text.startswith(pattern, i)]


@variants("words", "edit_distance")
@pytest.mark.parametrize(("first", "second", "block"), [(1, 1, 1), (10, 7, 32), (40, 60, 33), (100, 90, 1024)])
def test_edit_distance(machine: Machine, code: CompiledKernel, first: int, second: int, block: int) -> None:
    a = generator(first).integers(97, 101, first).astype(np.uint8)
    b = generator(second, 1).integers(97, 101, second).astype(np.uint8)
    out = np.zeros(1, np.int32)
    machine.run(code, 1, block, a, b, first, second, out)
    row = list(range(second + 1))
    for i, letter in enumerate(a.tolist(), 1):
        before, row = row, [i]
        for j, other in enumerate(b.tolist(), 1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (letter != other)))
    assert out[0] == row[-1]


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _quotient(a: int, b: int) -> int:
    """Rounded towards zero, as C has it."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _bits(a: int, b: int) -> list[int]:
    sa, sb = _signed(a), _signed(b)
    both, by = b << 32 | a, b & 63
    picked = a | b << 32
    ab, ba = a.to_bytes(4, "little"), b.to_bytes(4, "little")
    odd = _signed(b >> 1 | 1)
    signed_rest = sa - _quotient(sa, odd) * odd
    return [
        a.bit_count(),
        32 - a.bit_length(),
        int(f"{a:032b}"[::-1], 2),
        (a & -a).bit_length(),
        sum((picked >> 8 * n & 255) << 8 * at for at, n in enumerate((5, 1, 7, 3))),
        a * b >> 32,
        sa * sb >> 32 & _WORD,
        (both << (by & 31)) >> 32 & _WORD,
        both >> min(by, 32) & _WORD,
        5 + sum((x ^ 128) * (y ^ 128) - 128 * ((x ^ 128) + (y ^ 128)) + 16384 for x, y in zip(ab, ba, strict=True)),
        5 + sum(x * y for x, y in zip(ab, ba, strict=True)),
        9 + abs(sa - sb),
        a + b >> 1,
        a // b + a % b if b else 0,
        _quotient(sa, 7) + signed_rest if b else 1,
        (a << 32 | b) * both >> 64,
    ]


@variants("words", "bits")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (100, 33), (700, 256)])
def test_bits(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    x, y = generator(count).integers(0, 2**32, (2, count)).astype(np.uint32)
    special = np.array([0, 1, 2**31, 2**32 - 1, 31, 32, 33], np.uint32)
    x[: count // 2], y[count // 3 :: 2] = np.resize(special, count // 2), np.resize(special, len(y[count // 3 :: 2]))
    x, y, out = x.copy(), y.copy(), np.zeros((count, 16), np.uint32)
    machine.run(code, -(-count // block), block, x, y, out, count)
    for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        assert out[i].tolist() == [value & _WORD for value in _bits(a, b)], (a, b)
