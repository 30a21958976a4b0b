"""What an operator sees and does: tenants with their quotas and what they hold, instances, and their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tensor_wasm.dispatch import Ledger, Share
from tensor_wasm.node.accounts import Accounts
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.instances import Instances, InstanceView
from tensor_wasm.node.intake import Intake
from tensor_wasm.node.storage import Storage
from tensor_wasm.tenancy import Quotas, Tenants

#: How long the answer to a termination waits for the instance's end. 100 ms are the rule.
_END_S = 1.0
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant holds at one moment, of everything that has a quota, and what of it waits."""

    instances: int
    queued: int
    permits_held: int
    launches_waiting: int
    guest_memory_bytes: int
    gpu_memory_bytes: int
    functions: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant: its quotas, which of them are its own (``overrides``), what it holds. ``tenant`` None: the defaults."""

    tenant: int | None
    quotas: Quotas
    overrides: tuple[str, ...]
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Termination:
    """An instance that was ordered to end: whether it has, and how long that took."""

    id: str
    tenant: int
    function_id: str
    ended: bool
    took_s: float


def share_of(quotas: Quotas) -> Share:
    """A tenant's share of the device's permits."""
    return Share(quotas.weight, quotas.permits)


class Administration:
    """The operator's side of a node."""

    def __init__(
        self,
        tenants: Tenants,
        instances: Instances,
        accounts: Accounts,
        ledger: Ledger,
        functions: Functions,
        intake: Intake,
        storage: Storage,
    ) -> None:
        self._tenants = tenants
        self._instances = instances
        self._accounts = accounts
        self._ledger = ledger
        self._functions = functions
        self._intake = intake
        self._storage = storage
        tenants.listen(self._apply)

    # --- instances --------------------------------------------------------------------------------------

    def instances(self, tenant: int | None = None) -> list[InstanceView]:
        """Every live instance, of one tenant or of all, oldest first."""
        return self._instances.list(tenant)

    async def terminate(self, identity: str) -> Termination:
        """End an instance wherever it is, and wait for that. Raises :class:`~tensor_wasm.errors.NotFound`."""
        started_s = time.monotonic()
        live = self._instances.terminate(identity)
        while not live.is_over and time.monotonic() - started_s < _END_S:
            await asyncio.sleep(_POLL_S)
        took_s = time.monotonic() - started_s
        return Termination(live.id, live.function.tenant, live.function.id, live.is_over, took_s)

    # --- tenants ----------------------------------------------------------------------------------------

    def tenants(self) -> list[TenantView]:
        """Every tenant that has quotas of its own, keeps something, or has something live, by number."""
        waiting = self._intake.queued()
        keeping = {*self._functions.tenants, *self._storage.tenants}
        found = {*self._tenants.known(), *self._accounts.tenants, *keeping, *waiting}
        held = self._permits()
        return [self._view(tenant, waiting, held) for tenant in sorted(found)]

    def tenant(self, tenant: int | None) -> TenantView:
        """One tenant, also one that was never seen; None: the defaults of all."""
        if tenant is None:
            return TenantView(None, self._tenants.defaults(), tuple(self._tenants.overrides(None)), None)
        return self._view(tenant, self._intake.queued(), self._permits())

    def change_tenant(self, tenant: int | None, changes: Mapping[str, int | float | bool | None]) -> TenantView:
        """Change quotas, from now on; None for one takes the default again.

        Raises :class:`~tensor_wasm.errors.RequestError` for what is no quota or out of range.
        """
        self._tenants.change(tenant, changes)
        return self.tenant(tenant)

    def _permits(self) -> dict[int, tuple[int, int]]:
        return {row.tenant: (row.held, row.waiting) for row in self._ledger.read().tenants if row.tenant is not None}

    def _view(self, tenant: int, waiting: Mapping[int, int], permits: Mapping[int, tuple[int, int]]) -> TenantView:
        holdings = self._accounts.holdings(tenant)
        held, launches_waiting = permits.get(tenant, (0, 0))
        usage = Usage(
            instances=holdings.instances,
            queued=waiting.get(tenant, 0),
            permits_held=held,
            launches_waiting=launches_waiting,
            guest_memory_bytes=holdings.guest_memory_bytes,
            gpu_memory_bytes=holdings.gpu_memory_bytes,
            functions=self._functions.count_of(tenant),
            stored_bytes=self._storage.used_bytes(tenant),
        )
        return TenantView(tenant, self._tenants.quotas(tenant), tuple(self._tenants.overrides(tenant)), usage)

    def _apply(self, changed: int | None) -> None:
        """Have new quotas hold for what is live already."""
        seen = {*self._ledger.tenants, *self._accounts.known}
        for tenant in seen if changed is None else {changed} & seen:
            quotas = self._tenants.quotas(tenant)
            self._ledger.set_share(tenant, share_of(quotas))
            self._accounts.limit(tenant, quotas)
            self._instances.allow_device(tenant, quotas.cuda)
