from __future__ import annotations

import dataclasses

import pytest

from tensor_wasm.errors import StoreError
from tensor_wasm.store import Database, TokenRecord, TokenStore


def record(id="a", hash=b"\0" * 32, **fields):
    return TokenRecord(id, "name", "tenant=1", hash, 1000.25, None, **fields)


@pytest.fixture
def store(tmp_path):
    database = Database(tmp_path / "node.db")
    yield TokenStore(database)
    database.close()


def test_what_was_added_is_there_oldest_first(store):
    first = record("z", b"z" * 32)
    second = dataclasses.replace(record("a", b"a" * 32), name="Ünïcode 'quoted' name", last_used_at=7.5)
    store.add(first)
    store.add(second)
    assert store.all() == [first, second]


@pytest.mark.parametrize("other", [record("a", b"x" * 32), record("b")])
def test_ids_and_hashes_are_taken_once(store, other):
    store.add(record())
    with pytest.raises(StoreError, match="already"):
        store.add(other)
    assert store.all() == [record()]


def test_delete_says_whether_there_was_one(store):
    store.add(record())
    assert not store.delete("b")
    assert store.delete("a")
    assert not store.delete("a")
    assert store.all() == []


def test_last_use_is_noted_of_those_that_are_there(store):
    store.add(record())
    store.add(record("b", b"b" * 32))
    store.touch({"a": 2000.5, "gone": 1.0})
    store.touch({})
    assert [(token.id, token.last_used_at) for token in store.all()] == [("a", 2000.5), ("b", None)]


def test_the_hash_is_in_no_log():
    assert "hash" not in repr(record())
