"""The ledger: one shared memory per node that every gate writes and Python reads."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.clerk import clerk_module
from tensor_wasm.dispatch.layout import BUCKETS, COUNTERS, LATENCY_BUCKETS_S, State
from tensor_wasm.dispatch.rings import FilledRing, Rings
from tensor_wasm.errors import CapacityExhausted
from tensor_wasm.runtime import Budget, Engine, SharedMemory, Store

_WORD = 8
_FOREVER_NS = (1 << 63) - 1
_COUNTER_WORDS = COUNTERS.size // _WORD


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts`` per bucket (not cumulative, the last above every bound of ``LATENCY_BUCKETS_S``); sum in ns."""

    counts: tuple[int, ...]
    sum_ns: int


@dataclass(frozen=True, slots=True)
class TenantCounters:
    """What one tenant did since the node started. ``tenant`` is None for all that share the last slot."""

    tenant: int | None
    held: int
    waiting: int
    dispatches: int
    rejected_saturated: int
    rejected_deadline: int
    rejected_quota: int
    faults: int
    latency: Histogram
    execution: Histogram
    permit_wait: Histogram


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The ledger at one moment."""

    permits: int
    used: int
    tenants: tuple[TenantCounters, ...]


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """The ledger at one moment as a table, which is quicker read: a row of ``counts`` for each of ``tenants``.

    A row has the words of ``layout.COUNTERS``. ``held`` and ``waiting`` are launches by tenant.
    """

    permits: int
    used: int
    tenants: tuple[int | None, ...]
    held: tuple[int, ...]
    waiting: tuple[int, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """A tenant's part of the permits: ``weight`` (1 to ``WEIGHT_MAX``) against those of others who wait; at most
    ``cap`` at once (None: all).
    """

    weight: int = 1
    cap: int | None = None


def _even(_tenant: int) -> Share:
    return Share()


class Slot:
    """An instance's place in the ledger, from its start to its settlement."""

    __slots__ = ("_words", "index", "offset", "tenant_index")

    def __init__(self, index: int, tenant_index: int, words: memoryview) -> None:
        self.index = index
        self.offset = layout.instance_offset(index)
        self.tenant_index = tenant_index
        self._words = words

    def _int(self, field: int) -> int:
        value: int = self._words[(self.offset + field) >> 2]
        return value

    @property
    def state(self) -> int:
        """One of :class:`layout.State`."""
        return self._int(layout.STATE)

    @state.setter
    def state(self, value: int) -> None:
        self._words[(self.offset + layout.STATE) >> 2] = value

    @property
    def held(self) -> int:
        """Permits the instance holds."""
        return self._int(layout.HELD)

    @property
    def kernel(self) -> int:
        """The kernel it launched last."""
        return self._int(layout.KERNEL)

    @property
    def dispatches(self) -> int:
        """Launches completed."""
        return self._int(layout.INSTANCE_COUNTERS + COUNTERS.dispatches)

    @property
    def is_capable(self) -> bool:
        """Whether the instance may use the device."""
        return bool(self._int(layout.CAPABILITY))

    @is_capable.setter
    def is_capable(self, value: bool) -> None:
        self._words[(self.offset + layout.CAPABILITY) >> 2] = value

    @property
    def terminate_asked(self) -> bool:
        """Whether somebody asked for the instance's end."""
        return bool(self._int(layout.FLAGS) & layout.FLAG_TERMINATE)

    def ask_to_terminate(self) -> None:
        """Ask the instance to end: guest, kernel and waiting launch all look at this."""
        self._words[(self.offset + layout.FLAGS) >> 2] = layout.FLAG_TERMINATE


class Ledger:
    """Permits, tenants and live instances of a node.

    ``permits`` bounds the launches in flight; ``max_wait_ms`` (None: no bound) how long one may wait for a permit;
    ``share_of`` is asked for a tenant's share when it comes first. Slots are taken and settled by worker threads;
    :meth:`read` may be called from any thread at any time.
    """

    def __init__(
        self,
        engine: Engine,
        permits: int,
        max_wait_ms: int | None = None,
        share_of: Callable[[int], Share] = _even,
    ) -> None:
        self.memory = SharedMemory(engine, layout.PAGES)
        array = (ctypes.c_ubyte * self.memory.size_bytes).from_address(self.memory.address)
        self._words = memoryview(array).cast("B").cast("i")
        self._longs = memoryview(array).cast("B").cast("q")
        self._view: NDArray[np.int64] = np.frombuffer(memoryview(array).cast("B"), dtype=np.int64)
        self._rings = Rings(memoryview(array).cast("B"), self._longs)
        self._free = deque(range(layout.INSTANCE_SLOTS))
        self._live: dict[int, Slot] = {}
        self._tenants: dict[int, int] = {}
        # Held while counters move from an instance to its tenant, and while all are read: nothing counts twice.
        self._lock = threading.Lock()
        self._words[layout.CAPACITY >> 2] = permits
        self._words[layout.AVAILABLE >> 2] = permits
        wait_ns = _FOREVER_NS if max_wait_ms is None else max_wait_ms * 1_000_000
        self._longs[layout.MAX_WAIT_NS >> 3] = wait_ns
        self._share_of = share_of
        self._draw_tournament()
        self._store = Store(engine, Budget(0))
        clerk = self._store.instantiate(clerk_module(engine), [self.memory.extern])
        self._settle, self._share = clerk.function("settle"), clerk.function("share")

    @property
    def tenants(self) -> list[int]:
        """Tenants that have a slot of their own."""
        with self._lock:
            return list(self._tenants)

    @property
    def live(self) -> tuple[Slot, ...]:
        """Slots in use now."""
        return tuple(self._live.values())

    @property
    def used(self) -> int:
        """Permits that are taken now."""
        return max(self._words[layout.CAPACITY >> 2] - self._words[layout.AVAILABLE >> 2], 0)

    def tenant_index(self, tenant: int) -> int:
        """The slot of a tenant, taken at its first use; past the last one all share ``layout.OTHER_TENANT``."""
        index = self._tenants.get(tenant)
        if index is None:
            with self._lock:
                index = self._tenants.setdefault(tenant, min(len(self._tenants), layout.OTHER_TENANT))
                if index == layout.OTHER_TENANT:
                    # Not remembered: a flood of tenant numbers must not grow the table.
                    del self._tenants[tenant]
                else:
                    offset = layout.tenant_offset(index)
                    self._view[(offset + layout.TENANT_ID) >> 3] = np.uint64(tenant).astype(np.int64)
                    self._set_share(index, self._share_of(tenant))
        return index

    def set_share(self, tenant: int, share: Share) -> None:
        """Change a tenant's share of the permits, from now on. Tenants without a slot of their own share evenly."""
        with self._lock:
            index = self._tenants.get(tenant)
            if index is not None:
                self._set_share(index, share)

    def _set_share(self, index: int, share: Share) -> None:
        cap = layout.CAP_NONE if share.cap is None else min(share.cap, layout.CAP_NONE)
        weight = min(max(share.weight, 1), layout.WEIGHT_MAX)  # the arbiter divides by it
        self._store.call_short(self._share, layout.tenant_offset(index), weight, max(cap, 1))

    def _draw_tournament(self) -> None:
        """Nobody takes part yet; each tenant slot knows its leaf, and `other` its share."""
        nodes = (layout.TOURNAMENT + layout.NODE_BYTES * np.arange(layout.NODES)) >> 3
        self._view[nodes + (layout.NODE_SHARE >> 3)] = layout.NOT_WAITING
        for row in range(layout.TENANT_SLOTS):
            base = layout.tenant_offset(row) >> 2
            self._words[base + (layout.TENANT_LEAF >> 2)] = layout.TENANT_SLOTS + row
            self._words[base + (layout.TENANT_WEIGHT >> 2)] = 1
            self._words[base + (layout.TENANT_CAP >> 2)] = layout.CAP_NONE

    def open(self, tenant: int, capable: bool) -> Slot:
        """Take a slot for a new instance. Raises :class:`CapacityExhausted` when all are in use."""
        tenant_index = self.tenant_index(tenant)
        try:
            index = self._free.popleft()
        except IndexError:
            raise CapacityExhausted(f"the node already runs {layout.INSTANCE_SLOTS} instances") from None
        slot = Slot(index, tenant_index, self._words)
        words, base = self._words, slot.offset >> 2
        words[base + (layout.FLAGS >> 2)] = 0
        words[base + (layout.TENANT_SLOT >> 2)] = layout.tenant_offset(tenant_index)
        words[base + (layout.CAPABILITY >> 2)] = capable
        words[base + (layout.STATE >> 2)] = State.RUNNING
        self._longs[(slot.offset + layout.DEADLINE_NS) >> 3] = _FOREVER_NS
        self._live[index] = slot
        return slot

    def set_deadline(self, slot: Slot, left_ns: int) -> None:
        """Say that ``left_ns`` from the time in the slot's clock field the invocation is over."""
        now = self._longs[(slot.offset + layout.CLOCK) >> 3]
        self._longs[(slot.offset + layout.DEADLINE_NS) >> 3] = min(now + max(left_ns, 0), _FOREVER_NS)

    def clear_deadline(self, slot: Slot) -> None:
        """Say that the invocation has no end."""
        self._longs[(slot.offset + layout.DEADLINE_NS) >> 3] = _FOREVER_NS

    def count_fault(self, slot: Slot) -> None:
        """Count a kernel fault of an instance that has ended: nobody else writes its slot then."""
        self._longs[(slot.offset + layout.INSTANCE_COUNTERS + COUNTERS.faults) >> 3] += 1

    def count_quota(self, slot: Slot) -> None:
        """Count a refusal for quota; called by the instance's own thread while the guest waits for the answer."""
        self._longs[(slot.offset + layout.INSTANCE_COUNTERS + COUNTERS.rejected_quota) >> 3] += 1

    # --- traces: all of these are called by the instance's own thread --------------------------------------

    def begin_trace(self, slot: Slot) -> bool:
        """Lend a ring to an instance that has none; False when there is none left."""
        ring = self._rings.take()
        if ring is None:
            return False
        self._longs[(slot.offset + layout.WAITED_NS) >> 3] = 0
        self._words[(slot.offset + layout.RING) >> 2] = ring
        return True

    def clock_ns(self, slot: Slot) -> int:
        """What the gate's clock said when it was read last."""
        return self._longs[(slot.offset + layout.CLOCK) >> 3]

    def note_sync(self, slot: Slot, code: int, entered_ns: int, ended_ns: int) -> None:
        """Note a sync of an instance that has a ring; the times are of :func:`time.monotonic_ns`'s clock."""
        self._rings.note_sync(self._words[(slot.offset + layout.RING) >> 2], code, entered_ns, ended_ns)

    def end_trace(self, slot: Slot) -> FilledRing:
        """Take the ring from an instance that has one."""
        ring = self._words[(slot.offset + layout.RING) >> 2]
        self._words[(slot.offset + layout.RING) >> 2] = 0
        return FilledRing(self._rings, ring)

    def close(self, slot: Slot, used: bool) -> None:
        """Give a slot back, however its instance ended: permits return, counters go to the tenant.

        ``used`` is false when the instance had no gate and so nothing to settle.
        """
        if used:
            with self._lock:
                self._store.call_short(self._settle, slot.offset)
        slot.state = State.FREE
        del self._live[slot.index]
        self._free.append(slot.index)

    def read(self) -> LedgerView:
        """All counters at this moment; those of live instances are in their tenants'."""
        table = self.table()
        rows = zip(table.tenants, table.held, table.waiting, table.counts.tolist(), strict=True)
        return LedgerView(table.permits, table.used, tuple(_tenant(*row) for row in rows))

    def table(self) -> LedgerTable:
        """What :meth:`read` gives, as a table."""
        with self._lock:
            count = len(self._tenants)
            rows = [*range(count), layout.OTHER_TENANT]
            starts = [(layout.tenant_offset(index) + layout.TENANT_COUNTERS) // _WORD for index in rows]
            counters = self._view[np.add.outer(starts, np.arange(_COUNTER_WORDS))]  # a copy
            fields = [self._tenant_fields(index) for index in rows]
            position = {index: row for row, index in enumerate(rows)}
            for slot in self.live:
                counters[position[slot.tenant_index]] += self._counters(slot.offset + layout.INSTANCE_COUNTERS)
            names: list[int | None] = [*self._tenants, None]
            permits = self._words[layout.CAPACITY >> 2]
            used = permits - self._words[layout.AVAILABLE >> 2]
        if not counters[-1].any() and not any(fields[-1]):
            names.pop()
        held, waiting = zip(*fields[: len(names)], strict=True) if names else ((), ())
        return LedgerTable(permits, max(used, 0), tuple(names), held, waiting, counters[: len(names)])

    def _counters(self, offset: int) -> NDArray[np.int64]:
        start = offset // _WORD
        return self._view[start : start + _COUNTER_WORDS].copy()

    def _tenant_fields(self, index: int) -> tuple[int, int]:
        base = layout.tenant_offset(index)
        return self._words[(base + layout.TENANT_HELD) >> 2], self._words[(base + layout.TENANT_WAITING) >> 2]


def _tenant(name: int | None, held: int, waiting: int, counts: list[int]) -> TenantCounters:
    def at(offset: int) -> int:
        return counts[offset // _WORD]

    def histogram(offset: int) -> Histogram:
        start = offset // _WORD
        return Histogram(tuple(counts[start : start + BUCKETS]), counts[start + BUCKETS])

    return TenantCounters(
        tenant=name,
        held=held,
        waiting=waiting,
        dispatches=at(COUNTERS.dispatches),
        rejected_saturated=at(COUNTERS.rejected_saturated),
        rejected_deadline=at(COUNTERS.rejected_deadline),
        rejected_quota=at(COUNTERS.rejected_quota),
        faults=at(COUNTERS.faults),
        latency=histogram(COUNTERS.latency),
        execution=histogram(COUNTERS.execution),
        permit_wait=histogram(COUNTERS.permit_wait),
    )


__all__ = ["LATENCY_BUCKETS_S", "Histogram", "Ledger", "LedgerTable", "LedgerView", "Share", "Slot", "TenantCounters"]
