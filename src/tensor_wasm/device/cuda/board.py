"""The board: memory that a node and its worker share, by which launches go to the GPU and their results come back.

A *lane* belongs to one guest instance, or one Python thread, at a time, and has one request in flight. Whoever has the
lane writes the request into the lane's body and then the number of the request, one more than the last, to
``REQUEST``; the worker gives the work to the lane's stream, and ends that with a write of the number to ``DONE``, which
the GPU does itself: neither process has to look for the end of a kernel. For a request that is *timed* it writes
``ENDED``, and the worker the times that the GPU took and then ``DONE``. Where the work cannot be started, or is lost,
the worker, or the node once the worker has ended, writes ``RESULT`` and then ``DONE``.

All numbers are little-endian. The board is the first ``BYTES`` of a file in memory; what follows is the staging area,
pinned by the worker, from and to which copies go. Offsets in requests count from the start of the staging area.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

#: Lanes that there are.
LANES: Final = 1024
#: From one lane's doorbell to the next: a line of the processor's cache.
DOORBELL_BYTES: Final = 64
#: From one lane's body to the next.
BODY_BYTES: Final = 8192
#: Where the bodies start.
BODIES: Final = LANES * DOORBELL_BYTES
#: The board's size; here the staging area starts.
BYTES: Final = BODIES + LANES * BODY_BYTES

# --- a doorbell ---------------------------------------------------------------------------------------------------

#: u32, by the lane's owner: number of the latest request. Written last.
REQUEST: Final = 0
#: u32: number of the latest request that is over.
DONE: Final = 4
#: i32, a :class:`Result`. Written before ``DONE``; the owner sets it to 0 before it asks.
RESULT: Final = 8
#: u32: PTX line of the trap, or checked access, that a kernel left. The owner sets it to 0 before it asks.
FAULT_LINE: Final = 12
#: u64: CLOCK_MONOTONIC in nanoseconds when the driver had taken all of the request.
ACCEPTED_NS: Final = 16
#: u64 each, of a request that is timed: the GPU's nanoseconds for the kernel; for copies to the device, and setting the
#: fault word there; and for copies back. 0 where there was none, or it is not known. Written before ``DONE``.
KERNEL_NS: Final = 24
COPY_IN_NS: Final = 32
COPY_OUT_NS: Final = 40
#: u32, between the GPU and the worker: number of the latest timed request whose work is over.
ENDED: Final = 48

# --- a body -------------------------------------------------------------------------------------------------------

#: u32: number of the kernel, as the worker gave it.
KERNEL: Final = 0
#: u32 x 3 each.
GRID: Final = 4
BLOCK: Final = 16
#: u32: dynamic shared memory.
SHARED: Final = 28
#: u32: bytes of the parameter block.
PARAMETER_BYTES: Final = 32
#: u32: how many windows.
WINDOW_COUNT: Final = 36
#: u32: not 0 where the owner wants to know how long the GPU takes.
TIMED: Final = 40
#: The parameter block, laid out as the kernel reads it; pointers in it are addresses on the device.
PARAMETERS: Final = 64
PARAMETERS_MAX: Final = 4096
#: Windows: what is copied to the device before the kernel runs, and back after it.
WINDOWS: Final = PARAMETERS + PARAMETERS_MAX
WINDOWS_MAX: Final = 128
WINDOW_BYTES: Final = 24
#: u64: address on the device.
WINDOW_ADDRESS: Final = 0
#: u32: where in the staging area.
WINDOW_STAGING: Final = 8
#: u32: bytes.
WINDOW_SIZE: Final = 12
#: u32, bits of :class:`Direction`.
WINDOW_DIRECTION: Final = 16

assert WINDOWS + WINDOWS_MAX * WINDOW_BYTES <= BODY_BYTES


class Direction:
    """Which way a window is copied, bits."""

    IN = 1
    OUT = 2


class Result(IntEnum):
    """What became of a request."""

    OK = 0
    #: The request names what the lane's tenant does not have.
    REFUSED = 1
    #: The driver does not launch this: too many threads for the kernel's registers, too much shared memory.
    NOT_LAUNCHABLE = 2
    #: The worker is gone, and with it all that was on the device.
    LOST = 3
