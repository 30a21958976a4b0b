"""The benchmarks run, measure what they say, and report every case with its peer. Their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(*arguments: str) -> dict:
    command = [sys.executable, "-m", "tensor_wasm", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "cases"),
    [
        (("instance", "--count", "1000"), 3),
        (("kernel", "--count", "1000"), 2),
        pytest.param(("dispatch", "--count", "2000"), 4, marks=pytest.mark.slow),
        pytest.param(("invoke", "--seconds", "1"), 3, marks=pytest.mark.slow),
    ],
)
def test_a_benchmark_reports_its_cases_and_their_peers(arguments: tuple[str, ...], cases: int) -> None:
    report = run(*arguments)
    assert report["benchmark"] == arguments[0]
    assert report["machine"]["cores"] >= 1
    assert len(report["cases"]) == cases
    for case in report["cases"]:
        assert 0 < case["p50"] <= case["p95"] <= case["p99"]
    assert any(case["ratio_to_peer"] for case in report["cases"])
    assert not any("failures" in case["name"] for case in report["cases"])
