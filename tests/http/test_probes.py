from __future__ import annotations

import threading

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text


def test_health_answers(server):
    answer = server.get("/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.headers["content-type"] == "application/json"


def test_health_answers_while_every_thread_is_stuck(serve):
    running = serve()
    release = threading.Event()
    running.node.health.readiness = release.wait
    stuck = [threading.Thread(target=running.get, args=("/readyz",)) for _ in range(40)]
    try:
        for thread in stuck:
            thread.start()
        assert running.get("/healthz").status == 200
    finally:
        running.node.health.readiness = list
        release.set()
        for thread in stuck:
            thread.join()


def test_ready_says_why_not(server):
    answer = server.get("/readyz")
    assert (answer.status, answer.json) == (200, {"status": "ready", "reasons": []})
    server.node.drain.begin()
    answer = server.get("/readyz")
    assert (answer.status, answer.kind) == (503, "not_ready")
    assert "draining" in answer.message
    assert answer.headers["retry-after"]


def test_metrics_come_in_the_format_that_is_asked_for(server):
    plain = server.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in parse_text(plain.body.decode())}
    assert {"tensor_wasm_kernel_dispatches", "tensor_wasm_http_requests", "tensor_wasm_event_loop_lag_seconds"} <= names
    other = server.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert other.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(other.body.decode())} == names


def test_metrics_have_a_token_of_their_own(serve):
    running = serve(api_metrics_token="scrape-me", api_tokens="api:tenant=*")
    for headers in ({}, {"Authorization": "Bearer api"}, {"Authorization": "Basic scrape-me"}):
        answer = running.request("GET", "/metrics", headers=headers)
        assert (answer.status, answer.kind) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert running.get("/metrics", Authorization="Bearer scrape-me").status == 200
    assert running.get("/healthz").status == 200


def test_the_loops_lag_is_measured(server):
    import time

    time.sleep(0.25)
    for family in parse_text(server.get("/metrics").body.decode()):
        if family.name == "tensor_wasm_event_loop_lag_seconds":
            assert next(item.value for item in family.samples if item.name.endswith("_count")) >= 1
            return
    raise AssertionError("no lag")
