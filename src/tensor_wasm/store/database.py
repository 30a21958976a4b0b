"""The node's database: one SQLite file, durable before a call returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import make_directory

#: What makes a file of version n + 1 of one of version n; a new file is of version 0. Rows are never changed once
#: released: files that they made are out there.
#:
#: Tenants are text: SQLite's integers are signed, and a tenant is an unsigned 64-bit number.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # ``deleted_at`` marks what is gone but may still be the cursor of somebody who reads page after page.
        """CREATE TABLE functions (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            digest TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            created_at REAL NOT NULL,
            deleted_at REAL
        ) STRICT""",
        "CREATE INDEX functions_of_tenant ON functions (tenant, position)",
        "CREATE INDEX functions_deleted ON functions (deleted_at) WHERE deleted_at IS NOT NULL",
    ),
    (
        """CREATE TABLE tokens (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            scope TEXT NOT NULL,
            hash BLOB NOT NULL UNIQUE,
            created_at REAL NOT NULL,
            last_used_at REAL
        ) STRICT""",
        # NULL: the tenant has no value of its own. The row of tenant ``default`` is for all that have none.
        """CREATE TABLE tenants (
            tenant TEXT NOT NULL PRIMARY KEY,
            weight INTEGER,
            permits INTEGER,
            instances INTEGER,
            guest_memory_bytes INTEGER,
            gpu_memory_bytes INTEGER,
            functions INTEGER,
            stored_bytes INTEGER,
            rate_qps REAL,
            rate_burst INTEGER,
            cuda INTEGER CHECK (cuda IN (0, 1))
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        # A JSON object: what a function was deployed with, such as its warm start.
        "ALTER TABLE functions ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
        # ``arguments`` is a JSON list, ``input`` is empty once the job has ended, ``result`` the JSON of the answer.
        # ``size_bytes`` is what the row counts for in the tenant's bound.
        """CREATE TABLE jobs (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            function_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            export TEXT,
            arguments TEXT NOT NULL,
            input BLOB NOT NULL,
            deadline_s REAL,
            size_bytes INTEGER NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
            created_at REAL NOT NULL,
            started_at REAL,
            finished_at REAL,
            result TEXT,
            error_kind TEXT,
            error_message TEXT
        ) STRICT""",
        "CREATE INDEX jobs_of_tenant ON jobs (tenant, position)",
        "CREATE INDEX jobs_of_tenant_by_status ON jobs (tenant, status, position)",
        "CREATE INDEX jobs_unfinished ON jobs (position) WHERE status IN ('pending', 'running')",
        "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL",
        # What a request with an Idempotency-Key made, and the hash of that request.
        """CREATE TABLE idempotency (
            tenant TEXT NOT NULL,
            key TEXT NOT NULL,
            request_hash BLOB NOT NULL,
            resource TEXT NOT NULL,
            created_at REAL NOT NULL,
            PRIMARY KEY (tenant, key)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX idempotency_age ON idempotency (created_at)",
        # ``manifest`` is the signed JSON as it was published, ``digest`` the BLAKE3 (hex) of the PTX, an artifact.
        """CREATE TABLE kernels (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            version TEXT NOT NULL,
            digest TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            manifest BLOB NOT NULL,
            signature BLOB NOT NULL,
            publisher TEXT NOT NULL,
            created_at REAL NOT NULL,
            UNIQUE (tenant, name, version)
        ) STRICT""",
        # ``state`` is the JSON of everything but the memories, which are files named by ``id``.
        """CREATE TABLE snapshots (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            function_name TEXT NOT NULL,
            module_digest TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            sha TEXT NOT NULL,
            state TEXT NOT NULL,
            created_at REAL NOT NULL
        ) STRICT""",
        "CREATE INDEX snapshots_of_tenant ON snapshots (tenant, position)",
        # Names that the OpenAI-shaped routes know, and what answers them.
        """CREATE TABLE models (
            name TEXT NOT NULL,
            tenant TEXT NOT NULL,
            function_id TEXT NOT NULL,
            export TEXT,
            created_at REAL NOT NULL,
            PRIMARY KEY (tenant, name)
        ) STRICT, WITHOUT ROWID""",
    ),
)
SCHEMA_VERSION = len(_MIGRATIONS)


def migrations() -> tuple[tuple[str, ...], ...]:
    """The statements that make a file of each version of one of the version before."""
    return _MIGRATIONS


_BUSY_S = 5.0
#: In the texts of errors that SQLite also has for a file which is only locked or full.
_SIGNS_OF_DAMAGE = ("no such", "already exists", "decode")


class Database:
    """One SQLite file, as the stores of this room share it. Safe to use from several threads.

    Raises :class:`StoreError` when the file is damaged, of a newer version, or cannot be used; it says what to do. A
    file of an older version is brought to this one, whole or not at all.
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

    @contextmanager
    def transaction(self, taken: str = "that is already there") -> Iterator[sqlite3.Connection]:
        """A connection whose changes are on the disk when the block ends, or none of them when it raises.

        ``taken`` is the text of the :class:`StoreError` when a row breaks a rule of its table. Not to be nested.
        """
        with self._lock, self._translated(taken):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query. Raises :class:`StoreError`."""
        with self._lock, self._translated():
            return self._connection.execute(sql, values).fetchall()

    def check(self) -> None:
        """Ask the file for one row, as a probe of readiness. Raises :class:`StoreError`."""
        self.rows("SELECT 1 FROM functions LIMIT 1")

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._lock:
            self._connection.close()

    def damaged(self) -> StoreError:
        """The error for a file that holds what this program did not write, with the ways to repair it."""
        return StoreError(
            f"{self._path} is damaged. Stop the node and run `tensor-wasm doctor --repair`: it saves what can be read"
            " into a new file and keeps the damaged one; or restore a backup with `tensor-wasm restore DIRECTORY`"
        )

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What was deleted is overwritten: salvage, which reads pages by themselves, must not find a revoked token.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self.damaged()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._migrate()
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} is of version {version}, newer than this release's {SCHEMA_VERSION}:"
                " start the newer release, or set TENSOR_WASM_HOME to another directory"
            )
        if version < 0:
            raise self.damaged()
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                self._connection.execute(statement)
        if version < SCHEMA_VERSION:
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _translated(self, taken: str = "") -> Iterator[None]:
        """SQLite's errors as the store's own."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StoreError(taken or str(error)) from error
        except sqlite3.ProgrammingError as error:
            raise StoreError("the database is closed") from error
        except sqlite3.OperationalError as error:
            if any(sign in str(error) for sign in _SIGNS_OF_DAMAGE):
                raise self.damaged() from error
            raise StoreError(
                f"{self._path}: {error}. Make it writable for this user and its disk not full, end other nodes that"
                " use the same home, or set TENSOR_WASM_HOME to another directory"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self.damaged() from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise StoreError("a value does not fit the database") from error
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error
