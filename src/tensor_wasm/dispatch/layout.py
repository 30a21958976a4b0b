"""The ledger's layout: offsets in one shared memory, for the gate that writes it and the Python that reads it.

::

    header       permits and waiters, each hot word on a cache line of its own
    tenants      TENANT_SLOTS slots; the last is `other`, shared by tenants that found no slot
    instances    INSTANCE_SLOTS slots; a live instance counts in its own slot, so two cores never share a line;
                 when it ends its counters are added to its tenant's slot
    boards       where guests and the helpers of their launches meet

Counters only grow. All fields are little endian; times are nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.config import KERNEL_THREADS_MAX
from tensor_wasm.dispatch.crew_module import BOARD_BYTES

#: Upper bounds of the three histograms, in seconds; one more bucket counts what is above the last.
LATENCY_BUCKETS_S: tuple[float, ...] = (
    5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0,
)  # fmt: skip
LATENCY_BUCKETS_NS: tuple[int, ...] = tuple(round(bound * 1e9) for bound in LATENCY_BUCKETS_S)
BUCKETS = len(LATENCY_BUCKETS_S) + 1

TENANT_SLOTS = 1025
OTHER_TENANT = TENANT_SLOTS - 1
INSTANCE_SLOTS = 4096

# --- header ------------------------------------------------------------------------------------------------
CAPACITY = 0  # i32: permits in all
MAX_WAIT_NS = 8  # i64: longest a launch may wait for a permit
AVAILABLE = 64  # i32: free permits; launches wait on this word
WAITERS = 128  # i32: launches waiting now
HEADER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Counters:
    """Offsets from the start of a block of counters (i64 each), the same in tenant and instance slots."""

    rejected_saturated: int = 0
    rejected_deadline: int = 8
    rejected_quota: int = 16
    faults: int = 24
    dispatches: int = 32
    latency: int = 40
    execution: int = 40 + 8 * (BUCKETS + 1)
    permit_wait: int = 40 + 16 * (BUCKETS + 1)
    size: int = 40 + 24 * (BUCKETS + 1)


COUNTERS = _Counters()
#: Within a histogram: the buckets, then the sum in nanoseconds.
HISTOGRAM_SUM = 8 * BUCKETS

# --- tenant slots ------------------------------------------------------------------------------------------
TENANT_ID = 0  # u64
TENANT_WEIGHT = 8  # i32: share of the permits when tenants compete
TENANT_HELD = 12  # i32: permits held now
TENANT_WAITING = 16  # i32: launches waiting now
TENANT_COUNTERS = 64
TENANT_BYTES = 640
TENANTS = HEADER_BYTES

# --- instance slots ----------------------------------------------------------------------------------------
STATE = 0  # i32, see State
FLAGS = 4  # i32, see FLAG_TERMINATE
DEADLINE_NS = 8  # i64: end of the invocation by the gate's clock
TENANT_SLOT = 16  # i32: offset of the tenant's slot
HELD = 20  # i32: permits held
CAPABILITY = 24  # i32: 1 when the tenant may use the device
KERNEL = 28  # i32: last kernel launched
CLOCK = 32  # i64: where the gate's clock writes
INSTANCE_COUNTERS = 64
INSTANCE_BYTES = 640
INSTANCES = TENANTS + TENANT_SLOTS * TENANT_BYTES

# --- boards of crews, see crew_module ----------------------------------------------------------------------
# At a multiple of their size: the gate is told a board and how many helpers it has in one number.
BOARDS = -(-(INSTANCES + INSTANCE_SLOTS * INSTANCE_BYTES) // BOARD_BYTES) * BOARD_BYTES
BOARD_SLOTS = 256

PAGES = -(-(BOARDS + BOARD_SLOTS * BOARD_BYTES) // 65_536)

FLAG_TERMINATE = 1


class State:
    """What an instance is doing; the values of ``STATE``."""

    FREE = 0
    IDLE = 1
    RUNNING = 2
    IN_KERNEL = 3
    WAITING = 4


assert BOARD_SLOTS >= KERNEL_THREADS_MAX - 1 < BOARD_BYTES
assert TENANT_COUNTERS + COUNTERS.size <= TENANT_BYTES
assert INSTANCE_COUNTERS + COUNTERS.size <= INSTANCE_BYTES


def tenant_offset(index: int) -> int:
    """Byte offset of a tenant slot."""
    return TENANTS + index * TENANT_BYTES


def instance_offset(index: int) -> int:
    """Byte offset of an instance slot."""
    return INSTANCES + index * INSTANCE_BYTES
