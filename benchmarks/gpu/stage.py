"""A GPU's driver in this process: one partition of memory, one stream, kernels timed by events."""

from __future__ import annotations

import ctypes
import mmap
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from part import EMULATED

from tensor_wasm.compiler import ParameterLayout
from tensor_wasm.device.cuda.driver import Driver
from tensor_wasm.device.cuda.memory import PartitionMemory
from tensor_wasm.device.fence import GUARD_BYTES, Partition, fence
from tensor_wasm.device.fence.rewriting import FencedKernel
from tensor_wasm.ptx import find_kernel, read

Array = np.ndarray[Any, Any]
Axes = tuple[int, int, int]

_ALIGNMENT = 256
#: A text of a newer version of PTX than the driver's is refused, whatever stands in it.
_VERSION = re.compile(rb"^\.version\s+(\d+)\.(\d+)", re.MULTILINE)
_VERSION_MOST = (8, 4)


def make_driver(gpu: str) -> Driver:
    """The driver: NVIDIA's, or one that is emulated."""
    if gpu == EMULATED:
        from device.cuda.emulated import EmulatedDriver

        return EmulatedDriver(memory_bytes=512 << 20)
    from tensor_wasm.device.cuda.bindings import CudaDriver

    return CudaDriver()


def index_of(gpu: str) -> int:
    """The GPU's index."""
    return 0 if gpu == EMULATED else int(gpu)


@dataclass(frozen=True, slots=True)
class Launchable:
    """A kernel that the driver has: its function, where its parameters go, and what they are."""

    function: int
    parameters: tuple[ParameterLayout, ...] | tuple[Any, ...]
    parameter_bytes: int


class Stage:
    """A context on a GPU with a partition of ``size_bytes``. Use it in a ``with`` block."""

    def __init__(self, gpu: str, size_bytes: int) -> None:
        self._ends = ExitStack()
        self.driver = make_driver(gpu)
        self.facts = self.driver.facts(index_of(gpu))
        context = self.driver.create_context(index_of(gpu))
        self._ends.callback(self.driver.destroy_context, context)
        memory = PartitionMemory(self.driver)
        self._ends.callback(memory.close)
        self.partition: Partition = memory.open(max(self.driver.granularity(), GUARD_BYTES), size_bytes)
        self.stream = self.driver.create_stream()
        self._ends.callback(self.driver.destroy_stream, self.stream)
        self._events = [self.driver.create_event() for _ in range(2)]
        for event in self._events:
            self._ends.callback(self.driver.destroy_event, event)
        self._place = self.partition.base

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.synchronize_stream(self.stream)
        self._ends.close()

    # --- memory -----------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget all that was taken."""
        self._place = self.partition.base

    def take(self, size_bytes: int) -> int:
        """So many bytes of the partition."""
        address = self._place
        self._place = -(-(address + size_bytes) // _ALIGNMENT) * _ALIGNMENT
        if self._place > self.partition.base + self.partition.size_bytes:
            raise MemoryError(f"the partition of {self.partition.size_bytes:,} bytes is full")
        return address

    @contextmanager
    def pinned(self, array: Array) -> Iterator[int]:
        """Pin a :func:`host_array` while the context lasts; gives the address by which the device sees it."""
        address = array.ctypes.data
        seen = self.driver.register_host(address, -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
        try:
            yield seen
        finally:
            self.driver.unregister_host(address)

    def upload(self, address: int, array: Array) -> None:
        """Copy from an array that is pinned, and wait."""
        self.driver.copy_to_device(address, array.ctypes.data, array.nbytes, self.stream)
        self.driver.synchronize_stream(self.stream)

    def download(self, address: int, array: Array) -> None:
        """Copy to an array that is pinned, and wait."""
        self.driver.copy_to_host(array.ctypes.data, address, array.nbytes, self.stream)
        self.driver.synchronize_stream(self.stream)

    # --- kernels ----------------------------------------------------------------------------------------

    def fenced(self, text: bytes, entry: str, image: Array) -> Launchable:
        """A kernel that is confined to the partition; ``image`` is pinned, and large enough for its variables."""
        program = read(text, entry)
        place = self.take(1 << 16)
        made: FencedKernel = fence(program, entry, self.partition, place, target=self.facts.sm)
        image[: len(made.image)] = np.frombuffer(made.image, np.uint8)
        self.upload(place, image[: len(made.image)])
        return self._launchable(made.ptx.encode(), made.name, find_kernel(program, entry))

    def plain(self, text: bytes, entry: str) -> Launchable:
        """The same kernel as it was written."""
        return self._launchable(lowered(text), entry, find_kernel(read(text, entry), entry))

    def _launchable(self, text: bytes, name: str, kernel: Any) -> Launchable:
        function = self.driver.function(self.driver.load_module(text), name)
        return Launchable(function, kernel.parameters, kernel.parameter_bytes)

    def launcher(
        self, kernel: Launchable, grid: Axes, block: Axes, arguments: Sequence[int | np.generic], shared_bytes: int = 0
    ) -> Callable[[], None]:
        """A function that launches a kernel; integers among the arguments are addresses."""
        block_bytes = bytearray(max(kernel.parameter_bytes, 8))
        for parameter, argument in zip(kernel.parameters, arguments, strict=True):
            data = argument.tobytes() if isinstance(argument, np.generic) else argument.to_bytes(8, "little")
            assert len(data) == parameter.size_bytes, parameter
            block_bytes[parameter.offset : parameter.offset + len(data)] = data
        kept = (ctypes.c_ubyte * len(block_bytes)).from_buffer(block_bytes)
        place = ctypes.addressof(kept)
        if shared_bytes:
            self.driver.allow_shared(kernel.function, shared_bytes)

        def launch() -> None:
            self.driver.launch(kernel.function, grid, block, shared_bytes, self.stream, place, kernel.parameter_bytes)
            assert kept is not None

        return launch

    # --- time -------------------------------------------------------------------------------------------

    def time_ms(self, action: Callable[[], None], count: int = 1) -> float:
        """Milliseconds that one of ``count`` actions takes the GPU, by events."""
        start, end = self._events
        self.driver.record(start, self.stream)
        for _ in range(count):
            action()
        self.driver.record(end, self.stream)
        self.driver.synchronize_stream(self.stream)
        return self.driver.elapsed_ms(start, end) / count

    def median_ms(self, action: Callable[[], None], *, rounds: int = 9, enough_ms: float = 5.0) -> float:
        """The median over rounds, each of as many actions as last ``enough_ms`` together."""
        action()
        count = max(int(enough_ms / max(self.time_ms(action), 1e-3)), 1)
        return statistics.median(self.time_ms(action, min(count, 1000)) for _ in range(rounds))


def host_array(content: Array) -> Array:
    """A copy in whole pages of its own, which can be pinned."""
    pages = mmap.mmap(-1, -(-content.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
    result = np.frombuffer(pages, np.uint8)[: content.nbytes].view(content.dtype)
    result[:] = content
    return result


def lowered(text: bytes) -> bytes:
    """A text that says it is of a version which older drivers read."""

    def least(found: re.Match[bytes]) -> bytes:
        version = min((int(found[1]), int(found[2])), _VERSION_MOST)
        return b".version %d.%d" % version

    return _VERSION.sub(least, text.rstrip(b"\0"), count=1)
