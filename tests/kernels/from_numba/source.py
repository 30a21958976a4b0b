"""Kernels in Python as people write them for Numba. `takes` names the types of a kernel's arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import boolean, cuda, float32, float64, from_dtype, int32, int64, types, uint8, uint32, uint64

complex64, complex128 = types.complex64, types.complex128
pixel = from_dtype(np.dtype([("x", np.int16), ("y", np.int16), ("weight", np.float32)], align=True))


def takes(*arguments: Any) -> Callable[[Any], Any]:
    """Notes the types that a kernel is compiled for."""

    def note(kernel: Any) -> Any:
        kernel.takes = arguments
        return kernel

    return note


@takes(int32, float32, float32[::1], float32[::1])
def saxpy(n, a, x, y):
    i = cuda.grid(1)
    if i < n:
        y[i] = a * x[i] + y[i]


@takes(float32[:, ::1], float32[:, ::1])
def stencil_2d(field, out):
    """Five points; the border is copied."""
    row, column = cuda.grid(2)
    if row < field.shape[0] and column < field.shape[1]:
        if 0 < row < field.shape[0] - 1 and 0 < column < field.shape[1] - 1:
            out[row, column] = (
                field[row - 1, column] + field[row + 1, column] + field[row, column - 1] + field[row, column + 1]
            ) * float32(0.25)
        else:
            out[row, column] = field[row, column]


@takes(float32[:, ::1], float32[:, ::1], float32[:, ::1])
def matmul_tiled(a, b, c):
    tile_a = cuda.shared.array((8, 8), float32)
    tile_b = cuda.shared.array((8, 8), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for first in range(0, a.shape[1], 8):
        tile_a[ty, tx] = a[y, first + tx] if y < a.shape[0] and first + tx < a.shape[1] else float32(0)
        tile_b[ty, tx] = b[first + ty, x] if x < b.shape[1] and first + ty < b.shape[0] else float32(0)
        cuda.syncthreads()
        for k in range(8):
            total += tile_a[ty, k] * tile_b[k, tx]
        cuda.syncthreads()
    if y < c.shape[0] and x < c.shape[1]:
        c[y, x] = total


@takes(float64[::1], float64[::1])
def sum_shared(x, out):
    """A tree over a block of any size up to 256."""
    partial = cuda.shared.array(256, float64)
    id = cuda.threadIdx.x
    mine = 0.0
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        mine += x[i]
    partial[id] = mine
    cuda.syncthreads()
    count = cuda.blockDim.x
    while count > 1:
        half = (count + 1) // 2
        if id + half < count:
            partial[id] += partial[id + half]
        cuda.syncthreads()
        count = half
    if id == 0:
        out[cuda.blockIdx.x] = partial[0]


@takes(int32[::1], int32[::1])
def sum_shuffle(x, out):
    """Whole warps; one atomic each."""
    i = cuda.grid(1)
    mine = x[i] if i < x.size else 0
    step = 16
    while step:
        mine += cuda.shfl_down_sync(0xFFFFFFFF, mine, step)
        step //= 2
    if cuda.laneid == 0:
        cuda.atomic.add(out, 0, mine)


@takes(uint8[::1], int32[::1])
def histogram(x, bins):
    own = cuda.shared.array(256, int32)
    for i in range(cuda.threadIdx.x, 256, cuda.blockDim.x):
        own[i] = 0
    cuda.syncthreads()
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        cuda.atomic.add(own, x[i], 1)
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, 256, cuda.blockDim.x):
        cuda.atomic.add(bins, i, own[i])


@takes(int64[::1], int64[::1])
def prefix_scan(x, out):
    """Inclusive, by doubling, a block for itself; dynamic shared memory of 16 bytes a thread."""
    shared = cuda.shared.array(0, int64)
    id, size, at = cuda.threadIdx.x, cuda.blockDim.x, 0
    i = cuda.grid(1)
    shared[id] = x[i] if i < x.size else 0
    step = 1
    while step < size:
        cuda.syncthreads()
        before = shared[at * size + id]
        if id >= step:
            before += shared[at * size + id - step]
        at = 1 - at
        shared[at * size + id] = before
        step *= 2
    if i < out.size:
        out[i] = shared[at * size + id]


@takes(int32[:, ::1], float64, float64, float64, int32)
def mandelbrot(out, left, top, step, limit):
    y, x = cuda.grid(2)
    if y >= out.shape[0] or x >= out.shape[1]:
        return
    c = complex(left + x * step, top + y * step)
    z = 0j
    for n in range(limit):
        if z.real * z.real + z.imag * z.imag > 4:
            out[y, x] = n
            return
        z = z * z + c
    out[y, x] = limit


@takes(float32[:, ::1], float32[:, ::1], float32)
def nbody(bodies, forces, softening):
    """Bodies are x, y, z and mass; through tiles of 64 in shared memory."""
    tile = cuda.shared.array((64, 4), float32)
    i = cuda.grid(1)
    n = bodies.shape[0]
    px = py = pz = float32(0)
    if i < n:
        px, py, pz = bodies[i, 0], bodies[i, 1], bodies[i, 2]
    fx = fy = fz = float32(0)
    for first in range(0, n, 64):
        for j in range(cuda.threadIdx.x, 64, cuda.blockDim.x):
            for axis in range(4):
                tile[j, axis] = bodies[first + j, axis] if first + j < n else float32(0)
        cuda.syncthreads()
        for j in range(64):
            dx, dy, dz = tile[j, 0] - px, tile[j, 1] - py, tile[j, 2] - pz
            r2 = dx * dx + dy * dy + dz * dz + softening
            inverse = float32(1) / math.sqrt(r2)
            by = tile[j, 3] * inverse * inverse * inverse
            fx += dx * by
            fy += dy * by
            fz += dz * by
        cuda.syncthreads()
    if i < n:
        forces[i, 0], forces[i, 1], forces[i, 2] = fx, fy, fz


@cuda.jit(device=True)
def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2.0)))


@takes(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64, float64)
def black_scholes(price, strike, years, calls, puts, rate, volatility):
    i = cuda.grid(1)
    if i >= price.size:
        return
    root = math.sqrt(years[i])
    d1 = (math.log(price[i] / strike[i]) + (rate + 0.5 * volatility * volatility) * years[i]) / (volatility * root)
    d2 = d1 - volatility * root
    discounted = strike[i] * math.exp(-rate * years[i])
    calls[i] = price[i] * normal_cdf(d1) - discounted * normal_cdf(d2)
    puts[i] = discounted * normal_cdf(-d2) - price[i] * normal_cdf(-d1)


@takes(float32[::1])
def bitonic(x):
    """One block sorts 256 numbers, with any number of threads."""
    shared = cuda.shared.array(256, float32)
    for i in range(cuda.threadIdx.x, 256, cuda.blockDim.x):
        shared[i] = x[cuda.blockIdx.x * 256 + i]
    k = 2
    while k <= 256:
        j = k >> 1
        while j:
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, 256, cuda.blockDim.x):
                other = i ^ j
                if other > i and (shared[i] > shared[other]) == (i & k == 0):
                    shared[i], shared[other] = shared[other], shared[i]
            j >>= 1
        k <<= 1
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, 256, cuda.blockDim.x):
        x[cuda.blockIdx.x * 256 + i] = shared[i]


@takes(int32[:, ::1], int32[:, ::1])
def local_sort(x, out):
    """A row a thread, sorted by insertion in local memory; rows of up to 16."""
    i = cuda.grid(1)
    if i >= x.shape[0]:
        return
    kept = cuda.local.array(16, int32)
    for j in range(x.shape[1]):
        value = x[i, j]
        at = j
        while at > 0 and kept[at - 1] > value:
            kept[at] = kept[at - 1]
            at -= 1
        kept[at] = value
    for j in range(x.shape[1]):
        out[i, j] = kept[j]


@takes(uint64[::1], uint64[::1], uint32[::1])
def hashes(x, wide, narrow):
    i = cuda.grid(1)
    if i < x.size:
        h = x[i]
        h ^= h >> uint64(33)
        h *= uint64(0xFF51AFD7ED558CCD)
        h ^= h >> uint64(33)
        h *= uint64(0xC4CEB9FE1A85EC53)
        h ^= h >> uint64(33)
        wide[i] = h
        k = uint32(x[i] & uint64(0xFFFFFFFF))
        k = uint32(k * uint32(0xCC9E2D51))
        k = uint32(uint32(k << uint32(15)) | (k >> uint32(17)))
        narrow[i] = uint32(k * uint32(0x1B873593))


@takes(complex64[::1], complex64[::1], complex64[::1], float32[::1])
def complex_numbers(x, y, out, size):
    """x y + conj(x) / (1 + y), and the size of x."""
    i = cuda.grid(1)
    if i < x.size:
        out[i] = x[i] * y[i] + x[i].conjugate() / (y[i] + complex64(1))
        size[i] = abs(x[i])


@takes(int32[::1], int32[::1], int32[::1], int32[::1])
def floor_division(x, y, quotient, rest):
    """As Python has it: rounded down, the rest has the divisor's sign."""
    i = cuda.grid(1)
    if i < x.size:
        quotient[i] = x[i] // y[i]
        rest[i] = x[i] % y[i]


@takes(float64[::1], float64[:, ::1])
def functions(x, out):
    i = cuda.grid(1)
    if i >= x.size:
        return
    v = x[i]
    out[0, i] = v**3
    out[1, i] = math.fabs(v) ** 0.7
    out[2, i] = math.sin(v) * math.cos(v)
    out[3, i] = math.tanh(v)
    out[4, i] = math.atan2(v, 2.0)
    out[5, i] = math.floor(v) + math.ceil(v)
    out[6, i] = round(v)
    out[7, i] = math.hypot(v, 3.0)
    out[8, i] = math.log1p(math.fabs(v)) + math.expm1(-math.fabs(v))
    out[9, i] = math.gamma(math.fabs(v) + 1)


@takes(int64[::1], int32[::1], boolean[::1])
def collatz(start, steps, is_long):
    i = cuda.grid(1)
    if i >= start.size:
        return
    n, count = start[i], 0
    while True:
        if n == 1:
            break
        count += 1
        if n & 1:
            n = 3 * n + 1
            continue
        n >>= 1
    steps[i] = count
    is_long[i] = count > 50


@takes(uint8[:, :, :], uint8[:, :])
def grey(picture, out):
    """Arrays of any strides."""
    row, column = cuda.grid(2)
    if row < out.shape[0] and column < out.shape[1]:
        red, green, blue = picture[row, column, 0], picture[row, column, 1], picture[row, column, 2]
        out[row, column] = (red * 77 + green * 150 + blue * 29) >> 8


@takes(float32[::1], float32[::1], int32[::1])
def extremes(x, bounds, lock_count):
    """Atomics of maximum and minimum, and a counter by compare-and-swap."""
    i = cuda.grid(1)
    if i >= x.size:
        return
    cuda.atomic.max(bounds, 0, x[i])
    cuda.atomic.min(bounds, 1, x[i])
    if x[i] > 0:
        while True:
            seen = lock_count[0]
            if cuda.atomic.cas(lock_count, 0, seen, seen + 3) == seen:
                break


@takes(int32[::1], uint32[::1], int32[::1])
def votes(x, ballots, ranks):
    """Whole warps: who is odd, and how many before."""
    i = cuda.grid(1)
    ballot = cuda.ballot_sync(0xFFFFFFFF, x[i] & 1)
    ballots[i] = ballot
    ranks[i] = cuda.popc(ballot & ((1 << cuda.laneid) - 1)) if x[i] & 1 else -cuda.clz(ballot)


@takes(pixel[::1], float64[::1], int32)
def records(points, out, side):
    """Arrays of structures; a Python tuple and a device function."""
    i = cuda.grid(1)
    if i < points.size:
        corner = (points[i].x // side, points[i].y // side)
        cuda.atomic.add(out, (corner[0] + corner[1]) % out.size, float64(points[i].weight))


@takes(float32[::1], float32[::1], float32[::1], float32[::1])
def interpolate(places, values, x, out):
    """Linear, by binary search in sorted places."""
    i = cuda.grid(1)
    if i >= x.size:
        return
    low, high = 0, places.size - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if places[middle] <= x[i]:
            low = middle
        else:
            high = middle
    part = (x[i] - places[low]) / (places[high] - places[low])
    out[i] = values[low] + part * (values[high] - values[low])


@takes(float32[:, :, ::1], float32[:, :, ::1])
def stencil_3d(field, out):
    x, y, z = cuda.grid(3)
    if x < field.shape[0] and y < field.shape[1] and z < field.shape[2]:
        total = -6 * field[x, y, z]
        if x > 0:
            total += field[x - 1, y, z]
        if x + 1 < field.shape[0]:
            total += field[x + 1, y, z]
        if y > 0:
            total += field[x, y - 1, z]
        if y + 1 < field.shape[1]:
            total += field[x, y + 1, z]
        if z > 0:
            total += field[x, y, z - 1]
        if z + 1 < field.shape[2]:
            total += field[x, y, z + 1]
        out[x, y, z] = total
