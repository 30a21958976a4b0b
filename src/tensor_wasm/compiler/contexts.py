"""What threads that wait for each other leave in the kernel's region: their state, registers and mailboxes.

Behind the variables and shared memory, one after another for the threads of the block that runs:

- *states*, an i32 each: the number of the region where the thread goes on; ``EXITED``; or ``WAITING - s``, while it
  waits at suspension s;
- *saves*: for each register that lives across a suspension an array with a place for each thread; predicates are all
  ones or 0;
- *mailboxes* (see :mod:`.warp.mailbox`), where operands and results of suspensions are;
- *arrivals*: for each of the 16 barriers, how many threads passed it by ``bar.arrive``; *counts*, what they said the
  barrier is for; and *totals* of one barrier;
- the *table*: for each suspension what the scheduler must know of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensor_wasm.abi.limits import BLOCK_THREADS_MAX
from tensor_wasm.compiler.carriers import carrier, carrier_bits
from tensor_wasm.compiler.region import aligned
from tensor_wasm.compiler.synchronisation import Region as CodeRegion
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES
from tensor_wasm.ptx.program import Kernel, Register
from tensor_wasm.wasm import Local

#: States of threads that are not ready.
EXITED = -1
WAITING = -2

BARRIERS = 16
STATE_BYTES = 4

# A row of the table: i32 each.
ROW_RESOLVER = 0  # number of the warp operation's resolver; a barrier's kind is below 0
ROW_LINE = 4
ROW_WAITS = 8  # whether a warp operation waits for all lanes of its mask
ROW_BARRIER = 12  # the number of a barrier whose threads leave no operands, else -1
ROW_BYTES = 16


@dataclass(frozen=True, slots=True)
class Contexts:
    """Offsets from the region's start; ``slots`` are those of registers' arrays, ``origins`` those of what linear ones
    were widened from.

    Behind every array there is room for the threads of a strip: vectors at its end may read there, and write back what
    they read.
    """

    threads: int
    states: int
    mailboxes: int
    arrivals: int
    counts: int
    totals: int
    table: int
    size_bytes: int
    slots: Mapping[Register, int]
    origins: Mapping[Register, int]


@dataclass(frozen=True, slots=True)
class Row:
    """What the scheduler knows of a suspension; ``barrier`` is the number of a plain barrier, else -1."""

    resolver: int
    line: int
    waits: bool
    barrier: int = -1

    def encode(self) -> bytes:
        """The row's bytes."""
        return struct.pack("<iiii", self.resolver, self.line, self.waits, self.barrier)


def block_threads(kernel: Kernel) -> int:
    """The most threads that a block of the kernel can have."""
    for shape in (kernel.reqntid, kernel.maxntid):
        if shape is not None:
            x, y, z = shape
            return max(1, min(x * y * z, BLOCK_THREADS_MAX))
    return BLOCK_THREADS_MAX


def lay_out_contexts(start: int, threads: int, regions: Sequence[CodeRegion], width: int) -> Contexts:
    """Place the contexts of ``threads`` threads, that run in strips of ``width``, from offset ``start`` on."""
    suspensions = [region.arrival for region in regions if region.arrival is not None]
    registers = dict.fromkeys(register for suspension in suspensions for register in suspension.saved)
    states = aligned(start, 16)
    rows = aligned(threads + width, 4)
    place = states + rows * STATE_BYTES
    slots: dict[Register, int] = {}
    for register in registers:
        slots[register] = place
        place += rows * carrier_bits(carrier(register.type)) // 8
    origins = {}
    for register in registers:
        if carrier_bits(carrier(register.type)) == 64:
            origins[register] = place
            place += rows * 4
    mailboxes = aligned(place, 16)
    # Resolvers work on whole warps.
    arrivals = mailboxes + (aligned(threads, 32) + width) * MAILBOX_BYTES
    counts = arrivals + 4 * BARRIERS
    totals = counts + 4 * BARRIERS
    table = totals + 16
    size_bytes = aligned(table + ROW_BYTES * len(suspensions), 16)
    return Contexts(
        threads=threads,
        states=states,
        mailboxes=mailboxes,
        arrivals=arrivals,
        counts=counts,
        totals=totals,
        table=table,
        size_bytes=size_bytes,
        slots=slots,
        origins=origins,
    )


class LaneContext:
    """Where one thread's mailbox is."""

    def __init__(self, contexts: Contexts, mailbox: Local) -> None:
        self.contexts = contexts
        self.mailbox = mailbox
