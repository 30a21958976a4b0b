"""Values that an operator gave tenants, in the database."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tensor_wasm.errors import StoreError
from tensor_wasm.store.database import Database

Value = int | float | bool

#: The typed columns, and what SQLite's values of them are in Python. What each means is told in ``tenancy/quotas.py``.
_COLUMNS: dict[str, type[Value]] = {
    "weight": int,
    "permits": int,
    "instances": int,
    "guest_memory_bytes": int,
    "gpu_memory_bytes": int,
    "functions": int,
    "stored_bytes": int,
    "rate_qps": float,
    "rate_burst": int,
    "cuda": bool,
}
_NAMES = ", ".join(("tenant", *_COLUMNS))
_PLACES = ", ".join("?" * (1 + len(_COLUMNS)))
_REPLACE = f"INSERT OR REPLACE INTO tenants ({_NAMES}) VALUES ({_PLACES})"  # noqa: S608 - only this file's own text

#: The row for every tenant without a value of its own.
_DEFAULT = "default"
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)


class TenantStore:
    """The tenants that have values of their own. Safe to use from several threads.

    Raises :class:`StoreError` when the database is damaged or cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.rows(f"SELECT {_NAMES} FROM tenants LIMIT 0")  # noqa: S608

    def all(self) -> dict[int | None, dict[str, Value]]:
        """The values by tenant, and by None those of the row ``default``."""
        rows = self._database.rows(f"SELECT {_NAMES} FROM tenants")  # noqa: S608
        return {self._tenant(row[0]): _values(row[1:]) for row in rows}

    def set(self, tenant: int | None, values: Mapping[str, Value]) -> None:
        """Put these values in the place of all that the tenant had; on the disk when this returns.

        No values: the tenant has no row any more. None stands for the row ``default``.
        """
        unknown = values.keys() - _COLUMNS.keys()
        if unknown:
            raise StoreError(f"tenants have no column {', '.join(sorted(unknown))}")
        key = _DEFAULT if tenant is None else str(tenant)
        with self._database.transaction(taken="a value of a tenant does not fit its column") as connection:
            if values:
                connection.execute(_REPLACE, (key, *(values.get(name) for name in _COLUMNS)))
            else:
                connection.execute("DELETE FROM tenants WHERE tenant = ?", (key,))

    def _tenant(self, text: str) -> int | None:
        if text == _DEFAULT:
            return None
        if not _NUMBER.fullmatch(text):
            raise self._database.damaged()
        return int(text)


def _values(row: tuple[Value | None, ...]) -> dict[str, Value]:
    named = zip(_COLUMNS.items(), row, strict=True)
    return {name: kind(value) for (name, kind), value in named if value is not None}
