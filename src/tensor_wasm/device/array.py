"""Arrays in device memory, kept between launches."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.device.guarded import copy_bytes
from tensor_wasm.errors import KernelArgumentError, KernelError

if TYPE_CHECKING:
    from tensor_wasm.device.guarded import Piece
    from tensor_wasm.device.machine import Machine


def check_array(array: NDArray[Any]) -> None:
    """Raise :class:`KernelArgumentError` for an array whose bytes do not lie in memory as a kernel expects them."""
    if not array.flags.c_contiguous:
        raise KernelArgumentError("the array is not contiguous (C order); pass numpy.ascontiguousarray(...) of it")
    dtype = array.dtype
    if dtype.hasobject or dtype.kind in "OT":
        raise KernelArgumentError(f"an array of {dtype} has no bytes a kernel could use; give it a number type")
    if not dtype.isnative:
        raise KernelArgumentError(f"the array's byte order ({dtype.str}) is not this machine's; use .astype")
    if type(array) is not np.ndarray and _is_masked(array):
        raise KernelArgumentError("a masked array has no place for its mask in a kernel; pass .data or .filled(...)")


def _is_masked(array: NDArray[Any]) -> bool:
    # `numpy.ma` takes 60 ms to import, and where nobody has there are no masked arrays.
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(array, masked.MaskedArray)


class DeviceArray:
    """An array in a device's memory; :meth:`tensor_wasm.OpenDevice.array` makes one.

    Kernels get it as a pointer to its first element, in C order, and what they write stays in it. Its memory is given
    back by :meth:`close`, at the end of a ``with`` block, or when nothing refers to it any more.

    Attributes:
        shape: Lengths of the axes.
        dtype: Type of the elements.
        nbytes: Bytes of all elements.
    """

    __slots__ = ("__weakref__", "_device", "_loan", "_machine", "_piece", "dtype", "nbytes", "shape")

    def __init__(self, device: object, machine: Machine, array: NDArray[Any]) -> None:
        self._device = device  # open as long as its arrays are in use
        check_array(array)
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.nbytes: int = array.nbytes
        self._machine = machine
        with machine.turn():
            self._piece: Piece | None = machine.memory.take(array.nbytes)
            self._loan = machine.lend(self, self._piece)
            copy_bytes(self._piece.host_address, array.ctypes.data, array.nbytes)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def to_numpy(self) -> NDArray[Any]:
        """A copy of the elements as they are now. Raises :class:`KernelError` when the array is closed."""
        result: NDArray[Any] = np.empty(self.shape, self.dtype)
        with self._machine.turn():
            copy_bytes(result.ctypes.data, self.piece().host_address, self.nbytes)
        return result

    def close(self) -> None:
        """Give the memory back. Safe to call twice."""
        if self._piece is not None and not self._machine.is_closed:
            with self._machine.turn():  # not while a kernel uses it
                self._piece = None
                self._machine.give_back(self._loan)

    def piece(self) -> Piece:
        """Where the array is. Raises :class:`KernelError` when it is closed."""
        if self._piece is None:
            raise KernelError("the device array is closed")
        return self._piece

    def belongs_to(self, machine: Machine) -> bool:
        """Whether it is in that device's memory."""
        return self._machine is machine

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._piece is None else ""
        return f"<DeviceArray {self.dtype}, shape {self.shape}{state}>"
