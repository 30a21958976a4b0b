"""Live instances: what an operator sees of them, and that each of them can be ended, wherever it is."""

from __future__ import annotations

import time

import pytest

from administered import PATIENCE_S, Background, administered


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home"), dispatch_permits=1) as server:
        yield server


@pytest.fixture(scope="module")
def functions(node):
    return {1: node.deploy("one", name="first"), 2: node.deploy("two", name="second")}


@pytest.fixture
def background(node):
    running = Background(node)
    yield running
    for instance in node.instances():
        node.call("POST", f"/admin/instances/{instance['id']}/terminate")
    running.join()
    assert node.instances() == []
    assert node.node.ledger.read().used == 0


def terminate(node, instance):
    return node.call("POST", f"/admin/instances/{instance['id']}/terminate")


def test_an_instance_is_shown_with_all_there_is_to_know(node, functions, background):
    background.run(functions[1], "kernel", deadline_ms=20_000)
    (shown,) = node.in_state("in_kernel")
    assert shown.keys() == {
        "id", "tenant", "function_id", "function_name", "export", "age_s", "deadline_left_s", "state", "launches",
        "launches_per_s", "held_permits", "memory_bytes", "gpu_memory_bytes", "is_ending",
    }  # fmt: skip
    assert (shown["tenant"], shown["function_id"], shown["function_name"]) == (1, functions[1], "first")
    assert (shown["export"], shown["held_permits"], shown["is_ending"]) == ("kernel", 1, False)
    assert 0 <= shown["age_s"] < 20
    assert 0 < shown["deadline_left_s"] <= 20
    assert shown["memory_bytes"] >= 2 * 65_536


@pytest.mark.parametrize(("export", "state"), [("spin", "running"), ("sleep", "running"), ("kernel", "in_kernel")])
def test_an_instance_is_ended_wherever_it_is(node, functions, background, export, state):
    background.run(functions[1], export)
    (shown,) = node.in_state(state)
    answer = terminate(node, shown)
    assert answer.status == 200
    assert answer.json.keys() == {"id", "tenant", "function_id", "ended", "took_ms"}
    assert answer.json["ended"]
    (ended,) = background.join()
    assert (ended.status, ended.kind) == (409, "terminated")


def test_a_launch_that_waits_for_a_permit_is_ended_and_the_holder_is_not(node, functions, background):
    background.run(functions[1], "kernel")
    node.in_state("in_kernel")
    background.run(functions[2], "kernel", who="two")
    (waiting,) = node.in_state("waiting")
    assert (waiting["tenant"], waiting["held_permits"]) == (2, 0)
    assert terminate(node, waiting).json["ended"]
    (left,) = node.instances()
    assert (left["state"], left["held_permits"]) == ("in_kernel", 1)
    until = time.monotonic() + PATIENCE_S
    while not background.answers and time.monotonic() < until:  # the caller hears of it a moment later
        time.sleep(0.01)
    assert [answer.kind for answer in background.answers] == ["terminated"]


def test_a_permit_of_an_ended_kernel_goes_to_who_waits(node, functions, background):
    background.run(functions[1], "kernel")
    (holder,) = node.in_state("in_kernel")
    background.run(functions[2], "kernel", who="two")
    node.in_state("waiting")
    terminate(node, holder)
    node.wait_for(lambda: [i for i in node.instances() if i["tenant"] == 2 and i["state"] == "in_kernel"], "no permit")


def test_the_list_can_be_of_one_tenant(node, functions, background):
    background.run(functions[1], "spin")
    background.run(functions[2], "spin", who="two")
    node.in_state("running", 2)
    assert [i["tenant"] for i in node.instances("?tenant=2")] == [2]
    assert node.instances("?tenant=3") == []


@pytest.mark.parametrize("tenant", ["x", "-1", "", "18446744073709551616", "1&tenant=2"])
def test_a_filter_that_is_none_is_refused(node, tenant):
    assert node.call("GET", f"/admin/instances?tenant={tenant}").status == 400


def test_a_mistyped_filter_does_not_show_everything(node):
    answer = node.call("GET", "/admin/instances?tenants=1")
    assert (answer.status, answer.kind) == (400, "invalid_request")


def test_launches_per_second_are_of_now(node, functions, background):
    for _ in range(3):
        assert node.run(functions[1], "launch").json["launches"] == 1
    background.run(functions[1], "spin")
    (shown,) = node.in_state("running")
    assert (shown["launches"], shown["launches_per_s"]) == (0, 0.0)


@pytest.mark.parametrize("identity", ["no-such", "00000000-0000-4000-8000-000000000000", "%2e%2e", "x" * 500])
def test_ending_what_is_not_there_is_not_found(node, identity):
    answer = node.call("POST", f"/admin/instances/{identity}/terminate")
    assert (answer.status, answer.kind) == (404, "not_found")


def test_an_instance_that_ended_is_gone(node, functions):
    identity = node.run(functions[1], "nothing").json["instance_id"]
    answer = node.call("POST", f"/admin/instances/{identity}/terminate")
    assert answer.status == 404


@pytest.mark.parametrize("path", ["/admin/instances", "/admin/tenants", "/admin/tokens"])
def test_only_an_admin_may_look(node, path):
    assert node.call("GET", path).status == 200
    for who in ("one", "both", "all"):
        answer = node.call("GET", path, who=who)
        assert (answer.status, answer.kind) == (403, "forbidden")
    assert node.call("GET", path, who="stranger").status == 401


def test_a_tenant_may_not_end_even_its_own_instance(node, functions, background):
    background.run(functions[1], "spin")
    (shown,) = node.in_state("running")
    answer = node.call("POST", f"/admin/instances/{shown['id']}/terminate", who="one")
    assert (answer.status, answer.kind) == (403, "forbidden")
    assert [i["id"] for i in node.instances()] == [shown["id"]]
