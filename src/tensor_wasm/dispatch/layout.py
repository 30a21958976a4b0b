"""The ledger's layout: offsets in one shared memory, for the gate that writes it and the Python that reads it.

::

    header       permits and who waits, each hot word on a cache line of its own
    tenants      TENANT_SLOTS slots; the last is `other`, shared by tenants that found no slot
    tournament   a binary tree over the tenants: its root names the one whose turn is next, see arbiter
    instances    INSTANCE_SLOTS slots; a live instance counts in its own slot, so two cores never share a line;
                 when it ends its counters are added to its tenant's slot
    boards       where guests and the helpers of their launches meet
    rings        what traced instances launched and when, see trace

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
QUIET = 4  # i32: always 0, never woken; who waits for what is no word of the ledger's sleeps on it
MAX_WAIT_NS = 8  # i64: longest a launch may wait for a permit
AVAILABLE = 64  # i32: free permits
LOCK = 128  # i32: the arbiter's: 0 free, 1 held, 2 held and others wait for it
VIRTUAL_TIME = 136  # i64: the turn of the tenant served last
CONTENDED = 192  # i32: 1 while a tenant waits that may have a permit
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
TENANT_CAP = 20  # i32: permits it may hold
TENANT_HEAD = 24  # i32: offset of the instance that waits longest, 0 when none does
TENANT_TAIL = 28  # i32: offset of the one that came last
TENANT_TURN = 32  # i64: virtual time of its next turn
TENANT_LEAF = 40  # i32: its node of the tournament, by number
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
NEXT = 40  # i32: offset of the instance of the tenant that waits next, 0 for none
PREVIOUS = 44  # i32: of the one before
QUEUED = 48  # i32: 1 while it stands in its tenant's queue
WAKE = 52  # i32: 1 once it was granted a permit; it sleeps on this word
INSTANCE_COUNTERS = 64
RING = INSTANCE_COUNTERS + COUNTERS.size  # i32: offset of its trace ring while it has one
WAITED_NS = RING + 8  # i64: how long its latest launch that found no permit waited; a traced launch takes it away
INSTANCE_BYTES = 640
INSTANCES = TENANTS + TENANT_SLOTS * TENANT_BYTES

# --- the tournament: node 1 is the root, the children of n are 2n and 2n + 1, tenant i is leaf TENANT_SLOTS + i ---
NODE_SHARE = 0  # i64: permits held for each unit of weight, NOT_WAITING for who does not take part
NODE_TURN = 8  # i64: virtual time of the tenant's next turn: decides between equal shares
NODE_TENANT = 16  # i32: offset of the tenant's slot
NODE_BYTES = 32
NODES = 2 * TENANT_SLOTS
TOURNAMENT = INSTANCES + INSTANCE_SLOTS * INSTANCE_BYTES
#: Levels from the deepest leaf to the root.
TOURNAMENT_LEVELS = (NODES - 1).bit_length() - 1
NOT_WAITING = (1 << 63) - 1
#: Shares and turns are in fractions of this many.
SHARE_SCALE = 1 << 20
#: Weights go to this, so a turn is never nothing.
WEIGHT_MAX = 1000
CAP_NONE = (1 << 31) - 1

# --- boards of crews, see crew_module ----------------------------------------------------------------------
# At a multiple of their size: the gate is told a board and how many helpers it has in one number.
BOARDS = -(-(TOURNAMENT + NODES * NODE_BYTES) // BOARD_BYTES) * BOARD_BYTES
BOARD_SLOTS = 256

# --- trace rings: the first events of a traced call, and the last ones after them, over and over ----------------
RING_EVENTS = 0  # i64: launches and syncs so far; event n is at n, or behind the first ones at n modulo RING_LAST
RING_SYNCS = 8  # i64: how many of them were syncs
RING_HEADER_BYTES = 64
RING_FIRST = 256
RING_LAST = 256
EVENT_KERNEL = 0  # i64: the kernel's id
EVENT_GRID = 8  # i32 x 3
EVENT_BLOCK = 20  # i32 x 3
EVENT_SHARED = 32  # i32: dynamic shared bytes
EVENT_CODE = 36  # i32: what it came to, see EVENT_OPEN
EVENT_ENTERED = 40  # i64: when the guest called
EVENT_WAITED = 48  # i64: nanoseconds that it waited for a permit
EVENT_STARTED = 56  # i64: when its kernel began, 0 if it did not
EVENT_ENDED = 64  # i64: when the call was over, 0 if it never was
EVENT_KIND = 72  # i32, see KIND_LAUNCH
EVENT_KERNEL_NS = 80  # i64: how long the GPU took for the kernel, 0 where there is none or it is not known
EVENT_COPY_IN_NS = 88  # i64: for the copies to it
EVENT_COPY_OUT_NS = 96  # i64: and back
EVENT_BYTES = 104
RING_BYTES = RING_HEADER_BYTES + (RING_FIRST + RING_LAST) * EVENT_BYTES
RING_SLOTS = 256
RINGS = BOARDS + BOARD_SLOTS * BOARD_BYTES

#: ``EVENT_CODE`` of a launch that has not come back; codes of the ABI are not above 0.
EVENT_OPEN = 1
KIND_LAUNCH = 0
KIND_SYNC = 1

PAGES = -(-(RINGS + RING_SLOTS * RING_BYTES) // 65_536)

FLAG_TERMINATE = 1


class State:
    """What an instance is doing; the values of ``STATE``."""

    FREE = 0
    IDLE = 1
    RUNNING = 2
    IN_KERNEL = 3
    WAITING = 4


assert TOURNAMENT % 8 == TENANTS % 8 == INSTANCES % 8 == 0
assert BOARD_SLOTS >= KERNEL_THREADS_MAX - 1 < BOARD_BYTES
assert TENANT_COUNTERS + COUNTERS.size <= TENANT_BYTES
assert WAITED_NS + 8 <= INSTANCE_BYTES
assert RINGS % 8 == RING_BYTES % 8 == WAITED_NS % 8 == 0
assert RING_LAST & (RING_LAST - 1) == 0 == RING_FIRST % RING_LAST


def tenant_offset(index: int) -> int:
    """Byte offset of a tenant slot."""
    return TENANTS + index * TENANT_BYTES


def instance_offset(index: int) -> int:
    """Byte offset of an instance slot."""
    return INSTANCES + index * INSTANCE_BYTES


def ring_offset(index: int) -> int:
    """Byte offset of a trace ring."""
    return RINGS + index * RING_BYTES
