"""Who runs the kernels: the CPU device, and whom it is compared with. One thread each."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from cases import Array, Case, Work

import tensor_wasm
from tensor_wasm.config import SETTINGS

OURS = "TensorWasm"

#: The setting by which the device is told how many cores a launch may use, where it knows several.
_THREADS_SETTING = "TENSOR_WASM_KERNEL_THREADS"


class MissingPeer(Exception):
    """A peer cannot be measured here; the message says why."""


class Ready(Protocol):
    """A kernel with its arguments where they are used, so that a run copies nothing."""

    def run(self) -> None:
        """Run once, and return when it has ended."""

    def array(self, position: int) -> Array:
        """What an argument holds now."""


class Peer(Protocol):
    """Runs cases."""

    name: str
    version: str

    def prepare(self, case: Case, work: Work) -> Ready:
        """Compile a case and copy its arguments."""


def open_device(threads: int) -> tensor_wasm.OpenDevice | None:
    """The CPU device with that many threads for a launch, or None when it does not know of several."""
    arguments: dict[str, Any] = {}
    if "threads" in inspect.signature(tensor_wasm.open_device).parameters:
        arguments["threads"] = threads
    elif _THREADS_SETTING in {setting.variable for setting in SETTINGS}:
        os.environ[_THREADS_SETTING] = str(threads)
    elif threads > 1:
        return None
    return tensor_wasm.open_device("cpu", **arguments)


class TensorWasm:
    """The CPU device, through the Python API."""

    name = OURS

    def __init__(self, threads: int = 1) -> None:
        device = open_device(threads)
        if device is None:
            raise MissingPeer("a launch uses one core")
        self.version = tensor_wasm.__version__
        self._device = device

    def prepare(self, case: Case, work: Work) -> Ready:
        """Load the PTX and put arrays on the device."""
        return _Launch(self._device, case, work)


class _Launch:
    def __init__(self, device: tensor_wasm.OpenDevice, case: Case, work: Work) -> None:
        self._work = work
        self._kernel = device.load_ptx(case.ptx.read_bytes(), case.entry)
        self._arguments = [device.array(a) if isinstance(a, np.ndarray) else a for a in work.arguments]

    def run(self) -> None:
        self._kernel.launch(self._work.grid, self._work.block, self._arguments, self._work.shared_bytes)

    def array(self, position: int) -> Array:
        kept = self._arguments[position]
        assert isinstance(kept, tensor_wasm.DeviceArray)
        return kept.to_numpy()


class OpenCl:
    """PoCL: the same kernel in OpenCL C, compiled by LLVM for this processor."""

    name = "PoCL"

    def __init__(self) -> None:
        try:
            import pyopencl
        except ImportError:
            raise MissingPeer("PoCL is not installed (no pyopencl)") from None
        try:
            platforms = pyopencl.get_platforms()
        except pyopencl.Error:
            platforms = []
        found = [platform for platform in platforms if platform.name == "Portable Computing Language"]
        if not found:
            raise MissingPeer("PoCL is not installed")
        device = found[0].get_devices()[0]
        if device.max_compute_units != 1:
            raise MissingPeer(f"PoCL would use {device.max_compute_units} threads")
        self.version = _version(found[0].version)
        self._cl = pyopencl
        self._context = pyopencl.Context([device])
        self._queue = pyopencl.CommandQueue(self._context)

    def prepare(self, case: Case, work: Work) -> Ready:
        """Compile the OpenCL C and make buffers."""
        program = self._cl.Program(self._context, case.opencl.read_text("utf-8")).build(["-cl-std=CL1.2"])
        return _Enqueue(self._cl, self._queue, self._cl.Kernel(program, case.entry), work)


def _version(text: str) -> str:
    """PoCL's version and its compiler's, from a line that has much else."""
    own, compiler = re.search(r"PoCL (\S+)", text), re.search(r"LLVM [\d.]+", text)
    return f"{own[1] if own else text}{f' ({compiler[0]})' if compiler else ''}"


class _Enqueue:
    def __init__(self, cl: Any, queue: Any, kernel: Any, work: Work) -> None:
        self._cl, self._queue, self._kernel = cl, queue, kernel
        self._arrays = {p: a for p, a in enumerate(work.arguments) if isinstance(a, np.ndarray)}
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        self._buffers = {p: cl.Buffer(queue.context, flags, hostbuf=array) for p, array in self._arrays.items()}
        values = [self._buffers.get(position, value) for position, value in enumerate(work.arguments)]
        if work.shared_bytes:
            values.append(cl.LocalMemory(work.shared_bytes))
        kernel.set_args(*values)
        self._whole = tuple(blocks * threads for blocks, threads in zip(work.grid, work.block, strict=True))
        self._block = work.block

    def run(self) -> None:
        self._cl.enqueue_nd_range_kernel(self._queue, self._kernel, self._whole, self._block)
        self._queue.finish()

    def array(self, position: int) -> Array:
        result = np.empty_like(self._arrays[position])
        self._cl.enqueue_copy(self._queue, result, self._buffers[position])
        return result


class NumPy:
    """The same work on whole arrays."""

    name = "NumPy"
    version = np.__version__

    def prepare(self, case: Case, work: Work) -> Ready:
        """Copy the arguments."""
        return _Call(case.numpy, work)


class Numba:
    """The same work as a loop, compiled by Numba: one thread, exact arithmetic."""

    name = "Numba"

    def __init__(self) -> None:
        try:
            import numba
        except ImportError:
            raise MissingPeer("Numba is not installed") from None
        self.version = numba.__version__
        self._compile = numba.njit

    def prepare(self, case: Case, work: Work) -> Ready:
        """Copy the arguments; the first run compiles."""
        return _Call(self._compile(case.loop), work)


class _Call:
    def __init__(self, function: Callable[..., None], work: Work) -> None:
        self._function = function
        self._arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in work.arguments]

    def run(self) -> None:
        self._function(*self._arguments)

    def array(self, position: int) -> Array:
        kept = self._arguments[position]
        assert isinstance(kept, np.ndarray)
        return kept


PEERS: dict[str, Callable[[], Peer]] = {"PoCL": OpenCl, "NumPy": NumPy, "Numba": Numba}


def available(names: Sequence[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers of these names that are installed, and why the others are not used."""
    found: list[Peer] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            found.append(PEERS[name]())
        except MissingPeer as missing:
            skipped[name] = str(missing)
    return found, skipped
