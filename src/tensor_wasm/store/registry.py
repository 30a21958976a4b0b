"""The registry of deployed functions: SQLite, durable before a call returns."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tensor_wasm.errors import NotFound, StoreError
from tensor_wasm.store.files import make_directory

SCHEMA_VERSION = 1

#: ``tenant`` is text: SQLite's integers are signed and a tenant is an unsigned 64-bit number.
#: ``deleted_at`` marks what is gone but may still be the cursor of somebody who reads page after page.
_SCHEMA = """
CREATE TABLE functions (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at REAL NOT NULL,
    deleted_at REAL
) STRICT;
CREATE INDEX functions_of_tenant ON functions (tenant, position);
CREATE INDEX functions_deleted ON functions (deleted_at) WHERE deleted_at IS NOT NULL;
"""

_COLUMNS = "id, tenant, name, digest, size_bytes, created_at"
_INSERT = f"INSERT INTO functions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - only this file's own text
_BUSY_S = 5.0
_CURSOR_LIFE_S = 3600.0

_Row = tuple[str, str, str, str, int, float]


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """A deployed function.

    ``id`` is a UUID, ``digest`` the BLAKE3 (hex) of its module, ``created_at`` in seconds since 1970.
    """

    id: str
    tenant: int
    name: str
    digest: str
    size_bytes: int
    created_at: float


Records = list[FunctionRecord]


class Registry:
    """The functions of a node, in one SQLite file. Safe to use from several threads.

    Raises :class:`StoreError` when the file is damaged, of a newer version, or cannot be used; it says what to do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        make_directory(path.parent)
        with self._translated():
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def add(self, record: FunctionRecord) -> None:
        """Keep a function; it is on the disk when this returns. Raises :class:`StoreError` when its id is taken."""
        row = (
            record.id, str(record.tenant), record.name, record.digest, record.size_bytes, record.created_at,
        )  # fmt: skip
        with self._transaction() as connection:
            connection.execute(_INSERT, row)

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
        with self._lock, self._translated():
            (count,) = self._connection.execute("SELECT count(*) FROM functions WHERE deleted_at IS NULL").fetchone()
        return int(count)

    def delete(self, id: str, tenant: int) -> bool:  # noqa: A002
        """Forget a tenant's function; whether there was one. On the disk when this returns."""
        now = time.time()
        with self._transaction() as connection:
            connection.execute("DELETE FROM functions WHERE deleted_at < ?", (now - _CURSOR_LIFE_S,))
            found = connection.execute(
                "UPDATE functions SET deleted_at = ? WHERE id = ? AND tenant = ? AND deleted_at IS NULL",
                (now, id, str(tenant)),
            )
        return found.rowcount == 1

    def check(self) -> None:
        """Ask the file for one row, as a probe of readiness. Raises :class:`StoreError`."""
        with self._lock, self._translated():
            self._connection.execute("SELECT 1 FROM functions LIMIT 1").fetchone()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged()
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path} is of version {version}, newer than this release's {SCHEMA_VERSION}:"
                    " start the newer release, or set TENSOR_WASM_HOME to another directory"
                )
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(f"SELECT {_COLUMNS}, deleted_at FROM functions LIMIT 0")  # noqa: S608
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _position(self, tenant: int, id: str) -> int:  # noqa: A002
        with self._lock, self._translated():
            found = self._connection.execute(
                "SELECT position FROM functions WHERE id = ? AND tenant = ?", (id, str(tenant))
            ).fetchone()
        if found is None:
            raise NotFound("`after` names no function of this tenant: start again without it")
        return int(found[0])

    def _rows(self, where: str, values: tuple[object, ...]) -> Records:
        with self._lock, self._translated():
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM functions WHERE {where}",  # noqa: S608 - only this file's own text
                values,
            ).fetchall()
        return [_record(row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as the store's own."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StoreError("a function of that id is already registered") from error
        except sqlite3.ProgrammingError as error:
            raise StoreError("the registry is closed") from error
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise self._damaged() from error
            raise StoreError(
                f"{self._path}: {error}. Make it writable for this user and its disk not full, end other nodes that"
                " use the same home, or set TENSOR_WASM_HOME to another directory"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged() from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error

    def _damaged(self) -> StoreError:
        name = self._path.name
        return StoreError(
            f"{self._path} is damaged. Stop the node, keep a copy, and restore {name} from a backup; or save what"
            f' can be read with `sqlite3 {name} ".recover" | sqlite3 repaired.db` and put repaired.db in its place;'
            f" or remove {name}, {name}-wal and {name}-shm to start empty"
        )


def _record(row: _Row) -> FunctionRecord:
    return FunctionRecord(row[0], int(row[1]), row[2], row[3], row[4], row[5])
