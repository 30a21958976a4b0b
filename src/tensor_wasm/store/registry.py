"""The registry of deployed functions, durable before a call returns."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from tensor_wasm.errors import IdempotencyConflict, NotFound
from tensor_wasm.store.database import Database
from tensor_wasm.store.idempotency import IdempotencyKey, IdempotencyStore

_COLUMNS = "id, tenant, name, digest, size_bytes, created_at, settings"
_INSERT = f"INSERT INTO functions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - only this file's own text
_CURSOR_LIFE_S = 3600.0


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """A deployed function.

    ``id`` is a UUID, ``digest`` the BLAKE3 (hex) of its module, ``created_at`` in seconds since 1970. ``prewarm`` is
    the export from whose end every instance starts, None for a cold start.
    """

    id: str
    tenant: int
    name: str
    digest: str
    size_bytes: int
    created_at: float
    prewarm: str | None = None

    @property
    def settings(self) -> str:
        """What it was deployed with besides, as JSON."""
        return json.dumps({} if self.prewarm is None else {"prewarm": self.prewarm})


Records = list[FunctionRecord]


class Registry:
    """The functions of a node, in its database. Safe to use from several threads.

    Raises :class:`~tensor_wasm.errors.StoreError` when the database is damaged or cannot be used.
    """

    def __init__(self, database: Database, keys: IdempotencyStore | None = None) -> None:
        self._database = database
        self._keys = keys or IdempotencyStore(database)
        database.rows(f"SELECT {_COLUMNS}, position, deleted_at FROM functions LIMIT 0")  # noqa: S608

    def add(self, record: FunctionRecord, key: IdempotencyKey | None = None) -> str:
        """Keep a function; it is on the disk when this returns. Its id, or that of the one that ``key`` made before.

        Raises :class:`~tensor_wasm.errors.StoreError` when its id is taken,
        :class:`~tensor_wasm.errors.IdempotencyConflict` when the key came with another request.
        """
        row = (
            record.id, str(record.tenant), record.name, record.digest, record.size_bytes, record.created_at,
            record.settings,
        )  # fmt: skip
        made = {} if key is None else {key: record.id}
        with self._database.transaction(taken="a function of that id is already registered") as connection:
            for before in self._keys.recall(connection, list(made)).values():
                if isinstance(before, IdempotencyConflict):
                    raise before
                return before
            connection.execute(_INSERT, row)
            self._keys.remember(connection, made)
        self._keys.count(made)
        return record.id

    def get(self, id: str, tenant: int) -> FunctionRecord | None:  # noqa: A002 - the field's word
        """A tenant's function, None when it has none of that id."""
        rows = self._rows("id = ? AND tenant = ? AND deleted_at IS NULL", (id, str(tenant)))
        return rows[0] if rows else None

    def list(self, tenant: int, limit: int, after: str | None = None) -> Records:
        """At most ``limit`` functions of a tenant, oldest first, those after the function of id ``after``.

        ``after`` may have been deleted meanwhile, an hour ago at most. Raises :class:`NotFound` when the tenant never
        had it.
        """
        position = 0 if after is None else self._position(tenant, after)
        where = "tenant = ? AND position > ? AND deleted_at IS NULL ORDER BY position LIMIT ?"
        return self._rows(where, (str(tenant), position, limit))

    def all(self) -> Records:
        """Every function of every tenant, oldest first."""
        return self._rows("deleted_at IS NULL ORDER BY position", ())

    def count(self) -> int:
        """How many functions there are."""
        ((count,),) = self._database.rows("SELECT count(*) FROM functions WHERE deleted_at IS NULL")
        return int(count)

    def delete(self, id: str, tenant: int) -> bool:  # noqa: A002
        """Forget a tenant's function; whether there was one. On the disk when this returns."""
        now = time.time()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM functions WHERE deleted_at < ?", (now - _CURSOR_LIFE_S,))
            found = connection.execute(
                "UPDATE functions SET deleted_at = ? WHERE id = ? AND tenant = ? AND deleted_at IS NULL",
                (now, id, str(tenant)),
            )
        return found.rowcount == 1

    def check(self) -> None:
        """Ask the file for one row, as a probe of readiness. Raises :class:`~tensor_wasm.errors.StoreError`."""
        self._database.check()

    def _position(self, tenant: int, id: str) -> int:  # noqa: A002
        found = self._database.rows("SELECT position FROM functions WHERE id = ? AND tenant = ?", (id, str(tenant)))
        if not found:
            raise NotFound("`after` names no function of this tenant: start again without it")
        return int(found[0][0])

    def _rows(self, where: str, values: tuple[object, ...]) -> Records:
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM functions WHERE {where}", values)  # noqa: S608
        try:
            return [_record(row) for row in rows]
        except ValueError:
            raise self._database.damaged() from None


def _record(row: tuple[Any, ...]) -> FunctionRecord:
    settings = json.loads(row[6])
    prewarm = settings.get("prewarm") if isinstance(settings, dict) else None
    if not (prewarm is None or isinstance(prewarm, str)):
        raise ValueError("the settings of a function are not what this program writes")
    return FunctionRecord(row[0], int(row[1]), row[2], row[3], row[4], row[5], prewarm)
