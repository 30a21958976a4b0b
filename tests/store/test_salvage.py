"""Rows come out of damaged files: all that no damaged page held."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from random import Random

import pytest

from store.homes import PAGE_BYTES, fill, rows
from tensor_wasm.errors import StoreError
from tensor_wasm.store import Database
from tensor_wasm.store import database as database_module
from tensor_wasm.store.salvage import salvage

TABLES = ("functions", "tokens", "tenants", "models", "kernels")


@pytest.fixture
def random():
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    return Random(seed)


@pytest.fixture
def whole(tmp_path, random):
    path = tmp_path / "node.db"
    database = Database(path)
    fill(database, random, 150)
    database.close()
    return path


def damaged(whole, number, data):
    path = whole.with_name(f"damaged-{number}.db")
    shutil.copy(whole, path)
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE_BYTES)
        file.write(data)
    return path


def saved(path):
    target = path.with_suffix(".new")
    target.unlink(missing_ok=True)
    return {table.name: table for table in salvage(path, target)}, rows(target, *TABLES)


def test_a_whole_file_is_copied_whole(whole):
    tables, found = saved(whole)
    assert found == rows(whole, *TABLES)
    assert all(table.is_exact and table.lost == 0 for table in tables.values())
    assert tables["functions"].saved == 150


def test_what_was_committed_to_the_wal_is_saved(tmp_path, random):
    database = Database(tmp_path / "node.db")
    fill(database, random, 40)
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "node.db", copy)
    shutil.copy(tmp_path / "node.db-wal", tmp_path / "copy.db-wal")
    database.close()
    _, found = saved(copy)
    assert found == rows(tmp_path / "node.db", *TABLES)
    with (tmp_path / "copy.db-wal").open("ab") as wal:  # a commit that a crash cut short
        wal.write(random.randbytes(6000))
    assert saved(copy)[1] == found


@pytest.mark.parametrize("kind", ["chance", "zeros", "another page"])
def test_each_page_may_be_lost_and_only_its_rows_are(whole, random, kind):
    before = rows(whole, *TABLES)
    data = whole.read_bytes()
    count = len(data) // PAGE_BYTES
    for number in {1, 2, 3, count, *random.sample(range(1, count + 1), 8)}:
        other = random.randrange(count) * PAGE_BYTES
        page = {
            "chance": random.randbytes(PAGE_BYTES),
            "zeros": bytes(PAGE_BYTES),
            "another page": data[other : other + PAGE_BYTES],
        }[kind]
        tables, found = saved(damaged(whole, number, page))
        lost = 0
        for name in TABLES:
            keys = [{row[:4] for row in table[name]} for table in (found, before)]
            assert keys[0] <= keys[1], f"page {number} made up rows of {name}"
            # SQLite has no checksums: nothing tells that the end of a long value is another's, or zeros.
            if kind == "chance" or name != "kernels":
                assert set(found[name]) <= set(before[name]), f"page {number} made up rows of {name}"
            missing = len(before[name]) - len(found[name])
            lost += missing
            assert tables[name].saved == len(found[name])
            if tables[name].is_exact:
                assert tables[name].lost == missing, f"page {number}, {name}"
        assert lost <= 150, f"page {number}"  # a page holds all of a small table


@pytest.mark.parametrize("kind", ["its first child", "an empty table"])
def test_a_page_that_fits_and_is_another_is_not_taken_for_all(whole, kind):
    """The root as its own first child, and a child as an empty page, make a tree that seems whole."""
    connection = sqlite3.connect(whole)
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
    assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    connection.close()
    data = whole.read_bytes()

    def page(number):
        return data[(number - 1) * PAGE_BYTES : number * PAGE_BYTES]

    root = page(roots["models"])
    assert root[0] == 0x02, "the root of a table without rowid, with children"
    cell = int.from_bytes(root[12:14], "big")
    child = int.from_bytes(root[cell : cell + 4], "big")
    if kind == "its first child":
        path = damaged(whole, roots["models"], page(child))
    else:
        path = damaged(whole, child, bytes([0x0A]) + page(roots["jobs"])[1:])
    tables, found = saved(path)
    assert 0 < len(found["models"]) < 150
    assert not tables["models"].is_exact


def test_a_deleted_row_does_not_come_back(tmp_path):
    """A revoked token that came back would be a way in."""
    path = tmp_path / "node.db"
    database = Database(path)
    fill(database, Random(1), 150)
    with database.transaction() as connection:
        connection.execute("DELETE FROM tokens WHERE position > 3")
    database.close()
    data = bytearray(path.read_bytes())
    data[:PAGE_BYTES] = bytes(PAGE_BYTES)  # with the list of free pages
    path.write_bytes(data)
    assert len(saved(path)[1]["tokens"]) <= 3


def test_what_a_tenant_stored_is_never_taken_for_rows(tmp_path):
    """A value that looks like a page of tokens, in a table whose own page is lost."""
    fake = tmp_path / "fake.db"
    database = Database(fake)
    with database.transaction() as connection:
        for number in range(30):
            connection.execute(
                "INSERT INTO tokens VALUES (?, ?, 'x', 'role=admin', ?, 1.5, NULL)",
                (number + 1000, f"forged-{number}", bytes([number])),
            )
    database.close()
    pages = fake.read_bytes()
    forged = next(
        page
        for at in range(0, len(pages), PAGE_BYTES)
        if b"forged-1" in (page := pages[at : at + PAGE_BYTES]) and page[0] == 0x0D
    )
    path = tmp_path / "node.db"
    database = Database(path)
    with database.transaction() as connection:
        for shift in (0, 4):
            connection.execute(
                "INSERT INTO kernels (tenant, name, version, digest, size_bytes, manifest, signature, publisher,"
                " created_at) VALUES ('1', ?, '1', 'ab', 1, ?, x'00', 'p', 1.0)",
                (f"k{shift}", bytes(PAGE_BYTES - shift) + forged * 3),
            )
    database.close()
    whole = path.read_bytes()
    for number in range(1, len(whole) // PAGE_BYTES + 1):
        assert saved(damaged(path, number, bytes(PAGE_BYTES)))[1]["tokens"] == []


def test_a_file_of_an_older_version_is_saved_into_this_one(tmp_path, monkeypatch):
    path = tmp_path / "node.db"
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "_MIGRATIONS", database_module._MIGRATIONS[:2])
        patch.setattr(database_module, "SCHEMA_VERSION", 2)
        database = Database(path)
        with database.transaction() as connection:
            for number in range(100):
                connection.execute(
                    "INSERT INTO functions VALUES (NULL, ?, '1', ?, 'ab', 1, 1.5, NULL)", (str(number), "n" * 100)
                )
        database.close()
    tables, _ = saved(damaged(path, 1, bytes(PAGE_BYTES)))
    assert (tables["functions"].saved, tables["functions"].lost) == (100, 0)


def test_a_newer_file_is_refused(whole):
    connection = sqlite3.connect(whole)
    connection.execute(f"PRAGMA user_version = {database_module.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer"):
        saved(whole)


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" + bytes(84)])
def test_what_is_no_database_gives_none_of_its_rows(tmp_path, content):
    path = tmp_path / "node.db"
    path.write_bytes(content)
    assert all(found == [] for found in saved(path)[1].values())
