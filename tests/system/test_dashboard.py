"""Prometheus and the dashboard beside a node under load: every panel, variable and rule has data."""

from __future__ import annotations

import base64
import itertools
import math
import threading
from collections.abc import Callable
from contextlib import contextmanager

import pytest

from system.dashboard import expressions, variables
from system.front_door import Served
from system.prometheus import Prometheus
from system.soak import guests
from tensor_wasm.cli.client import Client
from tensor_wasm.cli.failures import Failure

pytestmark = pytest.mark.slow

SCRAPER = "scraper"
#: Five minutes of a rule are ten seconds here: rates need two scrapes, and a slow machine loses some.
FACTOR = 30
PATIENCE_S = 180.0
#: Panels of what goes wrong or waits: zeros are what they should show.
MAY_BE_ZERO = {
    "Alerts", "Jobs", "Back-pressure permit utilisation", "Launches waiting", "Refusals",
}  # fmt: skip


class Tenant:
    """Who makes the node do a little of everything, again and again."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._function = client.deploy(f"load{number}", guests.guest())["id"]
        self._kernels = itertools.count(number * 1_000_000)
        # It stays, with its device memory.
        hoarder = client.spawn(self._function, 300, None)["id"]
        client.call(hoarder, {"export": "hoard", "args": [16 << 20]}, None)

    def deeds(self) -> tuple[Callable[[], object], ...]:
        """One after the other; ``_fail`` is answered with a 500."""
        return (self._probe, self._launch, self._stream, self._keep, self._submit, self._fail)

    def _invoke(self, export: str, *arguments: int, data: bytes = b"") -> None:
        request: dict[str, object] = {"export": export, "args": list(arguments)}
        if data:
            request["input_b64"] = base64.b64encode(data).decode()
        self._client.invoke(self._function, request, None)

    def _probe(self) -> None:
        self._client.request("GET", "/healthz")

    def _launch(self) -> None:
        for text in (guests.numbered_ptx(next(self._kernels)), guests.NOTHING, guests.FAULT):
            self._invoke("kernel", 4, 32, 0, len(text), 1, data=text + b"k")

    def _stream(self) -> None:
        request = {"export": "emit", "args": [10, 100]}
        with self._client.call_events(self._client.stream_path(self._function), request, None) as parts:
            for _ in parts:
                pass

    def _keep(self) -> None:
        instance = self._client.spawn(self._function, 30, None)["id"]
        self._client.call(instance, {"export": "step"}, None)
        snapshot = self._client.capture(instance)["snapshot_id"]
        self._client.delete_instance(instance)
        restored = self._client.restore(snapshot, 30)["instance_id"]
        self._client.delete_instance(restored)
        self._client.delete_snapshot(snapshot)

    def _submit(self) -> None:
        self._client.submit(self._function, {"export": "add", "args": [1, 2]})

    def _fail(self) -> None:
        self._invoke("trap")


@contextmanager
def load(client: Client):
    """Two tenants' worth of work, until the end; what is refused or fails is part of it."""
    over = threading.Event()

    def work(number: int) -> None:
        tenant = Tenant(client, number)
        while not over.is_set():
            for deed in tenant.deeds():
                try:
                    deed()
                except Failure:
                    over.wait(0.01)

    threads = [threading.Thread(target=work, args=(number,), name=f"load {number}") for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


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
