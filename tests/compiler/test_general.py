"""Kernels of CUDA C that NVRTC compiled, against NumPy and Python: loops, structs, local arrays, statics, integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.text import compiled
from tensor_wasm.compiler import CompiledKernel

_TEXT = (Path(__file__).parents[1] / "corpus" / "general.ptx").read_text()
_SEED = 991
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
_64 = (1 << 64) - 1


def _kernel(name: str) -> CompiledKernel:
    return compiled(_TEXT, name)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


@pytest.mark.parametrize(
    ("width", "height", "block"), [(40, 30, (8, 8)), (33, 7, (32, 1)), (5, 19, (3, 5)), (1, 1, (1, 1))]
)
def test_mandelbrot(machine: Machine, width: int, height: int, block: tuple[int, int]) -> None:
    one = np.float32
    camera = np.zeros(1, np.dtype([("x", "f4"), ("y", "f4"), ("scale", "f4"), ("width", "i4"), ("steps", "i2"),
                                   ("flags", "i1", 6)]))  # fmt: skip
    camera[0] = (-2, -1.2, 2.5 / width, width, 60, (0, 0, 1, 0, 0, 0))
    expected = np.zeros((height, width), np.int32)
    scale = camera["scale"][0]
    for py in range(height):
        for px in range(width):
            # The compiler fuses the product into the sum: one rounding.
            cx = one(np.float64(px) * np.float64(scale) + np.float64(one(-2)))
            cy = one(np.float64(py) * np.float64(scale) + np.float64(one(-1.2)))
            x = y = one(0)
            n = 0
            while n < 60 and not x * x + y * y > one(4):
                x, y = x * x + -(y * y) + cx, one(2) * x * y + cy
                n += 1
            expected[py, px] = n
    out = np.full((height, width), -1, np.int32)
    grid = (_blocks(width, block[0]), _blocks(height, block[1]))
    machine.run(_kernel("mandelbrot"), grid, block, out, camera.tobytes(), height)
    assert (out == expected).all()
    camera["flags"][0][2] = 0
    machine.run(_kernel("mandelbrot"), grid, block, out, camera.tobytes(), height)
    assert (out == -expected).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 9), (64, 32)])
def test_blur(machine: Machine, width: int, height: int) -> None:
    image = np.random.default_rng(_SEED).random((height, width), np.float32)
    wide = np.pad(image, 1, mode="edge").astype(np.float64)
    weights = ((1, 2, 1), (2, 4, 2), (1, 2, 1))
    total = np.zeros((height, width), np.float32)
    for j in range(3):
        for i in range(3):
            total = (wide[j : j + height, i : i + width] * weights[j][i] + total).astype(np.float32)
    out = np.zeros_like(image)
    machine.run(_kernel("blur"), (_blocks(width, 16), _blocks(height, 4)), (16, 4), image, out, width, height)
    assert (out == total * np.float32(0.0625)).all()


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 7, 3), (16, 16, 16), (9, 4, 0)])
@pytest.mark.parametrize("grid", [1, 3])
def test_matmul(machine: Machine, m: int, n: int, k: int, grid: int) -> None:
    source = np.random.default_rng(_SEED)
    a, b = source.integers(-99, 99, (m, k)).astype(float), source.integers(-99, 99, (k, n)).astype(float)
    c = np.full((m, n), -1.0)
    machine.run(_kernel("matmul"), grid, 32, a, b, c, m, n, k)
    assert (c == a @ b).all()


def test_sort_in_local_memory(machine: Machine) -> None:
    data = np.random.default_rng(_SEED).integers(0, 1 << 16, (75, 16)).astype(np.uint16)
    expected = np.sort(data, axis=1)
    machine.run(_kernel("sort16"), 3, 32, data, len(data))
    assert (data == expected).all()


def _signed(value: int) -> int:
    value &= _64
    return value - (1 << 64) if value >> 63 else value


def _dispatched(op: int, i: int) -> int:
    value = i * 1000003
    prime = _PRIMES[i & 7]
    match op:
        case 0:
            return value + prime
        case 1:
            return (value - _PRIMES[i >> 3 & 7]) * 3
        case 2:
            return value * 3
        case 3:
            return value // prime
        case 4:
            return value % (1 + i)
        case 5:
            return -1
        case 6:
            return _signed(value << (i & 63))
        case 7:
            return value >> (i & 63)
        case 8:
            return value.bit_count() * 100 + 64 - value.bit_length()
        case 9:
            return _signed(value << 30) * _signed(value << 20) >> 64
        case 10:
            for _ in range(i % 7):
                value = 3 * value + 1 if value & 1 else value >> 1
            return value
        case _:
            return ~value


def test_dispatch(machine: Machine) -> None:
    count = 700
    op = np.random.default_rng(_SEED).integers(-1, 13, count).astype(np.int32)
    out = np.zeros(count, np.int64)
    machine.run(_kernel("dispatch"), _blocks(count, 96), 96, op, out, count)
    assert out.tolist() == [_dispatched(int(kind), i) for i, kind in enumerate(op)]


def test_fnv(machine: Machine) -> None:
    words = [b"", b"a", b"kernel", bytes(range(1, 256)), b"\xff\x80" * 30]
    text = b"".join(word + b"\0" for word in words)
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).astype(np.int32)
    expected = []
    for word in words:
        value = 14695981039346656037
        for c in (*word, 0):
            value = (value ^ c) * 1099511628211 & _64
            value ^= ((value << (c & 31)) >> 32 & 0xFFFF_FFFF) << 7
        expected.append(value)
    out = np.zeros(len(words), np.uint64)
    machine.run(_kernel("fnv"), 1, 8, np.frombuffer(text, np.uint8), starts, out, len(words))
    assert out.tolist() == expected


def test_convert(machine: Machine) -> None:
    count = 50
    data = np.random.default_rng(_SEED).integers(-(1 << 31), 1 << 31, (count, 4)).astype(np.int32)
    wide, narrow = np.zeros((count, 4), np.float32), np.zeros((count, 4), np.int16)
    machine.run(_kernel("convert"), 2, 32, data, wide, narrow, count)
    columns = (data[:, 0], data[:, 1].view(np.uint32), data[:, 2].astype(np.int8), data[:, 3].astype(np.uint16))
    assert (wide == np.stack([column.astype(np.float32) for column in columns], axis=1)).all()
    halves = np.trunc(data[:, 3] * 0.5).astype(np.int32).astype(np.int16)
    parts = (data[:, 0].astype(np.int16), (data[:, 1] >> 16).astype(np.int16), data[:, 2].astype(np.int8), halves)
    assert (narrow == np.stack([part.astype(np.int16) for part in parts], axis=1)).all()


def test_either(machine: Machine) -> None:
    count = 64
    data = np.random.default_rng(_SEED).integers(0, 1 << 20, 2 * count).astype(np.int32)
    before = data.copy()
    machine.run(_kernel("either"), 2, 32, data, count)
    for i in range(count):
        own = [i, i + 1, i + 2, i + 3]
        where = own if before[i] & 1 else before[4 * (i // 4) : 4 * (i // 4) + 4].tolist()
        assert data[count + i] == sum(where[: (before[i] & 3) + 1])
