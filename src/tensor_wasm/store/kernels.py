"""Published kernels, durable before a call returns. Their texts are artifacts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tensor_wasm.store.database import Database

_COLUMNS = "tenant, name, version, digest, size_bytes, manifest, signature, publisher, created_at"
_INSERT = f"INSERT INTO kernels ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
_OUTLINE = "tenant, name, version, digest, size_bytes, publisher, created_at, length(manifest)"


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """A kernel as it was published, of one tenant, by name and version.

    ``digest`` is the BLAKE3 (hex) of its PTX, ``manifest`` the bytes that ``signature`` is of, ``publisher`` the public
    key (``ed25519:BASE64``); ``created_at`` in seconds since 1970.
    """

    tenant: int
    name: str
    version: str
    digest: str
    size_bytes: int
    manifest: bytes
    signature: bytes
    publisher: str
    created_at: float

    @property
    def stored_bytes(self) -> int:
        """What it takes of its tenant's quota: the text, and what was signed."""
        return self.size_bytes + len(self.manifest)


@dataclass(frozen=True, slots=True)
class KernelOutline:
    """A kernel as lists show it: a :class:`KernelRecord` without what was signed."""

    tenant: int
    name: str
    version: str
    digest: str
    size_bytes: int
    publisher: str
    created_at: float
    manifest_bytes: int

    @property
    def stored_bytes(self) -> int:
        """As of :class:`KernelRecord`."""
        return self.size_bytes + self.manifest_bytes


Outlines = list[KernelOutline]


class KernelStore:
    """The published kernels of a node, in its database. Safe to use from several threads.

    Raises :class:`~tensor_wasm.errors.StoreError` when the database is damaged or cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.rows(f"SELECT {_COLUMNS}, position FROM kernels LIMIT 0")  # noqa: S608 - only this file's own text

    def add(self, record: KernelRecord) -> bool:
        """Keep a kernel; False when the tenant has one of that name and version. On the disk when this returns."""
        row = (
            str(record.tenant), record.name, record.version, record.digest, record.size_bytes, record.manifest,
            record.signature, record.publisher, record.created_at,
        )  # fmt: skip
        with self._database.transaction() as connection:
            added = connection.execute(_INSERT, row)
        return added.rowcount == 1

    def get(self, tenant: int, name: str, version: str) -> KernelRecord | None:
        """A tenant's kernel, None when it has none of that name and version."""
        where = "tenant = ? AND name = ? AND version = ?"
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM kernels WHERE {where}",  # noqa: S608
            (str(tenant), name, version),
        )
        return KernelRecord(self._number(rows[0][0]), *rows[0][1:]) if rows else None

    def list(self, tenant: int, limit: int, after: tuple[str, str] | None = None) -> Outlines:
        """At most ``limit`` kernels of a tenant by name and version, those after ``after``, which may be gone."""
        where = "tenant = ? AND (name, version) > (?, ?) ORDER BY name, version LIMIT ?"
        return self._outlines(f"WHERE {where}", (str(tenant), *(after or ("", "")), limit))

    def all(self) -> Outlines:
        """Every kernel of every tenant, oldest first."""
        return self._outlines("ORDER BY position", ())

    def delete(self, tenant: int, name: str, version: str) -> bool:
        """Forget a tenant's kernel; whether there was one. On the disk when this returns."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "DELETE FROM kernels WHERE tenant = ? AND name = ? AND version = ?", (str(tenant), name, version)
            )
        return found.rowcount == 1

    def _outlines(self, rest: str, values: Iterable[object]) -> Outlines:
        rows = self._database.rows(f"SELECT {_OUTLINE} FROM kernels {rest}", tuple(values))  # noqa: S608
        return [KernelOutline(self._number(row[0]), *row[1:]) for row in rows]

    def _number(self, text: Any) -> int:
        try:
            return int(text)
        except ValueError:
            raise self._database.damaged() from None
