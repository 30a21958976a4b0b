"""Running sums against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, variants
from tensor_wasm.compiler import CompiledKernel


@variants("scans", "hillis_steele")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (7, 7), (30, 32), (65, 65), (1000, 1024)])
def test_hillis_steele(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-1000, 1000, (3, size)).astype(np.int32)
    out = np.zeros_like(x)
    machine.run(code, 3, block, x, out, size, shared_bytes=8 * block)
    assert (out == x.cumsum(axis=1)).all()


@variants("scans", "blelloch")
@pytest.mark.parametrize("block", [1, 2, 16, 32, 128, 1024])
def test_blelloch(machine: Machine, code: CompiledKernel, block: int) -> None:
    x = generator(block).integers(0, 2**32, (2, 2 * block)).astype(np.uint32)
    out = np.zeros_like(x)
    machine.run(code, 2, block, x, out, shared_bytes=8 * block)
    assert (out == x.cumsum(axis=1, dtype=np.uint32) - x).all()


@variants("scans", "shuffle_scan")
@pytest.mark.parametrize(("size", "block"), [(1, 32), (100, 32), (1000, 96), (5000, 1024)])
def test_shuffle_scan(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-(2**31), 2**31, size).astype(np.int32)
    out = np.zeros(size, np.int64)
    machine.run(code, 1, block, x, out, size)
    assert (out == x.cumsum(dtype=np.int64)).all()


@variants("scans", "compact")
@pytest.mark.parametrize(("size", "block"), [(0, 32), (1, 1), (100, 7), (1000, 96), (3000, 1024), (500, 33)])
def test_compact(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-9, 9, size).astype(np.int32)
    out, kept = np.zeros(size + 1, np.int32), np.zeros(1, np.int32)
    machine.run(code, 1, block, x, out, kept, size)
    assert list(out[: kept[0]]) == [value for value in x if value > 0]
    assert (out[kept[0] :] == 0).all()
