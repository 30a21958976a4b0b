"""Snapshots on disk: a row for each, and a file with its memories that is mapped to restore it.

The file has the memory's bytes first, so that they can be mapped, and then what the guest has on the device. It never
changes once it has its name: instances that were restored from it show its pages.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensor_wasm.errors import StoreError
from tensor_wasm.store.database import Database
from tensor_wasm.store.files import UNFINISHED, make_directory, sync_directory, unusable

_COLUMNS = "id, tenant, function_name, module_digest, size_bytes, sha, state, created_at"
_INSERT = f"INSERT INTO snapshots ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - only this file's own text


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A captured instance.

    ``module_digest`` is the BLAKE3 (hex) of its module, an artifact; ``sha`` that of its file, which has
    ``size_bytes``; ``state`` the JSON of what is in no memory. ``created_at`` is in seconds since 1970.
    """

    id: str
    tenant: int
    function_name: str
    module_digest: str
    size_bytes: int
    sha: str
    state: str
    created_at: float


@dataclass(frozen=True, slots=True)
class SnapshotOutline:
    """A snapshot without its state, which may have a megabyte: ``state_bytes``; ``function_id`` is of it."""

    id: str
    tenant: int
    function_name: str
    module_digest: str
    size_bytes: int
    sha: str
    created_at: float
    function_id: str
    state_bytes: int


Outlines = list[SnapshotOutline]


class OwnFile:
    """A file that nobody else can find. It is gone once nobody has this object any more."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


class SnapshotStore:
    """The snapshots of a node. Safe to use from several threads. Raises :class:`StoreError` when it cannot be used."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory
        database.rows(f"SELECT {_COLUMNS}, position FROM snapshots LIMIT 0")  # noqa: S608
        make_directory(directory)
        self._remove_unnamed()

    @contextmanager
    def writing(self) -> Iterator[tuple[int, Callable[[SnapshotRecord], None]]]:
        """A new file's descriptor, and what keeps it: called once the file is written, it makes file and row durable.

        A block that does not call it leaves nothing behind.
        """
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._directory, prefix=UNFINISHED)
        except OSError as error:
            raise unusable(self._directory, error) from error
        try:
            yield descriptor, lambda record: self._keep(descriptor, temporary, record)
        except OSError as error:
            raise unusable(self._directory, error) from error
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                Path(temporary).unlink()

    def own_file(self) -> OwnFile:
        """A new file for what need not be found again."""
        try:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                return OwnFile(os.dup(file.fileno()))
        except OSError as error:
            raise unusable(self._directory, error) from error

    def open(self, record: SnapshotRecord) -> int:
        """The descriptor of a snapshot's file, to read. Raises :class:`StoreError` when it is gone or was cut."""
        path = self._path(record.id)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise unusable(path, error) from error
        if os.fstat(descriptor).st_size != record.size_bytes:
            os.close(descriptor)
            raise StoreError(f"{path} has not the size it was written with: restore it from a backup, or delete it")
        return descriptor

    def all(self) -> Outlines:
        """Every snapshot of every tenant, oldest first."""
        rows = self._database.rows(
            "SELECT id, tenant, function_name, module_digest, size_bytes, sha, created_at,"
            " coalesce(iif(json_valid(state), json_extract(state, '$.function_id'), ''), ''), length(state)"
            " FROM snapshots ORDER BY position"
        )
        try:
            return [SnapshotOutline(row[0], int(row[1]), *row[2:]) for row in rows]
        except ValueError:
            raise self._database.damaged() from None

    def get(self, identity: str) -> SnapshotRecord | None:
        """A snapshot; None when there is none."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM snapshots WHERE id = ?", (identity,))  # noqa: S608
        return _record(rows[0]) if rows else None

    def delete(self, identity: str) -> None:
        """Forget a snapshot. Instances that show its file go on: the system keeps it for them."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM snapshots WHERE id = ?", (identity,))
        with contextlib.suppress(OSError):
            self._path(identity).unlink()

    def _keep(self, descriptor: int, temporary: str, record: SnapshotRecord) -> None:
        os.fsync(descriptor)
        path = self._path(record.id)
        Path(temporary).rename(path)
        try:
            sync_directory(self._directory)
            row = (
                record.id, str(record.tenant), record.function_name, record.module_digest, record.size_bytes,
                record.sha, record.state, record.created_at,
            )  # fmt: skip
            with self._database.transaction() as connection:
                connection.execute(_INSERT, row)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    def _path(self, identity: str) -> Path:
        return self._directory / identity

    def _remove_unnamed(self) -> None:
        """Delete what a crash left: files that were not finished, and those that no row names."""
        named = {str(row[0]) for row in self._database.rows("SELECT id FROM snapshots")}
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if path.name not in named and (path.name.startswith(UNFINISHED) or _is_id(path.name)):
                    path.unlink()


def _is_id(name: str) -> bool:
    return len(name) == 36 and set(name) <= set("0123456789abcdef-")


def _record(row: tuple[Any, ...]) -> SnapshotRecord:
    return SnapshotRecord(row[0], int(row[1]), *row[2:])
