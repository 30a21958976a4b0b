"""Tenants: the quotas of each, changed while the node runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tensor_wasm.errors import Conflict, InvalidTenant, RequestError, StoreError
from tensor_wasm.store import TenantStore
from tensor_wasm.tenancy.quotas import QUOTA_FIELDS, Quotas, QuotaValue
from tensor_wasm.tenancy.scopes import TENANT_MAX

#: Tenants that may have values of their own: all are in memory.
TENANTS_MAX = 100_000

Overrides = dict[str, QuotaValue]
Listener = Callable[[int | None], None]


class Tenants:
    """The quotas of every tenant. Safe to use from several threads; only :meth:`change` waits for the disk.

    A value that a tenant has not of its own is the one of the row ``default``, named by None, and else that of
    :class:`Quotas`. Raises :class:`StoreError` when the database holds what cannot be.
    """

    def __init__(self, store: TenantStore) -> None:
        self._store = store
        # Reentrant, so that listeners may ask for what they are told of.
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        # The mappings inside are never changed, only replaced, so readers need no lock.
        self._overrides = {tenant: _checked(tenant, values) for tenant, values in store.all().items()}
        self._quotas: dict[int, Quotas] = {}
        self._default = Quotas()
        self._compute()

    def quotas(self, tenant: int) -> Quotas:
        """What a tenant may have now."""
        return self._quotas.get(tenant, self._default)

    def defaults(self) -> Quotas:
        """What a tenant may have that has no values of its own."""
        return self._default

    def overrides(self, tenant: int | None) -> Overrides:
        """The tenant's own values, None for those of the row ``default``."""
        return dict(self._overrides.get(tenant, {}))

    def known(self) -> list[int]:
        """The tenants with values of their own, by number."""
        return sorted(self._quotas.copy())

    def listen(self, callback: Listener) -> None:
        """Call back after each change, with the tenant, or None when the row ``default`` changed and so perhaps all.

        It is called on the thread that changes, one change at a time, and must not wait for another change.
        """
        with self._lock:
            self._listeners.append(callback)

    def change(self, tenant: int | None, changes: Mapping[str, QuotaValue | None]) -> Quotas:
        """Set some of a tenant's values, or take away those that are None; the quotas it has then.

        On the disk when this returns, and everybody who listens was told. Nothing is changed when it raises
        :class:`RequestError` for a name or value that cannot be, :class:`InvalidTenant`, :class:`Conflict` when too
        many tenants have values of their own, :class:`StoreError`.
        """
        if tenant is not None and not 0 <= tenant <= TENANT_MAX:
            raise InvalidTenant(f"a tenant is a whole number from 0 to {TENANT_MAX}")
        checked = {name: _check(name, value) for name, value in changes.items()}
        with self._lock:
            before = self._overrides.get(tenant, {})
            merged = {**before, **checked}
            after = {name: value for name, value in merged.items() if value is not None}
            if after != before:
                if not before and len(self._overrides) >= TENANTS_MAX:
                    raise Conflict(f"{TENANTS_MAX} tenants have quotas of their own: remove those of others first")
                self._store.set(tenant, after)
                self._replace(tenant, after)
                for callback in self._listeners:
                    callback(tenant)
            return self._default if tenant is None else self.quotas(tenant)

    def _replace(self, tenant: int | None, overrides: Overrides) -> None:
        if overrides:
            self._overrides[tenant] = overrides
        else:
            self._overrides.pop(tenant, None)
        if tenant is None:
            self._compute()
        elif overrides:
            self._quotas[tenant] = _quotas({**self._overrides.get(None, {}), **overrides})
        else:
            self._quotas.pop(tenant, None)

    def _compute(self) -> None:
        of_all = self._overrides.get(None, {})
        self._default = _quotas(of_all)
        self._quotas = {
            tenant: _quotas({**of_all, **values}) for tenant, values in self._overrides.items() if tenant is not None
        }


def _quotas(values: Mapping[str, Any]) -> Quotas:
    return Quotas(**values)


def _check(name: str, value: QuotaValue | None) -> QuotaValue | None:
    field = QUOTA_FIELDS.get(name)
    if field is None:
        raise RequestError(f"no such quota; the quotas are {', '.join(QUOTA_FIELDS)}")
    return None if value is None else field.check(value)


def _checked(tenant: int | None, values: Mapping[str, QuotaValue]) -> Overrides:
    """What the database holds of a tenant: it may have been edited by hand."""
    try:
        if tenant is not None and tenant > TENANT_MAX:
            raise RequestError(f"tenants go to {TENANT_MAX}")
        return {name: QUOTA_FIELDS[name].check(value) for name, value in values.items()}
    except RequestError as error:
        row = "default" if tenant is None else str(tenant)
        raise StoreError(
            f"the database holds quotas of tenant {row} that cannot be, {error.message}: restore it from a backup, or"
            " delete this row of its table `tenants`"
        ) from error
