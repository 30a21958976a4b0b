"""Every atomic operation against its meaning: sums where order does not matter, and what each thread got back."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, kernel, variants
from tensor_wasm.compiler import CompiledKernel

_TYPES = {
    "s32": np.int32,
    "u32": np.uint32,
    "s64": np.int64,
    "u64": np.uint64,
    "f32": np.float32,
    "f64": np.float64,
}
_SHAPES = [(1, 1, 1), (50, 1, 64), (999, 3, 333), (2048, 2, 1024), (6000, 188, 32)]


def _step(operation: str, old: int, value: int) -> int:
    """One atomic on unbounded numbers; the caller wraps."""
    match operation:
        case "add":
            return old + value
        case "sub":
            return old - value
        case "min":
            return min(old, value)
        case "max":
            return max(old, value)
        case "and":
            return old & value
        case "or":
            return old | value
        case "xor":
            return old ^ value
        case "exch":
            return value
        case "inc":
            return 0 if old >= 5 + (value & 3) else old + 1
        case "dec":
            return 5 + (value & 3) if old == 0 or old > 5 + (value & 3) else old - 1
        case _:
            return value >> 2 & 3 if old == value & 3 else old


def _inputs(operation: str, kind: str, size: int) -> np.ndarray:
    """Values over the whole type, or small integers where sums of floats must be exact."""
    dtype = _TYPES[kind]
    if kind.startswith("f"):
        return generator(size).integers(-100, 100, size).astype(dtype)
    if operation in ("inc", "dec", "cas"):
        return generator(size).integers(0, 16, size).astype(dtype)
    info = np.iinfo(dtype)
    values = generator(size).integers(info.min, info.max, size, dtype=dtype, endpoint=True)
    if operation == "and":
        values |= dtype(0x5A5A5A5A)
    return values


_ORDERED = ("exch", "inc", "dec", "cas")
_NAMES = [
    *(f"add_{kind}" for kind in ("s32", "u32", "u64", "f32", "f64")),
    "sub_s32",
    *(f"{name}_{kind}" for name in ("min", "max") for kind in ("s32", "u32", "s64", "u64")),
    *(f"{name}_{kind}" for name in ("and", "or", "xor") for kind in ("u32", "u64")),
    *("exch_u32", "exch_u64", "exch_f32", "inc_u32", "dec_u32", "cas_u32", "cas_u64"),
]


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize(("size", "grid", "block"), [*_SHAPES, pytest.param(100_000, 3125, 32, marks=pytest.mark.slow)])
def test_atomics(machine: Machine, name: str, size: int, grid: int, block: int) -> None:
    operation, kind = name.split("_")
    x = _inputs(operation, kind, size)
    start = _inputs(operation, kind, 23)[:7]
    cells, near, old = start.copy(), np.repeat(start[:1], 16), np.zeros_like(x)
    near_start = near.copy()
    machine.run(kernel("atomics", name), grid, block, cells, x, old, near, 7, size)
    for cell in range(7):
        _assert_some_order(operation, start[cell], x[cell::7], old[cell::7], cells[cell])
    if operation not in _ORDERED and grid == 1:
        for cell in range(16):
            assert near[cell] == _folded(operation, near_start[cell], x[cell::16]), cell
    if operation == "exch" and grid == 1:
        assert all(near[cell] in {near_start[cell], *x[cell::16].tolist()} for cell in range(16))


def _folded(operation: str, start: np.generic, values: np.ndarray) -> np.generic:
    """All values applied in any order."""
    now = start.item()
    for value in values.tolist():
        now = _step(operation, now, value)
    return _wrapped(now, start.dtype)


def _wrapped(value: int, dtype: np.dtype) -> np.generic:
    if dtype.kind == "f":
        return dtype.type(value)
    bits = 8 * dtype.itemsize
    return np.array(value % (1 << bits), np.uint64).astype(f"u{dtype.itemsize}").view(dtype)[()]


def _assert_some_order(operation: str, start: np.generic, values: np.ndarray, old: np.ndarray, end: np.generic) -> None:
    """That what the threads got back and what is left are those of the values applied one after another."""
    if operation not in _ORDERED:
        assert end == _folded(operation, start, values)
    # Each thread takes a cell from what it got to what it left: with the last value these are the same multiset.
    after = [
        _wrapped(_step(operation, before, value), start.dtype).item()
        for before, value in zip(old.tolist(), values.tolist(), strict=True)
    ]
    assert sorted([start.item(), *after]) == sorted([*old.tolist(), end.item()])


@variants("atomics", "reductions_only")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (100, 37), (1000, 1024), (777, 64), (60_000, 32)])
def test_reductions_only(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    i = np.arange(size, dtype=np.uint64)
    words = np.array([7, 5000, 1, 0xFFFFFFFF, 0, 99, 3, 3], np.uint32)
    wide, floats, doubles = np.array([1, 2, 3], np.uint64), np.array([0.5], np.float32), np.array([0.25])
    signs = np.array([4, -4, 0, 0], np.int32)
    machine.run(code, -(-size // block), block, words, wide, floats, doubles, signs, size)
    up = down = 3
    for _ in range(size):
        up = 0 if up >= 6 else up + 1
        down = 6 if down == 0 else down - 1
    small = i.astype(np.uint32)
    expected = [
        7 + small.sum(),
        min(5000, (np.uint32(1000) - small).min()),
        max(1, (3 * small).max()),
        np.bitwise_and.reduce(~(np.uint32(1) << small % 32)),
        np.bitwise_or.reduce(np.uint32(1) << small % 29),
        np.uint32(99) ^ np.bitwise_xor.reduce(small * np.uint32(2654435761)),
        up,
        down,
    ]
    assert words.tolist() == [int(value) for value in expected]
    mixed = np.bitwise_xor.reduce(i * np.uint64(0x9E3779B97F4A7C15))
    assert wide.tolist() == [
        1 + int((i << np.uint64(20)).sum()),
        max(2, (size - 1) << 33),
        3 ^ int(mixed),
    ]
    assert floats[0] == 0.5 + (i % 8).sum()
    assert doubles[0] == 0.25 + 0.5 * i.sum()
    assert signs.tolist() == [min(4, 6 - size), max(-4, size - 6), size, -size]


@variants("atomics", "loops")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (60, 7), (100, 128), (90, 1024), (100, 2)])
def test_compare_and_swap_loops(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(1, 10_000, size).astype(np.float32)
    product, maximum, total = np.ones(3, np.float32), np.ones(1, np.float32), np.zeros(1)
    machine.run(code, -(-size // block), block, product, maximum, total, x, size)
    factors = np.where(np.arange(size) % 5, 2.0, 0.5)
    assert product.tolist() == [factors[cell::3].prod() for cell in range(3)]
    assert maximum[0] == x.max()
    assert total[0] == x.sum(dtype=np.float64)


@variants("atomics", "locked")
@pytest.mark.parametrize(
    ("size", "grid", "block"), [(1, 1, 1), (10, 2, 5), (100, 1, 128), (300, 3, 100), (5000, 313, 16)]
)
def test_a_lock_lets_one_in_at_a_time(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    lock, account = np.zeros(1, np.int32), np.zeros(1, np.uint32)
    machine.run(code, grid, block, lock, account, size)
    assert account[0] == (3**size - 1) // 2 % 2**32
    assert lock[0] == 0


@variants("atomics", "mixed")
@pytest.mark.parametrize("block", [4, 32, 77, 1024])
def test_generic_addresses_and_halves(machine: Machine, code: CompiledKernel, block: int) -> None:
    halves = np.where(np.arange(block) % 2, 7, 9).astype(np.uint16)
    far, out = np.zeros(4, np.uint32), np.zeros((2, 4), np.uint32)
    machine.run(code, 2, block, halves, far, out)
    thread = np.arange(block)
    for cell in range(4):
        here = thread % 4 == cell
        assert far[cell] == 2 * thread[here & (thread % 3 == 0)].sum()
        assert (out[:, cell] == thread[here & (thread % 3 != 0)].sum()).all()
    assert (halves == np.where(thread % 2, thread + 100, 9)).all()


@variants("atomics", "last_block")
@pytest.mark.parametrize(("size", "grid", "block"), [(1, 1, 1), (100, 4, 32), (1000, 11, 100), (40_000, 625, 64)])
def test_the_last_block_adds_up(machine: Machine, code: CompiledKernel, size: int, grid: int, block: int) -> None:
    x = generator(size).integers(-1000, 1000, size).astype(np.int32)
    partial, total = np.zeros(grid, np.int32), np.zeros(1, np.int32)
    machine.run(code, grid, block, x, partial, total, size)
    assert total[0] == x[: grid * block].sum()
