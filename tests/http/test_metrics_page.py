"""docs/metrics.md and a running node: every family, type, label, unit and bucket that is on the one is in the other."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from administered import administered
from tensor_wasm.bench.stateful_guest import emitting_guest
from tensor_wasm.telemetry.metrics_reference import LABELS, families, page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
TEXT, OPENMETRICS = "text/plain", "application/openmetrics-text;version=1.0.0"
PARSERS = {TEXT: parse_text, OPENMETRICS: parse_openmetrics}
PREFIX = "tensor_wasm_"


class Documented(NamedTuple):
    kind: str
    labels: set[str]
    unit: str


def rows(heading=r"[^\n]+"):
    """The cells of every row below headings that match."""
    sections = re.findall(rf"^## ({heading})\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert sections
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for _, section in sections
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def documented():
    table = {}
    for cells in rows():
        if len(cells) == 5:
            name, kind, labels, unit, meaning = cells
            assert len(meaning) > 8
            table[name.strip("`")] = Documented(kind, set(re.findall(r"`(\w+)`", labels)), unit)
    return table


def bounds():
    return {name.strip("`"): re.findall(r"`([^`]+)`", cell) for name, cell in rows("Buckets")}


def scrape(server, accept):
    answer = server.get("/metrics", Accept=accept)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(accept.partition(";")[0])
    found = {}
    for family in PARSERS[accept](answer.body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in found, f"{name} comes twice"
        found[name] = family
    return found


def values(family):
    return {(item.name, tuple(sorted(item.labels.items()))): item.value for item in family.samples}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A node that has done a bit of everything."""
    with administered(tmp_path_factory.mktemp("home")) as server:
        work(server)
        yield server


def work(server):
    function = server.deploy()
    assert server.run(function, "launch").status == 200
    assert server.run(function, "no-such").status == 400
    assert server.call("POST", f"/functions/{function}/invoke-async", {"export": "launch"}, who="one").status == 202
    assert server.call("GET", "/admin/instances", who="one").status == 403
    emitting = server.deploy(wasm=emitting_guest())
    body = {"export": "emit", "args": [3, 100]}
    headers = {"Accept": "application/octet-stream", "Authorization": "Bearer one", "Content-Type": "application/json"}
    answer = server.request("POST", f"/functions/{emitting}/invoke-stream", json.dumps(body), headers)
    assert (answer.status, len(answer.body)) == (200, 300)
    kept = server.call("POST", "/instances", {"function_id": function}, who="one")
    assert kept.status == 200, kept.body
    snapshot = server.call("POST", f"/instances/{kept.json['id']}/snapshot", {}, who="one")
    assert snapshot.status == 200, snapshot.body
    restored = server.call("POST", f"/snapshots/{snapshot.json['snapshot_id']}/restore", {}, who="one")
    assert restored.status == 200, restored.body
    server.raw(b"no http\r\n\r\n")
    server.wait_for(lambda: server.node.job_queue.busy == server.node.job_queue.waiting == 0, "the job does not end")


def test_the_page_is_written_from_the_families():
    assert page() == PAGE.read_text("utf-8"), "run: python -m tensor_wasm.telemetry.metrics_reference > docs/metrics.md"


def test_every_label_is_explained():
    assert {cells[0].strip("`") for cells in rows("Labels")} == {label for row in families() for label in row.labels}
    assert all(len(meaning) > 8 for meaning in LABELS.values())


@pytest.mark.parametrize("accept", PARSERS)
def test_a_running_node_has_what_the_page_says_and_no_more(server, accept):
    found, table, buckets = scrape(server, accept), documented(), bounds()
    assert found.keys() == table.keys()
    for name, family in found.items():
        row = table[name]
        assert family.type == row.kind, name
        assert family.samples or name.startswith(f"{PREFIX}device_"), name
        if accept == OPENMETRICS:
            assert family.unit == row.unit, name
        series = {}
        for item in family.samples:
            labels = dict(item.labels)
            bound = labels.pop("le", None)
            assert labels.keys() == row.labels, f"{name}: {labels}"
            assert (bound is not None) == item.name.endswith("_bucket")
            if bound is not None:
                series.setdefault(tuple(sorted(labels.items())), []).append(bound)
        assert bool(series) == (family.type == "histogram") == (name in buckets), name
        assert all(found == [*buckets[name], "+Inf"] for found in series.values()), name


def test_both_formats_tell_the_same(server):
    one, other = scrape(server, TEXT), scrape(server, OPENMETRICS)
    for name in one.keys() - {f"{PREFIX}event_loop_lag_seconds"}:
        if not name.startswith((f"{PREFIX}http_", f"{PREFIX}device_")):  # the scrapes themselves change the former
            assert values(one[name]) == values(other[name]), name


def test_what_was_done_was_counted_once(server):
    found = scrape(server, TEXT)

    def value(name, **labels):
        family = found[PREFIX + re.sub(r"_(count|bucket|sum)$", "", name)]
        return values(family)[PREFIX + name, tuple(sorted(labels.items()))]

    assert value("streaming_chunks_emitted_total") == 3
    assert value("snapshot_capture_seconds_count") == 1
    assert value("snapshot_restore_seconds_count") == 1
    assert value("snapshot_capture_seconds_sum") > 0
    assert value("snapshot_restore_seconds_sum") > 0
    assert value("snapshots_in_progress") == 0
    assert value("kernel_dispatches_total", tenant="1", device="cpu") == 2
    assert value("kernel_latency_seconds_count", tenant="1") == 2
    assert value("instance_spawns_total", tenant="1") == 5
    assert value("active_instances", tenant="1") == 2
    assert value("functions") == 2
    assert value("audit_write_failures_total") == 0
    assert value("http_requests_total", route="other", method="other", status="400") == 1
    assert value("http_requests_total", route="/admin/instances", method="GET", status="403") == 1


def test_a_fresh_node_has_every_family_with_zeros(tmp_path):
    with administered(tmp_path) as fresh:
        first, table = scrape(fresh, TEXT), documented()
    assert first.keys() == table.keys()
    #: What a node has from the start, or by being asked.
    alive = {"dispatch_permits", "build_info", "event_loop_lag_seconds", "http_connections", "http_requests_in_flight"}
    for name, family in first.items():
        if name.removeprefix(PREFIX) not in alive and not name.startswith(f"{PREFIX}device_"):
            assert not any(item.value for item in family.samples), name


def test_a_client_invents_no_labels(tmp_path):
    with administered(tmp_path) as server:
        before = {name: set(values(family)) for name, family in scrape(server, TEXT).items()}
        for number in range(20):
            server.request(f"M{number}", f"/nowhere/{number}", headers={"Authorization": f"Bearer {number}"})
            server.call("GET", f"/functions/{base64.b16encode(bytes([number])).decode()}", who="one")
            server.call("GET", "/functions", who="nobody", tenant=number)
        after = {name: set(values(family)) for name, family in scrape(server, TEXT).items()}
    new = {name: {labels for _, labels in after[name] - before[name]} for name in after if after[name] != before[name]}
    assert new.keys() <= {f"{PREFIX}http_{name}" for name in ("requests_total", "request_duration_seconds",
                                                               "requests_in_flight")}  # fmt: skip
    seen = {dict(labels)["route"] for series in new.values() for labels in series}
    assert seen <= {"other", "/functions/:id", "/functions", "/metrics"}
