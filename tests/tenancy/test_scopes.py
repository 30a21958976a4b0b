from __future__ import annotations

import pytest

from tensor_wasm.tenancy import ANYBODY, Scope, parse_scope, parse_tenant

MAX = "18446744073709551615"


@pytest.mark.parametrize(
    ("text", "scope", "canonical"),
    [
        ("role=admin", Scope(None, is_admin=True), "role=admin"),
        ("tenant=*", Scope(None, is_admin=False), "tenant=*"),
        ("tenant=0", Scope(frozenset({0}), is_admin=False), "tenant=0"),
        ("tenant=10,9, 007", Scope(frozenset({7, 9, 10}), is_admin=False), "tenant=7,9,10"),
        (f"tenant={MAX}", Scope(frozenset({(1 << 64) - 1}), is_admin=False), f"tenant={MAX}"),
    ],
)
def test_a_scope_is_read_and_written(text, scope, canonical):
    assert parse_scope(text) == scope
    assert scope.text == canonical
    assert parse_scope(canonical) == scope


@pytest.mark.parametrize(
    "text",
    [
        "", "admin", "role=root", "role=admin ", "ROLE=admin", "role=admin,tenant=1", "tenant", "tenant=", "tenant=,",
        "tenant=1,", "tenant=1,1", "tenant=1,*", "tenant=**", "tenant=-1", "tenant=1.0", "tenant=0x1", "tenant=٣",
        "tenant=1\0", "tenant=18446744073709551616", "tenant=1;role=admin", "tenant=1 2",
    ],
)  # fmt: skip
def test_what_is_no_scope_grants_nothing(text):
    assert parse_scope(text) is None


def test_a_tenant_is_an_unsigned_number_of_64_bits():
    assert parse_tenant(MAX) == (1 << 64) - 1
    assert parse_tenant("007") == 7
    for wrong in ("", "-1", "+1", " 1", "1\n", "1.0", "0x1", "1_0", "٣", "18446744073709551616", "9" * 30):
        assert parse_tenant(wrong) is None


def test_who_needs_no_token_has_the_id_of_none():
    assert (ANYBODY.is_admin, ANYBODY.tenants, ANYBODY.token_id, ANYBODY.default_tenant) == (True, None, "", 0)
