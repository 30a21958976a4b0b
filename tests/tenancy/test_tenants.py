from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading

import pytest

from tensor_wasm.errors import Conflict, InvalidTenant, RequestError, StoreError
from tensor_wasm.store import Database, TenantStore
from tensor_wasm.tenancy import QUOTA_FIELDS, TENANT_MAX, Quotas, Tenants
from tensor_wasm.tenancy import tenants as tenants_module


@pytest.fixture
def store(database):
    return TenantStore(database)


@pytest.fixture
def tenants(store):
    return Tenants(store)


def test_a_tenant_nobody_spoke_of_has_the_defaults(tenants):
    assert tenants.quotas(7) == tenants.defaults() == Quotas()
    assert tenants.overrides(7) == tenants.overrides(None) == {}
    assert tenants.known() == []


@pytest.mark.parametrize("tenant", [0, 1 << 63, TENANT_MAX])
def test_a_change_holds_at_once_and_after_the_next_start(tenants, store, tenant):
    changed = tenants.change(tenant, {"weight": 3, "rate_qps": 2, "cuda": False})
    assert changed == Quotas(weight=3, rate_qps=2.0, cuda=False)
    for reader in (tenants, Tenants(store)):
        assert reader.quotas(tenant) == changed
        assert reader.overrides(tenant) == {"weight": 3, "rate_qps": 2.0, "cuda": False}
        assert reader.known() == [tenant]
        assert reader.quotas(5) == Quotas()


def test_changes_add_up_and_none_takes_one_away(tenants, store):
    tenants.change(1, {"weight": 3, "functions": 0})
    tenants.change(1, {"permits": 2, "weight": None})
    assert tenants.overrides(1) == {"functions": 0, "permits": 2}
    assert tenants.change(1, {"permits": None, "functions": None, "instances": None}) == Quotas()
    assert tenants.known() == []
    assert store.all() == {}


def test_what_a_tenant_has_not_comes_from_the_row_default(tenants, store):
    tenants.change(1, {"weight": 5})
    assert tenants.change(None, {"weight": 2, "permits": 8, "cuda": False}) == Quotas(weight=2, permits=8, cuda=False)
    for reader in (tenants, Tenants(store)):
        assert reader.quotas(1) == Quotas(weight=5, permits=8, cuda=False)
        assert reader.quotas(2) == reader.defaults() == Quotas(weight=2, permits=8, cuda=False)
        assert reader.overrides(1) == {"weight": 5}
        assert reader.overrides(None) == {"weight": 2, "permits": 8, "cuda": False}
        assert reader.known() == [1]
    tenants.change(1, {"cuda": True})
    assert tenants.quotas(1) == Quotas(weight=5, permits=8, cuda=True)
    tenants.change(None, {"weight": None, "permits": None, "cuda": None})
    assert tenants.quotas(1) == Quotas(weight=5)
    assert tenants.defaults() == Quotas()


def test_a_value_that_is_the_default_now_stays_when_the_default_changes(tenants):
    tenants.change(1, {"weight": 1})
    tenants.change(None, {"weight": 9})
    assert tenants.quotas(1).weight == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 0},
        {"weight": 1001},
        {"permits": 0},
        {"rate_qps": math.nan},
        {"rate_qps": math.inf},
        {"rate_qps": -1.0},
        {"rate_burst": 0},
        {"stored_bytes": 1 << 64},
        {"cuda": 1},
        {"weight": True},
        {"weight": 2.0},
        {"instances": "5"},
        {"secret": 1},
        {"": 1},
        {"weight) VALUES (1); --": None},
    ],
)
def test_one_wrong_value_changes_nothing(tenants, store, changes):
    with pytest.raises(RequestError) as caught:
        tenants.change(1, {"functions": 3, **changes})
    (name,) = changes
    named = name if name in QUOTA_FIELDS else "the quotas are weight, permits"
    assert named in caught.value.message
    assert tenants.quotas(1) == Quotas()
    assert store.all() == {}


@pytest.mark.parametrize("tenant", [-1, TENANT_MAX + 1, 1 << 200])
def test_a_tenant_is_a_number_of_64_bits(tenants, tenant):
    with pytest.raises(InvalidTenant):
        tenants.change(tenant, {"weight": 2})


def test_a_change_that_cannot_be_kept_is_none(tenants, database):
    told = []
    tenants.change(1, {"weight": 2})
    tenants.listen(told.append)
    database.close()
    with pytest.raises(StoreError):
        tenants.change(1, {"weight": 3})
    assert tenants.quotas(1).weight == 2
    assert told == []


def test_what_is_told_of_a_tenant_cannot_be_changed_by_whoever_asked(tenants):
    tenants.change(1, {"weight": 2})
    tenants.overrides(1)["weight"] = 999
    assert tenants.quotas(1).weight == 2
    assert tenants.overrides(1) == {"weight": 2}


def test_whoever_listens_is_told_after_it_is_on_the_disk(tenants, store):
    told = []
    tenants.listen(
        lambda tenant: told.append((tenant, store.all()[tenant], tenants.overrides(tenant), tenants.known()))
    )
    tenants.change(1, {"weight": 2})
    tenants.change(None, {"weight": 3})
    assert told == [(1, {"weight": 2}, {"weight": 2}, [1]), (None, {"weight": 3}, {"weight": 3}, [1])]


def test_a_change_to_what_is_already_so_is_none(tenants, store, monkeypatch):
    tenants.change(1, {"weight": 2})
    monkeypatch.setattr(store, "set", lambda *_: pytest.fail("wrote"))
    tenants.listen(lambda tenant: pytest.fail("told"))
    assert tenants.change(1, {"weight": 2}) == tenants.change(1, {}) == Quotas(weight=2)
    assert tenants.change(2, {"weight": None}) == Quotas()


def test_there_is_a_most_of_tenants_with_values(tenants, monkeypatch):
    monkeypatch.setattr(tenants_module, "TENANTS_MAX", 2)
    tenants.change(1, {"weight": 2})
    tenants.change(2, {"weight": 2})
    with pytest.raises(Conflict, match="2 tenants"):
        tenants.change(3, {"weight": 2})
    tenants.change(2, {"weight": 4})
    tenants.change(3, {"weight": None})
    tenants.change(1, {"weight": None})
    tenants.change(3, {"weight": 2})
    assert tenants.known() == [2, 3]


@pytest.mark.parametrize(
    ("column", "value"),
    [("weight", "0"), ("weight", "-1"), ("permits", str(1 << 62)), ("rate_qps", "9e999"), ("rate_qps", "0")],
)
@pytest.mark.parametrize("row", ["default", "7"])
def test_values_of_the_database_that_cannot_be_stop_the_start(store, database, column, value, row):
    with database.transaction() as connection:
        connection.execute(f"INSERT INTO tenants (tenant, {column}) VALUES ('{row}', {value})")
    with pytest.raises(StoreError, match=f"tenant {row} .*{column}"):
        Tenants(store)


def test_a_tenant_of_the_database_that_is_too_large_stops_the_start(store, database):
    with database.transaction() as connection:
        connection.execute("INSERT INTO tenants (tenant, weight) VALUES ('18446744073709551616', 1)")
    with pytest.raises(StoreError, match="18446744073709551616"):
        Tenants(store)


def test_what_listeners_set_last_is_what_holds(tenants, store):
    """Each takes what it is told to somewhere else: of two changes at once the later must not be overtaken there."""
    ledger = {}
    tenants.listen(lambda tenant: ledger.update({tenant: tenants.quotas(tenant).weight}))
    seen = set()

    def change(start):
        for weight in range(start, start + 40):
            seen.add(tenants.change(1, {"weight": weight}).weight == weight)

    threads = [threading.Thread(target=change, args=(start,)) for start in (1, 101, 201, 301)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {True}
    assert ledger[1] == tenants.quotas(1).weight == store.all()[1]["weight"]


def test_no_reader_waits_for_the_disk(tenants, database):
    tenants.change(1, {"weight": 2})
    with database.transaction():
        thread = threading.Thread(target=tenants.change, args=(1, {"weight": 3}))
        thread.start()
        answers = []

        def ask():
            answers.append((tenants.quotas(1).weight, tenants.overrides(1), tenants.known(), tenants.defaults()))

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(5)
        assert answers == [(2, {"weight": 2}, [1], Quotas())]
    thread.join()
    assert tenants.quotas(1).weight == 3


def test_a_change_that_returned_survives_kill(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tensor_wasm.store import Database, TenantStore\n"
        "from tensor_wasm.tenancy import TENANT_MAX, Tenants\n"
        "tenants = Tenants(TenantStore(Database(Path(sys.argv[1]))))\n"
        "while True:\n"
        "    for weight in range(1, 1001):\n"
        "        tenants.change(TENANT_MAX, {'weight': weight})\n"
        "        print(weight, flush=True)\n"
    )
    path = tmp_path / "node.db"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        last = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.kill()
        for line in process.stdout:
            last = int(line) if line.endswith("\n") else last
    assert process.returncode == -signal.SIGKILL
    database = Database(path)
    # The last change may have reached the disk without being told of.
    assert Tenants(TenantStore(database)).quotas(TENANT_MAX).weight in (last, last % 1000 + 1)
    database.close()
