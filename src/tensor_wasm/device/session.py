"""Devices for Python programs: open one, load PTX, launch on NumPy arrays. Offered as ``tensor_wasm.open_device``."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.abi import limits
from tensor_wasm.config import KERNEL_THREADS_MAX, kernel_threads
from tensor_wasm.device.array import DeviceArray
from tensor_wasm.device.cpu_session import CpuSession
from tensor_wasm.device.kernel import Kernel
from tensor_wasm.device.keyfile import directory_key
from tensor_wasm.device.scalars import described
from tensor_wasm.device.selection import choose
from tensor_wasm.device.session_protocol import GPU_MEMORY_LEAST_BYTES, Session
from tensor_wasm.errors import (
    CapacityExhausted,
    ConfigurationError,
    DeviceUnavailable,
    KernelArgumentError,
    KernelError,
    PtxError,
)
from tensor_wasm.ptx import read
from tensor_wasm.runtime import SealedFiles


def open_device(
    name: str = "auto",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    checked: bool = False,
    memory_bytes: int | None = None,
) -> OpenDevice:
    """Open a device.

    Args:
        name: ``cpu``; ``cuda:0`` and so on, or ``cuda:GPU-...`` by its UUID, for a GPU; ``auto`` for the first GPU that
            can be used, or else the CPU.
        cache_dir: Where kernels compiled for the CPU are kept from one program to the next; only this user may be able
            to write there. Without it they are kept in memory, as long as the device is open.
        threads: How many cores a launch on the CPU with enough work uses, 1 to 256; None for
            ``TENSOR_WASM_KERNEL_THREADS``, and without that all.
        checked: Have an access outside of the device's memory be a fault on a GPU, to find bugs by. The CPU device
            checks always.
        memory_bytes: The most of a GPU's memory that is taken, at least 4 MiB; None for half of it. What is taken is
            a power of two, and less where less is free. The CPU device takes what it needs.

    Raises:
        ConfigurationError: There is no device of that name, or ``threads`` or ``memory_bytes`` is out of range.
        DeviceUnavailable: The GPU is not there or cannot be used; the message says why, and what to do.
        CapacityExhausted: The GPU has no memory free.
        StoreError: ``cache_dir`` cannot be used, or others can write to it.
    """
    cores = kernel_threads(os.environ) if threads is None else threads
    if type(cores) is not int or not 1 <= cores <= KERNEL_THREADS_MAX:
        raise ConfigurationError(f"threads must be 1 to {KERNEL_THREADS_MAX}, not {described(threads)}")
    if memory_bytes is not None and (type(memory_bytes) is not int or memory_bytes < GPU_MEMORY_LEAST_BYTES):
        raise ConfigurationError(
            f"memory_bytes must be at least {GPU_MEMORY_LEAST_BYTES:,}, not {described(memory_bytes)}"
        )
    if not isinstance(name, str):
        raise ConfigurationError(f"{described(name)} names no device: use auto, cpu, cuda:N or cuda:GPU-UUID")
    gpu = choose(name).gpu
    if gpu is not None:
        try:
            return OpenDevice(_open_gpu(gpu.index, is_checked=checked, memory_bytes=memory_bytes))
        except (DeviceUnavailable, CapacityExhausted):
            if name != "auto":
                raise
    if cache_dir is None:
        return OpenDevice(CpuSession(_NoFiles(), cores))
    directory = Path(cache_dir)
    return OpenDevice(CpuSession(SealedFiles(directory, directory_key(directory)), cores))


def _open_gpu(index: int, *, is_checked: bool, memory_bytes: int | None) -> Session:
    # Programs that use no GPU import nothing of it.
    from tensor_wasm.device.cuda.session import CudaSession

    return CudaSession(index, is_checked=is_checked, memory_bytes=memory_bytes)


class OpenDevice:
    """A device that was opened; :func:`tensor_wasm.open_device` makes one.

    Close it, or use it in a ``with`` block; else its memory is given back when nothing refers to it, its kernels and
    its arrays any more. Threads may share it: their launches take turns on the CPU, and run side by side on a GPU.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.info = session.info
        self._finalizer = weakref.finalize(self, session.close)

    def load_ptx(self, text: str | bytes, entry: str | None = None) -> Kernel:
        """Compile a kernel of a PTX text; the same text again comes from memory.

        Args:
            text: PTX as a compiler gives it, at most 8 MiB; a NUL at the end does no harm.
            entry: The kernel's name; may be left out when the text has one kernel.

        Raises:
            PtxError: The text is malformed, uses what the device does not support (with line and column), or has no
                such kernel.
            KernelError: The device is closed.
        """
        if self._session.is_closed:
            raise KernelError("the device is closed")
        if not isinstance(text, str | bytes):
            raise PtxError(f"PTX is a str or bytes, not {described(text)}")
        ptx = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if entry is not None and not (isinstance(entry, str) and entry.isascii()):
            raise PtxError("an entry's name is a str of ASCII characters")
        if len(ptx) > limits.PTX_MAX_BYTES:
            raise PtxError(f"the text has {len(ptx):,} bytes; at most {limits.PTX_MAX_BYTES:,} are taken")
        loaded = self._session.load(ptx, only_kernel(ptx) if entry is None else entry)
        return Kernel(self, self._session, loaded)

    def array(self, array: NDArray[Any]) -> DeviceArray:
        """Copy a NumPy array to the device, to be kept there between launches.

        Raises:
            KernelArgumentError: It is no array, not contiguous, or holds Python objects.
            CapacityExhausted: It does not fit the device's memory.
            KernelError: The device is closed.
        """
        if not isinstance(array, np.ndarray):
            raise KernelArgumentError(f"array takes a NumPy array, not {described(array)}; numpy.asarray makes one")
        return DeviceArray(self, self._session, array)

    def close(self) -> None:
        """End a launch that runs and give all memory back; kernels and arrays cannot be used any more.

        Safe to call twice.
        """
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._session.is_closed else ""
        return f"<OpenDevice {self.info.kind}: {self.info.name}{state}>"


def only_kernel(ptx: bytes) -> str:
    """The name of the one kernel of a text. Raises :class:`PtxError` when there is none, or more."""
    names = [kernel.name for kernel in read(ptx, "").kernels]
    if len(names) != 1:
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise PtxError(f"the text has {len(names)} kernels; name the entry: {some}" if names else "it has no kernel")
    return names[0]


class _NoFiles(SealedFiles):
    """Keeps nothing on disk."""

    def __init__(self) -> None:
        """Without a directory."""

    def read(self, name: str) -> None:
        """Nothing."""

    def write(self, name: str, content: bytes) -> None:
        """Nowhere."""
