"""The layout of scratch memory: words of the gate's, kernel descriptors, and each kernel's region.

One a guest instance, in its store; neither the guest nor another tenant can reach it. Kernels can: one that our
compiler got wrong could damage this memory, and with it launches of its own instance. Nothing that leads out of the
instance is kept here: which slot of the ledger is the instance's stands in a global of the gate's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tensor_wasm.abi.limits import ALLOCATIONS_MAX, ARGV_MAX_RECORDS, BLOCK_THREADS_MAX, KERNELS_MAX

# How long the GPU took for the latest launch, by the trampoline while GPU_TIMED says so; 0 where it is not known.
GPU_KERNEL_NS = 0  # i64: for the kernel
GPU_COPY_IN_NS = 8  # i64: for the bytes of guest pointers, there
GPU_COPY_OUT_NS = 16  # i64: and back
LAST_CODE = 24  # i32: code of the latest refused launch, 0 after a success or a call of the host's
DEVICE_TABLE = 28  # i32: address of the table of device allocations, 0 when there is none yet
BLOCK = 32  # i32 x 3: block shape of the launch now running
GPU_TIMED = 44  # u32: 1 while the GPU is to take the time of launches, by the host
COUNTER = 48  # i64: blocks that were taken of a launch on several cores
KERNELS = 64  # an entry for each kernel, see below
PARAMETERS = 4224  # the parameter block of the launch now running
PARAMETERS_BYTES = 4096
HEAP = PARAMETERS + PARAMETERS_BYTES  # descriptors, kernels' regions and the table of allocations from here on

# Where launches go to a GPU. The host writes these, see Placement; only WINDOW_COUNT is the gate's, and GPU_ACCEPTED_NS
# and the times above the trampoline's. A kernel is not in this store then, so what leads out of the instance is safe
# here.
WINDOW_COUNT = 4160  # u32: guest pointers of the launch now running
GPU_LANE = 4164  # u32: the lane of the board
GPU_BASE = 4168  # u64: where the tenant's partition starts, as its kernels see it
GPU_EMPTY = 4176  # u64: what becomes of a guest pointer with no bytes
GPU_ARENA = 4184  # u64: where the bytes of guest pointers go on the device, a multiple of ARENA_ALIGNMENT
GPU_ARENA_BYTES = 4192  # u32
GPU_STAGING = 4196  # u32: which part of the staging area is guest memory too, counted from the area's start
GPU_SHOWN_BYTES = 4200  # u32: so many bytes of it
GPU_SHOWN = 4204  # u32: from here on in guest memory
GPU_CLOCK_NS = 4208  # i64: what to add to the gate's clock to have CLOCK_MONOTONIC
GPU_ACCEPTED_NS = 4216  # i64: when the driver had taken the launch, by CLOCK_MONOTONIC; 0 when it is not known
WINDOWS = HEAP  # an entry for each guest pointer, see below; the heap of a gate that has windows starts after them

# A window's entry.
WINDOW_PARAMETER = 0  # u32: where in the parameter block the pointer stands
WINDOW_START = 4  # u32: where it points in guest memory
WINDOW_SIZE = 8  # u32: its bytes
WINDOW_BYTES = 12
WINDOWS_END = WINDOWS + WINDOW_BYTES * ARGV_MAX_RECORDS
#: What lies in guest memory at a multiple of this does on the device.
ARENA_ALIGNMENT = 256
#: Addresses on the device are this many bits longer than what stands in the table of allocations.
DEVICE_ADDRESS_SHIFT = 8

# A kernel's entry. Its number is the low bits of its id; what is above counts how often the number was used before, so
# an id that was unloaded is not the next kernel's.
KERNEL_ID = 0  # i64: its id plus 1, 0 where there is none
KERNEL_DESCRIPTOR = 8  # i32: address of its descriptor
KERNEL_BYTES = 16

# A device allocation's entry, at the place that the low bits of its handle less 1 say.
DEVICE_HANDLE = 0  # i64: 0 where there is none
DEVICE_ADDRESS = 8  # i32: where kernels see it; on a GPU, where in the partition, without DEVICE_ADDRESS_SHIFT bits
DEVICE_SIZE = 12  # i32: its bytes
DEVICE_BYTES = 16
DEVICE_TABLE_BYTES = DEVICE_BYTES * ALLOCATIONS_MAX

assert KERNELS + KERNEL_BYTES * KERNELS_MAX <= WINDOW_COUNT
assert GPU_ACCEPTED_NS + 8 <= PARAMETERS
assert KERNELS_MAX & (KERNELS_MAX - 1) == ALLOCATIONS_MAX & (ALLOCATIONS_MAX - 1) == 0

#: A launch that takes one core this long is worth waking helpers, which costs some 20 µs.
WORTH_NS = 250_000
#: What a thread of a kernel that never ran is taken to cost: some 12,000 threads are worth it then.
UNKNOWN_THREAD_NS = 20.0

# A descriptor: six i32 and an f64, then for each parameter four u16: tags accepted (bit t: tag t), offset in the block,
# bytes, and nothing.
DESCRIPTOR_COUNT = 0
DESCRIPTOR_REQUIRED = 4  # three axes; 0 when the kernel requires no shape
DESCRIPTOR_MAX_THREADS = 16
DESCRIPTOR_CREW = 20  # see Helpers
DESCRIPTOR_THREAD_NS = 24  # f64: what a thread of the latest launch cost, in time of one core
DESCRIPTOR_PARAMETERS = 32
PARAMETER_TAGS, PARAMETER_OFFSET, PARAMETER_SIZE, PARAMETER_ENTRY_BYTES = 0, 2, 4, 8


class Helpers:
    """What ``DESCRIPTOR_CREW`` says. Below 0: how many large launches to go until the host is asked again."""

    ASK = 0
    KNOW = 1
    NEVER = 2
    AGAIN = -100


@dataclass(frozen=True, slots=True)
class Placement:
    """Where launches of a guest go on a GPU, as :meth:`Gate.place` writes it; each field is a word of the same name.

    From ``shown`` on, ``shown_bytes`` of guest memory are the same memory as the staging area's from ``staging`` on.
    ``clock_ns`` is what to add to the gate's clock to have CLOCK_MONOTONIC's, 0 when that is not known.
    """

    lane: int
    base: int
    empty: int
    arena: int = 0
    arena_bytes: int = 0
    staging: int = 0
    shown_bytes: int = 0
    shown: int = 0
    clock_ns: int = 0

    def encode(self) -> bytes:
        """The words from ``GPU_LANE`` to before ``GPU_ACCEPTED_NS``."""
        windows = (self.arena_bytes, self.staging, self.shown_bytes, self.shown)
        return struct.pack("<IQQQ4Iq", self.lane, self.base, self.empty, self.arena, *windows, self.clock_ns)


class Window(NamedTuple):
    """A guest pointer of the launch now running: the place in the parameter block, in guest memory, and its bytes."""

    parameter: int
    start: int
    size_bytes: int


@dataclass(slots=True)
class Cost:
    """What a thread of a kernel cost when it ran last, in nanoseconds of one core."""

    thread_ns: float = UNKNOWN_THREAD_NS


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """What the gate must know of a kernel.

    ``parameters`` are triples (bit mask of the argv tags accepted, offset in the parameter block, bytes).
    ``reqntid`` and ``maxntid`` are the PTX directives' axes or None. ``uses_helpers`` is false for one that runs on
    one core however large its launches are; ``cost`` outlives the instances that measure it.
    """

    parameters: Sequence[tuple[int, int, int]]
    reqntid: tuple[int, int, int] | None = None
    maxntid: tuple[int, int, int] | None = None
    uses_helpers: bool = True
    cost: Cost = field(default_factory=Cost, compare=False)

    def encode(self, helpers: int = Helpers.NEVER) -> bytes:
        """The descriptor's bytes. A parameter beyond the block accepts no tag: no argv can give it.

        ``helpers`` is one of :class:`Helpers`.
        """
        threads = BLOCK_THREADS_MAX
        if self.maxntid is not None:
            x, y, z = self.maxntid
            threads = min(threads, x * y * z)
        shape = self.reqntid or (0, 0, 0)
        helpers = helpers if self.uses_helpers else Helpers.NEVER
        head = struct.pack("<6id", len(self.parameters), *shape, threads, helpers, self.cost.thread_ns)
        entries = (
            struct.pack("<4H", mask, offset, size, 0) if offset + max(size, 8) <= PARAMETERS_BYTES else bytes(8)
            for mask, offset, size in self.parameters
        )
        return head + b"".join(entries)
