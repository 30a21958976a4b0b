"""A real Prometheus that scrapes nodes each second, with the rules of ``deploy/prometheus`` on a faster clock."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import yaml

from system.front_door import ROOT

RULES = ROOT / "deploy" / "prometheus"
SCRAPE_INTERVAL_S = 1
#: How long one waits for what is sure to come: a machine may be slow, or busy with something else.
PATIENCE_S = 60.0

_LISTENS = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:\d+)')
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
#: Where a duration stands in a rules file: a window with or without a subquery's step, an offset, `for`, `interval`.
_SCALED = re.compile(rf"(?P<before>\[|:(?=\w+\])|\boffset\s+|\b(?:for|interval):\s*)(?P<duration>{_DURATION})\b")


def program(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is. A machine without them cannot tell whether the rules hold."""
    found = shutil.which(name)
    assert found, f"{name} is not installed; Debian's package prometheus has it"
    return found


def scaled(rules_text: str, factor: float) -> str:
    """A rules file with all its windows and ``for`` durations divided: 5m is 5s at 60. Names stay as they are."""

    def shorter(match: re.Match[str]) -> str:
        return match["before"] + _duration_text(_duration_ms(match["duration"]) / factor)

    return _SCALED.sub(shorter, rules_text)


def _duration_ms(text: str) -> int:
    return sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", text))


def _duration_text(duration_ms: float) -> str:
    whole_ms = max(round(duration_ms), int(duration_ms > 0))
    return f"{whole_ms // 1000}s" if whole_ms % 1000 == 0 else f"{whole_ms}ms"


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer: its labels, with ``__name__`` if it has one, and its value now."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """``prometheus`` on a free port, from a directory that it may fill. Ended by :meth:`stop` or as a context.

    It is configured by ``deploy/prometheus/prometheus.yml`` itself; only the targets, the intervals and the token are
    the test's. ``urls`` are those of the nodes. With ``factor`` all of the rules' windows and ``for`` durations are
    divided, and the rules are evaluated every second in any case.
    """

    def __init__(
        self,
        directory: Path,
        *urls: str,
        deployment: str = "host",
        factor: float = 1,
        token: str | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.factor = factor
        self._log = directory / "prometheus.log"
        texts = {path.name: scaled(path.read_text("utf-8"), factor) for path in RULES.glob("*.yml")}
        example = yaml.safe_load(texts.pop("prometheus.yml"))
        for name, text in texts.items():
            (directory / name).write_text(text, "utf-8")
        configuration = directory / "prometheus.yml"
        configuration.write_text(json.dumps(_configured(example, urls, deployment, token)), "utf-8")
        command = [
            program("prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--storage.tsdb.retention.time=1d",
            "--web.listen-address=127.0.0.1:0",
            "--enable-feature=exemplar-storage",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._address = self._wait_for_address()
            self.until(self._is_ready, "Prometheus is ready")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where its own page is, for people who watch."""
        return f"http://{self._address}"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End it; what it recorded stays in the directory."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def query(self, expression: str) -> list[Sample]:
        """The series of an expression now: an instant vector or a scalar. Raises AssertionError for a bad one."""
        data = self._get(f"/api/v1/query?query={quote(expression, safe='')}")
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None when it has no data."""
        samples = self.query(expression)
        assert len(samples) <= 1, f"{len(samples)} series where one was expected: {expression}"
        return samples[0].value if samples else None

    def alerts(self, name: str | None = None) -> list[dict[str, Any]]:
        """Alerts that are pending or firing: ``state``, ``labels``, ``annotations``, ``value``."""
        found = self._get("/api/v1/alerts")["alerts"]
        return [alert for alert in found if name in (None, alert["labels"]["alertname"])]

    def firing(self, name: str) -> list[dict[str, Any]]:
        """Alerts of this name that fire."""
        return [alert for alert in self.alerts(name) if alert["state"] == "firing"]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes: ``health`` is up, down or unknown; ``lastError``, ``labels``, ``scrapeUrl``."""
        found: list[dict[str, Any]] = self._get("/api/v1/targets?state=active")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules: ``name``, ``type``, ``query``, ``health`` (ok, err or unknown), ``lastError``."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Ask again and again until the condition gives something true, and give that."""
        until_s = time.monotonic() + patience_s
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > until_s:
                raise AssertionError(f"waited {patience_s:g} s in vain: {what}\n{self.log[-2000:]}")
            assert self.process.poll() is None, f"Prometheus ended: {self.log[-2000:]}"
            time.sleep(0.2)

    def _wait_for_address(self) -> str:
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s and self.process.poll() is None:
            found = _LISTENS.search(self.log)
            if found:
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"Prometheus did not start: {self.log[-2000:]}")

    def _is_ready(self) -> bool:
        try:
            return self._request("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        status, body = self._request(path)
        assert status == 200, f"{path}: {status} {body.decode('utf-8', 'replace')[:1000]}"
        return json.loads(body)["data"]

    def _request(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _configured(example: dict[str, Any], urls: Sequence[str], deployment: str, token: str | None) -> dict[str, Any]:
    """The example with other targets, a scrape a second, and a token when there is one."""
    interval = f"{SCRAPE_INTERVAL_S}s"
    example["global"] = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    (job,) = example["scrape_configs"]
    targets = [urlsplit(url).netloc for url in urls]
    job["static_configs"] = [{"targets": targets, "labels": {"deployment": deployment}}]
    if token is not None:
        job["authorization"] = {"type": "Bearer", "credentials": token}
    return example
