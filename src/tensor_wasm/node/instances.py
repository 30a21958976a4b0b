"""Live instances: who runs what, since when, and how to end it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tensor_wasm.dispatch import Ledger, Slot
from tensor_wasm.dispatch.layout import State
from tensor_wasm.errors import Ending, NotFound
from tensor_wasm.node.accounts import Account, Accounts
from tensor_wasm.node.statistics import Statistics, Tenant
from tensor_wasm.runtime import Budget, Engine
from tensor_wasm.store import FunctionRecord
from tensor_wasm.tenancy import Tenants

STATES = {
    State.IDLE: "idle",
    State.RUNNING: "running",
    State.IN_KERNEL: "in_kernel",
    State.WAITING: "waiting",
}


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance at one moment. ``state`` is one of ``STATES``; ``launches_per_s`` is over the last second or so."""

    id: str
    tenant: int
    function_id: str
    function_name: str
    export: str
    age_s: float
    deadline_left_s: float | None
    state: str
    launches: int
    launches_per_s: float
    held_permits: int
    memory_bytes: int
    gpu_memory_bytes: int
    is_ending: bool


class LiveInstance:
    """One instance from its admission to its end.

    ``budget`` and ``device_budget`` bound its memory and count it for the tenant; ``key`` is what it is counted under
    in the statistics; ``ending`` and ``used_gate`` are noted by who ran it; ``is_over`` holds once everything it held
    was given back. ``on_order`` is called when its end was ordered, for one that may be idle then.
    """

    __slots__ = (
        "account",
        "budget",
        "deadline_ns",
        "device_budget",
        "ending",
        "export",
        "function",
        "id",
        "is_over",
        "key",
        "sampled_launches",
        "sampled_ns",
        "slot",
        "started_ns",
        "launches_per_s",
        "on_order",
        "used_gate",
    )

    def __init__(self, function: FunctionRecord, export: str, deadline_ns: int | None) -> None:
        self.id = new_id()
        self.function = function
        self.export = export
        self.deadline_ns = deadline_ns
        self.started_ns = time.monotonic_ns()
        self.ending = Ending.TRAPPED
        self.used_gate = False
        self.is_over = False
        self.sampled_ns = self.started_ns
        self.sampled_launches = 0
        self.launches_per_s = 0.0
        self.on_order: Callable[[], None] | None = None

    def enter(self, slot: Slot, account: Account, memory_bytes: int, key: Tenant) -> None:
        """Take its place: ledger slot, account, memory of at most ``memory_bytes``."""
        self.slot = slot
        self.account = account
        self.key = key
        self.budget = Budget(memory_bytes, account.memory)
        self.device_budget = Budget(shared=account.device)

    def sample(self, now_ns: int) -> None:
        """Measure its launches per second since the last sample."""
        launches = self.slot.dispatches
        self.launches_per_s = (launches - self.sampled_launches) * 1e9 / max(now_ns - self.sampled_ns, 1)
        self.sampled_launches, self.sampled_ns = launches, now_ns

    def view(self, now_ns: int) -> InstanceView:
        """What it is at the moment."""
        slot, launches = self.slot, self.slot.dispatches
        rate = self.launches_per_s
        if self.sampled_ns == self.started_ns:  # too young to have been sampled
            rate = launches * 1e9 / max(now_ns - self.started_ns, 1)
        left = None if self.deadline_ns is None else max(self.deadline_ns - now_ns, 0) / 1e9
        return InstanceView(
            id=self.id,
            tenant=self.function.tenant,
            function_id=self.function.id,
            function_name=self.function.name,
            export=self.export,
            age_s=(now_ns - self.started_ns) / 1e9,
            deadline_left_s=left,
            state=STATES.get(slot.state, "running"),
            launches=launches,
            launches_per_s=rate,
            held_permits=slot.held,
            memory_bytes=self.budget.used_bytes,
            gpu_memory_bytes=self.device_budget.used_bytes,
            is_ending=slot.terminate_asked,
        )


class Instances:
    """The live instances of a node. Safe for threads."""

    def __init__(
        self, engine: Engine, ledger: Ledger, accounts: Accounts, tenants: Tenants, statistics: Statistics
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._accounts = accounts
        self._tenants = tenants
        self._statistics = statistics
        self._live: dict[str, LiveInstance] = {}
        # Held while an instance leaves and while one is looked at or ended: its slot of the ledger is the next one's
        # as soon as it has left.
        self._lock = threading.Lock()

    def open(self, function: FunctionRecord, export: str, deadline_ns: int | None, memory_bytes: int) -> LiveInstance:
        """Admit an instance of at most ``memory_bytes``.

        Raises :class:`QuotaExceeded` when the tenant has too many, :class:`~tensor_wasm.errors.CapacityExhausted` when
        the node has.
        """
        tenant = function.tenant
        quotas = self._tenants.quotas(tenant)
        account = self._accounts.open(tenant, quotas)
        live = LiveInstance(function, export, deadline_ns)
        try:
            slot = self._ledger.open(tenant, quotas.cuda)
        except BaseException:
            self._accounts.close(account)
            raise
        live.enter(slot, account, memory_bytes, self._statistics.begin(tenant))
        self._live[live.id] = live
        # Where they change meanwhile, whoever changes them may not have seen this instance.
        while (current := self._tenants.quotas(tenant)) is not quotas:
            quotas = current
            slot.is_capable = current.cuda
            self._accounts.limit(tenant, current)
        return live

    def close(self, live: LiveInstance) -> None:
        """Settle an instance whose store is gone: permits, slot and account are free again."""
        self._statistics.end(live.key, live.ending, live.slot.index)
        with self._lock:
            del self._live[live.id]
            if live.slot.terminate_asked:
                self._engine.carried_out()
            self._ledger.close(live.slot, live.used_gate)
        self._accounts.close(live.account)
        live.is_over = True

    def list(self, tenant: int | None = None) -> list[InstanceView]:
        """Every live instance, of one tenant or of all, oldest first."""
        with self._lock:
            now_ns = time.monotonic_ns()
            found = [live for live in self._all() if tenant is None or live.function.tenant == tenant]
            return [live.view(now_ns) for live in found]

    def terminate(self, identity: str) -> LiveInstance:
        """Order an instance's end; it is to take effect within 100 ms. Raises :class:`NotFound`."""
        with self._lock:
            live = self._live.get(identity)
            if live is None:
                raise NotFound("no live instance has this id: it may have ended")
            self._order_end(live)
        if live.on_order is not None:
            live.on_order()
        return live

    def terminate_all(self) -> int:
        """Order the end of every instance; how many there were."""
        with self._lock:
            ordered = list(self._all())
            for live in ordered:
                self._order_end(live)
        for live in ordered:
            if live.on_order is not None:
                live.on_order()
        return len(ordered)

    def _all(self) -> Iterable[LiveInstance]:
        # A copy, which is one step of the interpreter's: new ones come without the lock.
        return self._live.copy().values()

    def _order_end(self, live: LiveInstance) -> None:
        if not live.slot.terminate_asked:
            live.slot.ask_to_terminate()
            self._engine.order()

    def allow_device(self, tenant: int, is_capable: bool) -> None:
        """Let a tenant's live instances use the device, or no longer."""
        with self._lock:
            for live in self._all():
                if live.function.tenant == tenant:
                    live.slot.is_capable = is_capable

    def sample(self) -> None:
        """Measure every instance's launches per second; to be called about every second."""
        with self._lock:
            now_ns = time.monotonic_ns()
            for live in self._all():
                live.sample(now_ns)


def new_id() -> str:
    """A random UUID (version 4), written without the uuid module's object: 1 µs instead of 3."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
