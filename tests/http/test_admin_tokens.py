"""Tokens over HTTP: made, used, revoked; and how a node without any closes."""

from __future__ import annotations

import time

import pytest

from administered import administered
from serving import Running


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home")) as server:
        yield server


def make(node, scope, name="", who="boss"):
    answer = node.call("POST", "/admin/tokens", {"scope": scope, "name": name}, who=who)
    assert answer.status == 201, answer.body
    return answer.json


def listed(node):
    return {token["id"]: token for token in node.call("GET", "/admin/tokens").json["tokens"]}


def test_a_token_is_shown_once_works_and_ends_at_once(node):
    made = make(node, "tenant=5", "for five")
    assert made.keys() == {"id", "token", "name", "scope", "created_at"}
    shown = listed(node)[made["id"]]
    assert (shown["name"], shown["scope"], shown["source"]) == ("for five", "tenant=5", "database")
    assert shown["last_used_at"] is None
    assert made["token"] not in str(listed(node))
    before = time.time()
    function = node.deploy(made["token"])
    assert listed(node)[made["id"]]["last_used_at"] >= before
    assert node.call("GET", "/functions", who=made["token"], tenant=6).status == 403
    assert node.call("DELETE", f"/admin/tokens/{made['id']}").status == 204
    answer = node.call("GET", f"/functions/{function}", who=made["token"])
    assert (answer.status, answer.kind) == (401, "unauthorized")
    assert made["id"] not in listed(node)


def test_an_answer_with_a_secret_is_not_to_be_cached(node):
    answer = node.call("POST", "/admin/tokens", {"scope": "tenant=1"})
    assert answer.headers["cache-control"] == "no-store"


def test_tokens_of_the_settings_are_listed_and_cannot_be_revoked(node):
    of_settings = [token for token in listed(node).values() if token["source"] == "settings"]
    assert len(of_settings) == 5
    answer = node.call("DELETE", f"/admin/tokens/{of_settings[0]['id']}")
    assert (answer.status, answer.kind) == (409, "conflict")
    assert node.call("GET", "/admin/tokens").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b'{"scope": ""}', b'{"scope": "tenant="}', b'{"scope": "role=root"}', b'{"scope": "tenant=1,x"}',
        b'{"scope": "tenant=18446744073709551616"}', b'{"scope": "tenant=1", "name": "\\u0007"}', b'{"scope": 1}',
        b'{"scope": "tenant=1", "secret": "x"}',
    ],
)  # fmt: skip
def test_a_token_that_cannot_be_is_not_made(node, body):
    before = listed(node).keys()
    answer = node.call("POST", "/admin/tokens", body)
    assert answer.status == 400
    assert listed(node).keys() == before


def test_a_tenant_can_neither_make_nor_revoke_tokens(node):
    made = make(node, "tenant=9")
    for who in ("one", "all", made["token"]):
        assert node.call("POST", "/admin/tokens", {"scope": "role=admin"}, who=who).status == 403
        assert node.call("DELETE", f"/admin/tokens/{made['id']}", who=who).status == 403
    assert made["id"] in listed(node)


def test_an_open_node_closes_with_its_first_token_and_stays_closed(tmp_path):
    with administered(tmp_path, api_tokens=None) as server:
        assert server.get("/admin/tokens").status == 200
        assert server.post("/admin/tokens", {"scope": "tenant=1"}).status == 409
        made = server.post("/admin/tokens", {"scope": "role=admin"})
        assert made.status == 201
        secret, identity = made.json["token"], made.json["id"]
        assert server.get("/admin/tokens").status == 401
        assert server.get("/functions").status == 401
        assert server.call("GET", "/admin/tokens", who=secret).status == 200
        last = server.call("DELETE", f"/admin/tokens/{identity}", who=secret)
        assert (last.status, last.kind) == (409, "conflict")
    with administered(tmp_path, api_tokens=None) as server:
        assert server.get("/functions").status == 401
        assert server.call("GET", "/admin/tokens", who=secret).status == 200


def test_metrics_and_probes_need_no_token(node):
    plain = Running(node.node, node.server)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert plain.get(path).status == 200
