"""The kernels' work as plain loops: what a user of Numba writes for one processor. Arguments are the kernels' own.

Numba compiles them; as Python they would run for hours. Constants are `float32`, so that nothing is computed in f64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any  # of NumPy; Numba reads no annotations

ONE, HALF, TWO, FOUR = np.float32(1), np.float32(0.5), np.float32(2), np.float32(4)
SERIES = tuple(np.float32(c) for c in (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429))
SLOPE, DENSITY = np.float32(0.2316419), np.float32(0.39894228)


def saxpy(n: int, a: float, x: Array, y: Array) -> None:
    for i in range(n):
        y[i] = a * x[i] + y[i]


def matmul(a: Array, b: Array, c: Array, m: int, n: int, k: int) -> None:
    for row in range(m):
        c[row, :] = 0
        for inner in range(k):
            for column in range(n):
                c[row, column] += a[row, inner] * b[inner, column]


def softmax(x: Array, y: Array, columns: int) -> None:
    for row in range(x.shape[0]):
        largest = x[row, 0]
        for column in range(columns):
            largest = max(largest, x[row, column])
        total = np.float32(0)
        for column in range(columns):
            y[row, column] = math.exp(x[row, column] - largest)
            total += y[row, column]
        for column in range(columns):
            y[row, column] /= total


def block_sums(values: Array, sums: Array, n: int) -> None:
    sums[:] = 0
    for start in range(0, n, 256):
        total = np.float32(0)
        for i in range(start, min(start + 256, n)):
            total += values[i]
        sums[start // 256 % sums.shape[0]] += total


def histogram(data: Array, bins: Array, n: int) -> None:
    for i in range(n):
        bins[data[i]] += np.uint32(1)


def conv2d(image: Array, weights: Array, out: Array, width: int, height: int) -> None:
    for y in range(height):
        out[y, :] = 0
        for j in range(7):
            row = y + j - 3
            if 0 <= row < height:
                for i in range(7):
                    weight = weights[j, i]
                    for x in range(max(0, 3 - i), min(width, width + 3 - i)):
                        out[y, x] += image[row, x + i - 3] * weight


def nbody(bodies: Array, accelerations: Array, n: int, softening: float) -> None:
    for i in range(n):
        ax = ay = az = np.float32(0)
        for j in range(n):
            dx, dy, dz = bodies[j, 0] - bodies[i, 0], bodies[j, 1] - bodies[i, 1], bodies[j, 2] - bodies[i, 2]
            inverse = ONE / math.sqrt(dx * dx + dy * dy + dz * dz + softening)
            pull = bodies[j, 3] * inverse * inverse * inverse
            ax += dx * pull
            ay += dy * pull
            az += dz * pull
        accelerations[i, 0], accelerations[i, 1], accelerations[i, 2] = ax, ay, az


def blackscholes(
    price: Array, strike: Array, years: Array, calls: Array, puts: Array, rate: float, volatility: float, n: int
) -> None:
    for i in range(n):
        deviation = volatility * math.sqrt(years[i])
        d1 = ((HALF * volatility * volatility + rate) * years[i] + math.log(price[i] / strike[i])) / deviation
        d2 = d1 - deviation
        k = ONE / (SLOPE * abs(d1) + ONE)
        series = k * (SERIES[0] + k * (SERIES[1] + k * (SERIES[2] + k * (SERIES[3] + k * SERIES[4]))))
        first = DENSITY * math.exp(-HALF * d1 * d1) * series
        if d1 > 0:
            first = ONE - first
        k = ONE / (SLOPE * abs(d2) + ONE)
        series = k * (SERIES[0] + k * (SERIES[1] + k * (SERIES[2] + k * (SERIES[3] + k * SERIES[4]))))
        second = DENSITY * math.exp(-HALF * d2 * d2) * series
        if d2 > 0:
            second = ONE - second
        discounted = strike[i] * math.exp(-rate * years[i])
        calls[i] = price[i] * first - discounted * second
        puts[i] = discounted * (ONE - second) - price[i] * (ONE - first)


def mandelbrot(steps: Array, left: float, top: float, pitch: float, width: int, height: int, most: int) -> None:
    for py in range(height):
        for px in range(width):
            cx, cy = left + np.float32(px) * pitch, top + np.float32(py) * pitch
            x = y = np.float32(0)
            n = 0
            while n < most:
                xx, yy = x * x, y * y
                if xx + yy > FOUR:
                    break
                y = TWO * x * y + cy
                x = xx - yy + cx
                n += 1
            steps[py, px] = n
