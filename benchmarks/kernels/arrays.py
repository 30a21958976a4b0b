"""The kernels' work on whole arrays: what a user of NumPy writes. Arguments are the kernels' own."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def saxpy(n: int, a: np.float32, x: Array, y: Array) -> None:  # noqa: ARG001 - the kernel's arguments
    y += a * x


def matmul(a: Array, b: Array, c: Array, *_: int) -> None:
    np.matmul(a, b, out=c)


def softmax(x: Array, y: Array, columns: int) -> None:  # noqa: ARG001
    np.subtract(x, x.max(axis=1, keepdims=True), out=y)
    np.exp(y, out=y)
    y /= y.sum(axis=1, keepdims=True)


def block_sums(values: Array, sums: Array, n: int) -> None:
    sums[:] = values[:n].reshape(-1, len(sums), 256).sum(axis=(0, 2))


def histogram(data: Array, bins: Array, n: int) -> None:
    bins += np.bincount(data[:n], minlength=256).astype(bins.dtype)


def conv2d(image: Array, weights: Array, out: Array, width: int, height: int) -> None:
    padded = np.pad(image, 3)
    out[:] = 0
    for j in range(7):
        for i in range(7):
            out += padded[j : j + height, i : i + width] * weights[j, i]


def nbody(bodies: Array, accelerations: Array, n: int, softening: float) -> None:
    places, masses = bodies[:, :3].T.copy(), bodies[:, 3].copy()
    for start in range(0, n, 32):  # pieces that fit the cache
        apart = places[:, None, :] - places[:, start : start + 32, None]
        square = (apart * apart).sum(axis=0) + softening
        pull = masses / (square * np.sqrt(square))
        accelerations[start : start + 32, :3] = (apart * pull).sum(axis=2).T


def blackscholes(
    price: Array,
    strike: Array,
    years: Array,
    calls: Array,
    puts: Array,
    rate: np.floating[Any],
    volatility: np.floating[Any],
    n: int,  # noqa: ARG001
) -> None:
    one, half = price.dtype.type(1), price.dtype.type(0.5)

    def normal(d: Array) -> Array:
        k = one / (price.dtype.type(0.2316419) * np.abs(d) + one)
        series = np.zeros_like(d)
        for coefficient in (1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.319381530):
            series += price.dtype.type(coefficient)
            series *= k
        tail = price.dtype.type(0.39894228) * np.exp(-half * d * d) * series
        result: Array = np.where(d > 0, one - tail, tail)
        return result

    deviation = volatility * np.sqrt(years)
    d1 = ((half * volatility * volatility + rate) * years + np.log(price / strike)) / deviation
    first, second, discounted = normal(d1), normal(d1 - deviation), strike * np.exp(-rate * years)
    calls[:] = price * first - discounted * second
    puts[:] = discounted * (one - second) - price * (one - first)


def mandelbrot(
    steps: Array, left: np.float32, top: np.float32, pitch: np.float32, width: int, height: int, most: int
) -> None:
    cx, cy = np.meshgrid(
        left + np.arange(width, dtype=np.float32) * pitch, top + np.arange(height, dtype=np.float32) * pitch
    )
    cx, cy, place = cx.ravel(), cy.ravel(), np.arange(width * height)
    x, y = np.zeros_like(cx), np.zeros_like(cy)
    steps[:] = most
    flat = steps.reshape(-1)
    for n in range(most):
        xx, yy = x * x, y * y
        is_in = xx + yy <= 4
        if not is_in.all():
            flat[place[~is_in]] = n
            cx, cy, place, x, y, xx, yy = (values[is_in] for values in (cx, cy, place, x, y, xx, yy))
        y = np.float32(2) * x * y + cy
        x = xx - yy + cx
