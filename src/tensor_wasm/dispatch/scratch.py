"""The layout of scratch memory: words of the gate's, kernel descriptors, and each kernel's region.

One a guest instance, in its store; neither the guest nor another tenant can reach it. Kernels can: one that our
compiler got wrong could damage this memory, and with it launches of its own instance. Nothing that leads out of the
instance is kept here: which slot of the ledger is the instance's stands in a global of the gate's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tensor_wasm.abi.limits import BLOCK_THREADS_MAX, KERNELS_MAX

KERNEL_COUNT = 20  # i32
LAST_CODE = 24  # i32: code of the latest refused launch, 0 after a success or a call of the host's
BLOCK = 32  # i32 x 3: block shape of the launch now running
DESCRIPTORS = 64  # i32 each: address of a kernel's descriptor
PARAMETERS = 2048  # the parameter block of the launch now running
PARAMETERS_BYTES = 4096
HEAP = PARAMETERS + PARAMETERS_BYTES  # descriptors and kernels' regions from here on

assert DESCRIPTORS + 4 * KERNELS_MAX <= PARAMETERS

# A descriptor: five i32, then for each parameter u16 tags accepted (bit t: tag t) and u16 offset in the block.
DESCRIPTOR_COUNT = 0
DESCRIPTOR_REQUIRED = 4  # three axes; 0 when the kernel requires no shape
DESCRIPTOR_MAX_THREADS = 16
DESCRIPTOR_PARAMETERS = 20


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """What the gate must know of a kernel.

    ``parameters`` are pairs (bit mask of the argv tags accepted, offset in the parameter block). ``reqntid`` and
    ``maxntid`` are the PTX directives' axes or None.
    """

    parameters: Sequence[tuple[int, int]]
    reqntid: tuple[int, int, int] | None = None
    maxntid: tuple[int, int, int] | None = None

    def encode(self) -> bytes:
        """The descriptor's bytes. A parameter beyond the block accepts no tag: no argv can give it."""
        threads = BLOCK_THREADS_MAX
        if self.maxntid is not None:
            x, y, z = self.maxntid
            threads = min(threads, x * y * z)
        head = struct.pack("<5i", len(self.parameters), *(self.reqntid or (0, 0, 0)), threads)
        entries = (
            struct.pack("<HH", mask, offset) if offset + 8 <= PARAMETERS_BYTES else b"\0\0\0\0"
            for mask, offset in self.parameters
        )
        return head + b"".join(entries)
