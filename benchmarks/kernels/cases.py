"""What is measured: for each kernel its sources, its arguments in two sizes, and what must come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arrays
import loops
import numpy as np

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
CORPUS = ROOT / "tests" / "corpus"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One launch: its shape, its arguments, and what arrays must hold after one run on them.

    ``expected`` goes by the argument's position; ``relative`` and ``absolute`` are the allowed errors.
    """

    size: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Array | np.generic, ...]
    expected: dict[int, Array]
    relative: float = 0.0
    absolute: float = 0.0
    shared_bytes: int = 0

    def check(self, position: int, actual: Array) -> None:
        """Raise ``AssertionError`` when an argument does not hold what it must."""
        np.testing.assert_allclose(actual, self.expected[position], rtol=self.relative, atol=self.absolute)


@dataclass(frozen=True, slots=True)
class Bar:
    """The ratio to a peer that a kernel must reach; ``in_mean`` when it counts in the geometric mean."""

    peer: str
    ratio: float
    in_mean: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel in all its forms. ``work`` makes the arguments: of the size that counts, or of a small one."""

    name: str
    ptx: Path
    entry: str
    opencl: Path
    numpy: Callable[..., None]
    loop: Callable[..., None]
    work: Callable[[bool], Work]
    bar: Bar = field(default_factory=lambda: Bar("PoCL", 0.25, in_mean=True))


def _random(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _f32(values: Array) -> Array:
    return np.ascontiguousarray(values, np.float32)


def _saxpy(quick: bool) -> Work:
    n = 1 << 14 if quick else 1 << 22
    x, y = _f32(_random(1).standard_normal((2, n)))
    a = np.float32(1.25)
    wide = np.float64(a) * x + y
    return Work(f"{n:,} elements", (n // 256,), (256,), (np.int32(n), a, x, y), {3: wide}, 1e-6, 1e-6)


def _matmul(quick: bool) -> Work:
    n = 64 if quick else 512
    a, b = _f32(_random(2).standard_normal((2, n, n)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    sides = (np.int32(n),) * 3
    return Work(f"{n}³", (n // 16, n // 16), (16, 16), (a, b, np.zeros_like(a), *sides), {2: exact}, 1e-4, 1e-3)


def _softmax(quick: bool) -> Work:
    rows, columns = (16, 1024) if quick else (4096, 1024)
    x = _f32(_random(3).standard_normal((rows, columns)) * 3)
    wide = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    exact = wide / wide.sum(axis=1, keepdims=True)
    arguments = (x, np.zeros_like(x), np.int32(columns))
    return Work(f"{rows}×{columns}", (rows,), (256,), arguments, {1: exact}, 2e-5, 1e-9, shared_bytes=4 * 256)


def _warp_reduce(quick: bool) -> Work:
    n, blocks = (1 << 14, 16) if quick else (1 << 24, 1024)
    values = _random(4).random(n, np.float32)
    exact = values.astype(np.float64).reshape(-1, blocks, 256).sum(axis=(0, 2))
    arguments = (values, np.zeros(blocks, np.float32), np.int32(n))
    return Work(f"{n:,} elements", (blocks,), (256,), arguments, {1: exact}, 1e-4)


def _histogram(quick: bool) -> Work:
    n, blocks = (1 << 14, 16) if quick else (1 << 24, 1024)
    data = _random(5).integers(0, 256, n, np.uint8)
    exact = np.array([np.count_nonzero(data == value) for value in range(256)])
    arguments = (data, np.zeros(256, np.uint32), np.int32(n))
    return Work(f"{n:,} bytes", (blocks,), (256,), arguments, {1: exact})


def _conv2d(quick: bool) -> Work:
    side = 64 if quick else 2048
    image = _f32(_random(6).standard_normal((side, side)))
    weights = _f32(_random(7).standard_normal((7, 7)))
    exact = np.zeros((side, side))
    arrays.conv2d(image.astype(np.float64), weights.astype(np.float64), exact, side, side)
    arguments = (image, weights, np.zeros_like(image), np.int32(side), np.int32(side))
    return Work(f"7×7, {side}²", (side // 16, side // 16), (16, 16), arguments, {2: exact}, 1e-4, 1e-4)


def _nbody(quick: bool) -> Work:
    n = 256 if quick else 4096
    bodies = _f32(_random(8).standard_normal((n, 4)))
    bodies[:, 3] = np.abs(bodies[:, 3])
    softening = np.float32(0.01)
    exact = np.zeros((n, 4))
    arrays.nbody(bodies.astype(np.float64), exact, n, float(softening))
    arguments = (bodies, np.zeros_like(bodies), np.int32(n), softening)
    return Work(f"{n} bodies", (n // 256,), (256,), arguments, {1: exact}, 1e-3, 1e-4 * float(np.abs(exact).max()))


def _blackscholes(quick: bool) -> Work:
    n = 1 << 12 if quick else 1 << 20
    random = _random(9)
    price, strike = _f32(random.uniform(5, 30, n)), _f32(random.uniform(1, 100, n))
    years = _f32(random.uniform(0.25, 10, n))
    rate, volatility = np.float32(0.02), np.float32(0.3)
    calls, puts = np.zeros(n), np.zeros(n)
    s, x, t = (values.astype(np.float64) for values in (price, strike, years))
    arrays.blackscholes(s, x, t, calls, puts, np.float64(rate), np.float64(volatility), n)
    arguments = (price, strike, years, np.zeros_like(price), np.zeros_like(price), rate, volatility, np.int32(n))
    return Work(f"{n:,} options", (n // 256,), (256,), arguments, {3: calls, 4: puts}, 1e-4, 1e-4)


def _mandelbrot(quick: bool) -> Work:
    side, most = (64, 64) if quick else (1024, 256)
    left, top, pitch = np.float32(-2.0), np.float32(-1.25), np.float32(2.5 / side)
    steps = np.zeros((side, side), np.int32)
    arrays.mandelbrot(steps, left, top, pitch, side, side, most)
    arguments = (np.zeros_like(steps), left, top, pitch, np.int32(side), np.int32(side), np.int32(most))
    return Work(f"{side}², {most} steps", (side // 16, side // 16), (16, 16), arguments, {0: steps})


def _of_corpus(name: str) -> tuple[Path, Path]:
    return CORPUS / f"{name}.ptx", FOLDER / f"{name}.cl"


def _own(name: str) -> tuple[Path, str, Path]:
    return FOLDER / f"{name}.ptx", name, FOLDER / f"{name}.cl"


_MATMUL, _SOFTMAX, _REDUCE, _HISTOGRAM = map(_of_corpus, ("matmul_tiled", "softmax", "warp_reduce", "histogram"))
_SAXPY = ROOT / "examples" / "saxpy" / "saxpy.ptx"

CASES = (
    Case("saxpy", _SAXPY, "saxpy", FOLDER / "saxpy.cl", arrays.saxpy, loops.saxpy, _saxpy, Bar("NumPy", 2.0)),
    Case(
        "matmul_tiled",
        _MATMUL[0],
        "matmul_tiled",
        _MATMUL[1],
        arrays.matmul,
        loops.matmul,
        _matmul,
        Bar("PoCL", 0.5),
    ),
    Case("softmax_rows", _SOFTMAX[0], "softmax_rows", _SOFTMAX[1], arrays.softmax, loops.softmax, _softmax),
    Case("warp_reduce", _REDUCE[0], "warp_reduce_sum", _REDUCE[1], arrays.block_sums, loops.block_sums, _warp_reduce),
    Case("histogram256", _HISTOGRAM[0], "histogram256", _HISTOGRAM[1], arrays.histogram, loops.histogram, _histogram),
    Case("conv2d", *_own("conv2d"), arrays.conv2d, loops.conv2d, _conv2d),
    Case("nbody", *_own("nbody"), arrays.nbody, loops.nbody, _nbody),
    Case("blackscholes", *_own("blackscholes"), arrays.blackscholes, loops.blackscholes, _blackscholes),
    Case("mandelbrot", *_own("mandelbrot"), arrays.mandelbrot, loops.mandelbrot, _mandelbrot),
)
