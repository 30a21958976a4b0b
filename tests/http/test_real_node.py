"""The same API over a real node: what the fake one cannot show."""

from __future__ import annotations

import base64
from contextlib import contextmanager

import pytest
from wasmtime import wat2wasm

from serving import Running
from tensor_wasm.config import load
from tensor_wasm.http import Server
from tensor_wasm.node import Node

GUEST = bytes(
    wat2wasm("""
    (module
      (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
      (func (export "long") (param i64) (result i64) (local.get 0))
      (func (export "floats") (param f32 f64) (result f32 f64) (local.get 0) (local.get 1))
      (func (export "nothing"))
      (func (export "trap") unreachable)
      (func (export "forever") (loop (br 0))))
    """)
)


@contextmanager
def serving(home):
    config = load({}, {"home": home, "listen_addr": "127.0.0.1:0"}).config
    with Node(config) as node:
        server = Server(node, config)
        server.start_in_thread()
        try:
            yield Running(node, server)
        finally:
            server.stop()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def function(real):
    return deploy(real)


def deploy(server, name="guest"):
    answer = server.post("/functions", {"name": name, "wasm_b64": base64.b64encode(GUEST).decode()})
    assert answer.status == 201
    return answer.json["id"]


def invoke(server, function, export, args=(), **more):
    return server.post(f"/functions/{function}/invoke", {"export": export, "args": list(args), **more})


@pytest.mark.parametrize(
    ("export", "args", "result"),
    [
        ("add", [2, 3], [5]),
        ("add", [2**32 - 1, 0], [-1]),
        ("long", [2**53 + 1], [2**53 + 1]),
        ("long", [2**64 - 1], [-1]),
        ("long", [-(2**63)], [-(2**63)]),
        ("floats", [1, 0.1], [1.0, 0.1]),
        ("floats", ["NaN", "-Infinity"], ["NaN", "-Infinity"]),
        ("nothing", [], "ok"),
    ],
)
def test_values_go_in_and_come_out(real, function, export, args, result):
    answer = invoke(real, function, export, args)
    assert answer.status == 200
    assert answer.json["result"] == result
    assert answer.json["duration_ms"] > 0


@pytest.mark.parametrize(
    ("export", "args", "more", "status", "kind"),
    [
        ("none", [], {}, 400, "missing_export"),
        ("add", [1], {}, 400, "invalid_args"),
        ("add", [1, 2, 3], {}, 400, "too_many_args"),
        ("add", [1, 2**32], {}, 400, "invalid_args"),
        ("add", [1, 0.5], {}, 400, "invalid_args"),
        ("add", [1, "NaN"], {}, 400, "invalid_args"),
        ("long", [2**64], {}, 400, "invalid_args"),
        ("floats", [1e39, 0], {}, 400, "invalid_args"),
        ("trap", [], {}, 500, "trap"),
        ("forever", [], {"deadline_ms": 50}, 504, "invoke_timeout"),
        ("nothing", [], {"deadline_ms": 10**9}, 400, "invalid_deadline"),
    ],
)
def test_what_goes_wrong_has_its_kind_and_the_next_call_works(real, function, export, args, more, status, kind):
    answer = invoke(real, function, export, args, **more)
    assert (answer.status, answer.kind) == (status, kind)
    assert invoke(real, function, "add", [1, 1]).json["result"] == [2]


@pytest.mark.parametrize("wasm", [b"", b"not wasm", GUEST[:-3], b"\0asm\2\0\0\0"])
def test_what_is_no_module_is_refused(real, wasm):
    answer = real.request("POST", "/functions?name=x", wasm, {"Content-Type": "application/wasm"})
    assert (answer.status, answer.kind) == (400, "invalid_wasm")


def test_a_name_that_is_none_is_refused(real):
    answer = real.request("POST", "/functions?name=a%20b", GUEST, {"Content-Type": "application/wasm"})
    assert (answer.status, answer.kind) == (400, "invalid_name")


def test_an_invocation_shows_in_the_metrics(real):
    function = deploy(real)
    headers = {"X-TensorWasm-Tenant": "77"}
    mine = real.request("POST", "/functions?name=mine", GUEST, {"Content-Type": "application/wasm", **headers}).json[
        "id"
    ]
    assert real.post(f"/functions/{function}/invoke", {"export": "nothing"}, headers).kind == "not_found"
    assert real.post(f"/functions/{mine}/invoke", {"export": "nothing"}, headers).status == 200
    text = real.get("/metrics").body.decode()
    assert 'tensor_wasm_instance_terminations_total{tenant="77",outcome="returned"} 1\n' in text
    assert 'tensor_wasm_instance_spawns_total{tenant="77"} 1\n' in text
    assert 'tensor_wasm_active_instances{tenant="77"} 0\n' in text


def test_a_function_is_there_after_a_restart_and_gone_after_its_delete(tmp_path):
    with serving(tmp_path) as first:
        kept, dropped = deploy(first, "kept"), deploy(first, "dropped")
        assert first.request("DELETE", f"/functions/{dropped}").status == 204
    with serving(tmp_path) as second:
        assert [item["name"] for item in second.get("/functions").json["functions"]] == ["kept"]
        assert invoke(second, kept, "add", [20, 22]).json["result"] == [42]
        assert invoke(second, dropped, "add", [1, 1]).kind == "not_found"
