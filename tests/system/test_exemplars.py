"""From a bucket of the HTTP histogram to the trace of a request in it, as a real Prometheus keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from collector import Collector
from system.front_door import Served
from system.prometheus import Prometheus

pytestmark = pytest.mark.slow

TRACED, NOT_SAMPLED = "0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c"
SERIES = 'tensor_wasm_http_request_duration_seconds_bucket{route="/functions/:id/invoke"}'


@pytest.fixture
def traced(serve: Callable[..., Served], guest_file: Path) -> Served:
    """A node that has answered three invocations: one in a trace, one in a trace that is not recorded, one in none."""
    collector = Collector()
    try:
        served = serve(TENSOR_WASM_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="parentbased_always_off")
        function = served.client.deploy("guest", guest_file.read_bytes())["id"]
        for parent in (f"00-{TRACED}-b7ad6b7169203331-01", f"00-{NOT_SAMPLED}-b7ad6b7169203331-00", None):
            headers = {} if parent is None else {"traceparent": parent}
            answer = httpx.post(f"{served.url}/functions/{function}/invoke", json={}, headers=headers)
            assert answer.status_code < 500, answer.text
        yield served
    finally:
        collector.close()


def test_a_bucket_leads_to_the_trace_of_a_request_in_it(traced: Served, tmp_path: Path) -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    text = httpx.get(f"{traced.url}/metrics", headers={"Accept": accept}).text
    found = [
        (item.labels["route"], item.exemplar.labels, item.exemplar.value <= float(item.labels["le"]))
        for family in text_string_to_metric_families(text)
        for item in family.samples
        if item.exemplar
    ]
    assert found == [("/functions/:id/invoke", {"trace_id": TRACED}, True)]
    plain = httpx.get(f"{traced.url}/metrics", headers={"Accept": "text/plain"}).text
    assert TRACED not in plain

    with Prometheus(tmp_path / "prometheus", traced.url) as prometheus:

        def kept() -> list[dict[str, object]]:
            now = time.time()
            window = f"start={now - 3600}&end={now + 3600}"
            found: list[dict[str, object]] = prometheus._get(
                f"/api/v1/query_exemplars?query={quote(SERIES, safe='')}&{window}"
            )
            return found

        (series,) = prometheus.until(kept, "Prometheus keeps the exemplar")
    assert {exemplar["labels"]["trace_id"] for exemplar in series["exemplars"]} == {TRACED}
