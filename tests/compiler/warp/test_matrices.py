"""``ldmatrix`` and ``movmatrix``: where the elements of 8x8 matrices go."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.warp.harness import ALL, Warps, lanes_of


def fragment(matrix: np.ndarray) -> np.ndarray:
    """The register of each lane for an 8x8 matrix of u16: row lane // 4, columns 2 * (lane % 4) and the next."""
    return matrix.astype("<u2").reshape(32, 2).copy().view("<u4").reshape(32)


def rows_of(matrices: np.ndarray) -> np.ndarray:
    """The operand words of ``ldmatrix``: lane 8 * m + r has row r of matrix m (four matrices)."""
    return matrices.astype("<u2").reshape(32, 8).copy().view("<u4")


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_rows_of_lanes_become_fragments(
    count: int, is_transposed: bool, warps: Warps, chance: np.random.Generator
) -> None:
    matrices = chance.integers(0, 1 << 16, (4, 8, 8))
    key = f"ldmatrix.x{count}" + ".trans" * is_transposed
    results = warps.resolve(key, rows_of(matrices))
    for index in range(count):
        matrix = matrices[index].T if is_transposed else matrices[index]
        assert np.array_equal(results[:, index], fragment(matrix)), index


@pytest.mark.parametrize("is_transposed", [False, True])
def test_rows_of_lanes_that_do_not_take_part_are_zeros(
    is_transposed: bool, warps: Warps, chance: np.random.Generator
) -> None:
    matrices = chance.integers(1, 1 << 16, (4, 8, 8))
    key = "ldmatrix.x4" + ".trans" * is_transposed
    for members in [0, 0xFF, 0xFFFF_0000, *chance.integers(1, 1 << 32, 6).tolist()]:
        results = warps.resolve(key, rows_of(matrices), members)
        present = matrices.reshape(32, 8) * np.array([members >> lane & 1 for lane in range(32)])[:, None]
        for index, known in enumerate(present.reshape(4, 8, 8)):
            wanted = fragment(known.T if is_transposed else known)
            lanes = lanes_of(members)
            assert np.array_equal(results[lanes, index], wanted[lanes]), hex(members)


def test_movmatrix_transposes(warps: Warps, chance: np.random.Generator) -> None:
    matrix = chance.integers(0, 1 << 16, (8, 8))
    results = warps.resolve("movmatrix", fragment(matrix).reshape(32, 1), ALL)
    assert np.array_equal(results[:, 0], fragment(matrix.T))


def test_movmatrix_has_zeros_for_lanes_that_do_not_take_part(warps: Warps, chance: np.random.Generator) -> None:
    matrix = chance.integers(1, 1 << 16, (8, 8))
    for members in chance.integers(1, 1 << 32, 6).tolist():
        results = warps.resolve("movmatrix", fragment(matrix).reshape(32, 1), members)
        present = np.array([members >> lane & 1 for lane in range(32)]).repeat(2).reshape(8, 8) * matrix
        lanes = lanes_of(members)
        assert np.array_equal(results[lanes, 0], fragment(present.T)[lanes]), hex(members)
