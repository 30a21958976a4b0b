"""The examples of the API's description are sent to a real node, and answered as they say."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, urlencode

import msgspec
import pytest
from wasmtime import wat2wasm

from administered import administered
from tensor_wasm.http.app import create_app
from tensor_wasm.telemetry import HttpMetrics

GUEST = bytes(
    wat2wasm("""
    (module
      (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
      (func (export "run") (param i32))
      (func (export "greet"))
      (func (export "nothing")))
    """)
)
#: What the examples name is not there on a new node; this is how to make it, by the path that the name is in.
MADE = {
    "/functions/{id}": lambda node: node.deploy(wasm=GUEST),
    "/instances/{id}": lambda node: made(node, "/instances", {"function_id": node.deploy(wasm=GUEST)}),
    "/jobs/{id}": lambda node: made(node, f"/functions/{node.deploy(wasm=GUEST)}/invoke-async", {"args": [1]}),
    "/admin/tokens/{id}": lambda node: made(node, "/admin/tokens", {"scope": "tenant=9"}),
}
#: Not sent: `terminate` needs an instance that runs, and is sent by tests of its own; a drained node takes no more.
LEFT_OUT = {("POST", "/admin/instances/{id}/terminate"), ("POST", "/admin/drain")}
#: Only a node of its own gives them: their requests are decoded, and tests of their own send the like.
DECODED = ("/kernels", "/snapshots", "/v1", "/admin/models")


def made(node, path, value):
    answer = node.call("POST", path, value, who="one") if path[:6] != "/admin" else node.call("POST", path, value)
    assert answer.status < 300, answer.body
    return next(iter(answer.json.values()))


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home")) as server:
        yield server


def examples(node):
    """Each example with its operation."""
    operations = create_app(node.node, node.node.config, HttpMetrics()).table.operations
    return [(operation, example) for operation in operations for example in operation.examples]


def place(node, operation, example):
    """Where the example goes: what its path names is made first."""
    path, names = operation.path, set(re.findall(r"\{(\w+)\}", operation.path))
    for name in names:
        end = path.index("{" + name + "}") + len(name) + 2
        make = MADE.get(operation.path[:end])
        value = example.parameters.get(name) if make is None else make(node)
        path = path.replace("{" + name + "}", quote(str(value), safe=""))
    query = {p.name: example.parameters[p.name] for p in operation.query if p.name in example.parameters}
    if "after" in query:
        query["after"] = node.deploy(wasm=GUEST)
    return path + (f"?{urlencode(query)}" if query else "")


def test_every_request_is_decoded_as_it_was_written(node):
    checked = 0
    for operation, example in examples(node):
        if isinstance(example.request, bytes | str) or example.request is None:
            continue
        assert msgspec.json.decode(msgspec.json.encode(example.request), type=operation.request) == example.request
        checked += 1
    assert checked > 5


def test_every_answer_is_of_the_type_that_the_operation_says(node):
    for operation, example in examples(node):
        if operation.response is not None and example.answer_type is None and example.answer is not None:
            assert isinstance(example.answer, operation.response), (operation.path, example.summary)


def test_every_example_is_answered_as_it_says(node):
    sent = 0
    for operation, example in examples(node):
        named = (operation.method, operation.path)
        if named in LEFT_OUT or operation.path.startswith(DECODED) or example.answer_type is not None:
            continue
        headers = {"Authorization": "Bearer boss" if operation.path.startswith("/admin") else "Bearer one"}
        body = None
        if isinstance(example.request, bytes):
            body, headers["Content-Type"] = example.request, "application/wasm"
        elif example.request is not None:
            body, headers["Content-Type"] = msgspec.json.encode(example.request), "application/json"
        if isinstance(body, bytes) and operation.path == "/instances":
            body = json.dumps(json.loads(body) | {"function_id": node.deploy(wasm=GUEST)}).encode()
        for header in operation.request_headers:
            if header.name in example.parameters:
                headers[header.name] = example.parameters[header.name]
        answer = node.request(operation.method, place(node, operation, example), body, headers)
        assert answer.status == operation.status, (named, example.summary, answer.body)
        for header in operation.response_headers:
            assert header.is_optional or answer.headers[header.name], (named, header.name)
        if operation.response is not None and example.answer is not None:
            said = msgspec.to_builtins(example.answer)
            assert answer.json.keys() == said.keys(), (named, example.summary)
            if "result" in said and operation.path.endswith("/invoke"):
                assert answer.json["result"] == said["result"]
        sent += 1
    assert sent > 20
