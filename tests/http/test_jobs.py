"""Background jobs and idempotency keys through the front door."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid

import pytest

from administered import PATIENCE_S, administered, guest
from tensor_wasm.config import load
from tensor_wasm.http import Server
from tensor_wasm.node import Node
from tensor_wasm.telemetry.audit import AuditLog


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with administered(tmp_path_factory.mktemp("home"), invoke_deadline_s=20) as server:
        yield server


@pytest.fixture(scope="module")
def function(node):
    return node.deploy("one")


def submit(node, function, export="nothing", args=(), *, who="one", key=None, **more):
    value = {"export": export, "args": list(args), **more}
    return send(node, "POST", f"/functions/{function}/invoke-async", value, who, key)


def send(node, method, path, value, who="one", key=None):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {who}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return node.request(method, path, json.dumps(value).encode(), headers)


def end_of(node, job_id, who="one"):
    def ended():
        answer = node.call("GET", f"/jobs/{job_id}", who=who)
        assert answer.status == 200, answer.body
        return answer.json if answer.json["finished_at"] is not None else None

    return node.wait_for(ended, "the job does not end")


def test_a_job_is_acknowledged_runs_and_answers_as_the_call_would(node, function):
    answer = submit(node, function, "add", [2, 40], input_b64="AAA=", deadline_ms=5000)
    assert (answer.status, answer.json.keys()) == (202, {"job_id"})
    job_id = answer.json["job_id"]
    assert uuid.UUID(job_id).version == 4
    assert answer.headers["location"] == f"/jobs/{job_id}"
    assert "idempotent-replayed" not in answer.headers
    job = end_of(node, job_id)
    called = node.run(function, "add", [2, 40]).json
    assert job["result"].keys() == called.keys()
    assert (job["result"]["result"], job["result"]["function_id"]) == ([42], function)
    assert {name: job[name] for name in ("id", "function_id", "export", "status", "error")} == {
        "id": job_id, "function_id": function, "export": "add", "status": "completed", "error": None,
    }  # fmt: skip
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


def test_a_job_that_fails_says_the_kind_that_the_call_would_have(node, function):
    job = end_of(node, submit(node, function, "spin", deadline_ms=100).json["job_id"])
    assert (job["status"], job["result"], job["error"]["kind"]) == ("failed", None, "invoke_timeout")


@pytest.mark.parametrize(
    ("value", "status", "kind"),
    [
        ({"export": "no such"}, 400, "missing_export"),
        ({"export": "add", "args": [1]}, 400, "invalid_args"),
        ({"export": "add", "args": [1, 2, 3]}, 400, "too_many_args"),
        ({"export": "add", "args": [1, 1 << 32]}, 400, "invalid_args"),
        ({"export": "nothing", "deadline_ms": 20_001}, 400, "invalid_deadline"),
        ({"export": "nothing", "input_b64": "x"}, 400, "invalid_base64"),
        ({"exports": "nothing"}, 400, "invalid_json"),
    ],
)
def test_what_could_never_run_is_refused_as_the_call_would_be(node, function, value, status, kind):
    for route in ("invoke", "invoke-async"):
        answer = send(node, "POST", f"/functions/{function}/{route}", value)
        assert (answer.status, answer.kind) == (status, kind)


def test_jobs_are_listed_oldest_first_in_pages_and_by_status(node):
    function = node.deploy("two")
    jobs = [submit(node, function, who="two").json["job_id"] for _ in range(3)]
    jobs.append(submit(node, function, "spin", who="two", deadline_ms=1).json["job_id"])
    for job_id in jobs:
        end_of(node, job_id, "two")

    def page(query):
        answer = node.call("GET", f"/jobs{query}", who="two")
        assert answer.status == 200, answer.body
        return [job["id"] for job in answer.json["jobs"]], answer.json["next"]

    assert page("") == (jobs, None)
    assert page("?limit=2") == (jobs[:2], jobs[1])
    assert page(f"?limit=2&after={jobs[1]}") == (jobs[2:], None)
    assert page("?status=failed") == (jobs[3:], None)
    assert page("?status=completed&limit=1") == (jobs[:1], jobs[0])
    assert page("?status=pending") == ([], None)
    assert "result" not in node.call("GET", "/jobs", who="two").json["jobs"][0]
    for query in ("?limit=0", "?limit=1001", "?limit=x", "?status=done", "?state=failed", "?limit=1&limit=2"):
        answer = node.call("GET", f"/jobs{query}", who="two")
        assert (answer.status, answer.kind) == (400, "invalid_request"), query
    answer = node.call("GET", f"/jobs?after={uuid.uuid4()}", who="two")
    assert (answer.status, answer.kind) == (404, "not_found")


def test_to_another_tenant_a_job_does_not_exist(node, function):
    job_id = submit(node, function).json["job_id"]
    for method in ("GET", "DELETE"):
        answer = node.call(method, f"/jobs/{job_id}", who="two")
        assert (answer.status, answer.kind) == (404, "not_found")
    assert submit(node, function, who="two").status == 404
    assert job_id not in [job["id"] for job in node.call("GET", "/jobs?limit=1000", who="two").json["jobs"]]
    answer = node.call("GET", f"/jobs?after={job_id}", who="two")
    assert (answer.status, answer.kind) == (404, "not_found")


def test_a_running_job_is_cancelled(node, function):
    job_id = submit(node, function, "sleep").json["job_id"]
    node.wait_for(lambda: node.instances("?tenant=1"), "it does not run")
    answer = node.call("DELETE", f"/jobs/{job_id}", who="one")
    assert (answer.status, answer.json["job_id"]) == (202, job_id)
    assert answer.json["status"] in ("running", "cancelled")  # it may have ended by then
    job = end_of(node, job_id)
    assert (job["status"], job["error"]["kind"], job["result"]) == ("cancelled", "cancelled", None)
    answer = node.call("DELETE", f"/jobs/{job_id}", who="one")
    assert (answer.status, answer.json["status"]) == (202, "cancelled")


# --- idempotency keys ---------------------------------------------------------------------------------------------


def test_the_same_request_with_the_same_key_makes_one_job(node, function):
    key = f"job {uuid.uuid4()}"
    first = submit(node, function, "add", [1, 2], key=key)
    again = submit(node, function, "add", [1, 2], key=key)
    assert (again.status, again.json) == (202, first.json)
    assert (first.headers["idempotent-replayed"], again.headers["idempotent-replayed"]) == (None, "true")
    assert again.headers["location"] == first.headers["location"]
    other = submit(node, function, "add", [1, 3], key=key)
    assert (other.status, other.kind) == (409, "idempotency_conflict")
    assert end_of(node, first.json["job_id"])["result"]["result"] == [3]


def test_a_key_is_one_tenant_s(node):
    mine, theirs = node.deploy("one"), node.deploy("two")
    assert submit(node, mine, key="shared").json != submit(node, theirs, who="two", key="shared").json


def test_the_same_deploy_with_the_same_key_makes_one_function(node):
    key, wasm = f"deploy {uuid.uuid4()}", guest()
    value = {"name": "once", "wasm_b64": base64.b64encode(wasm).decode()}
    first = send(node, "POST", "/functions", value, key=key)
    again = send(node, "POST", "/functions", value, key=key)
    assert (first.status, again.status, again.json) == (201, 201, first.json)
    assert (first.headers["idempotent-replayed"], again.headers["idempotent-replayed"]) == (None, "true")
    assert again.headers["location"] == first.headers["location"] == f"/functions/{first.json['id']}"
    other = send(node, "POST", "/functions", value | {"name": "twice"}, key=key)
    assert (other.status, other.kind) == (409, "idempotency_conflict")
    elsewhere = submit(node, first.json["id"], key=key)  # another path is another request
    assert (elsewhere.status, elsewhere.kind) == (409, "idempotency_conflict")
    headers = {"Content-Type": "application/wasm", "Authorization": "Bearer one", "Idempotency-Key": key + "raw"}
    raw = [node.request("POST", f"/functions?name={name}", wasm, headers) for name in ("a", "a", "b")]
    assert raw[0].json == raw[1].json
    assert (raw[2].status, raw[2].kind) == (409, "idempotency_conflict")
    assert node.call("DELETE", f"/functions/{first.json['id']}", who="one").status == 204
    assert send(node, "POST", "/functions", value, key=key).json == first.json


@pytest.mark.parametrize("what", ["deploy", "job"])
def test_duplicates_at_the_same_moment_make_one(node, function, what):
    key = str(uuid.uuid4())
    value = {"name": "crowd", "wasm_b64": base64.b64encode(guest()).decode()}
    together, answers = threading.Barrier(8), []

    def ask():
        together.wait(PATIENCE_S)
        answers.append(
            send(node, "POST", "/functions", value, key=key)
            if what == "deploy"
            else submit(node, function, "add", [1, 2], key=key)
        )

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len({answer.body for answer in answers}) == 1
    assert {answer.status for answer in answers} == {201 if what == "deploy" else 202}
    assert [answer.headers["idempotent-replayed"] for answer in answers].count(None) == 1
    if what == "deploy":
        listed = node.call("GET", "/functions?limit=1000", who="one").json["functions"]
        assert [item["name"] for item in listed].count("crowd") == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "tab\there"])
def test_a_key_that_is_none_is_refused(node, function, key):
    for answer in (submit(node, function, key=key), send(node, "POST", "/functions", {}, key=key)):
        assert (answer.status, answer.kind) == (400, "invalid_request")


def test_two_keys_are_refused(node, function):
    head = (
        f"POST /functions/{function}/invoke-async HTTP/1.1\r\nHost: {node.host}\r\nAuthorization: Bearer one\r\n"
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert b"more than one idempotency-key" in node.raw(head.encode())


def test_a_large_request_has_a_key_too(node, function):
    value = {"input_b64": base64.b64encode(b"x" * 200_000).decode()}
    first, again = (submit(node, function, key="large", **value) for _ in range(2))
    assert first.json == again.json
    assert submit(node, function, key="large").status == 409
    assert end_of(node, first.json["job_id"])["status"] == "completed"


# --- bounds, the audit log, metrics -------------------------------------------------------------------------------


def test_one_job_too_many_is_refused_and_may_come_later(tmp_path):
    with administered(tmp_path, job_queue_depth=1, workers=1) as node:
        function = node.deploy("one")
        jobs = [submit(node, function, "sleep").json["job_id"]]
        node.wait_for(node.instances, "it does not run")
        refused = node.wait_for(lambda: _refused(node, function, jobs), "the queue never fills")
        assert (refused.kind, refused.headers["retry-after"]) == ("capacity_exhausted", "1")
        assert node.call("DELETE", f"/jobs/{jobs[-1]}", who="one").json["status"] == "cancelled"
        jobs.append(submit(node, function, "sleep").json["job_id"])
        text = node.get("/metrics").body.decode()
        assert "tensor_wasm_jobs_pending 1\n" in text
        assert "tensor_wasm_jobs_active 0\n" not in text
        for job_id in reversed(jobs):
            node.call("DELETE", f"/jobs/{job_id}", who="one")
        assert {end_of(node, job_id)["status"] for job_id in jobs} == {"cancelled"}
        node.wait_for(lambda: b"tensor_wasm_jobs_active 0\n" in node.get("/metrics").body, "jobs are still counted")


def _refused(node, function, jobs):
    answer = submit(node, function, "sleep")
    if answer.status == 503:
        return answer
    assert answer.status == 202
    jobs.append(answer.json["job_id"])
    return None


def test_jobs_are_audited_from_their_start_to_their_end(tmp_path):
    path = tmp_path / "audit.log"
    config = load({}, {"home": tmp_path / "home", "listen_addr": "127.0.0.1:0", "audit": f"file:{path}"}).config
    audit = AuditLog(config.audit)
    with Node(config) as opened:
        server = Server(opened, config, audit=audit)
        server.start_in_thread()
        try:
            from serving import Running

            node = Running(opened, server)
            function = opened.functions.deploy("guest", guest()).id
            headers = {"X-Request-Id": "the-one"}
            done = node.post(f"/functions/{function}/invoke-async", {"export": "add", "args": [1, 2]}, headers)
            ended = node.post(f"/functions/{function}/invoke-async", {"export": "sleep"})
            until = time.monotonic() + PATIENCE_S
            while opened.statistics.active_count == 0:
                assert time.monotonic() < until
                time.sleep(0.01)
            node.request("DELETE", f"/jobs/{ended.json['job_id']}")
            while opened.job_queue.busy or opened.job_queue.waiting:
                assert time.monotonic() < until
                time.sleep(0.01)
        finally:
            server.stop()
            audit.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    of_done = [line for line in lines if line["resource"] == done.json["job_id"]]
    assert [line["event"] for line in of_done] == ["job.create", "job.end"]
    assert {line["request_id"] for line in of_done} == {"the-one"}
    created, finished = of_done
    assert (created["status"], created["outcome"], created["detail"]) == (202, "ok", {"function_id": function})
    assert (finished["method"], finished["status"], finished["outcome"]) == (None, None, "ok")
    assert finished["detail"].keys() == {"function_id", "export", "duration_ms", "launches"}
    of_ended = {line["event"]: line for line in lines if line["resource"] == ended.json["job_id"]}
    assert of_ended.keys() == {"job.create", "job.cancel", "job.end"}
    assert of_ended["job.end"]["outcome"] == "cancelled"
    assert of_ended["job.cancel"]["detail"]["status"] in ("running", "cancelled")
