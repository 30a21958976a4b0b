"""The dashboard: as its panels say, in order for Grafana, and of what nodes and rules have. With data: tests/system."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from deploy.expressions import selectors, unknown
from system.dashboard import DASHBOARD, PATH, drawn
from system.front_door import ROOT
from system.prometheus import RULES
from tensor_wasm.telemetry.slo import AVAILABILITY, AVAILABILITY_BUDGET, BURNS, DISPATCH, HEALTHZ, INVOKE, INVOKE_ERRORS

PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
RUNBOOKS = "https://github.com/tensor-wasm/tensor-wasm/blob/main/docs/runbooks/"
EACH_PANEL = pytest.mark.parametrize("title", list(PANELS))


def test_the_committed_dashboard_is_the_generator_s():
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / "grafana" / "overview.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout == PATH.read_text("utf-8")


def test_the_panels_that_the_design_asks_for_are_there():
    assert PANELS.keys() >= {
        "Availability", "Error budget", "Burn rates", "HTTP latency by route", "Invoke error rate", "Kernel latency",
        "Back-pressure permit utilisation", "Dispatches by tenant", "Execution and wait", "Instances",
        "Spawns and terminations", "GPU memory", "Snapshots", "Kernel cache", "Event-loop lag", "Build",
    }  # fmt: skip
    assert [target["legendFormat"][:3] for target in PANELS["HTTP latency by route"]["targets"]] == [
        "P50",
        "P95",
        "P99",
    ]


def test_panels_have_numbers_and_places_of_their_own():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(PANELS) == sum(panel["type"] != "row" for panel in panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken
        taken |= cells


@EACH_PANEL
def test_a_panel_asks_for_what_nodes_and_rules_have(title, node_series):
    recorded = {
        rule["record"]
        for group in yaml.safe_load((RULES / "recording.yml").read_text("utf-8"))["groups"]
        for rule in group["rules"]
    }
    targets = PANELS[title]["targets"]
    assert targets
    assert len({target["refId"] for target in targets}) == len(targets)
    for target in targets:
        expression = drawn(target["expr"])
        assert "$" not in expression
        assert unknown(expression, node_series) == []
        names = {selector.name for selector in selectors(expression) if selector.is_recorded}
        assert names <= recorded


@EACH_PANEL
def test_a_panel_says_what_it_shows_and_leads_to_a_runbook_that_is_there(title):
    description = PANELS[title]["description"]
    assert len(description) > 20
    for url in re.findall(r"\]\((\S+?)\)", description):
        assert url.startswith(RUNBOOKS)
        assert (ROOT / "docs" / "runbooks" / url.removeprefix(RUNBOOKS)).is_file(), url


def test_each_objective_has_its_line_and_its_runbook():
    def lines(title: str) -> list[float]:
        return [step["value"] for step in PANELS[title]["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]

    for title, objective in (
        ("Availability", AVAILABILITY),
        ("Invoke error rate", INVOKE_ERRORS),
        ("Invoke latency", INVOKE),
        ("Kernel latency", DISPATCH),
        ("Kernel latency by node", DISPATCH),
        ("Healthz latency", HEALTHZ),
    ):
        assert lines(title) == sorted(set(objective.targets.values()))
        assert f"{RUNBOOKS}{objective.runbook}.md" in PANELS[title]["description"]
    assert lines("Burn rates") == sorted(burn.factor for burn in BURNS)
    assert {window for burn in BURNS for window in burn.windows} == {
        target["legendFormat"].split()[0] for target in PANELS["Burn rates"]["targets"]
    }
    assert all(target["expr"].endswith(f" / {AVAILABILITY_BUDGET}") for target in PANELS["Burn rates"]["targets"])
    custom = PANELS["Kernel latency"]["fieldConfig"]["defaults"]["custom"]
    assert custom["thresholdsStyle"] == {"mode": "line"}


def test_everything_is_read_from_the_one_source_that_an_import_asks_for():
    text = json.dumps(DASHBOARD)
    (source,) = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "datasource"]
    assert (source["name"], source["query"]) == ("datasource", "prometheus")
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"${datasource}", DASHBOARD["uid"]}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == variables
    assert DASHBOARD["schemaVersion"] >= 38
