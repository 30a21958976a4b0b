"""Rates, and how much of requests is held at once."""

from __future__ import annotations

import threading
import time

import pytest

from administered import Background, administered
from serving import running
from tensor_wasm.errors import CapacityExhausted
from tensor_wasm.http.limits import HeldBodies


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home"), api_rate_limit_qps=0.5, api_rate_limit_burst=3) as server:
        yield server


def rate_limited(node, tenant):
    text = node.request("GET", "/metrics").body.decode()
    name = f'tensor_wasm_rate_limited_total{{tenant="{tenant}"}} '
    return int(next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name))


def test_a_token_has_its_rate_for_each_tenant_and_retry_after_is_right(node):
    answers = [node.call("GET", "/functions", who="both", tenant=1) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[3].kind == "rate_limited"
    wait_s = int(answers[3].headers["retry-after"])
    assert 1 <= wait_s <= 2
    assert rate_limited(node, 1) == 1
    assert node.call("GET", "/functions", who="both", tenant=2).status == 200
    assert node.call("GET", "/functions", who="one").status == 200
    assert node.call("GET", "/admin/tokens").status == 200
    time.sleep(wait_s)
    assert node.call("GET", "/functions", who="both", tenant=1).status == 200
    assert node.call("GET", "/functions", who="both", tenant=1).status == 429


def test_a_tenant_has_its_rate_over_all_its_tokens(tmp_path):
    with administered(tmp_path) as server:
        server.call("PATCH", "/admin/tenants/1", {"rate_qps": 0.01, "rate_burst": 2})
        assert [server.call("GET", "/functions", who=who).status for who in ("one", "all", "one")][:1] == [200]
        assert server.call("GET", "/functions", who="both", tenant=1).status == 429
        assert server.call("GET", "/functions", who="two").status == 200
        server.call("PATCH", "/admin/tenants/1", {"rate_qps": None, "rate_burst": None})
        assert server.call("GET", "/functions", who="one").status == 200


def test_one_tenants_bodies_take_half_and_are_given_back():
    bodies = HeldBodies(1000)
    bodies.take(1, 500)
    with pytest.raises(CapacityExhausted):
        bodies.take(1, 1)
    bodies.take(2, 400)
    with pytest.raises(CapacityExhausted):
        bodies.take(3, 101)
    bodies.give(1, 500)
    bodies.take(3, 101)
    assert bodies.held_bytes == 501


def test_bodies_beyond_what_the_node_holds_are_refused_and_room_comes_back(tmp_path):
    with running(tmp_path, held_body_bytes=2 << 20, max_body_bytes=4 << 20) as server:
        refused = server.invoke({"input_b64": "A" * (1200 << 10)})
        assert (refused.status, refused.kind) == (503, "capacity_exhausted")
        for _ in range(8):
            assert server.invoke({"input_b64": "A" * (800 << 10)}).status == 200


def test_calls_beyond_a_tenants_queue_are_refused_and_another_tenant_gets_a_thread(tmp_path):
    with administered(tmp_path, workers=1, queue_depth=2) as server:
        function, other = server.deploy("one"), server.deploy("two")
        background = Background(server)
        background.run(function, "spin")
        server.in_state("running")
        for _ in range(2):
            background.run(function, "nothing")
        server.wait_for(lambda: server.call("GET", "/admin/tenants/1").json["usage"]["queued"] == 2, "nothing waits")
        refused = server.run(function, "nothing")
        assert (refused.status, refused.kind) == (503, "capacity_exhausted")
        assert server.run(other, "add", [1, 2], who="two").json["result"] == [3]
        (spinning,) = server.instances()
        server.call("POST", f"/admin/instances/{spinning['id']}/terminate")
        assert sorted(answer.status for answer in background.join()) == [200, 200, 409]


def test_a_call_that_waits_past_its_deadline_is_over(tmp_path):
    with administered(tmp_path, workers=1) as server:
        function = server.deploy("one")
        background = Background(server)
        background.run(function, "spin")
        server.in_state("running")
        late = server.run(function, "nothing", deadline_ms=100)
        assert (late.status, late.kind) == (504, "invoke_timeout")
        assert server.call("GET", "/admin/tenants/1").json["usage"]["queued"] == 0
        (spinning,) = server.instances()
        server.call("POST", f"/admin/instances/{spinning['id']}/terminate")
        background.join()


def test_a_client_that_goes_away_ends_its_invocation(tmp_path):
    with administered(tmp_path) as server:
        function = server.deploy("one")

        def leave():
            import socket

            body = b'{"export":"spin"}'
            with socket.create_connection((server.host, server.port)) as connection:
                head = (
                    f"POST /functions/{function}/invoke HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer one\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                connection.sendall(head.encode() + body)
                server.in_state("running")

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        server.wait_for(lambda: server.instances() == [], "the instance goes on")
        text = server.request("GET", "/metrics").body.decode()
        assert 'instance_terminations_total{tenant="1",outcome="cancelled"} 1' in text


def test_drain_refuses_new_work_and_ends_what_does_not_finish(tmp_path):
    with administered(tmp_path) as server:
        function = server.deploy("one")
        background = Background(server)
        background.run(function, "spin")
        server.in_state("running")
        for body in (b'{"timeout_s": -1}', b'{"timeout_s": 1e9}', b'{"timeout_s": "1"}', b'{"wait": 1}'):
            assert server.call("POST", "/admin/drain", body).status == 400
        answer = server.call("POST", "/admin/drain", {"timeout_s": 0.1})
        assert answer.status == 200
        assert (answer.json["drained"], answer.json["ended"]) == (False, 1)
        assert answer.json["waited_s"] >= 0.1
        assert [a.kind for a in background.join()] == ["terminated"]
        assert server.run(function, "nothing").kind == "not_ready"
        assert server.request("GET", "/readyz").status == 503
        again = server.call("POST", "/admin/drain", b"").json
        assert again.pop("waited_s") < 1
        assert again == {"drained": True, "ended": 0}
