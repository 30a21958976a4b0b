"""Arrays that share memory, and which parts of it are copied back."""

from __future__ import annotations

import numpy as np
import pytest

from tensor_wasm.device.overlap import groups_of


def ranges(base: np.ndarray, arrays: list[np.ndarray], is_written: list[bool] | None) -> list[list[tuple[int, int]]]:
    """For each group what is copied back, as places in ``base``."""
    start = base.ctypes.data
    return [[(each - start, size) for each, size in group.writable] for group in groups_of(arrays, is_written)]


def test_only_what_is_writable_and_written() -> None:
    base = np.zeros(1000, np.uint8)
    left, right = base[:100], base[500:600]
    assert ranges(base, [left, right], None) == [[(0, 100)], [(500, 100)]]
    assert ranges(base, [left, right], [True, True]) == [[(0, 100)], [(500, 100)]]
    assert ranges(base, [right, left], [False, True]) == [[(0, 100)], []]
    assert ranges(base, [left, right], [False, False]) == [[], []]
    left.flags.writeable = False
    assert ranges(base, [left, right], [True, False]) == [[], []]


def test_what_is_shared_with_an_array_that_is_written() -> None:
    base = np.zeros(1000, np.uint8)
    assert ranges(base, [base[:200], base[100:300], base[290:400]], [False, True, False]) == [
        [(100, 100), (100, 200), (290, 10)]
    ]
    whole, inner = base[:400], base[100:200]
    inner.flags.writeable = False
    assert ranges(base, [whole, inner], [False, True]) == [[(100, 100)]]
    assert ranges(base, [whole, inner], [True, False]) == [[(0, 400)]]
    assert ranges(base, [whole, inner, inner, base[150:300]], [False, True, True, True]) == [[(100, 200), (150, 150)]]


@pytest.mark.parametrize("seed", range(50))
def test_all_that_is_both_and_nothing_else(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    base = np.zeros(64, np.uint8)
    arrays, is_written = [], []
    both = [np.zeros(64, bool), np.zeros(64, bool)]
    for _ in range(numbers.integers(1, 6)):
        start, end = sorted(numbers.integers(65, size=2))
        array = base[start:end]
        array.flags.writeable = bool(numbers.integers(2))
        arrays.append(array)
        is_written.append(bool(numbers.integers(2)))
        both[0][start:end] |= array.flags.writeable
        both[1][start:end] |= is_written[-1]
    found = np.zeros(64, bool)
    for group in ranges(base, arrays, is_written):
        for start, size in group:
            found[start : start + size] = True
    shared = [index for index, size in enumerate(arrays) if size.size]
    assert shared or not found.any()
    assert (found == (both[0] & both[1])).all(), seed
