"""Commands for background jobs, against a stand-in that answers as it is told."""

from __future__ import annotations

import json

import pytest

ID = "00000000-0000-4000-8000-000000000000"
JOB = "11111111-1111-4111-8111-111111111111"
RESULT = {"result": [42], "function_id": ID, "instance_id": ID, "duration_ms": 1.5, "launches": 0, "stdout": "hello\n"}
DONE = {
    "id": JOB,
    "function_id": ID,
    "export": "add",
    "status": "completed",
    "created_at": 1_700_000_000.0,
    "started_at": 1_700_000_001.0,
    "finished_at": 1_700_000_003.5,
    "error": None,
    "result": RESULT,
}


def failed(kind, message="it did not work", status="failed"):
    return DONE | {"status": status, "result": None, "error": {"kind": kind, "message": message}}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("tensor_wasm.cli.job._FIRST_POLL_S", 0.001)


def test_invoke_async_makes_a_job_and_prints_its_id(remote, node):
    node.answer(f"POST /functions/{ID}/invoke-async", {"job_id": JOB}, 202)
    result = remote("invoke", ID, "--async", "--export", "add", "--args", "[1, 41]", "--deadline", "2")
    assert (result.code, result.out, result.err) == (0, f"{JOB}\n", "")
    assert json.loads(node.asked[0].body) == {"export": "add", "args": [1, 41], "deadline_ms": 2000}
    assert remote("invoke", ID, "--async", "--json").json == {"job_id": JOB}


def test_wait_shows_the_result_as_the_call_would_have(remote, node):
    node.answer(f"POST /functions/{ID}/invoke-async", {"job_id": JOB}, 202)
    for status in ("pending", "running", "running"):
        node.answer(f"GET /jobs/{JOB}", DONE | {"status": status, "finished_at": None, "result": None})
    node.answer(f"GET /jobs/{JOB}", DONE)
    result = remote("invoke", ID, "--async", "--wait")
    assert (result.code, result.out, result.err) == (0, "hello\n42\n", f"job {JOB}\n")
    assert len(node.asked) == 5
    assert remote("invoke", ID, "--async", "--wait", "--json").json == DONE


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (failed("trap"), 1),
        (failed("node_restarted"), 1),
        (failed("cancelled", status="cancelled"), 1),
        (failed("invoke_timeout"), 124),
        (failed("not_found"), 5),
    ],
)
def test_wait_ends_with_the_code_of_what_became_of_the_job(remote, node, job, code):
    node.answer(f"POST /functions/{ID}/invoke-async", {"job_id": JOB}, 202)
    node.answer(f"GET /jobs/{JOB}", job)
    result = remote("invoke", ID, "--async", "--wait", "--json")
    assert (result.code, result.json["error"]["kind"]) == (code, job["error"]["kind"])
    assert "it did not work" in result.err


def test_wait_without_async_is_wrong_usage(remote, node):
    result = remote("invoke", ID, "--wait")
    assert (result.code, node.asked) == (2, [])
    assert "--async" in result.err


def test_what_is_no_job_is_not_waited_for(remote, node):
    node.answer(f"POST /functions/{ID}/invoke-async", {"id": JOB}, 202)
    assert remote("invoke", ID, "--async").code == 3


def test_job_list_goes_through_the_pages(remote, node):
    node.answer("GET /jobs", {"jobs": [DONE], "next": JOB})
    node.answer("GET /jobs", {"jobs": [failed("trap")], "next": None})
    result = remote("job", "list", "--status", "completed")
    assert result.code == 0
    head, first, second = result.out.splitlines()
    assert head.split() == ["ID", "STATUS", "FUNCTION", "EXPORT", "ACCEPTED", "TOOK", "ERROR"]
    assert first.split() == [JOB, "completed", ID, "add", "2023-11-14", "22:13:20", "UTC", "2.5s"]
    assert second.split()[-1] == "trap"
    assert [asked.path for asked in node.asked] == [
        "/jobs?status=completed&limit=100", f"/jobs?status=completed&limit=100&after={JOB}",
    ]  # fmt: skip


def test_job_list_takes_a_limit_and_prints_json(remote, node):
    node.answer("GET /jobs", {"jobs": [DONE, DONE], "next": JOB})
    assert remote("job", "list", "--limit", "1", "--json").json == {"jobs": [DONE]}
    assert node.asked[0].path == "/jobs?limit=1"
    assert remote("job", "list", "--status", "done").code == 2


def test_job_show_tells_what_it_came_to(remote, node):
    node.answer(f"GET /jobs/{JOB}", DONE)
    node.answer(f"GET /jobs/{JOB}", failed("trap", "unreachable\x1b[31m"))
    lines = remote("job", "show", JOB).out.splitlines()
    assert lines[:2] == [f"id        {JOB}", "status    completed"]
    assert lines[-2:] == ["hello", "42"]
    shown = remote("job", "show", JOB).out
    assert "error     trap: unreachable\\x1b[31m" in shown
    assert remote("job", "show", JOB, "--json").json == failed("trap", "unreachable\x1b[31m")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("cancelled", "cancelled "),
        ("running", "cancelling, it runs: "),
        ("pending", "cancelling, it is about to run: "),
        ("completed", "had ended (completed): "),
    ],
)
def test_job_cancel_says_where_the_job_stands(remote, node, status, said):
    node.answer(f"DELETE /jobs/{JOB}", {"job_id": JOB, "status": status}, 202)
    assert remote("job", "cancel", JOB).out == f"{said}{JOB}\n"
    assert remote("job", "cancel", JOB, "--json").json == {"job_id": JOB, "status": status}


def test_a_job_that_there_is_not_has_its_exit_code(remote, node):
    error = {"kind": "not_found", "message": "no such job", "request_id": "r"}
    for route in (f"GET /jobs/{JOB}", f"DELETE /jobs/{JOB}"):
        node.answer(route, {"error": error}, 404)
    assert remote("job", "show", JOB).code == remote("job", "cancel", JOB).code == 5
