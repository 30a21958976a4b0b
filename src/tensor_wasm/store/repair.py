"""What is wrong with a home, and how it is mended: after a crash, an error of the disk, or a careless hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from tensor_wasm.errors import StoreError
from tensor_wasm.runtime import SealedFiles
from tensor_wasm.store.database import SCHEMA_VERSION, migrations
from tensor_wasm.store.files import UNFINISHED, make_directory, sync_directory, unusable
from tensor_wasm.store.home import (
    ARTIFACT_ROWS,
    DATABASE_COMPANIONS,
    FILE_ROWS,
    Kind,
    Part,
    lacks_database,
    parts,
    regular_files,
    top_names,
)
from tensor_wasm.store.key import KEY_BYTES, node_key
from tensor_wasm.store.lock import HomeLock, passing_lock
from tensor_wasm.store.salvage import SavedTable, salvage

#: As many are named in a finding; the rest are counted.
_NAMED_MAX = 10
_READ_BYTES = 1 << 20
_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    ``remedy`` is what repair does or did where it can (``is_mendable``), else what is left for people. ``is_harmful``
    is False for what a start of the node puts right by itself. ``is_mended`` says that repair has done it.
    """

    part: str
    detail: str
    remedy: str
    is_harmful: bool
    is_mendable: bool
    is_mended: bool


@dataclass(slots=True)
class Report:
    """What was found in a home.

    ``is_served``: a node ran on it meanwhile. ``tables``: what became of the rows, where they had to be salvaged.
    """

    home: Path
    is_served: bool
    findings: list[Finding] = field(default_factory=list)
    tables: list[SavedTable] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing harmful is left."""
        return all(finding.is_mended or not finding.is_harmful for finding in self.findings)


def examine(home: Path) -> Report:
    """Look at a home and change nothing. A node may run on it: then only what cannot be its work in progress is told.

    Raises :class:`StoreError` when the home cannot be looked at.
    """
    if not home.exists():
        return Report(home, is_served=False)
    with passing_lock(home) as is_free:
        return _visit(home, mends=False, is_served=not is_free)


def repair(home: Path) -> Report:
    """Mend what can be mended; what is damaged is kept in ``damaged/`` under the time of the repair.

    Raises :class:`StoreError` when a node runs on the home, or the home cannot be changed.
    """
    if not home.exists():
        return Report(home, is_served=False)
    try:
        lock = HomeLock(home)
    except StoreError as error:
        raise StoreError(f"{error.message}. A home is repaired while no node runs on it") from None
    try:
        return _visit(home, mends=True, is_served=False)
    finally:
        lock.close()


def _visit(home: Path, *, mends: bool, is_served: bool) -> Report:
    visit = _Visit(home, mends, is_served)
    try:
        for step in (
            visit.permissions,
            visit.secrets,
            visit.database,
            visit.artifacts,
            visit.files,
            visit.caches,
            visit.unfinished,
            visit.strangers,
        ):
            step()
    except OSError as error:
        raise unusable(Path(error.filename or home), error) from error
    return visit.report


class _Visit:
    """One look at a home, part by part; with ``mends`` each is put right before the next is looked at."""

    def __init__(self, home: Path, mends: bool, is_served: bool) -> None:
        self._home = home
        self._mends = mends
        self._aside = home / "damaged" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._rows_are_lost = False
        self._references: dict[str, list[str]] | None = None
        self.report = Report(home, is_served)

    def permissions(self) -> None:
        """The home is its owner's alone, and so is every file in it."""
        wrong: list[Path] = []
        known = [path for name in sorted(top_names()) for path in regular_files(self._home / name)]
        for path in (self._home, *known):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_IMODE(status.st_mode) & 0o077:
                    wrong.append(path)
        if not wrong:
            return
        foreign = [path for path in wrong if os.geteuid() not in (0, path.lstat().st_uid)]
        if self._mends:
            for path in wrong:
                with contextlib.suppress(PermissionError):
                    path.chmod(0o700 if path == self._home else 0o600)
        detail = f"others than the owner may read or change {self._some([self._name(path) for path in wrong])}"
        remedy = "the home gets mode 0700, its files 0600"
        if foreign:
            remedy = f"have their owner set mode 0600: {self._some([self._name(path) for path in foreign])}"
        self._found("permissions", detail, remedy, is_mendable=not foreign)

    def secrets(self) -> None:
        """Keys have their size. A node makes its own anew."""
        for part in parts(Kind.SECRET):
            path = self._home / part.name
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                if part.name == "node.key" and size != KEY_BYTES:
                    detail = f"{part.name} has {size} bytes instead of {KEY_BYTES}"
                    self._set_aside(path, part.name)
                    remedy = f"it goes to {self._place}; the node makes a new one"
                    self._found(part.name, detail, remedy)

    def database(self) -> None:
        """The database can be read and is as this release, or one before it, made it."""
        for part in parts(Kind.DATABASE):
            path = self._home / part.name
            if not path.exists() or path.stat().st_size == 0:
                if lacks_database(self._home) and not self.report.is_served:
                    self._rows_are_lost = True
                    self._references = {} if self._mends else None
                    remedy = f"the artifacts go to {self._place}, and the node starts empty; or restore a backup"
                    self._found(part.name, f"{part.name} is gone or empty, and artifacts are there", remedy)
                continue
            damage = damage_of(path)
            if damage is None:
                with contextlib.suppress(sqlite3.Error):
                    self._references = references(path)
                continue
            remedy = f"what can be read goes into a new file, the damaged one to {self._place}"
            if self._mends:
                self._salvage(part, path)
                remedy = f"what could be read is in a new file, the damaged one in {self._place}"
                if any(table.lost or not table.is_exact for table in self.report.tables):
                    remedy += f". Rows are lost: {self._losses()}"
            self._found(part.name, damage, remedy)

    def artifacts(self) -> None:
        """Every artifact is what its name says and is named by a row; every row has its artifact."""
        named = self._references
        for part in parts(Kind.ARTIFACTS):
            directory = self._home / part.name
            kept = {path.name: path for path in regular_files(directory) if not path.name.startswith(UNFINISHED)}
            damaged = {name for name, path in kept.items() if _digest(path) not in (name, None)}
            for name in sorted(damaged):
                self._set_aside(kept[name], f"{part.name}/{name}")
            if damaged:
                detail = f"damaged: {self._some(sorted(damaged))}"
                self._found(part.name, detail, f"they go to {self._place}")
            if named is None:
                continue
            if self.report.is_served:
                named = self._still_named(named)
            self._report_missing(part, named, kept.keys() - damaged)
            orphans = sorted(kept.keys() - named.keys() - damaged)
            if orphans and not self.report.is_served:
                self._clear_orphans(part, [kept[name] for name in orphans])

    def files(self) -> None:
        """Every row that names a file has it, and it is not cut."""
        for part in parts(Kind.FILES):
            if self._references is None:
                return
            named = file_sizes(self._home, part)
            kept = {path.name: path for path in regular_files(self._home / part.name)}
            sizes = {name: path.stat().st_size for name, path in kept.items() if path.exists()}
            cut = sorted(name for name, size in named.items() if sizes.get(name) != size)
            if self.report.is_served and cut:
                again = file_sizes(self._home, part)  # what was deleted meanwhile is not missing
                cut = [name for name in cut if name in again]
            if cut:
                remedy = "they stay listed and cannot be used, everything else works: restore a backup, or delete them"
                self._found(part.name, f"gone or cut: {self._some(cut)}", remedy, is_mendable=False)
            orphans = [path for name, path in kept.items() if name not in named and not name.startswith(UNFINISHED)]
            if orphans and not self.report.is_served:
                self._clear_orphans(part, orphans)

    def caches(self) -> None:
        """Cached files are sealed by the node's own key; others are of no use to it."""
        if not (self._home / "node.key").exists():
            return
        try:
            key = node_key(self._home)
        except StoreError:
            return  # told above
        for part in parts(Kind.CACHE):
            directory = self._home / part.name
            if not directory.is_dir():
                continue
            sealed = SealedFiles(directory, key)
            bad = [
                path
                for path in regular_files(directory)
                if not path.name.startswith(UNFINISHED) and sealed.read(path.name) is None and path.exists()
            ]
            if bad:
                self._remove(bad)
                detail = f"{len(bad)} files are not sealed by this node's key"
                self._found(part.name, detail, "they are removed, and made anew when needed", is_harmful=False)

    def unfinished(self) -> None:
        """What a crash left half-written."""
        if self.report.is_served:
            return
        found = [path for path in self._home.rglob(f"{UNFINISHED}*") if self._aside.parent not in path.parents]
        found = [path for path in found if not any(other in path.parents for other in found)]
        if found:
            self._remove(found)
            detail = self._some(sorted(self._name(path) for path in found))
            self._found("unfinished files", detail, "they are removed: nothing needs them", is_harmful=False)

    def strangers(self) -> None:
        """What no part of this program put there."""
        known = top_names()
        names = sorted(
            path.name
            for path in self._home.iterdir()
            if path.name not in known and not path.name.startswith(UNFINISHED)
        )
        if names:
            detail = f"not of this node's making: {self._some(names)}"
            remedy = "look at them yourself: repair leaves them alone"
            self._found("other files", detail, remedy, is_harmful=False, is_mendable=False)

    def _salvage(self, part: Part, path: Path) -> None:
        place = Path(tempfile.mkdtemp(dir=self._home, prefix=UNFINISHED))
        try:
            fresh = place / part.name
            self.report.tables = salvage(path, fresh)
            make_directory(self._aside)
            os.link(path, self._aside / part.name)  # the old one keeps its name until the new one takes it
            for end in DATABASE_COMPANIONS:
                self._set_aside(path.with_name(path.name + end), part.name + end)
            fresh.replace(path)
            sync_directory(self._home)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        tables = {*ARTIFACT_ROWS, *(table for table, _ in FILE_ROWS.values())}
        self._rows_are_lost = any(
            table.name in tables and (table.lost or not table.is_exact) for table in self.report.tables
        )
        self._references = references(path)

    def _losses(self) -> str:
        texts = [
            f"{table.lost} of {table.name}" if table.is_exact else f"of {table.name} nobody knows how many"
            for table in self.report.tables
            if table.lost or not table.is_exact
        ]
        text = ", ".join(texts)
        if any(table.name == "tokens" and (table.lost or not table.is_exact) for table in self.report.tables):
            text += "; look at the tokens before the node listens: without any it takes every caller for admin"
        if any(table.name == "tenants" and (table.lost or not table.is_exact) for table in self.report.tables):
            text += "; tenants may have lost limits of their own"
        return text

    def _still_named(self, named: dict[str, list[str]]) -> dict[str, list[str]]:
        """While a node runs, what was deleted since the rows were read is not missing."""
        again: dict[str, list[str]] = {}
        for part in parts(Kind.DATABASE):
            with contextlib.suppress(sqlite3.Error):
                again = references(self._home / part.name)
        return {digest: owners for digest, owners in named.items() if digest in again}

    def _report_missing(self, part: Part, named: dict[str, list[str]], present: set[str]) -> None:
        """A row whose artifact is gone stays: its bytes may come back from a backup, or be deployed again."""
        missing = sorted(digest for digest in named.keys() - present if not self._is_there(part, digest))
        if not missing:
            return
        owners = sorted(owner for digest in missing for owner in named[digest])
        detail = f"no whole artifact: {self._some(owners)}"
        remedy = (
            "they stay registered and answer store_error, everything else works: restore a backup, deploy the same"
            " module again, or delete them"
        )
        self._found(part.name, detail, remedy, is_mendable=False)

    def _is_there(self, part: Part, digest: str) -> bool:
        """Whether an artifact came while others were looked at."""
        return self.report.is_served and (self._home / part.name / digest[:2] / digest).exists()

    def _clear_orphans(self, part: Part, paths: Sequence[Path]) -> None:
        detail = f"{len(paths)} files that no row names"
        if self._rows_are_lost:
            for path in paths:
                self._set_aside(path, f"{part.name}/{path.name}")
            self._found(part.name, detail, f"they go to {self._place}: the rows that named them are lost")
        else:
            self._remove(paths)
            self._found(part.name, detail, "they are removed, as the next start would", is_harmful=False)

    def _set_aside(self, path: Path, name: str) -> None:
        if self._mends:
            target = self._aside / name
            make_directory(target.parent)
            with contextlib.suppress(FileNotFoundError):
                path.replace(target)
                sync_directory(path.parent)
                sync_directory(target.parent)

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths if self._mends else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _found(self, part: str, detail: str, remedy: str, *, is_harmful: bool = True, is_mendable: bool = True) -> None:
        """Something that repair can mend, where ``is_mendable`` says so."""
        is_mended = self._mends and is_mendable
        self.report.findings.append(Finding(part, detail, remedy, is_harmful, is_mendable, is_mended))

    @property
    def _place(self) -> str:
        return self._name(self._aside) if self._mends else "damaged/"

    def _name(self, path: Path) -> str:
        return "the home" if path == self._home else str(path.relative_to(self._home))

    @staticmethod
    def _some(names: Sequence[str]) -> str:
        more = len(names) - _NAMED_MAX
        return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        yield connection
    finally:
        connection.close()


def damage_of(path: Path) -> str | None:
    """What is wrong with a database, None when nothing is. Raises :class:`StoreError` for one of a newer version."""
    try:
        with _opened(path) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                return f"{path.name} is damaged: {_first_line(verdict)}"
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreError(f"{path} is of version {version}, newer than this release's {SCHEMA_VERSION}")
            for table, columns in _made(version).items():
                if _columns(connection, table) != columns:
                    return f"{path.name} is damaged: its table {table} is not as this program makes it"
                texts = [name for name, kind in columns if kind == "TEXT"]
                for _ in connection.execute(f"SELECT {', '.join(texts)} FROM {table}"):  # noqa: S608 - our own names
                    pass
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "unable to open" in str(error) or "readonly" in str(error):
            raise StoreError(f"{path}: {error}") from error
        return f"{path.name} is damaged: {_first_line(str(error))}"
    except sqlite3.DatabaseError as error:
        return f"{path.name} is damaged: {_first_line(str(error))}"
    return None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.startswith("*** in database") else text.partition("\n")[0]


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({table})")]


def _made(version: int) -> dict[str, list[tuple[str, str]]]:
    """The tables that a file of a version has, with their columns; one below 0 is of no version."""
    if version < 0:
        raise sqlite3.DatabaseError(f"version {version}")
    connection = sqlite3.connect(":memory:")
    try:
        for statements in migrations()[:version]:
            for statement in statements:
                connection.execute(statement)
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: _columns(connection, name) for name in names if not name.startswith("sqlite_")}
    finally:
        connection.close()


def references(path: Path) -> dict[str, list[str]]:
    """The digests of the artifacts that rows name, each with what it is of."""
    found: dict[str, list[str]] = {}
    with _opened(path) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        for table, sql in ARTIFACT_ROWS.items():
            for digest, owner in connection.execute(sql) if table in known else ():
                found.setdefault(digest, []).append(f"{table[:-1]} {owner}")
    return found


def file_sizes(home: Path, part: Part) -> dict[str, int]:
    """The files of a part that rows name, with the sizes that they must have; none before there is such a table."""
    table, sql = FILE_ROWS[part.name]
    (database,) = parts(Kind.DATABASE)
    if not (home / database.name).exists():
        return {}
    with _opened(home / database.name) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchall():
            return {}
        return dict(connection.execute(sql).fetchall())


def _digest(path: Path) -> str | None:
    """The BLAKE3 (hex) of a file's content, None when it is gone; "" when it cannot be read."""
    try:
        hasher = blake3()
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                hasher.update(data)
        return hasher.hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return ""
