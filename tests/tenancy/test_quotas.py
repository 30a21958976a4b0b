from __future__ import annotations

import math
from dataclasses import fields

import pytest

from tensor_wasm.errors import RequestError
from tensor_wasm.store import Database, TenantStore
from tensor_wasm.tenancy import QUOTA_FIELDS, Quotas, Rate

NUMBERS = [field for field in QUOTA_FIELDS.values() if field.type != "boolean"]


def test_each_quota_has_a_row_and_a_column(tmp_path):
    """At both ends of its range: what may be set fits its column."""
    database = Database(tmp_path / "node.db")
    store = TenantStore(database)
    for tenant, ends in enumerate(
        [
            {f.name: f.check(f.low) if f.type != "boolean" else False for f in QUOTA_FIELDS.values()},
            {f.name: f.check(f.high) if f.type != "boolean" else True for f in QUOTA_FIELDS.values()},
        ]
    ):
        store.set(tenant, ends)
        assert store.all()[tenant] == ends
        assert Quotas(**ends)
    database.close()
    assert list(QUOTA_FIELDS) == [field.name for field in fields(Quotas)]


def test_without_values_only_the_weight_and_the_device_are_given():
    set_by_default = {field.name: getattr(Quotas(), field.name) for field in fields(Quotas)}
    assert {name: value for name, value in set_by_default.items() if value is not None} == {"weight": 1, "cuda": True}


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_a_number_is_in_its_range(field):
    whole = field.type != "number"
    low, high = (int(field.low), int(field.high)) if whole else (field.low, field.high)
    assert field.check(low) == low
    assert field.check(high) == high
    below, above = (low - 1, high + 1) if whole else (math.nextafter(low, 0), math.nextafter(high, math.inf))
    wrong = [
        below,
        above,
        -1,
        -(10**400),
        10**400,
        math.nan,
        math.inf,
        -math.inf,
        True,
        False,
        "1",
        "",
        [],
        {},
        b"1",
        1j,
    ]
    wrong += [1.0, 1.5] if whole else [0, 0.0, -0.0, 5e-324]
    for value in wrong:
        with pytest.raises(RequestError) as caught:
            field.check(value)
        assert field.name in caught.value.message
        assert field.range in caught.value.message
        assert len(caught.value.message) < 200


def test_a_rate_is_a_float_also_when_it_is_whole():
    assert type(QUOTA_FIELDS["rate_qps"].check(5)) is float


def test_the_capability_is_a_boolean():
    assert QUOTA_FIELDS["cuda"].check(False) is False
    for value in (0, 1, "false", None, 0.0, []):
        with pytest.raises(RequestError, match="cuda must be true or false"):
            QUOTA_FIELDS["cuda"].check(value)


def test_ranges_are_told_in_words():
    assert QUOTA_FIELDS["weight"].range == "1 to 1000"
    assert QUOTA_FIELDS["stored_bytes"].range == f"0 to {1 << 50} bytes"
    assert QUOTA_FIELDS["rate_qps"].range == "0.001 to 1e+06"
    assert all(field.description.endswith(".") for field in QUOTA_FIELDS.values())


def test_the_rate_of_a_tenant():
    assert Quotas().rate is None
    assert Quotas(rate_burst=5).rate is None
    assert Quotas(rate_qps=0.5).rate == Rate(0.5, 1)
    assert Quotas(rate_qps=2.5).rate == Rate(2.5, 3)
    assert Quotas(rate_qps=2.5, rate_burst=9).rate == Rate(2.5, 9)
