"""The operator's pages name nothing that is not there: every query is one, every claim has a test that exists."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from docs import checks
from docs.pages import Page
from docs.program import ROOT, panels, program, rules
from system.prometheus import program as installed
from tensor_wasm.telemetry.slo import AVAILABILITY_BUDGET, BURNS, OBJECTIVES, Deployment

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = {
    page.name: page
    for page in map(
        Page.read,
        [
            *sorted(RUNBOOKS.glob("*.md")),
            *(ROOT / "docs" / name for name in ("SLO.md", "OBSERVABILITY.md", "dashboards/README.md")),
        ],
    )
}
ALERT_PAGES = [
    f"docs/runbooks/{name}.md"
    for name in (
        "availability-fast-burn",
        "availability-slow-burn",
        "availability-very-slow-burn",
        "invoke-latency-spike",
        "healthz-slow",
        "dispatch-latency-spike",
        "node-down",
        "audit-write-failing",
    )
]
#: After the header's table, which is the first of the nine parts.
PARTS = [
    "What this alert means",
    "Symptoms users see",
    "First queries",
    "Mitigations, in order",
    "Hypotheses",
    "When to page",
    "Post-mortem",
    "Related",
]
EACH_PAGE = pytest.mark.parametrize("name", PAGES)


@EACH_PAGE
def test_everything_a_page_names_is_there(name: str) -> None:
    assert checks.problems(PAGES[name], program()) == []


def test_everything_the_dashboard_names_is_there() -> None:
    found = [
        (panel["title"], text)
        for panel in panels()
        for target in panel.get("targets", ())
        for text in checks.query(_with_variables(target["expr"]), program())
    ]
    assert found == []


@pytest.mark.slow  # needs promtool
def test_every_query_is_one(tmp_path: Path) -> None:
    """Promtool reads them as rules, all at once."""
    expressions = [(name, expression) for name, page in PAGES.items() for expression in page.blocks("promql")]
    expressions += [(p["title"], _with_variables(t["expr"])) for p in panels() for t in p.get("targets", ())]
    assert len(expressions) > 60
    group = {"name": "pages", "rules": [{"record": f"page:{n}", "expr": e} for n, (_, e) in enumerate(expressions)]}
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [group]}), "utf-8")
    checked = subprocess.run(
        [installed("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ALERT_PAGES)
def test_the_runbook_of_an_alert_has_its_nine_parts(name: str) -> None:
    page = PAGES[name]
    assert page.headings[0] == Path(name).stem
    assert [heading for heading in page.headings[1:] if heading in PARTS] == PARTS
    for query in ("First queries", "Mitigations, in order", "When to page"):
        assert re.search(rf"^## {query}\n+\S", page.text, re.MULTILINE)
    hypotheses = page.text.partition("## Hypotheses")[2].partition("\n## ")[0]
    rows = [line.count("|") for line in hypotheses.splitlines() if line.startswith("|")]
    assert len(rows) >= 6
    assert set(rows) == {4}
    assert "| hypothesis | how to confirm | how to fix |" in hypotheses


@pytest.mark.parametrize("name", ALERT_PAGES)
def test_the_header_of_a_runbook_is_the_alert_s(name: str) -> None:
    rows = dict(re.findall(r"^\| (Alert|Severity|Condition|Objective) \| (.*) \|$", PAGES[name].text, re.MULTILINE))
    (alert,) = re.findall(r"`(\w+)`", rows["Alert"])
    found = rules("alert")[alert]
    for rule in found:
        assert rule["annotations"]["runbook_url"].endswith(f"/{name}")
        assert re.search(rf"\b{rule['labels']['severity']}\b", rows["Severity"])
        if "for" in rule:
            number, unit = re.fullmatch(r"(\d+)([mh])", rule["for"]).groups()  # type: ignore[union-attr]
            assert f"for {number} {'hour' if unit == 'h' else 'minute'}" in rows["Condition"]
        else:
            assert rows["Condition"].endswith("; at once")
        if "slo" in rule["labels"]:
            assert f"`{rule['labels']['slo']}`" in rows["Objective"]
        else:
            assert rows["Objective"].startswith("none: ")
    assert re.match(rf"{found[0]['labels']['severity']}\b", rows["Severity"])


def test_every_alert_has_a_runbook_and_is_in_the_table_of_pages() -> None:
    table = PAGES["docs/runbooks/oncall-paging.md"].text
    for alert, found in rules("alert").items():
        slug = found[0]["annotations"]["runbook_url"].rpartition("/")[2]
        assert f"docs/runbooks/{slug}" in ALERT_PAGES
        row = re.search(rf"^\| `{alert}` \| (\w+).* \| \[{slug[:-3]}\]\({slug}\) \|", table, re.MULTILINE)
        assert row is not None, alert
        assert row[1] == found[0]["labels"]["severity"]


def test_the_index_of_runbooks_is_complete() -> None:
    linked = set(PAGES["docs/runbooks/README.md"].links)
    assert {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"} <= linked


# --- objectives ---------------------------------------------------------------------------------------------------


def test_the_targets_are_the_program_s() -> None:
    page = PAGES["docs/SLO.md"].text
    rows = {
        name: (target, window, alert)
        for name, target, window, alert in re.findall(
            r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", page.partition("## 3. Targets")[2], re.MULTILINE
        )
        if not name.startswith("TensorWasm")
    }
    assert rows.keys() == {objective.name for objective in OBJECTIVES}
    for objective in OBJECTIVES:
        target = objective.targets[Deployment.HOST]
        value = f"{target * 100:g} %" if objective.unit == "ratio" else _seconds(target)
        assert value in rows[objective.name][0]
        on_gpus = objective.targets[Deployment.CUDA]
        assert on_gpus == target or f"{_seconds(on_gpus)} with a GPU" in rows[objective.name][0]
    for burn in BURNS:
        ratio = f"{burn.factor * AVAILABILITY_BUDGET * 100:g} %"
        row = re.search(rf"^\| {burn.factor:g} \| {ratio} \|.* \| `{burn.alert}` \| (\w+) \|$", page, re.MULTILINE)
        assert row is not None, burn.alert
        assert row[1] == burn.severity


def test_the_sections_that_runbooks_and_rules_point_to_keep_their_numbers() -> None:
    headings = PAGES["docs/SLO.md"].headings
    assert "3. Targets" in headings
    assert "5.5 Dispatch latency" in headings


# --- the dashboard ------------------------------------------------------------------------------------------------


def test_every_panel_is_explained_and_every_explanation_has_its_panel() -> None:
    text = PAGES["docs/dashboards/README.md"].text
    explained = re.findall(r"^\| \*\*([^*]+)\*\* \| .{20,} \|$", text, re.MULTILINE)
    assert sorted(explained) == sorted(panel["title"] for panel in panels())


# --- claims -------------------------------------------------------------------------------------------------------


def claims() -> list[tuple[str, str, list[str]]]:
    """The rows of the table: number, claim, tests."""
    text = PAGES["docs/runbooks/README.md"].text.partition("## Claims and their tests")[2]
    rows = re.findall(r"^\| (\w+) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return [(number, claim, re.findall(r"`([^`]+)`", tests)) for number, claim, tests in rows if number[-1].isdigit()]


def test_there_is_a_row_for_each_claim_of_the_runbook() -> None:
    numbers = [number for number, _, _ in claims()]
    assert len(set(numbers)) == len(numbers)
    counted = {kind: sum(re.fullmatch(rf"{kind}\d+", number) is not None for number in numbers) for kind in "HMSQTCPAR"}
    # Header, meaning, symptoms, queries, steps, hypotheses, paging, aftermath, related.
    assert counted["S"] == 4
    assert counted["Q"] == 4
    assert counted["T"] == 6
    assert counted["C"] >= 6
    assert counted["P"] == 5
    assert counted["A"] == 7
    assert counted["R"] == 6
    assert counted["H"] >= 2
    assert counted["M"] >= 3


@pytest.mark.parametrize(("number", "tests"), [(number, tests) for number, _, tests in claims()])
def test_the_test_of_each_claim_exists(number: str, tests: list[str]) -> None:
    assert tests
    for test in tests:
        path, _, name = test.partition("::")
        file = ROOT / path
        assert file.is_file(), test
        if path.endswith(".py"):
            functions = {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if _is_function(node)}
            assert name.startswith("test_")
            assert name in functions, test
        else:  # promtool's tests: by the name of the case
            cases = yaml.safe_load(file.read_text("utf-8"))["tests"]
            assert name in {case.get("name") for case in cases}, test


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _with_variables(expression: str) -> str:
    """A panel's expression with values in the place of Grafana's variables."""
    for name, value in (("__rate_interval", "1m"), ("__interval", "1m"), ("__range", "1h")):
        expression = expression.replace(f"${name}", value).replace(f"${{{name}}}", value)
    return re.sub(r"\$\{?\w+(?::\w+)?\}?", ".*", expression)


def _seconds(value_s: float) -> str:
    return f"{value_s * 1e3:g} ms" if value_s >= 0.001 else f"{value_s * 1e6:g} µs"
