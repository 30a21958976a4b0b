"""Prometheus and the dashboard beside a node under load: every panel, variable and rule has data."""

from __future__ import annotations

import math

import pytest

from system.dashboard import expressions, variables
from system.front_door import Served
from system.load import FACTOR, PATIENCE_S, load
from system.prometheus import Prometheus

pytestmark = pytest.mark.slow

SCRAPER = "scraper"
#: Panels of what goes wrong or waits: zeros are what they should show.
MAY_BE_ZERO = {
    "Alerts", "Jobs", "Back-pressure permit utilisation", "Launches waiting", "Refusals",
}  # fmt: skip


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A Prometheus that has watched a node under load, and still does."""
    directory = tmp_path_factory.mktemp("watched")
    served = Served(directory / "home", TENSOR_WASM_API_METRICS_TOKEN=SCRAPER)
    try:
        with (
            load(served.client),
            Prometheus(directory / "prometheus", served.url, factor=FACTOR, token=SCRAPER) as prometheus,
        ):
            prometheus.until(lambda: _health(prometheus) == ["up"], "the node is scraped, with its token")
            yield prometheus
        assert served.stop() == 0, served.log
    finally:
        if served.process.poll() is None:
            served.kill()


def _health(prometheus: Prometheus) -> list[str]:
    return [target["health"] for target in prometheus.targets()]


def test_every_panel_has_data(prometheus):
    by_title: dict[str, list[float]] = {}
    for (title, letter), expression in expressions().items():
        samples = prometheus.until(
            lambda e=expression: prometheus.query(e), f"{title} ({letter}) has data: {expression}", PATIENCE_S
        )
        values = [sample.value for sample in samples]
        assert all(map(math.isfinite, values)), (title, letter, values)
        by_title.setdefault(title, []).extend(values)
    assert {title for title, values in by_title.items() if not any(values)} <= MAY_BE_ZERO


def test_every_variable_has_values(prometheus):
    for name, (expression, label) in variables().items():
        samples = prometheus.until(lambda e=expression: prometheus.query(e), f"${name} has values")
        assert all(sample.labels[label] for sample in samples), name


def test_every_recording_rule_has_data_and_none_is_in_error(prometheus):
    rules = prometheus.rules()
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    for rule in rules:
        if rule["type"] == "recording":
            prometheus.until(lambda r=rule: prometheus.query(r["name"]), f"{rule['name']} has data", PATIENCE_S)
    assert {rule["name"]: rule.get("lastError", "") for rule in prometheus.rules() if rule["health"] != "ok"} == {}


def test_what_fails_burns_the_budget_and_the_alert_names_its_runbook(prometheus):
    # One answer in a dozen is a 500: far above the objective, for both of the fast burn's windows.
    (alert,) = prometheus.until(
        lambda: prometheus.firing("TensorWasmAvailabilityFastBurn"), "the fast burn fires", PATIENCE_S
    )
    assert alert["labels"]["severity"] == "page"
    assert alert["labels"]["deployment"] == "host"
    assert alert["annotations"]["runbook_url"].endswith("/docs/runbooks/availability-fast-burn.md")
    assert "deployment: host" in alert["annotations"]["description"]


def test_a_wrong_token_is_told_as_the_target_s_error(prometheus, tmp_path):
    (target,) = prometheus.targets()
    with Prometheus(tmp_path, target["scrapeUrl"], token="another") as other:
        other.until(lambda: _health(other) == ["down"], "the scrape is refused")
        assert "401" in other.targets()[0]["lastError"]
