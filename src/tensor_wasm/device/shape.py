"""The shape of a launch: grid, block and shared bytes, checked against the limits of a device."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

from tensor_wasm.abi import limits
from tensor_wasm.errors import KernelArgumentError

Axes = tuple[int, int, int]

#: What a launch's ``grid`` and ``block`` may be: x alone, or up to three axes.
Extent = SupportsIndex | Sequence[SupportsIndex]

GRID_X_MAX = (1 << 31) - 1
GRID_MAX: Axes = (GRID_X_MAX, limits.GRID_YZ_MAX, limits.GRID_YZ_MAX)
BLOCK_MAX: Axes = (limits.BLOCK_AXIS_MAX, limits.BLOCK_AXIS_MAX, limits.BLOCK_Z_MAX)


def axes(name: str, extent: Extent, maximum: Axes) -> Axes:
    """Three axes from one to three, each from 1 to its maximum. Raises :class:`KernelArgumentError`."""
    try:
        # An int is asked for first: whether something is a sequence takes longer to tell.
        is_one = type(extent) is int or not isinstance(extent, Sequence)
        given = tuple(map(operator.index, (extent,) if is_one else extent))  # type: ignore[arg-type]
    except TypeError:
        raise KernelArgumentError(f"{name} must be an int or 1 to 3 ints, not {_shown(extent)}") from None
    if not 1 <= len(given) <= 3:
        raise KernelArgumentError(f"{name} must be an int or 1 to 3 ints, not {_shown(extent)}")
    x, y, z = (*given, 1, 1)[:3]
    if not (1 <= x <= maximum[0] and 1 <= y <= maximum[1] and 1 <= z <= maximum[2]):
        limit = ", ".join(f"{axis:,}" for axis in maximum)
        raise KernelArgumentError(f"{name} {(x, y, z)} is out of range: each axis is from 1 to {limit}")
    return x, y, z


def check_block(kernel: str, block: Axes, required: Axes | None, maximum: Axes | None) -> None:
    """Raise :class:`KernelArgumentError` when a block has too many threads, or not those that the kernel asks for.

    ``required`` and ``maximum`` are the kernel's ``.reqntid`` and ``.maxntid``.
    """
    threads = block[0] * block[1] * block[2]
    if threads > limits.BLOCK_THREADS_MAX:
        raise KernelArgumentError(f"block {block} has {threads:,} threads; at most {limits.BLOCK_THREADS_MAX:,} fit")
    if required is not None and block != required:
        raise KernelArgumentError(f"{kernel} is compiled for blocks of exactly {required} (.reqntid), not {block}")
    if maximum is not None:
        most = maximum[0] * maximum[1] * maximum[2]
        if threads > most:
            raise KernelArgumentError(
                f"{kernel} is compiled for blocks of at most {most:,} threads (.maxntid); {block} has {threads:,}"
            )


def shared_bytes(value: SupportsIndex, maximum: int = limits.SHARED_MAX_BYTES) -> int:
    """A size of dynamic shared memory, at most the device's. Raises :class:`KernelArgumentError`."""
    try:
        size = operator.index(value)
    except TypeError:
        raise KernelArgumentError(f"shared_mem must be an int, not {_shown(value)}") from None
    if not 0 <= size <= maximum:
        raise KernelArgumentError(f"shared_mem must be from 0 to {maximum:,} bytes, not {size:,}")
    return size


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
