from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid

import pytest

from tensor_wasm.errors import NotFound, StoreError
from tensor_wasm.store import Database, FunctionRecord, Registry
from tensor_wasm.store import registry as registry_module

MAX_TENANT = (1 << 64) - 1


def record(tenant=1, name="adder"):
    return FunctionRecord(str(uuid.uuid4()), tenant, name, "ab" * 32, 123, time.time())


@pytest.fixture
def registry(database):
    return Registry(database)


def test_what_was_added_is_found_by_its_tenant_only(registry):
    kept = record(tenant=MAX_TENANT)
    registry.add(kept)
    assert registry.get(kept.id, MAX_TENANT) == kept
    assert registry.get(kept.id, 1) is None
    assert registry.get(str(uuid.uuid4()), MAX_TENANT) is None


def test_an_id_is_taken_once(registry):
    kept = record()
    registry.add(kept)
    with pytest.raises(StoreError, match="already"):
        registry.add(kept)
    assert registry.count() == 1


def test_a_list_is_oldest_first_in_pages_of_one_tenant(registry):
    mine = [record(name=f"f{n}") for n in range(5)]
    for item in mine:
        registry.add(item)
        registry.add(record(tenant=2))
    assert registry.list(1, 2) == mine[:2]
    assert registry.list(1, 2, mine[1].id) == mine[2:4]
    assert registry.list(1, 9, mine[3].id) == mine[4:]
    assert registry.list(1, 9, mine[4].id) == []
    assert registry.list(3, 9) == []


def test_pages_go_on_after_a_function_that_was_deleted_meanwhile(registry):
    mine = [record() for _ in range(4)]
    for item in mine:
        registry.add(item)
    assert registry.delete(mine[1].id, 1)
    assert registry.list(1, 9, mine[1].id) == mine[2:]


@pytest.mark.parametrize("tenant", [2, 3])
def test_a_cursor_that_is_none_of_the_tenants_is_not_found(registry, tenant):
    mine = record(tenant=1)
    registry.add(mine)
    with pytest.raises(NotFound):
        registry.list(tenant, 9, mine.id)


def test_delete_needs_the_tenant_and_happens_once(registry):
    mine, other = record(), record(tenant=2)
    registry.add(mine)
    registry.add(other)
    assert not registry.delete(mine.id, 2)
    assert registry.delete(mine.id, 1)
    assert not registry.delete(mine.id, 1)
    assert registry.get(mine.id, 1) is None
    assert registry.all() == [other]
    assert registry.count() == 1


def test_what_was_deleted_long_ago_leaves_no_trace(registry, monkeypatch, tmp_path):
    old, new = record(), record()
    registry.add(old)
    registry.add(new)
    registry.delete(old.id, 1)
    later = time.time() + 2 * registry_module._CURSOR_LIFE_S
    monkeypatch.setattr(registry_module.time, "time", lambda: later)
    registry.delete(new.id, 1)
    with sqlite3.connect(tmp_path / "node.db") as connection:
        assert connection.execute("SELECT id FROM functions").fetchall() == [(new.id,)]
    connection.close()


def test_text_of_sql_is_only_text(registry):
    nasty = record(name="'; DROP TABLE functions; --")
    registry.add(nasty)
    assert registry.get("' OR 1=1 --", 1) is None
    assert registry.all() == [nasty]


def test_it_is_the_same_after_opening_again(tmp_path):
    kept = record()
    for _ in range(2):
        database = Database(tmp_path / "node.db")
        registry = Registry(database)
        if not registry.count():
            registry.add(kept)
        assert registry.all() == [kept]
        database.close()


def test_what_was_added_survives_kill(tmp_path):
    """The child is killed right after `add` returned; what it said it added is there."""
    script = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from tensor_wasm.store import Database, FunctionRecord, Registry\n"
        "registry = Registry(Database(Path(sys.argv[1])))\n"
        "for number in range(20):\n"
        "    registry.add(FunctionRecord(f'id-{number}', 7, 'f', 'ab' * 32, 1, time.time()))\n"
        "registry.delete('id-3', 7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "node.db"
    child = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    database = Database(path)
    assert [item.id for item in Registry(database).all()] == [f"id-{number}" for number in range(20) if number != 3]
    database.close()


def test_many_threads_use_one_registry(registry):
    failures = []

    def work(tenant):
        try:
            for _ in range(10):
                item = record(tenant=tenant)
                registry.add(item)
                assert registry.get(item.id, tenant) == item
                assert registry.delete(item.id, tenant)
                registry.add(record(tenant=tenant))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert registry.count() == 40


def test_a_tenant_that_is_no_number_is_damage(database, registry):
    registry.add(record())
    with database.transaction() as connection:
        connection.execute("UPDATE functions SET tenant = 'x'")
    with pytest.raises(StoreError, match="damaged"):
        registry.all()


def test_the_probe_of_a_closed_file_says_so(database, registry):
    registry.check()
    database.close()
    with pytest.raises(StoreError, match="closed"):
        registry.check()
