"""Background jobs and idempotency keys: floods of them, large ones, and those of others."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from administered import Administered, administered
from security.attacked import Attacked
from security.conftest import bearer
from security.guests import probe
from tensor_wasm.store import idempotency


def submit(server: Administered, function: str, who: str = "one", key: str | None = None, **request: object):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {who}"}
    headers |= {} if key is None else {"Idempotency-Key": key}
    body = json.dumps({"export": "nothing"} | request).encode()
    return server.request("POST", f"/functions/{function}/invoke-async", body, headers)


def ended(server: Administered, job: str, who: str) -> dict[str, object]:
    def look():
        found = server.call("GET", f"/jobs/{job}", who=who).json
        return found if found["status"] in ("completed", "failed", "cancelled") else None

    return server.wait_for(look, "a job does not end")


def test_a_flood_of_jobs(tmp_path):
    """Bound: 10,000 of a tenant wait, here 20, half of the threads run them; other tenants' jobs and calls go on."""
    with administered(tmp_path, job_queue_depth=20, workers=4) as server:
        mine, theirs = server.deploy("one", wasm=probe()), server.deploy("two", wasm=probe())
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: submit(server, mine, export="spin", deadline_ms=20_000), range(60)))
        statuses = Counter(answer.status for answer in answers)
        assert statuses.keys() == {202, 503}
        assert 20 <= statuses[202] <= 30, "those that wait, those that run, and some that are about to"
        assert {answer.kind for answer in answers if answer.status == 503} == {"capacity_exhausted"}
        assert server.run(mine, "nothing").status == 200
        assert server.run(theirs, "nothing", who="two").status == 200
        job = submit(server, theirs, "two").json["job_id"]
        assert ended(server, job, "two")["status"] == "completed", "it waits for none of the others"
        for answer in answers:
            if answer.status == 202:
                assert server.call("DELETE", f"/jobs/{answer.json['job_id']}", who="one").status == 202
        server.wait_for(lambda: not server.instances(), "a job that was cancelled runs on")


def test_jobs_with_large_inputs(tmp_path):
    """Bound: what a tenant's jobs hold on the disk, here 1 MiB: one more is refused, results go before their time."""
    with administered(tmp_path, job_stored_bytes=1 << 20, workers=2) as server:
        function = server.deploy(wasm=probe())
        large = base64.b64encode(bytes(300_000)).decode()
        answers = [
            submit(server, function, export="spin", deadline_ms=20_000, input_b64=large if number else "")
            for number in range(8)
        ]
        assert Counter(answer.status for answer in answers) == {202: 4, 503: 4}
        for answer in answers:
            if answer.status == 202:
                assert server.call("DELETE", f"/jobs/{answer.json['job_id']}", who="one").status == 202
        server.wait_for(lambda: not server.instances(), "a job that was cancelled runs on")
        spoken = base64.b64encode(b"x" * 65_536).decode()
        for _ in range(40):  # results of 64 KiB each
            last = submit(server, function, export="say", input_b64=spoken)
            assert last.status == 202
            ended(server, last.json["job_id"], "one")
        kept = server.call("GET", "/jobs?limit=1000", who="one").json["jobs"]
        assert kept[-1]["id"] == last.json["job_id"]
        assert len(kept) < 30


def test_a_flood_of_keys(tmp_path, monkeypatch):
    """Bound: a million of a tenant in a day, here 10: a new one is refused, old ones hold, others have their own."""
    monkeypatch.setattr(idempotency, "KEYS_MAX", 10)
    with administered(tmp_path) as server:
        functions = {who: server.deploy(who, wasm=probe()) for who in ("one", "two")}
        answers = [submit(server, functions["one"], key=f"key {number}") for number in range(15)]
        assert [answer.status for answer in answers] == [202] * 10 + [503] * 5
        assert submit(server, functions["one"]).status == 202, "without a key there is no such bound"
        for number, answer in enumerate(answers[:10]):
            again = submit(server, functions["one"], key=f"key {number}")
            assert (again.status, again.json["job_id"]) == (202, answer.json["job_id"])
        assert submit(server, functions["two"], "two", key="key 0").status == 202
        for odd in ("", "x" * 256, "tab\there", "caf\u00e9"):
            assert submit(server, functions["one"], key=odd).status == 400


def test_keys_of_others(tmp_path):
    """Bound: a key is the tenant's: the same one of another's finds nothing, tells nothing and makes its own."""
    with administered(tmp_path) as server:
        functions = {who: server.deploy(who, wasm=probe()) for who in ("one", "two")}
        first = submit(server, functions["one"], key="nightly").json["job_id"]
        second = submit(server, functions["two"], "two", key="nightly")
        assert second.headers["idempotent-replayed"] is None
        assert second.json["job_id"] != first
        stolen = submit(server, functions["one"], "two", key="nightly")
        assert (stolen.status, stolen.kind) == (409, "idempotency_conflict"), "its own key, with another request"
        stolen = submit(server, functions["one"], "two", key="fresh")
        assert (stolen.status, stolen.kind) == (404, "not_found")
        conflict = submit(server, functions["one"], key="nightly", export="spin")
        assert conflict.kind == "idempotency_conflict"
        assert first not in conflict.message
        assert [job["id"] for job in server.call("GET", "/jobs", who="one").json["jobs"]] == [first]


def test_jobs_beside_another_tenants_calls(tenants: Attacked):
    """Bound: jobs take half of the threads; calls of another tenant are answered while hundreds of jobs wait."""
    mine, theirs = tenants.deploy(probe(), **bearer(1)), tenants.deploy(probe(), **bearer(2))
    body = json.dumps({"export": "spin", "deadline_ms": 100}).encode()
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: tenants.ask("POST", f"/functions/{mine}/invoke-async", body,
                                      Content_Type="application/json", **bearer(1)),
                range(300),
            )
        )  # fmt: skip
    assert {answer.status for answer in answers} == {202}
    for _ in range(20):
        began = time.monotonic()
        assert tenants.invoke(theirs, "nothing", **bearer(2)).status == 200
        assert time.monotonic() - began < 3
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda a: tenants.ask("DELETE", f"/jobs/{a.json['job_id']}", **bearer(1)), reversed(answers)))
    until = time.monotonic() + 20
    while tenants.ask("GET", "/jobs?status=running", **bearer(1)).json["jobs"]:
        assert time.monotonic() < until
        time.sleep(0.05)
