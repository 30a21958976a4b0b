"""Kept instances and warm starts: what lives between calls is bounded, counted, and one tenant's own."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import wasmtime

from administered import administered
from security.attacked import MIB, Attacked
from security.conftest import ADMIN, bearer
from security.guests import probe
from tensor_wasm.node import kept as kept_instances

#: ``init`` never returns; ``stain`` fills 32 MiB; ``first`` is the first byte, and ``beyond`` grows and looks there.
WARM = bytes(
    wasmtime.wat2wasm("""(module (memory (export "memory") 1)
  (func (export "endless") (loop $l (br $l)))
  (func (export "grow") (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
    (memory.fill (i32.const 0) (i32.const 0xA5) (i32.mul (memory.size) (i32.const 65536)))))
  (func (export "stain") (drop (memory.grow (i32.const 511)))
    (memory.fill (i32.const 0) (i32.const 0xA5) (i32.const 33554432)))
  (func (export "first") (result i32) (i32.load8_u (i32.const 0)))
  (func (export "beyond") (result i32) (local $at i32) (local $all i32)
    (local.set $at (i32.mul (memory.grow (i32.const 256)) (i32.const 65536)))
    (loop $l (local.set $all (i32.or (local.get $all) (i32.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $l (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
    (local.get $all)))""")
)


def spawn(node: Attacked, function: str, idle_timeout_s: float = 60.0, **headers: str):
    body = json.dumps({"function_id": function, "idle_timeout_s": idle_timeout_s}).encode()
    return node.ask("POST", "/instances", body, Content_Type="application/json", **headers)


def call(node: Attacked, instance: str, export: str, args=(), deadline_ms: int | None = None, **headers: str):
    request = {"export": export, "args": list(args)} | ({} if deadline_ms is None else {"deadline_ms": deadline_ms})
    path = f"/instances/{instance}/invoke"
    return node.ask("POST", path, json.dumps(request).encode(), Content_Type="application/json", **headers)


def end_all(node: Attacked, **headers: str) -> None:
    for instance in node.ask("GET", "/instances", **headers).json["instances"]:
        node.ask("DELETE", f"/instances/{instance['id']}", **headers)


def quotas(node: Attacked, tenant: int, **values: int | None) -> None:
    boss = {"Authorization": f"Bearer {ADMIN}", "Content_Type": "application/json"}
    assert node.ask("PATCH", f"/admin/tenants/{tenant}", json.dumps(values).encode(), **boss).status == 200


@pytest.fixture(scope="session")
def warm(shared_by_tenants: Attacked) -> dict[int, str]:
    """The module above, deployed by both tenants."""
    return {tenant: shared_by_tenants.deploy(WARM, **bearer(tenant)) for tenant in (1, 2)}


def test_a_hoard_of_instances_meets_the_quota(tenants: Attacked, warm: dict[int, str]):
    """Bound: kept instances and their memory count against the tenant's quotas all the time; others have theirs."""
    quotas(tenants, 1, instances=5, guest_memory_bytes=80 * MIB)
    try:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: spawn(tenants, warm[1], **bearer(1)), range(40)))
        assert Counter(answer.kind for answer in answers) == {"": 5, "quota_exceeded": 35}
        grown = [call(tenants, answer.json["id"], "stain", **bearer(1)) for answer in answers if answer.status == 200]
        assert [answer.status for answer in grown].count(200) == 2, "32 MiB each, where 80 MiB are allowed"
        assert tenants.invoke(warm[1], "first", **bearer(1)).status in (200, 429)
        assert tenants.invoke(warm[2], "first", **bearer(2)).status == 200
        assert spawn(tenants, warm[2], 0.2, **bearer(2)).status == 200
    finally:
        quotas(tenants, 1, instances=None, guest_memory_bytes=None)
        end_all(tenants, **bearer(1))
    boss = {"Authorization": f"Bearer {ADMIN}"}
    usage = tenants.ask("GET", "/admin/tenants/1", **boss).json["usage"]
    assert (usage["instances"], usage["guest_memory_bytes"]) == (0, 0)


def test_a_hoard_of_instances_without_a_quota(tmp_path, monkeypatch):
    """Bound: 1024 of a tenant, 2048 of all, here 3 and 4: places for instances stay free for everybody's calls."""
    monkeypatch.setattr(kept_instances, "KEPT_OF_TENANT_MAX", 3)
    monkeypatch.setattr(kept_instances, "KEPT_MAX", 4)
    with administered(tmp_path) as server:
        functions = {who: server.deploy(who, wasm=WARM) for who in ("one", "two")}

        def keep(who: str):
            return server.call("POST", "/instances", {"function_id": functions[who]}, who=who)

        kept = [keep("one") for _ in range(4)]
        assert [answer.status for answer in kept] == [200, 200, 200, 503]
        assert kept[3].kind == "capacity_exhausted"
        assert [keep("two").status for _ in range(2)] == [200, 503]
        assert server.run(functions["one"], "first").status == 200
        for answer in kept[:3]:
            assert server.call("DELETE", answer.headers["location"], who="one").status == 204
        assert keep("two").status == 200


def test_a_storm_of_calls_to_a_busy_instance(node: Attacked, function: str):
    """Bound: one call at a time; the others are told so before they take a thread or a place in the queue."""
    kept = spawn(node, function).json["id"]
    threads = node.threads
    with ThreadPoolExecutor(17) as pool:
        spinning = pool.submit(call, node, kept, "spin", (), 3000)
        until = time.monotonic() + 10
        while node.ask("GET", f"/instances/{kept}").json["state"] != "busy":
            assert time.monotonic() < until
        storm = [pool.submit(call, node, kept, "nothing") for _ in range(300)]
        assert node.invoke(function, "nothing").status == 200
        kinds = Counter(answer.result().kind for answer in storm)
        assert spinning.result().kind == "invoke_timeout"
    assert kinds["busy"] >= 100
    assert set(kinds) <= {"busy", "not_found"}
    assert node.threads <= threads + 4
    assert node.ask("GET", f"/instances/{kept}").kind == "not_found"


def test_instances_that_nobody_calls(node: Attacked, function: str):
    """Bound: idle ones end when their time is over; a call at that moment is answered, or finds none."""
    kept = [spawn(node, function, 0.3).json["id"] for _ in range(20)]
    until = time.monotonic() + 20
    answers: Counter[str] = Counter()
    while node.ask("GET", "/instances").json["instances"]:
        assert time.monotonic() < until
        answers[call(node, kept[0], "nothing").kind] += 1
        time.sleep(0.7)
    assert set(answers) <= {"", "not_found"}
    assert spawn(node, function, 1e9).kind == "invalid_request"
    assert spawn(node, function, -1).kind == "invalid_request"


def test_pages_of_instances_that_were_restored(tenants: Attacked, warm: dict[int, str]):
    """Bound: an instance's place is zeros for the next one, whatever file its memory showed; so is what it grows by."""
    kept = spawn(tenants, warm[2], **bearer(2)).json["id"]
    assert call(tenants, kept, "stain", **bearer(2)).status == 200
    snapshot = tenants.ask("POST", f"/instances/{kept}/snapshot", **bearer(2)).json["snapshot_id"]
    json_type = bearer(2) | {"Content_Type": "application/json"}
    prewarmed = tenants.ask("POST", "/functions?name=warm&prewarm=stain", WARM,
                            Content_Type="application/wasm", **bearer(2)).json["id"]  # fmt: skip
    for _ in range(3):
        restored = [tenants.ask("POST", f"/snapshots/{snapshot}/restore", b"{}", **json_type) for _ in range(4)]
        for answer in restored:
            instance = answer.json["instance_id"]
            assert call(tenants, instance, "first", **bearer(2)).result == [0xA5]
            assert call(tenants, instance, "beyond", **bearer(2)).result == [0], "behind the file's bytes"
        assert tenants.invoke(prewarmed, "first", **bearer(2)).result == [0xA5]
        end_all(tenants, **bearer(2))
        for answer in tenants.invoke_many(4, warm[1], "first", **bearer(1)):
            assert answer.result == [0]
        for answer in tenants.invoke_many(4, warm[1], "beyond", **bearer(1)):
            assert answer.result == [0]
    assert tenants.ask("DELETE", f"/snapshots/{snapshot}", **bearer(2)).status == 204
    assert tenants.ask("DELETE", f"/functions/{prewarmed}", **bearer(2)).status == 204


def test_warm_starts_that_never_end(tmp_path):
    """Bound: the deadline of an invocation; meanwhile other tenants deploy, and nothing of the function is kept."""
    with administered(tmp_path, invoke_deadline_s=1.0) as server:
        raw = {"Content-Type": "application/wasm", "Authorization": "Bearer one"}

        def deploy(_: int):
            return server.request("POST", "/functions?name=endless&prewarm=endless", WARM, raw)

        with ThreadPoolExecutor(8) as pool:
            began = time.monotonic()
            endless = [pool.submit(deploy, n) for n in range(8)]
            server.deploy("two", wasm=probe())
            took_s = time.monotonic() - began
            assert [answer.result().kind for answer in endless] == ["invoke_timeout"] * 8
            assert took_s < time.monotonic() - began, "it did not wait for them"
        assert server.call("GET", "/functions", who="one").json["functions"] == []
        usage = server.call("GET", "/admin/tenants/1").json["usage"]
        assert (usage["instances"], usage["stored_bytes"]) == (0, 0)


def test_warm_starts_that_grow(tenants: Attacked):
    """Bound: an instance's memory; each state counts as stored until its function is deleted, and then it is gone."""
    boss = {"Authorization": f"Bearer {ADMIN}"}
    stored = tenants.ask("GET", "/admin/tenants/1", **boss).json["usage"]["stored_bytes"]
    quotas(tenants, 1, stored_bytes=stored + 150 * MIB)
    descriptors = tenants.descriptors
    path = "/functions?name=grown&prewarm=grow"
    try:
        answers = [tenants.ask("POST", path, WARM, Content_Type="application/wasm", **bearer(1)) for _ in range(4)]
        assert [answer.kind for answer in answers] == ["", "", "quota_exceeded", "quota_exceeded"]
        for answer in answers[:2]:
            assert tenants.invoke(answer.json["id"], "first", **bearer(1)).result == [0xA5]
            assert tenants.ask("DELETE", f"/functions/{answer.json['id']}", **bearer(1)).status == 204
    finally:
        quotas(tenants, 1, stored_bytes=None)
    assert tenants.ask("GET", "/admin/tenants/1", **boss).json["usage"]["stored_bytes"] == stored
    assert tenants.descriptors <= descriptors + 4
