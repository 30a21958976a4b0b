"""Quotas: each holds, is changed while the node runs, and gives back what was taken however the taker ended."""

from __future__ import annotations

import pytest

from administered import Background, administered, guest

QUOTAS = {
    "weight", "permits", "instances", "guest_memory_bytes", "gpu_memory_bytes", "functions", "stored_bytes", "rate_qps",
    "rate_burst", "cuda",
}  # fmt: skip
PAGE = 65_536
QUOTA_EXCEEDED = -6


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def function(node):
    """A function of tenant 1, who has no quotas of its own before and after."""
    identity = node.deploy("one")
    yield identity
    change(node, 1, **dict.fromkeys(QUOTAS))
    change(node, "default", **dict.fromkeys(QUOTAS))
    assert node.call("DELETE", f"/functions/{identity}", who="one").status == 204


def change(node, tenant, **quotas):
    answer = node.call("PATCH", f"/admin/tenants/{tenant}", quotas)
    assert answer.status == 200, answer.body
    return answer.json


def usage(node, tenant=1):
    return node.call("GET", f"/admin/tenants/{tenant}").json["usage"]


def refusals(node, quota, tenant=1):
    text = node.request("GET", "/metrics").body.decode()
    name = f'tensor_wasm_quota_rejections_total{{tenant="{tenant}",quota="{quota}"}} '
    return int(next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name))


def test_a_tenant_without_quotas_has_the_defaults(node, function):
    shown = node.call("GET", "/admin/tenants/99").json
    assert shown["tenant"] == 99
    assert shown["quotas"].keys() == QUOTAS
    assert shown["quotas"] == node.call("GET", "/admin/tenants").json["defaults"]
    assert shown["overrides"] == []
    assert shown["usage"] == {
        "instances": 0, "queued": 0, "permits_held": 0, "launches_waiting": 0, "guest_memory_bytes": 0,
        "gpu_memory_bytes": 0, "functions": 0, "stored_bytes": 0,
    }  # fmt: skip


def test_changes_are_kept_and_null_takes_the_default_again(node, function):
    change(node, "default", weight=2, instances=9)
    shown = change(node, 1, weight=5, cuda=False)
    assert (shown["quotas"]["weight"], shown["quotas"]["instances"], shown["quotas"]["cuda"]) == (5, 9, False)
    assert sorted(shown["overrides"]) == ["cuda", "weight"]
    shown = change(node, 1, weight=None)
    assert (shown["quotas"]["weight"], shown["overrides"]) == (2, ["cuda"])
    listed = {row["tenant"]: row for row in node.call("GET", "/admin/tenants").json["tenants"]}
    assert listed[1] == shown | {"usage": listed[1]["usage"]}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"{", b'{"weight": 0}', b'{"weight": 1001}', b'{"weight": 1.5}', b'{"weight": "1"}',
        b'{"weight": true}', b'{"permits": 0}', b'{"instances": -1}', b'{"rate_qps": 0}', b'{"rate_qps": 1e400}',
        b'{"cuda": 1}', b'{"colour": 1}', b'{"functions": 1e3}', b'{"stored_bytes": 99999999999999999999}',
    ],
)  # fmt: skip
def test_quotas_that_cannot_be_are_refused_and_nothing_changes(node, function, body):
    before = node.call("GET", "/admin/tenants/1").json
    answer = node.call("PATCH", "/admin/tenants/1", body)
    assert answer.status == 400
    assert answer.kind in ("invalid_json", "invalid_request")
    assert node.call("GET", "/admin/tenants/1").json == before


@pytest.mark.parametrize("tenant", ["x", "-1", "18446744073709551616", "Default", "1.0", "%31x"])
def test_a_tenant_that_is_none_is_refused(node, tenant):
    for method, body in (("GET", None), ("PATCH", {"weight": 1})):
        answer = node.call(method, f"/admin/tenants/{tenant}", body)
        assert (answer.status, answer.kind) == (400, "invalid_tenant")


def test_live_instances_are_bounded_and_come_back(node, function):
    change(node, 1, instances=2)
    background = Background(node)
    for _ in range(2):
        background.run(function, "spin")
    live = node.in_state("running", 2)
    refused = node.run(function, "nothing")
    assert (refused.status, refused.kind) == (429, "quota_exceeded")
    assert refusals(node, "instances") >= 1
    other = node.deploy("two")
    assert node.run(other, "nothing", who="two").status == 200
    node.call("POST", f"/admin/instances/{live[0]['id']}/terminate")
    assert node.run(function, "nothing").status == 200
    change(node, 1, instances=1)  # below what runs: that goes on, more is refused
    assert node.run(function, "nothing").status == 429
    change(node, 1, instances=None)
    assert node.run(function, "nothing").status == 200
    node.call("POST", f"/admin/instances/{live[1]['id']}/terminate")
    background.join()
    assert usage(node)["instances"] == 0


def test_a_tenants_guest_memory_is_bounded_over_all_its_instances(node, function):
    change(node, 1, guest_memory_bytes=64 * PAGE)
    assert node.run(function, "grow", [50]).json["result"] == [2]
    assert node.run(function, "grow", [100]).json["result"] == [-1]
    assert refusals(node, "guest_memory") >= 1
    assert usage(node)["guest_memory_bytes"] == 0
    change(node, 1, guest_memory_bytes=PAGE)
    refused = node.run(function, "nothing")
    assert (refused.status, refused.kind) == (429, "quota_exceeded")
    assert usage(node)["guest_memory_bytes"] == 0


def test_device_memory_is_bounded(node, function):
    change(node, 1, gpu_memory_bytes=1 << 20)
    assert node.run(function, "alloc", [1 << 20]).json["result"] == [1]
    assert node.run(function, "alloc", [(1 << 20) + 1]).json["result"] == [QUOTA_EXCEEDED]
    assert refusals(node, "gpu_memory") >= 1
    assert usage(node)["gpu_memory_bytes"] == 0


def test_functions_and_their_bytes_are_bounded(node, function):
    size = len(guest())
    change(node, 1, functions=2)
    second = node.deploy("one")
    answer = node.call("POST", "/functions?name=third", b"\0asm\x01\0\0\0", who="one")
    assert answer.status in (400, 429)
    refused = node.request(
        "POST", "/functions?name=third", guest(), {"Content-Type": "application/wasm", "Authorization": "Bearer one"}
    )
    assert (refused.status, refused.kind) == (429, "quota_exceeded")
    assert node.call("DELETE", f"/functions/{second}", who="one").status == 204
    change(node, 1, functions=None, stored_bytes=2 * size - 1)
    refused = node.request(
        "POST", "/functions?name=third", guest(), {"Content-Type": "application/wasm", "Authorization": "Bearer one"}
    )
    assert (refused.status, refused.kind) == (429, "quota_exceeded")
    change(node, 1, stored_bytes=2 * size)
    second = node.deploy("one")
    assert usage(node)["stored_bytes"] == 2 * size
    assert node.call("DELETE", f"/functions/{second}", who="one").status == 204
    assert (usage(node)["functions"], usage(node)["stored_bytes"]) == (1, size)


def test_the_device_is_taken_away_and_given_back_live(node, function):
    change(node, 1, cuda=False)
    assert node.run(function, "load").json["result"] == [-1]
    change(node, 1, cuda=True)
    assert node.run(function, "load").json["result"] == [0]


def test_permits_are_capped_live(node, function):
    change(node, 1, permits=1)
    background = Background(node)
    for _ in range(2):
        background.run(function, "kernel")
    node.in_state("waiting")
    assert (usage(node)["permits_held"], usage(node)["launches_waiting"]) == (1, 1)
    change(node, 1, permits=2)
    node.in_state("in_kernel", 2)
    for instance in node.instances():
        node.call("POST", f"/admin/instances/{instance['id']}/terminate")
    background.join()
    assert usage(node)["permits_held"] == 0


def test_quotas_survive_a_restart(tmp_path):
    with administered(tmp_path) as server:
        change(server, 7, weight=3, functions=1)
        change(server, "default", instances=4)
    with administered(tmp_path) as server:
        shown = server.call("GET", "/admin/tenants/7").json
        assert (shown["quotas"]["weight"], shown["quotas"]["functions"], shown["quotas"]["instances"]) == (3, 1, 4)
