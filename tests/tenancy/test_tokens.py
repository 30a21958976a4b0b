from __future__ import annotations

import pytest

from tensor_wasm.errors import ConfigurationError
from tensor_wasm.tenancy import Principal, parse_tokens


def test_each_form_is_read():
    tokens = parse_tokens("one:tenant=7; two:tenant=1, 2 ;all:tenant=*;boss:role=admin;with:colon:tenant=3;")
    assert tokens.find(b"one") == Principal(frozenset({7}), is_admin=False, token_id="settings-1")
    assert tokens.find(b"two") == Principal(frozenset({1, 2}), is_admin=False, token_id="settings-2")
    assert tokens.find(b"all") == Principal(None, is_admin=False, token_id="settings-3")
    assert tokens.find(b"boss") == Principal(None, is_admin=True, token_id="settings-4")
    assert tokens.find(b"with:colon") == Principal(frozenset({3}), is_admin=False, token_id="settings-5")


def test_only_a_whole_token_is_known():
    tokens = parse_tokens("secret:tenant=1")
    for wrong in (b"", b"secre", b"secret ", b"SECRET", b"secret:tenant=1", b"secret\0", b"\xff"):
        assert tokens.find(wrong) is None


@pytest.mark.parametrize(
    "entry",
    [
        "hunter2",
        "hunter2:",
        "hunter2:tenant",
        "hunter2:tenant=",
        "hunter2:tenant=1,",
        "hunter2:tenant=-1",
        "hunter2:tenant=18446744073709551616",
        "hunter2:tenant=**",
        "hunter2:tenant=1,*",
        "hunter2:tenant=٣",
        "hunter2:role=root",
        "hunter2:role=admin,tenant=1",
        "hunter2 x:tenant=1",
        "hünter2:tenant=1",
        ":hunter2",
        ":tenant=1",
    ],
)
def test_a_malformed_entry_stops_the_start_and_stays_secret(entry):
    with pytest.raises(ConfigurationError) as caught:
        parse_tokens(f"good:tenant=1;{entry}")
    assert "TENSOR_WASM_API_TOKENS: entry 2" in caught.value.message
    for secret in ("hunter2", "hünter2", "good"):
        assert secret not in caught.value.message


def test_a_token_stands_for_one_thing():
    with pytest.raises(ConfigurationError, match="entry 3") as caught:
        parse_tokens("hunter2:tenant=1;;hunter2:role=admin")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("text", [";", " ; ;"])
def test_no_entry_at_all_does_not_open_the_node(text):
    with pytest.raises(ConfigurationError, match="no entry"):
        parse_tokens(text)


def test_a_token_that_names_one_tenant_acts_for_it():
    tokens = parse_tokens("one:tenant=7;two:tenant=1,2;all:tenant=*")
    assert [tokens.find(name).default_tenant for name in (b"one", b"two", b"all")] == [7, 0, 0]


def test_what_is_kept_of_a_token_shows_nothing_of_it():
    (token,) = parse_tokens("hunter2:tenant=1")
    assert "hunter2" not in repr(token)
    assert b"hunter2" not in token.hash
    assert "hash" not in repr(token)
