"""Every query of the operator's pages, on a Prometheus that watches a node under load: it runs, and has data."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from docs.pages import Page
from system.front_door import ROOT, Served
from system.load import FACTOR, PATIENCE_S, load
from system.prometheus import Prometheus

pytestmark = pytest.mark.slow

PAGES = [
    Page.read(path)
    for path in (
        *sorted((ROOT / "docs" / "runbooks").glob("*.md")),
        *(ROOT / "docs" / name for name in ("SLO.md", "OBSERVABILITY.md", "dashboards/README.md")),
    )
]
#: Conditions that ask for trouble which this node has not: an empty answer is the good one.
QUIET = {
    "tensor_wasm_device_throttle_reasons > 0",
    "increase(tensor_wasm_device_ecc_errors_total[1h]) > 0",
    "min_over_time(tensor_wasm:kernel_latency_seconds:p95_5m[10m]) > 0.0005",
    "topk(5, tensor_wasm_queued_invocations > 0)",
    "topk(5, sum by (tenant, quota) (rate(tensor_wasm_quota_rejections_total[5m])) > 0)",
    'up{job="tensor-wasm"} == 0',
    'absent(up{job="tensor-wasm"})',
    "increase(tensor_wasm_audit_write_failures_total[5m]) > 0",
    " and ".join(
        f"histogram_quantile(0.95, sum by (le) (rate(tensor_wasm_kernel_latency_seconds_bucket[{window}]))) > 0.00005"
        for window in ("5m", "1h")
    ),
}


def test_every_query_of_every_page_runs_and_has_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = {" ".join(query.split()): page.name for page in PAGES for query in page.blocks("promql")}
    assert len(queries) > 40
    assert queries.keys() >= QUIET
    served = Served(tmp_path / "home", TENSOR_WASM_AUDIT="none")
    empty, values = [], {}
    try:
        with load(served.client), Prometheus(tmp_path / "prometheus", served.url, factor=FACTOR) as prometheus:
            for query, page in queries.items():
                asked = prometheus.query(query)  # raises when it is not one
                if not asked and query not in QUIET:
                    asked = prometheus.until(
                        lambda q=query: prometheus.query(q),  # type: ignore[misc]
                        f"{page} has data for {query}",
                        PATIENCE_S,
                    )
                if not asked:
                    empty.append(query)
                values[query] = [sample.value for sample in asked]
    finally:
        if served.process.poll() is None:
            served.kill()
    assert not [query for query, found in values.items() if any(map(math.isnan, found)) and " / " in query]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", "no data, as it should be:", *empty, ""]))
    assert set(empty) <= QUIET
