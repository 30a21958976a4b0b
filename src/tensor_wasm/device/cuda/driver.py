"""What is used of NVIDIA's driver, as a protocol: the real one is in :mod:`.bindings`, tests have an emulated one.

Contexts, modules, functions, streams, events and pieces of physical memory are the driver's handles, as ints; memory
on the device, and host memory as the device sees it, are addresses. Every call may raise :class:`DriverError`. Once a
call raised one that is sticky, all later calls in that context do, until the process ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

#: Result codes of the driver (``CUresult``) that callers tell apart.
INVALID_VALUE: Final = 1
OUT_OF_MEMORY: Final = 2
NOT_FOUND: Final = 500
NOT_READY: Final = 600
#: Codes after which the context is lost: everything in it, of every tenant.
STICKY: Final = frozenset(
    {
        214,  # ECC_UNCORRECTABLE
        220,  # NVLINK_UNCORRECTABLE
        700,  # ILLEGAL_ADDRESS
        702,  # LAUNCH_TIMEOUT
        709,  # CONTEXT_IS_DESTROYED
        710,  # ASSERT
        714,  # HARDWARE_STACK_ERROR
        715,  # ILLEGAL_INSTRUCTION
        716,  # MISALIGNED_ADDRESS
        717,  # INVALID_ADDRESS_SPACE
        718,  # INVALID_PC
        719,  # LAUNCH_FAILED
        721,  # CONTAINED, an error kept within the context
        46,  # DEVICE_UNAVAILABLE
        999,  # UNKNOWN
    }
)


class DriverError(Exception):
    """A call failed.

    Attributes:
        code: The driver's result.
        name: Its name, ``CUDA_ERROR_OUT_OF_MEMORY``.
        call: The driver's function.
        log: What the assembler said, for a module that it refused.
    """

    def __init__(self, code: int, name: str, call: str, log: str = "") -> None:
        super().__init__(f"{call}: {name} ({code})" + (f": {log}" if log else ""))
        self.code = code
        self.name = name
        self.call = call
        self.log = log

    @property
    def is_sticky(self) -> bool:
        """Whether the context is lost."""
        return self.code in STICKY


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """A GPU. ``uuid`` is as ``nvidia-smi`` shows it, ``GPU-…``; ``sm`` its architecture, ``sm_90``.

    ``assembler`` is the first number of the library here that makes machine code for it (:mod:`.nvjitlink`), 0 where
    the driver has to assemble texts.
    """

    index: int
    name: str
    uuid: str
    sm: str
    memory_bytes: int
    multiprocessors: int
    shared_bytes_max: int
    assembler: int = 0


class Driver(Protocol):
    """The driver of one process. All but :meth:`version`, :meth:`count` and :meth:`facts` need a context that is
    current on the calling thread.
    """

    # --- the machine ------------------------------------------------------------------------------------

    def version(self) -> int:
        """The newest CUDA that the driver has, as 13000."""

    def count(self) -> int:
        """How many GPUs this process may use."""

    def facts(self, index: int) -> GpuFacts:
        """What a GPU is."""

    # --- contexts ---------------------------------------------------------------------------------------

    def create_context(self, index: int) -> int:
        """A new context on a GPU, current on this thread."""

    def use_context(self, context: int) -> None:
        """Make a context current on this thread."""

    def destroy_context(self, context: int) -> None:
        """End a context and all that is in it."""

    # --- memory -----------------------------------------------------------------------------------------

    def granularity(self) -> int:
        """Sizes and offsets of physical memory are multiples of this many bytes."""

    def memory_info(self) -> tuple[int, int]:
        """Bytes that are free, and all, of the GPU's."""

    def reserve(self, size_bytes: int, alignment: int) -> int:
        """Addresses without memory, at a multiple of ``alignment`` (a power of two)."""

    def release(self, address: int, size_bytes: int) -> None:
        """Give reserved addresses back; nothing is mapped there."""

    def create_memory(self, size_bytes: int) -> int:
        """Physical memory of the GPU; its content is whatever was there."""

    def destroy_memory(self, memory: int) -> None:
        """Give physical memory back once nothing maps it."""

    def map_memory(self, address: int, size_bytes: int, memory: int, offset: int) -> None:
        """Have reserved addresses show physical memory, readable and writable; several may show the same.

        NVIDIA's reference has it that ``offset`` is 0, so that what is shown apart is physical memory of its own.
        """

    def unmap_memory(self, address: int, size_bytes: int) -> None:
        """Have addresses show nothing, in the pieces that were mapped."""

    def register_host(self, address: int, size_bytes: int) -> int:
        """Pin pages of this process, and give the address by which the device sees them."""

    def unregister_host(self, address: int) -> None:
        """Undo :meth:`register_host`."""

    # --- work in a stream's order -----------------------------------------------------------------------

    def create_stream(self) -> int:
        """A stream that waits for no other."""

    def destroy_stream(self, stream: int) -> None:
        """End a stream once its work is done."""

    def is_stream_done(self, stream: int) -> bool:
        """Whether all work in a stream is done."""

    def synchronize_stream(self, stream: int) -> None:
        """Wait for a stream's work."""

    def copy_to_device(self, address: int, host_address: int, size_bytes: int, stream: int) -> None:
        """From memory of this process, which is pinned."""

    def copy_to_host(self, host_address: int, address: int, size_bytes: int, stream: int) -> None:
        """To memory of this process, which is pinned."""

    def copy_on_device(self, address: int, source: int, size_bytes: int, stream: int) -> None:
        """From one place on the device to another."""

    def set_memory(self, address: int, value: int, size_bytes: int, stream: int) -> None:
        """A byte into all of a range."""

    def write_value(self, address: int, value: int, stream: int) -> None:
        """A u32 to an address that the device sees, when everything before it in the stream is done and visible."""

    def launch(
        self,
        function: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        stream: int,
        parameters: int,
        parameter_bytes: int,
    ) -> None:
        """A kernel; ``parameters`` is where its block of parameters lies in this process, taken before this returns."""

    # --- modules ----------------------------------------------------------------------------------------

    def load_module(self, code: bytes) -> int:
        """Load machine code, or assemble a text. The error of one that is refused has the assembler's log."""

    def unload_module(self, module: int) -> None:
        """Forget a module, of which nothing runs."""

    def function(self, module: int, name: str) -> int:
        """A kernel of a module."""

    def allow_shared(self, function: int, size_bytes: int) -> None:
        """Let launches of a kernel have so much dynamic shared memory."""

    def max_threads(self, function: int) -> int:
        """How many threads a block of this kernel can have, by the registers that it takes."""

    def parameter_bytes(self, function: int) -> int:
        """How many bytes of parameters a kernel has."""

    # --- time -------------------------------------------------------------------------------------------

    def create_event(self) -> int:
        """An event that keeps the time."""

    def destroy_event(self, event: int) -> None:
        """Forget an event."""

    def record(self, event: int, stream: int) -> None:
        """Have an event happen when the stream's work so far is done."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two events that have happened, in milliseconds."""
