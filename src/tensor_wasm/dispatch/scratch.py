"""The layout of scratch memory: words of the gate's, kernel descriptors, and each kernel's region.

One a guest instance, in its store; neither the guest nor another tenant can reach it. Kernels can: one that our
compiler got wrong could damage this memory, and with it launches of its own instance. Nothing that leads out of the
instance is kept here: which slot of the ledger is the instance's stands in a global of the gate's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tensor_wasm.abi.limits import BLOCK_THREADS_MAX, KERNELS_MAX

KERNEL_COUNT = 20  # i32
LAST_CODE = 24  # i32: code of the latest refused launch, 0 after a success or a call of the host's
BLOCK = 32  # i32 x 3: block shape of the launch now running
COUNTER = 48  # i64: blocks that were taken of a launch on several cores
DESCRIPTORS = 64  # i32 each: address of a kernel's descriptor
PARAMETERS = 2048  # the parameter block of the launch now running
PARAMETERS_BYTES = 4096
HEAP = PARAMETERS + PARAMETERS_BYTES  # descriptors and kernels' regions from here on

assert DESCRIPTORS + 4 * KERNELS_MAX <= PARAMETERS

#: A launch that takes one core this long is worth waking helpers, which costs some 20 µs.
WORTH_NS = 250_000
#: What a thread of a kernel that never ran is taken to cost: some 12,000 threads are worth it then.
UNKNOWN_THREAD_NS = 20.0

# A descriptor: six i32 and an f64, then for each parameter u16 tags accepted (bit t: tag t) and u16 offset in the
# block.
DESCRIPTOR_COUNT = 0
DESCRIPTOR_REQUIRED = 4  # three axes; 0 when the kernel requires no shape
DESCRIPTOR_MAX_THREADS = 16
DESCRIPTOR_CREW = 20  # see Helpers
DESCRIPTOR_THREAD_NS = 24  # f64: what a thread of the latest launch cost, in time of one core
DESCRIPTOR_PARAMETERS = 32


class Helpers:
    """What ``DESCRIPTOR_CREW`` says. Below 0: how many large launches to go until the host is asked again."""

    ASK = 0
    KNOW = 1
    NEVER = 2
    AGAIN = -100


@dataclass(slots=True)
class Cost:
    """What a thread of a kernel cost when it ran last, in nanoseconds of one core."""

    thread_ns: float = UNKNOWN_THREAD_NS


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """What the gate must know of a kernel.

    ``parameters`` are pairs (bit mask of the argv tags accepted, offset in the parameter block). ``reqntid`` and
    ``maxntid`` are the PTX directives' axes or None. ``uses_helpers`` is false for one that runs on one
    core however large its launches are; ``cost`` outlives the instances that measure it.
    """

    parameters: Sequence[tuple[int, int]]
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
            struct.pack("<HH", mask, offset) if offset + 8 <= PARAMETERS_BYTES else b"\0\0\0\0"
            for mask, offset in self.parameters
        )
        return head + b"".join(entries)
