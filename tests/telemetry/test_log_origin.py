"""Log lines tell for whom they were written: requests, workers, background threads, jobs."""

from __future__ import annotations

import io
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from administered import administered
from tensor_wasm.node import ORIGIN, Origin
from tensor_wasm.node.origin import acting_for, carried
from tensor_wasm.telemetry import logs

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
_log = logging.getLogger("tensor_wasm.node")


@pytest.fixture
def stream() -> io.StringIO:
    made = io.StringIO()
    logs.configure("info", "json", made)
    return made


def lines(stream: io.StringIO, message: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if message in line["message"]]


def test_a_line_has_what_is_known_and_no_more(stream: io.StringIO) -> None:
    origin = Origin("r-1", 2**64 - 1)
    with acting_for(origin):
        _log.warning("first")
        origin.instance_id, origin.trace_id = "i-1", TRACE
        _log.warning("second", extra={"request_id": "another"})
    _log.warning("third")
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["request_id"], first["tenant"]) == ("r-1", 2**64 - 1)
    assert first.keys().isdisjoint({"trace_id", "instance_id"})
    assert (second["request_id"], second["instance_id"], second["trace_id"]) == ("another", "i-1", TRACE)
    assert third.keys().isdisjoint({"request_id", "tenant", "trace_id", "instance_id"})


def test_work_is_carried_to_another_thread_and_leaves_nothing_there() -> None:
    origin = Origin("r-1")
    with acting_for(origin):
        work = carried(ORIGIN.get)
    assert work() is origin
    assert ORIGIN.get() is None
    assert carried(ORIGIN.get)() is None


def test_requests_workers_and_jobs_write_their_ids(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with administered(tmp_path) as server:
        function = server.deploy()
        run, listed = server.node.invocations._run, server.node.functions.list

        def noisy_run(*args: Any) -> Any:
            try:
                return run(*args)
            finally:
                _log.warning("on a worker")

        def noisy_list(*args: Any) -> Any:
            _log.warning("in the background")
            return listed(*args)

        monkeypatch.setattr(server.node.invocations, "_run", noisy_run)
        monkeypatch.setattr(server.node.functions, "list", noisy_list)
        headers = {"Authorization": "Bearer both", "X-TensorWasm-Tenant": "1", "X-Request-Id": "mine"} | PARENT
        answer = server.post(f"/functions/{function}/invoke", {"export": "nothing"}, headers)
        assert answer.headers["x-trace-id"] == TRACE
        (line,) = lines(stream, "on a worker")
        wanted = {"request_id": "mine", "tenant": 1, "trace_id": TRACE, "instance_id": answer.json["instance_id"]}
        assert line.items() >= wanted.items()
        server.request("GET", "/functions", headers=headers | {"X-Request-Id": "other"})
        (line,) = lines(stream, "in the background")
        assert (line["request_id"], line["tenant"], line["trace_id"]) == ("other", 1, TRACE)
        assert "instance_id" not in line
        submitted = server.post(
            f"/functions/{function}/invoke-async", {"export": "nothing"}, headers | {"X-Request-Id": "job-1"}
        )
        assert submitted.status == 202
        until = time.monotonic() + 30
        while len(found := lines(stream, "on a worker")) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert (found[1]["request_id"], found[1]["tenant"]) == ("job-1", 1)
        assert found[1]["instance_id"] != found[0]["instance_id"]
        monkeypatch.setattr(server.node.functions, "show", None)
        server.request("GET", f"/functions/{function}", headers=headers)
        (line,) = lines(stream, "a request failed")
        assert (line["request_id"], line["tenant"], line["trace_id"]) == ("mine", 1, TRACE)
