"""Arrays in device memory, kept between launches."""

from __future__ import annotations

import math
import sys
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.device.session_protocol import Session, SessionArray
from tensor_wasm.errors import KernelArgumentError


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

    __slots__ = ("__weakref__", "_device", "_kept", "_session", "dtype", "nbytes", "shape")

    def __init__(self, device: object, session: Session, array: NDArray[Any]) -> None:
        self._device = device  # open as long as its arrays are in use
        check_array(array)
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.nbytes: int = array.nbytes
        self._session = session
        self._kept = session.keep(array)

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
        self._kept.copy_out(result)
        return result

    def close(self) -> None:
        """Give the memory back. Safe to call twice."""
        self._kept.close()

    def kept_in(self, session: Session) -> SessionArray:
        """What it is for a launch. Raises :class:`KernelError` when it is closed, :class:`KernelArgumentError` when
        it is another device's.
        """
        if self._session is not session:
            raise KernelArgumentError("the device array is in another device's memory")
        self._kept.place()
        return self._kept

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._kept.is_closed else ""
        return f"<DeviceArray {self.dtype}, shape {self.shape}{state}>"
