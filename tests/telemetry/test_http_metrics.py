from __future__ import annotations

import threading
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tensor_wasm.telemetry import HttpMetrics, render


def read(metrics):
    found = {}
    for family in parse(render([metrics], "")[0].decode()):
        for item in family.samples:
            labels = item.labels
            key = (item.name.removeprefix("tensor_wasm_http_"), *(labels[name] for name in sorted(labels)))
            found[key] = item.value
    return found


def test_a_request_is_in_flight_until_it_has_its_answer():
    metrics = HttpMetrics()
    metrics.started("/functions/:id", "GET")
    assert read(metrics)["requests_in_flight", "GET", "/functions/:id"] == 1
    assert metrics.in_flight == 1
    metrics.finished("/functions/:id", "GET", 404, 0.003)
    found = read(metrics)
    assert found["requests_in_flight", "GET", "/functions/:id"] == 0
    assert found["requests_total", "GET", "/functions/:id", "404"] == 1
    assert found["request_duration_seconds_bucket", "0.0025", "GET", "/functions/:id", "404"] == 0
    assert found["request_duration_seconds_bucket", "0.005", "GET", "/functions/:id", "404"] == 1
    assert found["request_duration_seconds_sum", "GET", "/functions/:id", "404"] == 0.003


def test_a_bound_belongs_to_its_bucket():
    metrics = HttpMetrics()
    metrics.count("/x", "GET", 200, 0.01)
    metrics.count("/x", "GET", 200, 31.0)
    found = read(metrics)
    assert found["request_duration_seconds_bucket", "0.005", "GET", "/x", "200"] == 0
    assert found["request_duration_seconds_bucket", "0.01", "GET", "/x", "200"] == 1
    assert found["request_duration_seconds_bucket", "30.0", "GET", "/x", "200"] == 1
    assert found["request_duration_seconds_bucket", "+Inf", "GET", "/x", "200"] == 2


def test_what_was_declared_shows_zeros():
    metrics = HttpMetrics()
    metrics.declare("/readyz", "GET", 200)
    metrics.declare("/readyz", "GET", 200)
    found = read(metrics)
    assert found["requests_total", "GET", "/readyz", "200"] == 0
    assert found["requests_in_flight", "GET", "/readyz"] == 0


def test_it_can_be_read_while_it_counts():
    metrics = HttpMetrics()
    stop = threading.Event()
    failures = []

    def scrape():
        try:
            while not stop.is_set():
                read(metrics)
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=scrape)
    reader.start()
    for number in range(3000):
        metrics.started(f"/{number % 100}", "GET")
        metrics.finished(f"/{number % 100}", "GET", 200 + number % 7, 0.001)
    stop.set()
    reader.join()
    assert failures == []
    assert sum(count for key, count in read(metrics).items() if key[0] == "requests_total") == 3000


def exemplars(metrics):
    """Of each bucket that has one: route, bound and the exemplar."""
    body, _ = render([metrics], "application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert not any(item.exemplar for item in families["tensor_wasm_http_requests"].samples)
    return {
        (item.labels["route"], item.labels["le"]): item.exemplar
        for item in families["tensor_wasm_http_request_duration_seconds"].samples
        if item.exemplar
    }


def test_a_bucket_tells_the_newest_trace_that_fell_into_it():
    metrics = HttpMetrics()
    metrics.declare("/a", "GET", 200)
    began_s = time.time()
    for route, duration_s, trace in (
        ("/x", 0.003, "a" * 32),
        ("/x", 0.004, "b" * 32),
        ("/x", 0.004, None),
        ("/x", 99.0, "c" * 32),
        ("/y", 0.0001, "d" * 32),
        ("/z", 0.003, None),
    ):
        metrics.started(route, "GET")
        metrics.finished(route, "GET", 200, duration_s, trace)
    found = exemplars(metrics)
    assert {place: exemplar.labels["trace_id"] for place, exemplar in found.items()} == {
        ("/x", "0.005"): "b" * 32,
        ("/x", "+Inf"): "c" * 32,
        ("/y", "0.0005"): "d" * 32,
    }
    assert found["/x", "0.005"].value == 0.004
    assert all(began_s - 0.001 <= float(exemplar.timestamp) <= time.time() + 0.001 for exemplar in found.values())


def test_plain_text_has_no_exemplars():
    metrics = HttpMetrics()
    metrics.started("/x", "GET")
    metrics.finished("/x", "GET", 200, 0.003, "a" * 32)
    body = render([metrics], "text/plain")[0].decode()
    assert "a" * 32 not in body
    assert " # " not in body
    assert read(metrics)["requests_total", "GET", "/x", "200"] == 1


def test_however_many_traces_there_are_one_exemplar_is_kept_for_each_bucket():
    metrics = HttpMetrics()
    for number in range(10_000):
        metrics.started("/x", "GET")
        metrics.finished("/x", "GET", 200, (number % 400) / 10, f"{number:032x}")
    (row,) = metrics._rows.values()
    assert len(row.exemplars) <= len(row.counts)


@pytest.mark.parametrize("text", ["", "a" * 31, "a" * 33, 'a"} 1\n# EOF' + "0" * 20, "A" * 32, "0" * 32 + "\n"])
def test_what_is_no_trace_id_is_no_exemplar(text):
    metrics = HttpMetrics()
    metrics.started("/x", "GET")
    metrics.finished("/x", "GET", 200, 0.003, text)
    assert exemplars(metrics) == {}
    assert read(metrics)["requests_total", "GET", "/x", "200"] == 1
