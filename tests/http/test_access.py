from __future__ import annotations

import pytest

from fake_node import NoStore
from serving import running
from tensor_wasm.config import load
from tensor_wasm.errors import ConfigurationError, Misdirected
from tensor_wasm.http.access import Access, is_loopback
from tensor_wasm.tenancy import TokenBook

TOKENS = "one:tenant=7;two:tenant=1,2;all:tenant=*;boss:role=admin"


def access(tmp_path, **settings):
    config = load({}, {"home": tmp_path, **settings}).config
    return Access(config, TokenBook(config.api_tokens, NoStore()))


def bearer(token, **headers):
    return {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): text for name, text in headers.items()}


@pytest.mark.parametrize("path", ["/functions", "/functions/abc"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic one"},
        {"Authorization": "one"},
    ],
)
def test_without_a_known_token_nothing_of_a_tenant_is_answered(protected, path, headers):
    answer = protected.request("GET", path, headers=headers)
    assert (answer.status, answer.kind) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    with running(tmp_path_factory.mktemp("home"), api_tokens=TOKENS) as server:
        yield server


def test_what_everybody_may_see_needs_no_token(protected):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert protected.get(path).status == 200


@pytest.mark.parametrize(
    ("token", "asked", "tenant"),
    [
        ("one", None, 7),
        ("one", "7", 7),
        ("two", "2", 2),
        ("all", None, 0),
        ("all", "18446744073709551615", 18446744073709551615),
        ("boss", "5", 5),
    ],
)
def test_a_token_acts_for_its_tenants(protected, token, asked, tenant):
    protected.node.invocations.calls.clear()
    headers = bearer(token) | ({} if asked is None else {"X-TensorWasm-Tenant": asked})
    assert protected.invoke({}, headers).status == 200
    assert protected.node.invocations.calls[0][3] == tenant


@pytest.mark.parametrize(("token", "asked"), [("one", "8"), ("one", "0"), ("two", "3"), ("two", None)])
def test_a_token_acts_for_no_other_tenant(protected, token, asked):
    protected.node.invocations.calls.clear()
    headers = bearer(token) | ({} if asked is None else {"X-TensorWasm-Tenant": asked})
    answer = protected.invoke({}, headers)
    assert (answer.status, answer.kind) == (403, "forbidden")
    assert protected.node.invocations.calls == []


@pytest.mark.parametrize("asked", ["", "-1", "abc", "1.5", "18446744073709551616", "1, 2", "é"])
def test_a_tenant_that_is_no_number_is_refused(protected, asked):
    headers = bearer("all") | {"X-TensorWasm-Tenant": asked.encode("latin-1")}
    answer = protected.request("GET", "/functions", headers=headers)
    assert (answer.status, answer.kind) == (400, "invalid_tenant")


def test_a_node_with_tokens_answers_under_any_name(protected):
    assert protected.get("/functions", Authorization="Bearer all", Host="node.example").status == 200
    assert protected.get("/functions", Authorization="Bearer all", Origin="https://app.example").status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LOCALHOST", "[::1]:80", "127.9.9.9"])
def test_an_open_node_answers_under_loopback_names(server, host):
    assert server.get("/functions", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]",
        "[::1",
        "[::1]x",
        "127.0.0.1:80:80",
        "127.0.0.1@evil.example",
        "0.0.0.0",
        "2130706433",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/functions", "/metrics", "/nowhere"])
def test_a_name_that_was_made_to_point_here_gets_nothing(server, host, path):
    answer = server.get(path, Host=host)
    assert (answer.status, answer.kind) == (421, "misdirected")
    assert server.node.invocations.calls == []


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://"]
)
def test_a_page_of_another_site_gets_nothing(server, origin):
    answer = server.invoke({}, {"Origin": origin, "Host": "127.0.0.1:8080"})
    assert (answer.status, answer.kind) == (421, "misdirected")
    assert server.node.invocations.calls == []


def test_the_nodes_own_page_is_answered(server):
    assert server.invoke({}, {"Origin": "http://127.0.0.1:8080", "Host": "127.0.0.1:8080"}).status == 200


def test_everybody_on_an_open_node_may_act_for_any_tenant(server):
    server.invoke({}, {"X-TensorWasm-Tenant": "42", "Authorization": "Bearer whatever"})
    server.invoke({})
    assert [call[3] for call in server.node.invocations.calls] == [42, 0]


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "10.1.2.3:80", "node.example:80"])
def test_an_open_node_on_the_network_does_not_start(tmp_path, address):
    with pytest.raises(ConfigurationError, match="TENSOR_WASM_API_TOKENS") as caught:
        access(tmp_path, listen_addr=address)
    assert "TENSOR_WASM_DEV_MODE" in caught.value.message
    assert access(tmp_path, listen_addr=address, dev_mode=True).is_exposed
    assert not access(tmp_path, listen_addr=address, api_tokens="t:tenant=1").is_exposed


@pytest.mark.parametrize("address", ["127.0.0.1:80", "localhost:80", "[::1]:80", "127.1.2.3:80"])
def test_an_open_node_on_loopback_starts(tmp_path, address):
    rules = access(tmp_path, listen_addr=address)
    assert rules.is_open
    assert not rules.is_exposed


def test_an_exposed_node_answers_under_addresses_but_not_under_names(tmp_path):
    rules = access(tmp_path, listen_addr="0.0.0.0:80", dev_mode=True)
    for host in (b"10.0.0.5", b"10.0.0.5:80", b"[fe80::1]:80", b"localhost"):
        rules.check_origin({b"host": host})
    with pytest.raises(Misdirected):
        rules.check_origin({b"host": b"evil.example"})
    named = access(tmp_path, listen_addr="gpu.lab.example:80", dev_mode=True)
    named.check_origin({b"host": b"GPU.lab.example:80"})


def test_names_that_are_this_machine():
    assert all(map(is_loopback, ("localhost", "LocalHost.", "127.0.0.1", "127.255.0.9", "::1")))
    assert not any(map(is_loopback, ("", "localhost.x", "0.0.0.0", "::", "10.0.0.1", "127.0.0", "1")))
