"""Snapshots through a real server: capture, restore, download, upload, delete, and who may."""

from __future__ import annotations

import base64
import http.client
import os
import threading
import time
import uuid

import pytest
import wasmtime

from administered import administered

WAT = """(module (memory (export "memory") 2) (func (export "step") (result i32)
  (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1))) (i32.load (i32.const 8)))
  (func (export "spin") (loop $l (br $l))))"""
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def server(tmp_path):
    with administered(tmp_path, snapshot_file_bytes=1 << 20) as server:
        yield server


@pytest.fixture
def kept(server):
    function = server.deploy(wasm=bytes(wasmtime.wat2wasm(WAT)))
    return server.call("POST", "/instances", {"function_id": function}, who="one").json["id"]


def step(server, instance, who="one"):
    return server.call("POST", f"/instances/{instance}/invoke", {"export": "step"}, who=who).json["result"]


def captured(server, kept):
    answer = server.call("POST", f"/instances/{kept}/snapshot", who="one")
    assert answer.status == 200
    assert (answer.json["bytes"], len(answer.json["sha"])) == (2 << 16, 64)
    return answer.json["snapshot_id"]


def upload(server, identity, data, who="one", headers=None):
    headers = {"Authorization": f"Bearer {who}"} | OCTETS | (headers or {})
    return server.request("PUT", f"/snapshots/{identity}", data, headers)


def test_state_is_captured_restored_carried_and_deleted(server, kept):
    assert step(server, kept) == [1]
    snapshot = captured(server, kept)
    restored = server.call("POST", f"/snapshots/{snapshot}/restore", {"idle_timeout_s": 30}, who="one")
    assert step(server, restored.json["instance_id"]) == [2]
    assert step(server, kept) == [2]
    (described,) = server.call("GET", "/snapshots", who="one").json["snapshots"]
    assert (described["id"], described["bytes"]) == (snapshot, 2 << 16)
    download = server.call("GET", f"/snapshots/{snapshot}", who="one")
    assert download.headers["content-type"] == "application/vnd.tensor-wasm.snapshot"
    identity = str(uuid.uuid4())
    answer = upload(server, identity, download.body, who="two")
    assert (answer.status, answer.headers["location"]) == (201, f"/snapshots/{identity}")
    assert answer.json["tenant"] == 2
    theirs = server.call("POST", f"/snapshots/{identity}/restore", who="two").json["instance_id"]
    assert step(server, theirs, who="two") == [2]
    for who, one in (("one", snapshot), ("two", identity)):
        assert server.call("DELETE", f"/snapshots/{one}", who=who).status == 204
        assert server.call("GET", f"/snapshots/{one}", who=who).kind == "not_found"


def test_a_busy_instance_is_not_captured_and_anothers_does_not_exist(server, kept):
    snapshot = captured(server, kept)
    for method, path in (
        ("POST", f"/instances/{kept}/snapshot"),
        ("GET", f"/snapshots/{snapshot}"),
        ("POST", f"/snapshots/{snapshot}/restore"),
        ("DELETE", f"/snapshots/{snapshot}"),
    ):
        assert server.call(method, path, who="two").kind == "not_found"
    assert server.call("GET", "/snapshots", who="two").json == {"snapshots": []}
    spinning = threading.Thread(
        target=server.call, args=("POST", f"/instances/{kept}/invoke", {"export": "spin"}), kwargs={"who": "one"}
    )
    spinning.start()
    while server.call("GET", f"/instances/{kept}", who="one").json["state"] != "busy":
        time.sleep(0.01)
    assert server.call("POST", f"/instances/{kept}/snapshot", who="one").kind == "busy"
    assert server.call("DELETE", f"/instances/{kept}", who="one").status == 204
    spinning.join()


def test_files_that_cannot_be_used_say_why(server, kept):
    data = server.call("GET", f"/snapshots/{captured(server, kept)}", who="one").body
    cases = {
        data[:100]: (400, "snapshot_truncated"),
        data[:-5]: (400, "snapshot_truncated"),
        b"PK" + data[2:]: (400, "snapshot_damaged"),
        data + b"x": (400, "snapshot_damaged"),
        data[:8] + b"\x09" + data[9:]: (400, "snapshot_version"),
        data[:40] + b"!" + data[41:]: (403, "snapshot_signature_invalid"),
        b"": (400, "snapshot_truncated"),
    }
    for bad, (status, kind) in cases.items():
        answer = upload(server, uuid.uuid4(), bad)
        assert (answer.status, answer.kind) in {(status, kind), (400, "snapshot_damaged")}, bad[:50]
    assert upload(server, "not-a-uuid", data).kind == "invalid_name"
    assert upload(server, uuid.uuid4(), data, headers={"Content-Type": "text/plain"}).status == 415
    assert upload(server, uuid.uuid4(), os.urandom(2 << 20)).kind == "body_too_large"
    assert len(server.call("GET", "/snapshots", who="one").json["snapshots"]) == 1


def test_an_upload_that_breaks_off_leaves_nothing(server, kept, tmp_path):
    before = sorted((tmp_path / "snapshots").iterdir())
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.putrequest("PUT", f"/snapshots/{uuid.uuid4()}")
    for name, value in ({"Authorization": "Bearer one", "Content-Length": "500000"} | OCTETS).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"TWSNAP\r\n" + bytes(1000))
    connection.close()
    assert server.call("GET", "/healthz").status == 200
    assert sorted((tmp_path / "snapshots").iterdir()) == before


WARM = """(module (memory (export "memory") 1) (func (export "init") (i32.store (i32.const 0) (i32.const 41)))
  (func (export "run") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.load (i32.const 0)))
  (func (export "trap") unreachable))"""


def test_a_function_may_start_warm(server):
    wasm = bytes(wasmtime.wat2wasm(WARM))
    json_body = {"name": "warm", "wasm_b64": base64.b64encode(wasm).decode(), "settings": {"prewarm": "init"}}
    by_json = server.call("POST", "/functions", json_body, who="one").json["id"]
    raw = {"Content-Type": "application/wasm", "Authorization": "Bearer one"}
    by_query = server.request("POST", "/functions?name=warm&prewarm=init", wasm, raw).json["id"]
    for function in (by_json, by_query):
        for _ in range(2):
            answer = server.call("POST", f"/functions/{function}/invoke", {}, who="one")
            assert answer.json["result"] == [42]
        assert server.call("GET", f"/functions/{function}", who="one").json["settings"] == {"prewarm": "init"}
    for prewarm, kind in (("trap", "trap"), ("nothing", "missing_export"), (7, "invalid_json")):
        refused = server.call("POST", "/functions", json_body | {"settings": {"prewarm": prewarm}}, who="one")
        assert refused.kind == kind
    assert server.call("POST", "/functions?prewarm=init", json_body, who="one").kind == "invalid_request"
    assert len(server.call("GET", "/functions", who="one").json["functions"]) == 2
