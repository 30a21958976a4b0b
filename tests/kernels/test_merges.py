"""Sorted sequences and segments against NumPy."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, normal, variants
from tensor_wasm.compiler import CompiledKernel

_SIZES = pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 33), (200, 64), (1000, 1024), (77, 7)])


@variants("merges", "merge")
@pytest.mark.parametrize(
    ("la", "lb", "piece", "block"), [(1, 0, 1, 1), (0, 9, 4, 2), (100, 33, 5, 33), (300, 500, 1, 1024)]
)
def test_merge(machine: Machine, code: CompiledKernel, la: int, lb: int, piece: int, block: int) -> None:
    a = np.sort(generator(la).integers(-20, 20, la)).astype(np.int32)
    b, out = np.sort(generator(lb, 1).integers(-20, 20, lb)).astype(np.int32), np.zeros(la + lb, np.int32)
    machine.run(code, -(-(la + lb) // (piece * block)), block, a, la, b, lb, out, piece)
    assert (out == np.sort(np.concatenate([a, b]))).all()


@variants("merges", "merge_sort")
@_SIZES
def test_merge_sort(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    keys = generator(size).integers(-30, 30, size).astype(np.int16)
    values = np.arange(size, dtype=np.int32)
    out_keys, out_values = np.zeros_like(keys), np.zeros_like(values)
    machine.run(code, 1, block, keys, values, out_keys, out_values, size)
    order = np.argsort(keys, kind="stable")
    assert (out_keys == keys[order]).all()
    assert (out_values == order).all()


@variants("merges", "rank_sort")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 33), (200, 64), (130, 1024)])
def test_rank_sort(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x, out = generator(size).integers(-9, 9, size).astype(np.float32), np.zeros(size, np.float32)
    machine.run(code, -(-size // block), block, x, out, size)
    assert (out == np.sort(x)).all()


@variants("merges", "bounds")
@pytest.mark.parametrize("length", [0, 1, 20, 129])
@pytest.mark.parametrize(("size", "block"), [(1, 1), (50, 33), (90, 1024)])
def test_bounds(machine: Machine, code: CompiledKernel, length: int, size: int, block: int) -> None:
    places = np.sort(generator(length).integers(0, 30, length)).astype(np.float64)
    wanted, out = generator(size).integers(-2, 33, size).astype(np.float64), np.zeros((size, 2), np.int32)
    machine.run(code, -(-size // block), block, places, length, wanted, out, size)
    assert (out[:, 0] == np.searchsorted(places, wanted)).all()
    assert (out[:, 1] == np.searchsorted(places, wanted, side="right")).all()


@variants("merges", "segmented_scan")
@pytest.mark.parametrize(("size", "block"), [(1, 32), (100, 64), (300, 96), (1500, 1024)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_segmented_scan(machine: Machine, code: CompiledKernel, size: int, block: int, share: float) -> None:
    x = generator(size).integers(-99, 99, size).astype(np.int32)
    is_start, out = (generator(size, 1).random(size) < share).astype(np.uint8), np.zeros(size, np.int32)
    machine.run(code, 1, block, x, is_start, out, size)
    total, expected = 0, []
    for value, flag in zip(x.tolist(), is_start.tolist(), strict=True):
        total = value if flag else total + value
        expected.append(total)
    assert out.tolist() == expected


@variants("merges", "sum_by_key")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (30, 33), (100, 100), (1000, 1024)])
def test_sum_by_key(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    keys = np.repeat(generator(size).integers(0, 4, size), generator(size, 1).integers(1, 6, size))[:size]
    keys, values = keys.astype(np.int32), generator(size, 2).integers(-99, 99, size).astype(np.int32)
    out_keys, out_sums, groups = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(1, np.int32)
    machine.run(code, 1, block, keys, values, out_keys, out_sums, groups, size, shared_bytes=8 * block)
    pairs = zip(keys.tolist(), values.tolist(), strict=True)
    expected = [(key, sum(v for _, v in group)) for key, group in groupby(pairs, key=lambda pair: pair[0])]
    assert list(zip(out_keys.tolist(), out_sums.tolist(), strict=True))[: groups[0]] == expected


@variants("merges", "runs")
@_SIZES
def test_runs(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = np.repeat(generator(size).integers(0, 3, size), generator(size, 1).integers(1, 9, size))[:size].astype(np.uint8)
    starts, letters, count = np.zeros(size + 1, np.int32), np.zeros(size, np.uint8), np.zeros(1, np.int32)
    machine.run(code, 1, block, x, starts, letters, count, size)
    expected = [(key, len(list(group))) for key, group in groupby(x.tolist())]
    lengths = np.diff(starts[: count[0] + 1]).tolist()
    assert list(zip(letters.tolist()[: count[0]], lengths, strict=True)) == expected


@variants("merges", "kth_smallest")
@_SIZES
def test_kth_smallest(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = (normal(size).astype(np.float64) * 2**30 + 2**31).clip(0, 2**32 - 1).astype(np.uint32)
    out = np.zeros(1, np.uint32)
    for k in {0, size // 2, size - 1}:
        machine.run(code, 1, block, x, out, k, size)
        assert out[0] == np.sort(x)[k]
