from __future__ import annotations

import base64
import os
import time

import pytest

from tensor_wasm.errors import InvalidWasm

WASM = b"\0asm\1\0\0\0"


def deploy(server, name="adder", wasm=WASM, headers=None):
    body = {"name": name, "wasm_b64": base64.b64encode(wasm).decode()}
    return server.post("/functions", body, headers)


def test_a_module_is_deployed_as_json(server):
    answer = deploy(server)
    assert answer.status == 201
    assert answer.json.keys() == {"id"}
    identity = answer.json["id"]
    assert answer.headers["location"] == f"/functions/{identity}"
    function, wasm = server.node.functions.deployed[identity]
    assert (function.name, wasm, function.tenant) == ("adder", WASM, 0)


def test_a_module_is_deployed_raw(server):
    for kind in ("application/wasm", "Application/WASM; x=y"):
        answer = server.request("POST", "/functions?name=my.adder_1", WASM, {"Content-Type": kind})
        assert answer.status == 201
        function, wasm = server.node.functions.deployed[answer.json["id"]]
        assert (function.name, wasm) == ("my.adder_1", WASM)


def test_a_raw_module_needs_a_name(server):
    answer = server.request("POST", "/functions", WASM, {"Content-Type": "application/wasm"})
    assert (answer.status, answer.kind) == (400, "invalid_name")
    assert "?name=" in answer.message


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'{"name": "x"}', "wasm_b64"),
        (b'{"name": 1, "wasm_b64": ""}', "$.name"),
        (b'{"name": "x", "wasm_b64": "", "settings": {"cold": 1}}', "cold"),
        (b'{"name": "\xff", "wasm_b64": ""}', "UTF-8"),
        (b'{"name": "\\ud800", "wasm_b64": ""}', "surrogate"),
        (b'{"name": "x", "wasm_b64": ""} x', "trailing"),
        (b"\xef\xbb\xbf{}", "byte 0"),
        (b"{" + b'"a":' + b"[" * 3000, "nknown|nested|truncated|unknown"),
    ],
)
def test_what_is_not_the_json_of_a_deploy_is_refused_and_says_where(server, body, where):
    answer = server.post("/functions", body)
    assert (answer.status, answer.kind) == (400, "invalid_json")
    assert any(part in answer.message for part in where.split("|"))
    assert server.node.functions.deployed == {}


def test_a_long_unknown_field_does_not_make_a_long_message(server):
    answer = server.post("/functions", {"y" * 3000: 1})
    assert answer.kind == "invalid_json"
    assert len(answer.message) < 400


@pytest.mark.parametrize("text", ["AA=", "A", "AAAA====", "AA==AAAA", "AA\nA", "AA-_", "ä===", "====", "AAA AAA="])
def test_what_is_not_base64_is_refused(server, text):
    answer = server.post("/functions", {"name": "x", "wasm_b64": text})
    assert (answer.status, answer.kind) == (400, "invalid_base64")
    assert "wasm_b64" in answer.message


def test_another_media_type_is_refused(server):
    answer = server.request("POST", "/functions", b"{}", {"Content-Type": "text/plain"})
    assert (answer.status, answer.kind) == (415, "unsupported_media_type")


def test_an_error_of_the_node_goes_out_with_its_kind_and_message(server):
    def refuse(name, wasm, tenant=0, prewarm=None):
        raise InvalidWasm("offset 8: not a section")

    server.node.functions.deploy = refuse
    answer = deploy(server)
    assert (answer.status, answer.kind, answer.message) == (400, "invalid_wasm", "offset 8: not a section")


def test_a_large_module_arrives_whole(serve):
    running = serve()
    wasm = WASM + os.urandom(5_000_001)
    identity = deploy(running, wasm=wasm).json["id"]
    assert running.node.functions.deployed[identity][1] == wasm
    raw = running.request("POST", "/functions?name=x", wasm, {"Content-Type": "application/wasm"})
    assert running.node.functions.deployed[raw.json["id"]][1] == wasm


def test_a_function_is_described(server):
    before = time.time()
    identity = deploy(server).json["id"]
    answer = server.get(f"/functions/{identity}")
    assert answer.status == 200
    described = answer.json
    assert described.pop("created_at") == pytest.approx(before, abs=5)
    assert described == {
        "id": identity,
        "name": "adder",
        "tenant": 0,
        "digest": "ab" * 32,
        "size_bytes": 8,
        "exports": [{"name": "run", "parameters": ["i32", "f64"], "results": ["i64"]}],
        "imports": [{"module": "wasi:cuda/host@0.2.0", "name": "launch"}],
        "memory_pages": 17,
        "settings": {},
    }


def test_functions_are_listed_in_pages(server):
    identities = [deploy(server, name=f"f{number}").json["id"] for number in range(5)]
    found, after, pages = [], "", 0
    while True:
        page = server.get(f"/functions?limit=2{after}").json
        assert page.keys() == {"functions", "next"}
        found += [item["id"] for item in page["functions"]]
        pages += 1
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert (found, pages) == (identities, 3)
    assert len(server.get("/functions").json["functions"]) == 5


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=", "limit=x", "limit=-1", "limit=%D9%A3", "limit=1&limit=2", "a=%ff",
        "limit=" + "9" * 5000, "&".join(f"q{n}=1" for n in range(40)),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_refused(server, query):
    answer = server.get(f"/functions?{query}")
    assert (answer.status, answer.kind) == (400, "invalid_request")


def test_a_function_is_deleted_once(server):
    identity = deploy(server).json["id"]
    answer = server.request("DELETE", f"/functions/{identity}")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["x-request-id"]
    answer = server.request("DELETE", f"/functions/{identity}")
    assert (answer.status, answer.kind) == (404, "not_found")
    assert server.get(f"/functions/{identity}").kind == "not_found"


def test_another_tenants_function_does_not_exist(server):
    identity = deploy(server, headers={"X-TensorWasm-Tenant": "7"}).json["id"]
    assert server.node.functions.deployed[identity][0].tenant == 7
    assert server.get(f"/functions/{identity}", X_TensorWasm_Tenant="8").status == 404
    assert server.get(f"/functions/{identity}", X_TensorWasm_Tenant="7").status == 200
    assert server.get("/functions", X_TensorWasm_Tenant="8").json["functions"] == []
