from __future__ import annotations

import sqlite3

import pytest

from tensor_wasm.errors import StoreError
from tensor_wasm.store import TenantStore

MAX_TENANT = (1 << 64) - 1
ALL = {
    "weight": 3,
    "permits": 4,
    "instances": 5,
    "guest_memory_bytes": 1 << 50,
    "gpu_memory_bytes": 0,
    "functions": 6,
    "stored_bytes": 7,
    "rate_qps": 0.5,
    "rate_burst": 8,
    "cuda": False,
}


@pytest.fixture
def store(database):
    return TenantStore(database)


@pytest.mark.parametrize("tenant", [0, 1, (1 << 63) - 1, 1 << 63, MAX_TENANT, None])
def test_values_come_back_with_their_types(store, tenant):
    store.set(tenant, ALL)
    assert store.all() == {tenant: ALL}
    assert {name: type(value) for name, value in store.all()[tenant].items()} == {
        name: type(value) for name, value in ALL.items()
    }


def test_large_tenants_are_told_apart(store):
    """As floats or signed integers some of them would be the same."""
    tenants = [MAX_TENANT, MAX_TENANT - 1, 1 << 63, (1 << 63) - 1, (1 << 53) + 1, 1 << 53]
    for weight, tenant in enumerate(tenants, 1):
        store.set(tenant, {"weight": weight})
    assert store.all() == {tenant: {"weight": weight} for weight, tenant in enumerate(tenants, 1)}


def test_a_row_is_replaced_whole(store):
    store.set(1, ALL)
    store.set(None, {"weight": 2})
    store.set(1, {"cuda": True})
    assert store.all() == {1: {"cuda": True}, None: {"weight": 2}}


def test_no_values_is_no_row(store):
    store.set(1, ALL)
    store.set(2, ALL)
    store.set(1, {})
    store.set(3, {})
    assert store.all() == {2: ALL}


def test_no_name_becomes_sql(store):
    with pytest.raises(StoreError, match="no column"):
        store.set(1, {"weight) VALUES (1); DROP TABLE tenants; --": 1})
    assert store.all() == {}


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, "many", 1.5])
def test_what_fits_no_column_is_refused(store, value):
    with pytest.raises(StoreError, match="fit"):
        store.set(1, {"weight": value})
    assert store.all() == {}


@pytest.mark.parametrize("tenant", ["", "-1", "x", "1.0", "Default", "٣", "9" * 30])
def test_a_row_of_no_tenant_is_damage(store, database, tenant):
    with database.transaction() as connection:
        connection.execute("INSERT INTO tenants (tenant, weight) VALUES (?, 1)", (tenant,))
    with pytest.raises(StoreError, match="damaged"):
        store.all()


@pytest.mark.parametrize(("column", "value"), [("weight", "'many'"), ("cuda", "2")])
def test_the_file_itself_holds_to_the_types(database, tmp_path, column, value):
    with sqlite3.connect(tmp_path / "node.db") as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"INSERT INTO tenants (tenant, {column}) VALUES ('1', {value})")
    connection.close()
