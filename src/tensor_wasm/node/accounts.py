"""What each tenant holds at this moment, against its quotas."""

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


#: Accounts of tenants with nothing live are kept up to this many: to open one costs as much as a short call.
_IDLE_ACCOUNTS = 1024


class TooManyInstances(QuotaExceeded):
    """The tenant has as many live instances as it may: what is not urgent can wait until one ends."""


class Account:
    """What a tenant's live instances hold: their number, and what they hold together."""

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
        self._accounts_max = _IDLE_ACCOUNTS
        self._lock = threading.Lock()

    def open(self, tenant: int, quotas: Quotas) -> Account:
        """Count one more live instance. Raises :class:`TooManyInstances` when it has as many as it may."""
        with self._lock:
            account = self._accounts.get(tenant)
            if account is None:
                account = self._new(tenant, quotas)
            if account.instances_max is not None and account.instances >= account.instances_max:
                self._refused(tenant, "instances")
                raise TooManyInstances(
                    f"the tenant already runs {account.instances} instances, as many as it may: wait until one ends,"
                    " or ask the operator for more"
                )
            account.instances += 1
            return account

    def close(self, account: Account) -> None:
        """Count one instance less; all its memory was given back."""
        with self._lock:
            account.instances -= 1

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
    def known(self) -> list[int]:
        """Who has an account, with something live or not."""
        with self._lock:
            return list(self._accounts)

    @property
    def tenants(self) -> list[int]:
        """Who has live instances."""
        with self._lock:
            return [tenant for tenant, account in self._accounts.items() if account.instances]

    def _new(self, tenant: int, quotas: Quotas) -> Account:
        if len(self._accounts) >= self._accounts_max:
            self._accounts = {number: one for number, one in self._accounts.items() if one.instances}
            self._accounts_max = 2 * len(self._accounts) + _IDLE_ACCOUNTS
        account = self._accounts[tenant] = Account(tenant, quotas, self._refused)
        return account
