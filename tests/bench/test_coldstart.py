"""Benchmarks of snapshots, warm starts and streams measure what they say; their numbers are for quiet machines."""

from __future__ import annotations

import pytest

from tensor_wasm.bench import coldstart, stream


@pytest.mark.slow
def test_snapshots_and_warm_starts_are_measured(tmp_path):
    report = coldstart.measure(tmp_path, 2 << 20, 1 << 20)
    names = [case.name for case in report.cases]
    assert "2 MiB: restore to the first call's result" in names
    assert "export of 1 MiB" in names
    init = next(case for case in report.cases if case.name == "the init itself")
    warm = next(case for case in report.cases if case.name.startswith("invoke, prewarmed"))
    assert init.p50 > 5 * warm.p50, "a warm start does not run the init"


@pytest.mark.slow
def test_streams_are_measured(tmp_path):
    delay, rate = stream.measure(tmp_path).cases
    assert delay.p50 > 0
    assert rate.p50 > 0
