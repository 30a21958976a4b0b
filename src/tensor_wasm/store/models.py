"""Names of models in the database, and which function answers each."""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.store.database import Database

_COLUMNS = "tenant, name, function_id, export, created_at"
_REPLACE = f"INSERT OR REPLACE INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608 - only this file's own text


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A tenant's name of a model and what answers it.

    ``export`` is None for the function's usual one; ``created_at`` in seconds since 1970.
    """

    tenant: int
    name: str
    function_id: str
    export: str | None
    created_at: float


class ModelStore:
    """The models of a node's database. Safe to use from several threads.

    Raises :class:`~tensor_wasm.errors.StoreError` when the database is damaged or cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.rows(f"SELECT {_COLUMNS} FROM models LIMIT 0")  # noqa: S608

    def put(self, record: ModelRecord) -> None:
        """Keep a model, in the place of the tenant's former one of that name; on the disk when this returns."""
        row = (str(record.tenant), record.name, record.function_id, record.export, record.created_at)
        with self._database.transaction() as connection:
            connection.execute(_REPLACE, row)

    def all(self) -> list[ModelRecord]:
        """Every model of every tenant, by name."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM models ORDER BY name")  # noqa: S608
        try:
            return [ModelRecord(int(tenant), *rest) for tenant, *rest in rows]
        except ValueError:
            raise self._database.damaged() from None

    def delete(self, tenant: int, name: str) -> bool:
        """Forget a model; whether there was one. On the disk when this returns."""
        with self._database.transaction() as connection:
            found = connection.execute("DELETE FROM models WHERE tenant = ? AND name = ?", (str(tenant), name))
        return found.rowcount == 1
