from __future__ import annotations

import threading

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
