"""Hashes against Python's own and known values, random numbers against plain arithmetic."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, variants
from tensor_wasm.compiler import CompiledKernel

_WORD = 0xFFFFFFFF
_LONG = 0xFFFFFFFFFFFFFFFF
_COUNTS = pytest.mark.parametrize(("count", "block"), [(1, 1), (50, 33), (120, 1024)])


def _messages(count: int, longest: int = 80) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """Bytes of messages of all lengths, where they start, and each."""
    lengths = np.arange(count) * 7 % (longest + 1)
    starts = np.append(0, lengths.cumsum()).astype(np.int32)
    data = generator(count).integers(0, 256, starts[-1] + 1).astype(np.uint8)
    return data, starts, [data[a:b].tobytes() for a, b in pairwise(starts)]


def _left(x: int, by: int, bits: int = 32) -> int:
    x &= (1 << bits) - 1
    return (x << by | x >> bits - by) & (1 << bits) - 1


def _words(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data) - size + 1, size)]


def _xxhash32(data: bytes, seed: int) -> int:
    p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
    h, done = seed + p5, len(data) // 16 * 16
    if done:
        lanes = [seed + p1 + p2, seed + p2, seed, seed - p1]
        for at, w in enumerate(_words(data[:done], 4)):
            lanes[at % 4] = _left(lanes[at % 4] + w * p2, 13) * p1
        h = sum(_left(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
    h += len(data)
    rest = data[done:]
    for w in _words(rest, 4):
        h = _left(h + w * p3, 17) * p4
    for b in rest[len(rest) // 4 * 4 :]:
        h = _left(h + b * p5, 11) * p1
    h &= _WORD
    h = (h ^ h >> 15) * p2 & _WORD
    h = (h ^ h >> 13) * p3 & _WORD
    return h ^ h >> 16


def _xxhash64(data: bytes, seed: int) -> int:
    q1, q2, q3 = 11400714785074694791, 14029467366897019727, 1609587929392839161
    q4, q5 = 9650029242287828579, 2870177450012600261

    def step(lane: int, w: int) -> int:
        return _left(lane + w * q2, 31, 64) * q1

    h, done = seed + q5, len(data) // 32 * 32
    if done:
        lanes = [seed + q1 + q2, seed + q2, seed, seed - q1]
        for at, w in enumerate(_words(data[:done], 8)):
            lanes[at % 4] = step(lanes[at % 4], w)
        h = sum(_left(lane, by, 64) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            h = ((h ^ step(0, lane)) & _LONG) * q1 + q4
    h += len(data)
    rest = data[done:]
    for w in _words(rest, 8):
        h = _left((h ^ step(0, w)) & _LONG, 27, 64) * q1 + q4
    rest = rest[len(rest) // 8 * 8 :]
    for w in _words(rest, 4):
        h = _left(h ^ w * q1, 23, 64) * q2 + q3
    for b in rest[len(rest) // 4 * 4 :]:
        h = _left(h ^ b * q5, 11, 64) * q1
    h &= _LONG
    h = (h ^ h >> 33) * q2 & _LONG
    h = (h ^ h >> 29) * q3 & _LONG
    return h ^ h >> 32


def _murmur3(data: bytes, seed: int) -> int:
    h, whole = seed, len(data) // 4 * 4
    for w in _words(data, 4):
        h = _left(h ^ _left(w * 0xCC9E2D51, 15) * 0x1B873593 & _WORD, 13) * 5 + 0xE6546B64 & _WORD
    if data[whole:]:
        h ^= _left(int.from_bytes(data[whole:], "little") * 0xCC9E2D51, 15) * 0x1B873593 & _WORD
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & _WORD
    h = (h ^ h >> 13) * 0xC2B2AE35 & _WORD
    return h ^ h >> 16


def test_the_references_give_the_values_that_are_published() -> None:
    assert (_xxhash32(b"", 0), _xxhash32(b"abc", 0)) == (0x02CC5D05, 0x32D153FF)
    assert (_xxhash64(b"", 0), _xxhash64(b"abc", 0)) == (0xEF46DB3751D8E999, 0x44BC2CF5AD770999)
    assert (_murmur3(b"", 1), _murmur3(b"test", 0)) == (0x514E28B7, 0xBA6BD213)


@variants("hashes", "xxhash32")
@_COUNTS
def test_xxhash32(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    data, starts, messages = _messages(count)
    out = np.zeros(count, np.uint32)
    machine.run(code, -(-count // block), block, data, starts, out, 99, count)
    assert out.tolist() == [_xxhash32(message, 99) for message in messages]


@variants("hashes", "xxhash64")
@_COUNTS
def test_xxhash64(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    data, starts, messages = _messages(count)
    out = np.zeros(count, np.uint64)
    machine.run(code, -(-count // block), block, data, starts, out, 1 << 60, count)
    assert out.tolist() == [_xxhash64(message, 1 << 60) for message in messages]


@variants("hashes", "murmur3")
@_COUNTS
def test_murmur3(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    data, starts, messages = _messages(count)
    out = np.zeros(count, np.uint32)
    machine.run(code, -(-count // block), block, data, starts, out, 7, count)
    assert out.tolist() == [_murmur3(message, 7) for message in messages]


@variants("hashes", "blake2s")
@pytest.mark.parametrize(("count", "block"), [(1, 1), (50, 33), (60, 1024)])
def test_blake2s(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    data, starts, messages = _messages(count, 200)
    digests = np.zeros((count, 8), np.uint32)
    machine.run(code, -(-count // block), block, data, starts, digests, count)
    assert [digest.tobytes() for digest in digests] == [hashlib.blake2s(message).digest() for message in messages]


def _chacha20(key: list[int], nonce: list[int], counter: int) -> list[int]:
    first = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *key, counter, *nonce]
    x = first.copy()
    for r in range(20):
        for i in range(4):
            a, b, c, d = (row * 4 + (i + row * (r % 2)) % 4 for row in range(4))
            for to, other, at, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[to] = x[to] + x[other] & _WORD
                x[at] = _left(x[at] ^ x[to], by)
    return [p + q & _WORD for p, q in zip(x, first, strict=True)]


@variants("hashes", "chacha20")
@_COUNTS
def test_chacha20(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    key = np.frombuffer(bytes(range(32)), np.uint32)
    nonce = np.frombuffer(bytes.fromhex("000000090000004a00000000"), np.uint32)
    out = np.zeros((count, 16), np.uint32)
    machine.run(code, -(-count // block), block, key, nonce, out, 1, count)
    assert out[0].tobytes().hex().startswith("10f1e7e4d13b5915500fdd1fa32071c4")  # RFC 8439, 2.3.2
    assert out.tolist() == [_chacha20(key.tolist(), nonce.tolist(), 1 + i) for i in range(count)]


@variants("hashes", "xorwow")
@_COUNTS
def test_xorwow(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    out = np.zeros((count, 12), np.uint32)
    machine.run(code, -(-count // block), block, out, 12, count)
    for i in range(count):
        v, d = [123456789 + i, 362436069, 521288629, 88675123, 5783321], 6615241
        for k in range(12):
            t = v[0] ^ v[0] >> 2
            v = [*v[1:], (v[4] ^ v[4] << 4 ^ t ^ t << 1) & _WORD]
            d += 362437
            assert out[i, k] == v[4] + d & _WORD


@variants("hashes", "mrg32k3a")
@_COUNTS
def test_mrg32k3a(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    out = np.zeros((count, 9))
    machine.run(code, -(-count // block), block, out, 9, count)
    m1, m2 = 4294967087, 4294944443
    for i in range(count):
        a, b = [12345 + i, 12345, 12345], [12345, 12345 + i, 12345]
        for k in range(9):
            a = [a[1], a[2], (1403580 * a[1] - 810728 * a[0]) % m1]
            b = [b[1], b[2], (527612 * b[2] - 1370589 * b[0]) % m2]
            assert out[i, k] == ((a[2] - b[2] - 1) % m1 + 1) * 2.328306549295728e-10


@variants("hashes", "box_muller")
@_COUNTS
def test_box_muller(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    words = generator(count).integers(0, 2**32, (count, 2), dtype=np.uint64).astype(np.uint32)
    out = np.zeros((count, 2), np.float32)
    machine.run(code, -(-count // block), block, words, out, count)
    u, v = (words.T >> np.uint32(8)) / 2.0**24
    radius = np.sqrt(-2 * np.log(u + 2.0**-25))
    expected = np.stack([radius * np.cos(2 * math.pi * v), radius * np.sin(2 * math.pi * v)], axis=1)
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


@variants("hashes", "even_spread")
@_COUNTS
def test_even_spread(machine: Machine, code: CompiledKernel, count: int, block: int) -> None:
    sobol, halton = np.zeros((count, 2), np.uint32), np.zeros(count)
    machine.run(code, -(-count // block), block, sobol, halton, count)
    for i in range(count):
        digits = []
        while 3 ** len(digits) <= i:
            digits.append(i // 3 ** len(digits) % 3)
        assert halton[i] == pytest.approx(
            float(sum(Fraction(d, 3 ** (k + 1)) for k, d in enumerate(digits))), abs=1e-15
        )
        code_bits = i ^ i >> 1
        assert sobol[i, 0] == int(f"{code_bits:032b}"[::-1], 2)
    whole = 1 << count.bit_length() - 1
    for axis in range(2):  # each of the first 2^k intervals has one of the first 2^k points
        assert sorted((sobol[:whole, axis].astype(np.uint64) * whole >> np.uint64(32)).tolist()) == list(range(whole))
