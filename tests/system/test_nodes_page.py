"""Nodes that are gone, audit logs that lose lines: alerts of a real Prometheus, and the commands of their pages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs.pages import Page
from system.front_door import ROOT, Served, environment
from system.prometheus import PATIENCE_S, Prometheus

pytestmark = pytest.mark.slow

DOWN, LOST = "TensorWasmNodeDown", "TensorWasmAuditWriteFailing"
#: Two minutes are four seconds.
FACTOR = 30
#: What belongs to the machine and not to the node; stands for itself here.
OF_THE_MACHINE = ("install", "journalctl", "kubectl", "systemctl")


@dataclass(frozen=True, slots=True)
class Typed:
    """A line of a page, as the page has it, and how it ended."""

    line: str
    code: int
    out: str
    err: str


class Operator:
    """Types all of a page's blocks of commands; what the page has in ``here`` is something else on this machine."""

    def __init__(self, folder: Path, name: str, here: Mapping[str, str], **settings: str) -> None:
        programs = folder / "programs"
        programs.mkdir(exist_ok=True)
        for program in OF_THE_MACHINE:
            (programs / program).write_text("#!/bin/sh\n")
            (programs / program).chmod(0o755)
        self._blocks = Page.read(ROOT / "docs" / "runbooks" / name).blocks("sh")
        self._here = {**here, "/tmp/": f"{folder}/"}
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = environment(PATH=path, TENSOR_WASM_SERVER=here["http://127.0.0.1:8080"], **settings)

    def types(self) -> list[Typed]:
        return list(self._typed())

    def _typed(self) -> Iterator[Typed]:
        for block in self._blocks:
            assigned = ""
            for line in block.replace("\\\n", " ").splitlines():
                typed = re.sub("|".join(map(re.escape, self._here)), lambda found: self._here[found[0]], line)
                if re.fullmatch(r"\w+=\S+", typed):
                    assigned += f"{typed}; "
                    continue
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", assigned + typed],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=PATIENCE_S,
                    env=self._environment,
                )
                yield Typed(line, done.returncode, done.stdout, done.stderr)


def which(typed: Sequence[Typed], part: str) -> Typed:
    """The first line that has a part."""
    return next(one for one in typed if part in one.line)


def failed(typed: Sequence[Typed]) -> list[Typed]:
    return [one for one in typed if one.code]


def fires(prometheus: Prometheus, name: str, scope: str | None = None) -> dict[str, Any]:
    """Wait for an alert; a fresh Prometheus has no target for a moment, so it is asked for by its scope."""

    def found() -> list[dict[str, Any]]:
        return [alert for alert in prometheus.firing(name) if alert["labels"].get("scope") == scope]

    (alert,) = prometheus.until(found, f"{name} fires")
    return dict(alert)


def test_a_node_that_is_gone_pages_until_it_is_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    served = Served(home, TENSOR_WASM_AUDIT="none")
    address = served.url.removeprefix("http://")
    try:
        with Prometheus(tmp_path / "prometheus", served.url, factor=FACTOR) as prometheus:
            here = {
                "http://127.0.0.1:8080": served.url,
                "http://127.0.0.1:9090": prometheus.url,
                "/var/lib/tensor-wasm": str(home),
                "/etc/prometheus/prometheus.yml": str(prometheus.directory / "prometheus.yml"),
            }
            operator = Operator(tmp_path, "node-down.md", here)
            prometheus.until(lambda: prometheus.value('up{job="tensor-wasm"}') == 1, "the node is scraped")
            typed = operator.types()
            assert not failed(typed), failed(typed)
            assert which(typed, "/healthz").out.endswith(" 200\n")
            assert which(typed, "/api/v1/targets").out == f"{served.url}/metrics up \n"

            served.kill()
            alert = fires(prometheus, DOWN, scope="node")
            assert alert["labels"]["instance"] == address
            assert alert["annotations"]["description"].startswith(f"{address} has not answered")
            assert not prometheus.alerts("TensorWasmAvailabilityFastBurn")
            typed = operator.types()
            assert "connection refused" in which(typed, "/api/v1/targets").out
            assert which(typed, "/healthz").code == 7
            assert which(typed, "tensor-wasm observe").code == 3
            assert len(failed(typed)) == 3  # and the document that is to be kept

            served = Served(home, "--listen", address, TENSOR_WASM_AUDIT="none")
            prometheus.until(lambda: not prometheus.alerts(DOWN), f"{DOWN} resolves")
    finally:
        if served.process.poll() is None:
            served.kill()


def test_without_any_target_it_pages_too(tmp_path: Path) -> None:
    with Prometheus(tmp_path / "prometheus", factor=FACTOR) as prometheus:
        alert = fires(prometheus, DOWN, scope="all")
        assert alert["labels"] == {"alertname": DOWN, "job": "tensor-wasm", "scope": "all", "severity": "page"}


def test_a_node_that_prometheus_may_not_read_pages_and_serves(tmp_path: Path) -> None:
    served = Served(
        tmp_path / "home", TENSOR_WASM_AUDIT="none", TENSOR_WASM_API_METRICS_TOKEN="its-own-token-of-32-letters-here"
    )
    try:
        with Prometheus(tmp_path / "prometheus", served.url, factor=FACTOR) as prometheus:
            fires(prometheus, DOWN, scope="node")
            (target,) = prometheus.targets()
            assert "401" in target["lastError"]
        assert served.client.request("GET", "/healthz")
    finally:
        served.kill()


def test_an_audit_log_that_cannot_be_written_pages_until_it_can(tmp_path: Path) -> None:
    log = tmp_path / "log" / "audit.log"
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    served = Served(tmp_path / "home", TENSOR_WASM_AUDIT=f"file:{log}")
    try:
        with Prometheus(tmp_path / "prometheus", served.url, factor=FACTOR) as prometheus:
            lost = "tensor_wasm_audit_write_failures_total"
            prometheus.until(lambda: prometheus.value(lost) == 0, "the node is scraped")
            assert served.cli("admin", "token", "revoke", "t-none").code  # a refusal has a line
            alert = fires(prometheus, LOST)
            assert alert["annotations"]["description"].startswith(served.url.removeprefix("http://"))
            assert f"audit log file:{log}: No space left on device; lines lost so far: 1" in served.log

            log.unlink()
            served.process.send_signal(signal.SIGHUP)  # `systemctl reload`
            prometheus.until(log.exists, "the file is opened again")
            prometheus.until(lambda: not prometheus.alerts(LOST), f"{LOST} resolves")
            assert served.cli("admin", "token", "revoke", "t-none").code
            prometheus.until(lambda: log.read_text("utf-8").count("token.revoke") == 1, "the line is written")
            assert prometheus.value(lost) == 1

            secret = served.cli("admin", "token", "create", "--scope", "role=admin", "--name", "operator").out.strip()
            here = {"http://127.0.0.1:8080": served.url, "/var/log/tensor-wasm": str(log.parent)}
            typed = Operator(tmp_path, "audit-write-failing.md", here, TENSOR_WASM_TOKEN=secret).types()
            # The page's token is nobody's here.
            assert [one.line for one in failed(typed)] == ["tensor-wasm admin token revoke t-5c1e"]
            assert f"{lost} 1" in which(typed, "tensor-wasm metrics").out
            assert '"127.0.0.1"' in which(typed, "tail -n").out
    finally:
        if served.process.poll() is None:
            served.kill()
