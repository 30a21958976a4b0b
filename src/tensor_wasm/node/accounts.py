"""What each tenant holds at this moment, against its quotas. A tenant with nothing live has no account."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tensor_wasm.errors import QuotaExceeded
from tensor_wasm.runtime import SharedBudget
from tensor_wasm.tenancy import Quotas

Refused = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a tenant holds: live instances, and bytes of memory of theirs."""

    instances: int = 0
    guest_memory_bytes: int = 0
    gpu_memory_bytes: int = 0


class Account:
    """A tenant with live instances: their number, and what they hold together."""

    __slots__ = ("device", "instances", "instances_max", "memory", "tenant")

    def __init__(self, tenant: int, quotas: Quotas, refused: Refused) -> None:
        self.tenant = tenant
        self.instances = 0
        self.memory = SharedBudget(on_refused=partial(refused, tenant, "guest_memory"))
        self.device = SharedBudget(on_refused=partial(refused, tenant, "gpu_memory"))
        self.limit(quotas)

    def limit(self, quotas: Quotas) -> None:
        """Take on new quotas. What is held above them stays; more is refused."""
        self.instances_max = quotas.instances
        self.memory.limit_bytes = quotas.guest_memory_bytes
        self.device.limit_bytes = quotas.gpu_memory_bytes

    def holdings(self) -> Holdings:
        """What it holds now."""
        return Holdings(self.instances, self.memory.used_bytes, self.device.used_bytes)


class Accounts:
    """The accounts of a node. Safe for threads. ``refused`` is told (tenant, quota) of what does not fit."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused
        self._accounts: dict[int, Account] = {}
        self._lock = threading.Lock()

    def open(self, tenant: int, quotas: Quotas) -> Account:
        """Count one more live instance. Raises :class:`QuotaExceeded` when the tenant has as many as it may."""
        with self._lock:
            account = self._accounts.get(tenant)
            if account is None:
                account = self._accounts[tenant] = Account(tenant, quotas, self._refused)
            if account.instances_max is not None and account.instances >= account.instances_max:
                if account.instances == 0:
                    del self._accounts[tenant]
                self._refused(tenant, "instances")
                raise QuotaExceeded(
                    f"the tenant already runs {account.instances} instances, as many as it may: wait until one ends,"
                    " or ask the operator for more"
                )
            account.instances += 1
            return account

    def close(self, account: Account) -> None:
        """Count one instance less; all its memory was given back."""
        with self._lock:
            account.instances -= 1
            if account.instances == 0:
                del self._accounts[account.tenant]

    def limit(self, tenant: int, quotas: Quotas) -> None:
        """Take on a tenant's new quotas."""
        with self._lock:
            account = self._accounts.get(tenant)
            if account is not None:
                account.limit(quotas)

    def holdings(self, tenant: int) -> Holdings:
        """What a tenant holds now."""
        account = self._accounts.get(tenant)
        return Holdings() if account is None else account.holdings()

    @property
    def tenants(self) -> list[int]:
        """Who has live instances."""
        with self._lock:
            return list(self._accounts)
