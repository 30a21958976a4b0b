"""Kernels whose threads work together, as NVIDIA's compiler, Numba and Triton emit them, against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.launch import Machine
from compiler.text import compiled, kernel_text
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.ptx import read

_CORPUS = Path(__file__).parents[1] / "corpus"


def _kernel(file: str) -> CompiledKernel:
    text = (_CORPUS / f"{file}.ptx").read_text()
    (kernel,) = read(text).kernels
    return compiled(text, kernel.name)


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(1, 1, 1), (16, 16, 16), (15, 17, 33), (33, 17, 40), (64, 96, 20), (5, 100, 1)]
)
def test_matmul_tiled_is_numpys(machine: Machine, rows: int, columns: int, depth: int) -> None:
    a, b, c = _numbers(rows, depth), _numbers(depth, columns), np.full((rows, columns), 9, np.float32)
    grid = (-(-columns // 16), -(-rows // 16))
    machine.run(_kernel("matmul_tiled"), grid, (16, 16), a, b, c, rows, columns, depth)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [16, 48, 37])
def test_numba_matmul_is_numpys(machine: Machine, size: int) -> None:
    a, b, c = _numbers(size, size), _numbers(size, size + 1)[:, :size].copy(), np.zeros((size, size), np.float32)

    def array(data: np.ndarray) -> tuple[object, ...]:
        return (0, 0, data.size, 4, data, *data.shape, *data.strides)

    blocks = -(-size // 16)
    machine.run(_kernel("numba_matmul"), (blocks, blocks), (16, 16), *array(a), *array(b), *array(c))
    if size % 16 == 0:  # the kernel sums whole tiles only
        np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("columns", "block"), [(1, 1), (10, 8), (33, 32), (1000, 256), (100, 1024), (64, 64)])
def test_softmax_is_numpys(machine: Machine, columns: int, block: int) -> None:
    x = _numbers(4, columns)
    y = np.zeros_like(x)
    machine.run(_kernel("softmax"), 4, block, x, y, columns, shared_bytes=4 * block)
    _assert_softmax(y, x)


@pytest.mark.parametrize("columns", [1, 100, 128, 1000, 1024])
def test_triton_softmax_is_numpys(machine: Machine, columns: int) -> None:
    x = _numbers(3, columns)
    y = np.zeros_like(x)
    machine.run(_kernel("triton_softmax"), 3, 128, y, x, columns, columns, 0, 0, shared_bytes=4096)
    _assert_softmax(y, x)


def _assert_softmax(found: np.ndarray, x: np.ndarray) -> None:
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("size", "grid", "block"), [(1, 1, 32), (77, 1, 64), (1000, 3, 256), (5000, 7, 96), (4096, 2, 1024)]
)
def test_warp_reduce_is_numpys(machine: Machine, size: int, grid: int, block: int) -> None:
    x = np.random.default_rng(size).integers(-100, 100, size).astype(np.float32)
    out = np.zeros(grid, np.float32)
    machine.run(_kernel("warp_reduce"), grid, block, x, out, size)
    expected = [x[[n for n in range(size) if n // block % grid == number]].sum() for number in range(grid)]
    assert list(out) == expected


@pytest.mark.parametrize(("size", "grid", "block"), [(0, 1, 32), (1, 1, 1), (10_000, 5, 256), (999, 3, 100)])
def test_histogram_is_numpys(machine: Machine, size: int, grid: int, block: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    bins = np.arange(256, dtype=np.uint32)
    machine.run(_kernel("histogram"), grid, block, data, bins, size)
    assert (bins == np.arange(256) + np.bincount(data, minlength=256)).all()


@pytest.mark.parametrize(("rows", "columns", "depth"), [(32, 32, 32), (64, 32, 96), (64, 96, 128)])
def test_triton_matmul_of_halves_is_numpys(machine: Machine, rows: int, columns: int, depth: int) -> None:
    """Whole tiles of 32 only: the kernel masks nothing."""
    a, b = _numbers(rows, depth).astype(np.float16), _numbers(depth, columns).astype(np.float16)
    c = np.full((rows, columns), 9, np.float32)
    arguments = (a, b, c, rows, columns, depth, depth, columns, columns, 0, 0)
    grid = (-(-rows // 32), -(-columns // 32))
    machine.run(_kernel("triton_matmul_f16"), grid, 128, *arguments, shared_bytes=32_768)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 33, 48, 63])
def test_a_barrier_with_a_count_counts_whole_warps(machine: Machine, threads: int) -> None:
    """PTX ISA, "bar": the arrival count is incremented by the warp size, however many threads of a warp there are."""
    kernel = compiled(kernel_text(f"bar.sync 1, {-(-threads // 32) * 32};\n    ret;"))
    machine.run(kernel, 1, threads, np.zeros(1, np.uint32))


def test_the_carry_flag_outlives_a_barrier(machine: Machine) -> None:
    body = """
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, -1;
    mov.u32 %r2, 0;
    add.cc.u32 %r3, %r1, %r1;
    bar.sync 0;
    addc.u32 %r4, %r2, %r2;
    st.global.u32 [%rd1], %r4;
    ret;"""
    out = np.zeros(1, np.uint32)
    machine.run(compiled(kernel_text(body)), 1, 1, out)
    assert out[0] == 1
