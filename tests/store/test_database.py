from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from tensor_wasm.errors import StoreError
from tensor_wasm.store import Database, FunctionRecord, Registry, TenantStore, TokenRecord, TokenStore
from tensor_wasm.store import database as database_module

#: What the first release wrote: never to be changed here.
VERSION_1 = """
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
INSERT INTO functions VALUES (3, 'a', '18446744073709551615', 'first', 'ab', 12, 1000.5, NULL);
INSERT INTO functions VALUES (5, 'b', '7', 'gone', 'cd', 13, 1001.5, 2000.5);
INSERT INTO functions VALUES (6, 'c', '7', 'second', 'ef', 14, 1002.5, NULL);
PRAGMA user_version = 1;
"""
#: What version 2 added, with rows of it: never to be changed here.
VERSION_2 = """
CREATE TABLE tokens (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    last_used_at REAL
) STRICT;
CREATE TABLE tenants (
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
) STRICT, WITHOUT ROWID;
INSERT INTO tokens VALUES (2, 't1', 'für Anna', 'tenant=7', x'00ff', 1000.5, NULL);
INSERT INTO tokens VALUES (9, 't2', '', 'role=admin', x'01', 1001.5, 2000.5);
INSERT INTO tenants VALUES ('default', NULL, NULL, 8, NULL, NULL, NULL, NULL, 2.5, NULL, NULL);
INSERT INTO tenants VALUES ('18446744073709551615', 3, 4, 5, 6, 7, 8, 9, 1.5, 10, 0);
PRAGMA user_version = 2;
"""
KEPT_TOKENS = [
    TokenRecord("t1", "für Anna", "tenant=7", b"\x00\xff", 1000.5, None),
    TokenRecord("t2", "", "role=admin", b"\x01", 1001.5, 2000.5),
]
KEPT_TENANTS = {
    None: {"instances": 8, "rate_qps": 2.5},
    (1 << 64) - 1: {
        "weight": 3, "permits": 4, "instances": 5, "guest_memory_bytes": 6, "gpu_memory_bytes": 7, "functions": 8,
        "stored_bytes": 9, "rate_qps": 1.5, "rate_burst": 10, "cuda": False,
    },
}  # fmt: skip
KEPT = [
    FunctionRecord("a", (1 << 64) - 1, "first", "ab", 12, 1000.5),
    FunctionRecord("c", 7, "second", "ef", 14, 1002.5),
]


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "node.db"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()
    return path


def ask(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_file_of_the_first_version_keeps_its_functions(old):
    for _ in range(2):
        database = Database(old)
        registry = Registry(database)
        assert registry.all() == KEPT
        assert registry.list(7, 9, after="b") == KEPT[1:]
        assert TokenStore(database).all() == []
        assert TenantStore(database).all() == {}
        database.close()
    assert ask(old, "PRAGMA user_version") == [(database_module.SCHEMA_VERSION,)]


def test_a_file_of_the_second_version_keeps_its_functions_tokens_and_tenants(old):
    connection = sqlite3.connect(old)
    connection.executescript(VERSION_2)
    connection.close()
    for _ in range(2):
        database = Database(old)
        assert Registry(database).all() == KEPT
        assert TokenStore(database).all() == KEPT_TOKENS
        assert TenantStore(database).all() == KEPT_TENANTS
        database.close()
    assert ask(old, "PRAGMA user_version") == [(database_module.SCHEMA_VERSION,)]
    assert ask(old, "SELECT DISTINCT settings FROM functions") == [("{}",)]


KILLED = """
import os, signal, sys
from pathlib import Path
from tensor_wasm.store import database

class Deadly(tuple):
    def __iter__(self):
        for number, statement in enumerate(tuple.__iter__(self)):
            if number == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            yield statement

database._MIGRATIONS = (*database._MIGRATIONS[:-1], Deadly(database._MIGRATIONS[-1]))
database.Database(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("statements", [0, 1, 5])
def test_a_crash_in_the_middle_of_a_migration_leaves_the_old_version(old, statements):
    connection = sqlite3.connect(old)
    connection.executescript(VERSION_2)
    connection.close()
    schema = ask(old, "SELECT name, sql FROM sqlite_schema")
    done = subprocess.run([sys.executable, "-c", KILLED, old, str(statements)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert ask(old, "PRAGMA user_version") == [(2,)]
    assert ask(old, "SELECT name, sql FROM sqlite_schema") == schema
    database = Database(old)
    assert Registry(database).all() == KEPT
    assert TokenStore(database).all() == KEPT_TOKENS
    database.close()


def test_an_old_file_and_a_new_one_end_the_same(old, tmp_path):
    Database(old).close()
    Database(tmp_path / "new.db").close()
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    ours = [tuple(" ".join(str(part).split()) for part in row) for row in ask(tmp_path / "new.db", schema)]
    assert [tuple(" ".join(str(part).split()) for part in row) for row in ask(old, schema)] == ours


def test_an_old_file_that_cannot_be_brought_up_stays_as_it_was(old, monkeypatch):
    *before, latest = database_module._MIGRATIONS
    monkeypatch.setattr(database_module, "_MIGRATIONS", (*before, (*latest, "CREATE TABLE functions (x)")))
    with pytest.raises(StoreError):
        Database(old)
    assert ask(old, "PRAGMA user_version") == [(1,)]
    assert ask(old, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ('tokens', 'tenants')") == []
    monkeypatch.undo()
    database = Database(old)
    assert Registry(database).all() == KEPT
    database.close()


@pytest.mark.parametrize("version", [99, database_module.SCHEMA_VERSION + 1])
def test_a_newer_file_is_refused_and_left_alone(tmp_path, version):
    path = tmp_path / "node.db"
    Database(path).close()
    ask(path, f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match=f"version {version}, newer"):
        Database(path)
    assert ask(path, "PRAGMA user_version") == [(version,)]


@pytest.mark.parametrize("damage", ["header", "pages", "version", "a file of somebody else"])
def test_a_damaged_file_is_refused_with_the_way_to_repair_it(tmp_path, damage):
    path = tmp_path / "node.db"
    if damage == "a file of somebody else":
        ask(path, "CREATE TABLE functions (mine)")
    else:
        database = Database(path)
        for number in range(40):
            Registry(database).add(FunctionRecord(str(number), 1, f"name-{number}" * 20, "ab" * 32, 1, 0.0))
        database.close()
    if damage == "version":
        ask(path, "PRAGMA user_version = -1")
    elif damage in ("header", "pages"):
        data = bytearray(path.read_bytes())
        start = 0 if damage == "header" else 4096
        data[start : start + 8192] = os.urandom(8192)
        path.write_bytes(data)
    with pytest.raises(StoreError) as caught:
        Database(path)
    assert "damaged" in caught.value.message
    assert "doctor --repair" in caught.value.message


@pytest.mark.parametrize(
    ("table", "store"), [("functions", Registry), ("tokens", TokenStore), ("tenants", TenantStore)]
)
@pytest.mark.parametrize("how", ["DROP TABLE {0}", "ALTER TABLE {0} RENAME COLUMN created_at TO made_at"])
def test_a_table_that_is_not_as_it_should_be_is_damage(tmp_path, table, store, how):
    if table == "tenants":
        how = how.replace("created_at", "weight")
    path = tmp_path / "node.db"
    Database(path).close()
    ask(path, how.format(table))
    database = Database(path)
    with pytest.raises(StoreError, match="damaged"):
        store(database)
    database.close()


def test_text_that_is_no_text_is_damage(tmp_path):
    database = Database(tmp_path / "node.db")
    Registry(database).add(FunctionRecord("a", 1, "name", "ab" * 32, 1, 0.0))
    with database.transaction() as connection:
        connection.execute("UPDATE functions SET name = CAST(x'ff' AS TEXT)")
    with pytest.raises(StoreError, match="damaged"):
        Registry(database).all()
    database.close()


def test_only_the_owner_may_read_it(tmp_path):
    before = os.umask(0)
    try:
        database = Database(tmp_path / "home" / "node.db")
        with database.transaction() as connection:
            connection.execute("INSERT INTO tenants (tenant, weight) VALUES ('1', 2)")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    for name in ("node.db", "node.db-wal", "node.db-shm"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o600
    database.close()


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "node.db"
    Database(path).close()
    path.chmod(0o644)
    Database(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_that_was_there_keeps_its_mode(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    Database(shared / "node.db").close()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


def test_a_home_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="TENSOR_WASM_HOME"):
        Database(tmp_path / "file" / "node.db")
    (tmp_path / "node.db").mkdir()
    with pytest.raises(StoreError, match="TENSOR_WASM_HOME"):
        Database(tmp_path / "node.db")


def test_a_closed_file_says_so(tmp_path):
    database = Database(tmp_path / "node.db")
    database.check()
    database.close()
    database.close()
    with pytest.raises(StoreError, match="closed"):
        database.check()


def test_what_was_acknowledged_is_on_the_disk_and_not_only_with_the_system(tmp_path):
    """A kill shows nothing of it; a power cut would: SQLite's own word that each commit is synced."""
    database = Database(tmp_path / "node.db")
    assert database.rows("PRAGMA synchronous") == [(2,)]
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    database.close()


def test_a_transaction_that_fails_changes_nothing(tmp_path):
    database = Database(tmp_path / "node.db")

    def change(last):
        with database.transaction(taken="the rule") as connection:
            connection.execute("INSERT INTO tenants (tenant, weight) VALUES ('1', 2)")
            last(connection)

    def stop(_):
        raise RuntimeError

    with pytest.raises(StoreError, match="the rule"):
        change(lambda connection: connection.execute("INSERT INTO tenants (tenant, cuda) VALUES ('2', 7)"))
    with pytest.raises(StoreError, match="does not fit"):
        change(lambda connection: connection.execute("UPDATE tenants SET weight = ?", (1 << 64,)))
    with pytest.raises(RuntimeError):
        change(stop)
    assert database.rows("SELECT * FROM tenants") == []
    database.close()


def test_a_file_that_another_process_holds_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "_BUSY_S", 0.01)
    database = Database(tmp_path / "node.db")
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked.*TENSOR_WASM_HOME"), database.transaction():
        pass
    other.close()
    with database.transaction():
        pass
    database.close()


def test_threads_take_turns(tmp_path):
    database = Database(tmp_path / "node.db")
    with database.transaction() as connection:
        connection.execute("INSERT INTO tenants (tenant, weight) VALUES ('1', 0)")

    def count():
        for _ in range(20):
            with database.transaction() as connection:
                ((weight,),) = connection.execute("SELECT weight FROM tenants").fetchall()
                connection.execute("UPDATE tenants SET weight = ?", (weight + 1,))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.rows("SELECT weight FROM tenants") == [(80,)]
    database.close()
