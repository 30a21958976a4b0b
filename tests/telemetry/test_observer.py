"""The observer of a real node: what is in its document, and that nothing which hangs keeps it from being made."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest

from administered import PATIENCE_S, Background, administered
from tensor_wasm.telemetry import observation
from tensor_wasm.telemetry.bounded import IN_TIME
from tensor_wasm.telemetry.observe_example import EXAMPLE

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "observe.schema.json"
#: Between samples are 50 ms. What a test brings about is older than the window when it says so, and not otherwise.
WINDOW_S = 3.0


@pytest.fixture
def server(tmp_path):
    with administered(tmp_path / "home", observe_window_s=WINDOW_S, dispatch_permits=2, workers=8) as running:
        yield running


def observed(server, query=""):
    """A document without gaps: on a machine that is busy elsewhere one may have some."""

    def asked():
        answer = server.call("GET", f"/admin/observe{query}")
        assert answer.status == 200, answer.body
        return answer.json if answer.json["unread"] == [] else None

    return server.wait_for(asked, "something is never read")


def end_all(server):
    for instance in server.instances():
        server.call("POST", f"/admin/instances/{instance['id']}/terminate", {})


# --- the document -----------------------------------------------------------------------------------------


def test_the_schema_s_file_is_the_program_s():
    assert SCHEMA_FILE.read_text("utf-8") == observation.schema_text(), (
        "run: python -m tensor_wasm.telemetry.observation > docs/observe.schema.json"
    )


def test_the_schema_holds_documents_to_all_their_fields():
    schema = observation.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    document = json.loads(observation.encode(EXAMPLE))
    validator.validate(document)
    for name in document:
        assert not validator.is_valid({key: value for key, value in document.items() if key != name}), name
    assert not validator.is_valid(document | {"dispatch": {}})


def test_a_node_at_work_gives_a_document_of_the_schema(server):
    function = server.deploy()
    for _ in range(4):
        assert server.run(function, "launch").status == 200
    loaded_s = server.wait_for(lambda: observed(server)["kernels"]["load_p95_s"], "no kernel was loaded")
    assert 0 < loaded_s < 10
    assert server.run(function, "nothing", who="two").status == 404
    server.wait_for(lambda: observed(server)["covered_s"] > 0.2, "there is no history")
    document = observed(server, "?history=true")
    jsonschema.validate(document, observation.schema(), format_checker=jsonschema.FormatChecker())
    assert document["unread"] == []
    assert document["node"]["deployment"] == "host"
    assert document["node"]["url"] == f"http://{server.host}:{server.port}"
    assert document["permits"]["total"] == 2
    assert document["release"]["previous"] is None
    assert document["history"]
    assert "history" not in observed(server)
    assert [row["name"] for row in document["slo"]] == [
        "availability",
        "latency_http_healthz_P95",
        "latency_http_invoke_P95",
        "latency_dispatch_serial_P95",
        "error_rate_invoke",
    ]


@pytest.mark.slow
def test_rates_and_percentiles_are_of_the_window_and_never_since_the_start(server):
    function = server.deploy()
    for _ in range(5):
        assert server.run(function, "launch").status == 200
    found = observed(server)
    assert found["dispatch"]["count"] == found["execution"]["count"] == 5
    assert found["dispatch"]["p95_s"] > 0
    assert found["http"]["invoke"]["count"] == 5
    (tenant,) = [row for row in found["tenants"] if row["tenant"] == 1]
    assert (tenant["dispatch_share"], tenant["execution_share"]) == (1.0, 1.0)
    gone = server.wait_for(
        lambda: (now := observed(server))["dispatch"]["count"] == 0 and now, "what is past stays in the window"
    )
    assert gone["dispatch"]["p95_s"] is None
    assert gone["http"]["invoke"]["count"] == 0
    assert gone["covered_s"] == pytest.approx(WINDOW_S, abs=0.5)


def test_requests_that_fail_are_told_and_break_objectives(server):
    function = server.deploy()
    assert server.run(function, "alloc", [1 << 30]).status == 200
    for _ in range(3):
        assert server.run(function, "kernel", deadline_ms=100).status == 504
    document = observed(server)
    assert document["http"]["errors_5xx_ratio"] > 0
    states = {row["name"]: row["state"] for row in document["slo"]}
    assert (states["availability"], states["error_rate_invoke"]) == ("breached", "breached")


def test_the_busiest_tenants_and_instances_come_first(server):
    one, two = server.deploy("one"), server.deploy("two")
    background = Background(server)
    background.run(one, "kernel")
    background.run(one, "kernel")
    server.in_state("in_kernel", 2)
    background.run(two, "launch", who="two")
    server.in_state("waiting")
    document = observed(server)
    assert document["permits"]["used"] == 2
    assert document["permits"]["waiting"] == 1
    assert document["instance_count"] == 3
    assert [row["tenant"] for row in document["instances"]] == [1, 1, 2]
    assert {row["state"] for row in document["instances"]} == {"in_kernel", "waiting"}
    tenants = {row["tenant"]: row for row in document["tenants"]}
    assert (tenants[1]["held"], tenants[1]["instances"]) == (2, 2)
    assert (tenants[2]["held"], tenants[2]["waiting"]) == (0, 1)
    full = server.wait_for(
        lambda: (now := observed(server))["permits"]["utilization"] == 1.0 and now, "the permits are not all used"
    )
    assert full["permits"]["held_without_launch"] == 0
    end_all(server)
    background.join()


@pytest.mark.slow
def test_the_history_has_three_windows_of_samples(tmp_path):
    with administered(tmp_path / "home", observe_window_s=1.0) as server:
        server.wait_for(lambda: len(observed(server, "?history=true")["history"]) == 180, "the history is not full")
        document = observed(server, "?history=true")
        assert len(document["history"]) == 180
        moments = [point["at"] for point in document["history"]]
        assert moments == sorted(moments)
        assert document["covered_s"] <= 1.0


def test_only_an_operator_may_see_it(server):
    assert server.call("GET", "/admin/observe", who="one").status == 403
    assert server.call("GET", "/admin/observe", who="nobody").status == 401
    for query in ("?history=1", "?history=true&history=true", "?tenant=1"):
        assert server.call("GET", f"/admin/observe{query}").status == 400


# --- permits that are wedged ------------------------------------------------------------------------------


def test_a_permit_that_nobody_gives_back_is_wedged_after_a_second(server):
    words = server.node.ledger._words
    available = 64 >> 2  # where the ledger keeps how many permits are free
    words[available] -= 1
    try:
        server.wait_for(lambda: observed(server)["permits"]["held_without_launch"] == 1, "the lost permit is not seen")
    finally:
        words[available] += 1
    server.wait_for(lambda: observed(server)["permits"]["held_without_launch"] == 0, "the permit is still lost")


@pytest.mark.slow
def test_launches_one_after_another_are_no_wedge(server):
    function = server.deploy()
    background = Background(server)
    background.run(function, "kernel")
    background.run(function, "kernel")
    server.in_state("in_kernel", 2)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert observed(server)["permits"]["held_without_launch"] == 0
        time.sleep(0.05)
    end_all(server)
    background.join()


# --- what hangs -------------------------------------------------------------------------------------------

LOCKS = {
    "dispatch": lambda node: node.ledger._lock,
    "statistics": lambda node: node.statistics._lock,
    "instances": lambda node: node.administration._instances._lock,
    "jobs": lambda node: node.job_queue._lock,
}


@pytest.mark.parametrize("part", LOCKS)
def test_a_lock_that_is_held_is_named_and_holds_nothing_up(server, part):
    observer = server.server._observer
    server.wait_for(lambda: observer.document().covered_s > 0.1, "there are no samples")
    with LOCKS[part](server.node):
        server.wait_for(lambda: observer.document().unread == [f"{part}: {IN_TIME}"], "it is not named")
        began = time.monotonic()
        document = observer.document()
        took_s = time.monotonic() - began
        assert document.permits.total == 2, "what was read before stands in its place"
        before = observer.document(history=True).history[-1].at
        server.wait_for(lambda: observer.document(history=True).history[-1].at > before, "no more samples")
    assert took_s < PATIENCE_S / 4
    server.wait_for(lambda: observer.document().unread == [], "it is read no more")


def test_without_any_reading_there_is_a_document_too(server, monkeypatch):
    observer = server.server._observer
    monkeypatch.setattr(observer._bounded, "read", lambda: ({}, dict.fromkeys(observer._bounded._parts, IN_TIME)))
    observer._last.clear()
    observer._samples.clear()
    document = observer.document()
    assert len(document.unread) == len(observer._bounded._parts)
    jsonschema.validate(json.loads(observation.encode(document)), observation.schema())


def test_what_ran_is_written_at_the_end(tmp_path):
    with administered(tmp_path / "home", observe_window_s=WINDOW_S) as server:
        function = server.deploy()
        for _ in range(3):
            assert server.run(function, "launch").status == 200
    kept = json.loads((tmp_path / "home" / "releases.json").read_text())
    assert sum(kept["current"]["dispatch_counts"]) == 3
