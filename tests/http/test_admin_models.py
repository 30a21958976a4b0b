"""Models through a real server: bound, shown, unbound, kept."""

from __future__ import annotations

import json

import pytest

from administered import TOKENS, Administered, administered
from tensor_wasm.config import load
from tensor_wasm.http import Server
from tensor_wasm.node import Node
from tensor_wasm.telemetry.audit import AuditLog
from tensor_wasm.wasm import Module, ValType


def guest() -> bytes:
    """``run``, ``speak``, and ``takes`` which has a parameter."""
    module = Module()
    module.memory(1, export="memory")
    module.function([], [], export="run")
    module.function([], [], export="speak")
    module.function([ValType.I32], [], export="takes")
    return module.encode().wasm


@pytest.fixture
def server(tmp_path):
    with administered(tmp_path) as server:
        yield server


def bind(server, identity, name="m", tenant=1, who="boss", **more):
    return server.call("PUT", f"/admin/models/{tenant}/{name}", {"function_id": identity, **more}, who=who)


def test_a_name_is_bound_shown_listed_and_unbound(server):
    identity = server.deploy(wasm=guest())
    bound = bind(server, identity, "org%2Fstory:1", export="speak")
    assert bound.status == 200
    assert bound.json.pop("created_at") > 0
    about = {"name": "org/story:1", "tenant": 1, "function_id": identity, "function_name": "guest", "export": "speak"}
    for path in ("/admin/models/1/org%2Fstory:1", "/admin/models/1/org/story:1"):
        assert server.call("GET", path).json.items() >= about.items()
    bind(server, server.deploy("two", wasm=guest()), "a", tenant=2)
    assert [m["name"] for m in server.call("GET", "/admin/models").json["models"]] == ["org/story:1", "a"]
    assert [m["name"] for m in server.call("GET", "/admin/models?tenant=2").json["models"]] == ["a"]
    assert server.call("GET", "/v1/models", who="one").json["data"][0]["id"] == "org/story:1"
    assert server.call("DELETE", "/admin/models/1/org/story:1").status == 204
    assert server.call("DELETE", "/admin/models/1/org/story:1").kind == "model_not_found"
    assert server.call("GET", "/admin/models/1/org/story:1").kind == "model_not_found"


def test_binding_again_takes_the_place_of_what_was_there(server):
    first, second = server.deploy(wasm=guest()), server.deploy(wasm=guest())
    bind(server, first, export="speak")
    bind(server, second)
    (model,) = server.call("GET", "/admin/models").json["models"]
    assert (model["function_id"], model["export"]) == (second, None)


def test_what_cannot_answer_is_refused(server):
    identity = server.deploy(wasm=guest())
    assert bind(server, identity, tenant=2).kind == "not_found"
    assert bind(server, "nothing").kind == "not_found"
    assert bind(server, identity, export="absent").kind == "missing_export"
    assert bind(server, identity, export="takes").kind == "invalid_request"
    assert bind(server, identity, tenant="x").kind == "invalid_tenant"
    for name in ("a%20b", "x" * 129, "%C3%A4", "a%00b"):
        assert bind(server, identity, name).kind == "invalid_name"
    assert server.call("PUT", "/admin/models/1/m", {}).kind == "invalid_json"
    assert bind(server, identity, colour="red").kind == "invalid_json"
    assert server.call("GET", "/admin/models?tenant=x").kind == "invalid_tenant"
    assert server.call("GET", "/admin/models?tenat=1").kind == "invalid_request"
    for method in ("GET", "PUT", "DELETE"):
        assert server.call(method, "/admin/models/1/m", {}, who="one").status == 403
    assert server.call("GET", "/admin/models").json == {"models": []}


def test_a_deleted_function_answers_no_more_and_its_name_is_not_found(server):
    identity = server.deploy(wasm=guest())
    bind(server, identity)
    server.call("DELETE", f"/functions/{identity}", who="one")
    (model,) = server.call("GET", "/admin/models").json["models"]
    assert model["function_name"] is None
    assert server.call("GET", "/v1/models", who="one").json["data"] == []
    for method, path, value in (("POST", "/v1/completions", {"model": "m"}), ("GET", "/v1/models/m", None)):
        answer = server.call(method, path, value, who="one")
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


def test_models_outlive_the_node(tmp_path):
    with administered(tmp_path) as server:
        identity = server.deploy(wasm=guest())
        bind(server, identity, tenant=1)
        bind(server, identity, "gone")
        server.call("DELETE", "/admin/models/1/gone")
    with administered(tmp_path) as server:
        assert [m["name"] for m in server.call("GET", "/admin/models").json["models"]] == ["m"]
        assert server.call("POST", "/v1/completions", {"model": "m"}, who="one").status == 200


def test_a_tenant_has_a_bound_on_names(server, monkeypatch):
    monkeypatch.setattr("tensor_wasm.node.models.MODELS_MAX", 2)
    identity, other = server.deploy(wasm=guest()), server.deploy("two", wasm=guest())
    assert bind(server, identity, "a").status == bind(server, identity, "b").status == 200
    assert bind(server, identity, "c").kind == "quota_exceeded"
    assert bind(server, identity, "b", export="speak").status == bind(server, other, "c", tenant=2).status == 200


def test_the_audit_log_tells_of_both(tmp_path):
    path = tmp_path / "audit.log"
    config = load({}, {"home": tmp_path, "listen_addr": "127.0.0.1:0", "api_tokens": TOKENS}).config
    audit = AuditLog(f"file:{path}")
    with Node(config) as node:
        opened = Server(node, config, audit=audit)
        opened.start_in_thread()
        server = Administered(node, opened)
        try:
            identity = server.deploy(wasm=guest())
            bind(server, identity, export="speak")
            bind(server, "nothing")
            server.call("DELETE", "/admin/models/1/m")
        finally:
            opened.stop()
            audit.close()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    done, refused, deleted = (line for line in lines if line["event"].startswith("model."))
    assert (done["event"], done["resource"], done["tenant"]) == ("model.set", "m", 1)
    assert done["detail"] == {"function_id": identity, "export": "speak"}
    assert (refused["outcome"], deleted["event"], deleted["outcome"]) == ("not_found", "model.delete", "ok")
