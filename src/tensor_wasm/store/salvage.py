"""Rows out of a damaged database into a new one."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tensor_wasm.errors import StoreError
from tensor_wasm.store.database import SCHEMA_VERSION, Database, migrations
from tensor_wasm.store.pages import Cell, Damage, Page, PageFile, Value

_KINDS: dict[str, tuple[type, ...]] = {"TEXT": (str,), "BLOB": (bytes,), "INTEGER": (int,), "REAL": (int, float)}
_TENANT = re.compile(r"[0-9]{1,20}", re.ASCII)
_TENANT_MAX = (1 << 64) - 1
#: A header that was overwritten by chance has a larger version than any release will.
_VERSION_MAX = 1000
_SCHEMA = "sqlite_schema"


@dataclass(frozen=True, slots=True)
class SavedTable:
    """What became of a table's rows. Where ``is_exact`` is False nobody knows how many are ``lost``, if any."""

    name: str
    saved: int
    lost: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    kinds: tuple[type, ...]
    is_nullable: bool
    is_rowid: bool


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a table's rows are stored. ``counts`` are the numbers of values that a row of any version may have."""

    name: str
    is_index: bool
    columns: tuple[_Column, ...]
    counts: frozenset[int]

    def row(self, cell: Cell) -> tuple[Value, ...] | None:
        """The row of an entry, None when it is no row of this table."""
        if len(cell.values) not in self.counts or (cell.rowid is None) != self.is_index:
            return None
        row = tuple(
            cell.rowid if column.is_rowid else value for column, value in zip(self.columns, cell.values, strict=False)
        )
        fits = all(self._fits(column, value) for column, value in zip(self.columns, row, strict=False))
        return row if fits else None

    def _fits(self, column: _Column, value: Value) -> bool:
        if value is None:
            return column.is_nullable
        if not isinstance(value, column.kinds):
            return False
        if column.name == "tenant" and isinstance(value, str):
            is_default = self.name == "tenants" and value == "default"
            return is_default or (_TENANT.fullmatch(value) is not None and int(value) <= _TENANT_MAX)
        return True


@dataclass(slots=True)
class _Tree:
    """A table or an index of the damaged file: its name, its table, its pages as far as they are reached."""

    name: str
    table: str
    is_table: bool
    is_partial: bool
    pages: set[int] = field(default_factory=set)
    is_whole: bool = True
    #: A page of it is another tree's too.
    is_doubtful: bool = False


def salvage(path: Path, target: Path) -> list[SavedTable]:
    """Save the rows of ``path``, a database that nobody has open, into ``target``, a new one of this release's version.

    Pages are read one by one, for SQLite gives up a table at its first damaged page. What names no table any more is
    told by its columns. Raises :class:`StoreError` for a file of a newer version, and when ``target`` cannot be made.
    """
    shapes = _shapes()
    with PageFile(path, path.with_name(path.name + "-wal")) as file:
        if file.version is not None and SCHEMA_VERSION < file.version <= _VERSION_MAX:
            raise StoreError(f"{path} is of version {file.version}, newer than this release's {SCHEMA_VERSION}")
        pages = _Pages(file)
        trees = _trees(pages)
        Database(target).close()
        connection = sqlite3.connect(target, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN")
            refused = _copy(pages, trees, shapes, connection)
            connection.execute("COMMIT")
            tables = [_account(pages, trees, shape, connection, refused[name]) for name, shape in shapes.items()]
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{target}: {error}") from error
        finally:
            connection.close()
    if verdict != "ok":
        raise StoreError(f"{target}: {verdict}")
    return tables


class _Pages:
    """The pages that may hold rows."""

    def __init__(self, file: PageFile) -> None:
        self._file = file
        self._free = file.free()
        self.numbers = range(1, file.count + 1)

    def read(self, number: int) -> Page | None:
        """A page of a tree; None for one that is none, is free or cannot be read."""
        if number in self._free or number not in self.numbers:
            return None
        try:
            return self._file.page(number)
        except Damage:
            return None


def _shapes() -> dict[str, _Shape]:
    """The tables of all versions, by name: made by the very statements that made the file."""
    connection = sqlite3.connect(":memory:")
    counts: dict[str, set[int]] = {}
    try:
        for statements in migrations():
            for statement in statements:
                connection.execute(statement)
            for name, _ in _tables(connection):
                width = len(connection.execute(f"PRAGMA table_info({name})").fetchall())
                counts.setdefault(name, set()).add(width)
        return {name: _shape(connection, name, is_index, counts[name]) for name, is_index in _tables(connection)}
    finally:
        connection.close()


def _tables(connection: sqlite3.Connection) -> list[tuple[str, bool]]:
    """Names, and whether the rows lie in an index (WITHOUT ROWID)."""
    rows = connection.execute("SELECT name, wr FROM pragma_table_list WHERE type = 'table'").fetchall()
    return [(name, bool(without)) for name, without in rows if not name.startswith("sqlite_")]


def _shape(connection: sqlite3.Connection, name: str, is_index: bool, counts: set[int]) -> _Shape:
    columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
    if is_index:  # the key goes first
        columns.sort(key=lambda column: (column[5] == 0, column[5]))
    return _Shape(
        name,
        is_index,
        tuple(
            _Column(label, _KINDS[kind], not must, not is_index and key == 1 and kind == "INTEGER")
            for _, label, kind, must, _, key in columns
        ),
        frozenset(counts),
    )


def _trees(pages: _Pages) -> list[_Tree]:
    """The tables and indexes of the file, as far as its schema can be read."""
    schema = _Tree(_SCHEMA, _SCHEMA, is_table=True, is_partial=False)
    _walk(pages, schema, 1)
    found = [schema]
    for entry in list(_schema_rows(pages, schema)):
        kind, name, table, root, sql = entry
        tree = _Tree(str(name), str(table), kind == "table", isinstance(sql, str) and " WHERE " in sql)
        _walk(pages, tree, int(root or 0))
        found.append(tree)
    for number in pages.numbers:
        owners = [tree for tree in found if number in tree.pages]
        if len(owners) > 1:  # one of them was damaged into the other: nobody knows which
            for tree in owners:
                tree.pages.discard(number)
                tree.is_whole, tree.is_doubtful = False, True
    return found


def _walk(pages: _Pages, tree: _Tree, root: int) -> None:
    waiting = [root]
    while waiting:
        number = waiting.pop()
        page = pages.read(number)
        if number in tree.pages:
            continue
        if page is None:
            tree.is_whole = False
            continue
        tree.pages.add(number)
        # Only a root may be without entries: SQLite unites its other pages before that.
        is_hollow = number != root and not page.cells and not page.children
        tree.is_whole = tree.is_whole and not page.is_damaged and not is_hollow
        waiting.extend(page.children)


def _schema_rows(pages: _Pages, schema: _Tree) -> Iterator[tuple[Value, Value, Value, int, Value]]:
    """The rows of the schema: from its pages, and where those are lost from all that look like it."""
    for number in pages.numbers if not schema.is_whole else sorted(schema.pages):
        page = pages.read(number)
        for cell in page.cells if page is not None and not page.is_index else ():
            match cell.values:
                case (("table" | "index") as kind, str(name), str(table), int(root), (str() | None) as sql):
                    schema.pages.add(number)
                    yield kind, name, table, root, sql
                case _:
                    pass


def _copy(
    pages: _Pages, trees: list[_Tree], shapes: dict[str, _Shape], connection: sqlite3.Connection
) -> dict[str, int]:
    """Put every row that can be told into its table.

    How many entries of each table were no row of it, there twice, or perhaps another table's.
    """
    owners = {number: tree for tree in trees for number in tree.pages}
    refused = dict.fromkeys(shapes, 0)
    for number in pages.numbers:
        page = pages.read(number)
        owner = owners.get(number)
        if page is None or (owner is not None and not (owner.is_table and owner.table in shapes)):
            continue
        for cell in page.cells:
            candidates = [shapes[owner.table]] if owner is not None else list(shapes.values())
            rows = [(shape, row) for shape in candidates if (row := shape.row(cell)) is not None]
            if len(rows) == 1:
                refused[rows[0][0].name] += not _insert(connection, *rows[0])
            elif owner is not None:
                refused[owner.table] += 1
            else:  # a row of one of several tables: each may have lost it
                for shape, _ in rows:
                    refused[shape.name] += 1
    return refused


def _insert(connection: sqlite3.Connection, shape: _Shape, row: tuple[Value, ...]) -> bool:
    """Whether there was room for the row: no other has its key."""
    names = ", ".join(column.name for column in shape.columns[: len(row)])
    places = ", ".join("?" * len(row))
    sql = f"INSERT OR IGNORE INTO {shape.name} ({names}) VALUES ({places})"  # noqa: S608 - our own names
    return connection.execute(sql, row).rowcount == 1


def _account(
    pages: _Pages, trees: list[_Tree], shape: _Shape, connection: sqlite3.Connection, refused: int
) -> SavedTable:
    """How many rows a table had: its own pages say it when all are there, else an index that is whole."""
    ((saved,),) = connection.execute(f"SELECT count(*) FROM {shape.name}").fetchall()  # noqa: S608
    own = [tree for tree in trees if tree.is_table and tree.name == shape.name]
    seems_whole = len(own) == 1 and own[0].is_whole and not refused
    if any(tree.is_doubtful for tree in trees):
        return SavedTable(shape.name, saved, 0, is_exact=False)
    indexes = [tree for tree in trees if tree.table == shape.name and not tree.is_table and not tree.is_partial]
    if shape.is_index or not all(tree.is_whole for tree in indexes):
        return SavedTable(shape.name, saved, 0, is_exact=seems_whole)
    kept = {rowid for (rowid,) in connection.execute(f"SELECT rowid FROM {shape.name}")}  # noqa: S608
    named = [_rowids(pages, tree) for tree in indexes]
    is_exact = bool(named) and all(rowids == named[0] for rowids in named) and kept <= named[0]
    return SavedTable(shape.name, saved, len(named[0] - kept) if is_exact else 0, is_exact)


def _rowids(pages: _Pages, tree: _Tree) -> set[int]:
    """The rows that an index names."""
    found: set[int] = set()
    for number in tree.pages:
        page = pages.read(number)
        for cell in page.cells if page is not None else ():
            if cell.values and isinstance(cell.values[-1], int):
                found.add(cell.values[-1])
    return found
