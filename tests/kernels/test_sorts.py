"""Sorts against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import Machine
from kernels.loading import generator, kernel, variants
from tensor_wasm.compiler import CompiledKernel


@variants("sorts", "bitonic")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (2, 1), (64, 7), (128, 64), (256, 100), (1024, 1024)])
def test_bitonic(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-(2**31), 2**31, (2, size)).astype(np.int32)
    expected = np.sort(x, axis=1)
    machine.run(code, 2, block, x, size, shared_bytes=4 * size)
    assert (x == expected).all()


@variants("sorts", "warp_bitonic")
@pytest.mark.parametrize(("grid", "block"), [(1, 32), (3, 96), (1, 1024)])
def test_warp_bitonic(machine: Machine, code: CompiledKernel, grid: int, block: int) -> None:
    x = generator(block).integers(0, 2**64, grid * block, dtype=np.uint64)
    x[::5] %= np.uint64(7)
    expected = np.sort(x.reshape(-1, 32), axis=1).reshape(-1)
    machine.run(code, grid, block, x)
    assert (x == expected).all()


@variants("sorts", "radix_pass")
@pytest.mark.parametrize(("size", "block"), [(1, 32), (500, 64), (2000, 1024)])
def test_a_radix_pass_is_stable(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    keys = generator(size).integers(0, 2**32, size).astype(np.uint32)
    values = np.arange(size, dtype=np.uint32)
    sorted_keys, sorted_values = np.zeros_like(keys), np.zeros_like(values)
    machine.run(code, 1, block, keys, values, sorted_keys, sorted_values, size, 12)
    order = np.argsort(keys >> 12 & 15, kind="stable")
    assert (sorted_values == order).all()
    assert (sorted_keys == keys[order]).all()


def test_eight_radix_passes_sort(machine: Machine) -> None:
    keys = generator(8).integers(0, 2**32, 777).astype(np.uint32)
    expected = np.sort(keys)
    values = np.arange(777, dtype=np.uint32)
    for shift in range(0, 32, 4):
        out_keys, out_values = np.zeros_like(keys), np.zeros_like(values)
        machine.run(kernel("sorts", "radix_pass"), 1, 256, keys, values, out_keys, out_values, 777, shift)
        keys, values = out_keys, out_values
    assert (keys == expected).all()


@variants("sorts", "odd_even")
@pytest.mark.parametrize(("size", "block"), [(1, 1), (2, 32), (50, 7), (101, 64), (200, 1024)])
def test_odd_even(machine: Machine, code: CompiledKernel, size: int, block: int) -> None:
    x = generator(size).integers(-300, 300, size).astype(np.int16)
    expected, rounds = np.sort(x), np.zeros(1, np.int32)
    is_sorted = (x == expected).all()
    machine.run(code, 1, block, x, size, rounds, shared_bytes=2 * size)
    assert (x == expected).all()
    assert (rounds[0] == 1) == is_sorted
