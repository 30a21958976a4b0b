"""The rules for Prometheus: they hold on synthetic series, and what they name is a node's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.expressions import selectors, unknown
from system.front_door import ROOT
from system.prometheus import RULES, program, scaled
from tensor_wasm.telemetry.slo import AVAILABILITY_BUDGET, BURNS, OBJECTIVES, SPIKES, Deployment

RUNBOOK = "https://github.com/tensor-wasm/tensor-wasm/blob/main/"
RECORDING, ALERTS = (yaml.safe_load((RULES / name).read_text("utf-8")) for name in ("recording.yml", "alerts.yml"))
RECORDED = [rule for group in RECORDING["groups"] for rule in group["rules"]]
ALERTING = [rule for group in ALERTS["groups"] for rule in group["rules"]]
#: Alerts that defend no objective, and may: what they see, no objective sees.
BESIDE_OBJECTIVES = {"TensorWasmNodeDown", "TensorWasmAuditWriteFailing"}


_UP = re.compile(r"\bup\{job=\"([\w-]+)\"\}")


def promtool(*arguments: object) -> str:
    """What it says; fails the test when it finds something."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # needs promtool
def test_promtool_finds_the_rules_and_the_example_in_order():
    assert f"{len(RECORDED)} rules found" in promtool("check", "rules", RULES / "recording.yml")
    assert f"{len(ALERTING)} rules found" in promtool("check", "rules", RULES / "alerts.yml")
    assert "is valid prometheus config" in promtool("check", "config", RULES / "prometheus.yml")


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((RULES / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_the_rules_hold_on_synthetic_series(path: Path):
    promtool("test", "rules", path)


def test_every_alert_is_tested_to_fire_and_not_to_fire():
    tested = {True: set(), False: set()}
    for path in (RULES / "tests").glob("*.yml"):
        for test in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            for case in test.get("alert_rule_test", []):
                for severity in [alert["exp_labels"]["severity"] for alert in case["exp_alerts"]] or [None]:
                    tested[bool(case["exp_alerts"])].add((case["alertname"], severity))
    assert tested[True] == {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTING}
    assert {name for name, _ in tested[False]} == {rule["alert"] for rule in ALERTING}


@pytest.mark.parametrize("rule", [*RECORDED, *ALERTING], ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_node_has_every_metric_and_label_that_a_rule_names(rule, node_series):
    # A success has its series from the first scrape, and so has a failure: a ratio has data before anything failed.
    assert unknown(rule["expr"], node_series) == []
    names = [selector.name for selector in selectors(rule["expr"])]
    assert names or _UP.search(rule["expr"])
    assert {name for name in names if ":" in name} <= {rule["record"] for rule in RECORDED}


def test_a_recording_rule_s_name_says_its_window():
    for rule in RECORDED:
        windows = set(re.findall(r"\[(\w+)\]", rule["expr"]))
        if windows:
            assert windows == {rule["record"].rpartition("_")[2]}, rule["record"]


def test_each_alert_has_a_summary_its_value_and_a_runbook():
    for rule in ALERTING:
        annotations = rule["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"].startswith(RUNBOOK)
        # What `up` is then, everybody knows.
        assert "$value" in annotations["description"] or _UP.search(rule["expr"])
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}


def test_each_runbook_is_there():
    for rule in ALERTING:
        url = rule["annotations"]["runbook_url"]
        assert (ROOT / url.removeprefix(RUNBOOK)).is_file(), url


@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
@pytest.mark.slow  # needs promtool
def test_on_a_faster_clock_only_the_durations_are_others(name, tmp_path):
    text = (RULES / name).read_text("utf-8")
    fast = scaled(text, 60)
    (tmp_path / name).write_text(fast)
    promtool("check", "rules", tmp_path / name)
    in_seconds = {"5m": 5, "30m": 30, "1h": 60, "6h": 360, "3d": 4320, "30d": 43_200, "2m": 2, "15m": 15}
    assert set(re.findall(r"\[(\w+)\]|for: (\w+)", text)) <= {
        pair for window in in_seconds for pair in ((window, ""), ("", window))
    }
    expected = re.sub(r"\[(\w+)\]", lambda found: f"[{in_seconds[found[1]]}s]", text)
    assert fast == re.sub(r"for: (\w+)", lambda found: f"for: {in_seconds[found[1]]}s", expected)


def _conditions(rule) -> list[tuple[str, str, float]]:
    """(recorded name, matchers, threshold) of a rule's windows, all of which must hold."""
    found = []
    for part in re.split(r"\band\b", rule["expr"]):
        name, matchers, factors = re.fullmatch(r"\s*([\w:]+)(\{.*?\})?\s*>\s*([\d.* ]+?)\s*", part).groups()
        threshold = 1.0
        for factor in factors.split("*"):
            threshold *= float(factor)
        found.append((name, matchers or "", threshold))
    return found


def test_an_alert_is_an_objective_s_unless_no_objective_sees_its_trouble():
    assert {rule["alert"] for rule in ALERTING if "slo" not in rule["labels"]} == BESIDE_OBJECTIVES
    assert not {rule["alert"] for rule in ALERTING if "slo" in rule["labels"]} & BESIDE_OBJECTIVES


def test_nodes_are_told_by_the_job_that_scrapes_them():
    (job,) = yaml.safe_load((RULES / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    rules = [rule for rule in ALERTING if rule["alert"] == "TensorWasmNodeDown"]
    assert [_UP.sub("UP", rule["expr"]) for rule in rules] == ["UP == 0", "absent(UP)"]
    assert {_UP.search(rule["expr"])[1] for rule in rules} == {job["job_name"]}


def test_the_availability_alerts_are_the_objectives_own():
    rules = [rule for rule in ALERTING if "Availability" in rule["alert"]]
    assert [rule["alert"] for rule in rules] == [burn.alert for burn in BURNS]
    for rule, burn in zip(rules, BURNS, strict=True):
        expected = [
            (f"tensor_wasm:http_errors:ratio_{window}", "", burn.factor * AVAILABILITY_BUDGET)
            for window in burn.windows
        ]
        assert _conditions(rule) == expected
        assert (rule["for"], rule["labels"]["severity"]) == (burn.for_, burn.severity)
    (budget,) = [rule for rule in RECORDED if "budget" in rule["record"]]
    assert budget["expr"].endswith(f"/ {AVAILABILITY_BUDGET}")


def test_the_latency_alerts_are_the_objectives_own():
    objectives = {objective.name: objective for objective in OBJECTIVES}
    others = BESIDE_OBJECTIVES | {burn.alert for burn in BURNS}
    rules = [rule for rule in ALERTING if rule["alert"] not in others]
    expected = set()
    for spike in SPIKES:
        objective = objectives[spike.objective]
        kinds = [*spike.severities]
        is_same = len({(objective.targets[kind], spike.severities[kind]) for kind in kinds}) == 1
        for kind in kinds[:1] if is_same else kinds:
            matchers = "" if is_same else ('{deployment="cuda"}' if kind is Deployment.CUDA else '{deployment!="cuda"}')
            conditions = frozenset((window, matchers, objective.targets[kind]) for window in spike.windows)
            severity = spike.severities[kind]
            expected.add((spike.alert, conditions, spike.for_, severity, objective.name, objective.runbook))
    found = set()
    for rule in rules:
        conditions = frozenset(
            (name.removesuffix(window) and window, matchers, threshold)
            for name, matchers, threshold in _conditions(rule)
            for window in [name.rpartition("_")[2]]
        )
        labels = rule["labels"]
        slug = Path(rule["annotations"]["runbook_url"]).stem
        found.add((rule["alert"], conditions, rule["for"], labels["severity"], labels["slo"], slug))
    assert found == expected
    assert {name.split(":")[1] for rule in rules for name, _, _ in _conditions(rule)} == {
        "http_healthz_seconds",
        "http_invoke_seconds",
        "kernel_latency_seconds",
    }
