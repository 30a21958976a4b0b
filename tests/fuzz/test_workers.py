"""Tests that hang, die or eat the memory are findings, and the others are done."""

from __future__ import annotations

import pytest

from fuzz import misbehaving
from fuzz.misbehaving import CRASHES, EATS, FINDS, HANGS, RAISES, prepare
from fuzz.workers import Plan, report, run


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_every_way_to_misbehave_is_found_and_the_rest_is_done(jobs: int) -> None:
    lines: list[str] = []
    done, findings = run(Plan(prepare, 0, 15, 60.0, jobs, 0.5), lines.append)
    found = {finding.number: finding.what for finding in findings}
    assert found == {CRASHES: "crash", HANGS: "hang", RAISES: "error", EATS: "error", FINDS: "difference"}
    assert done == 15 - 2, "all but those whose process ended"
    assert "seven" in report(findings)
    assert "13 done" in lines[-1]


def test_time_ends_a_run() -> None:
    for seconds in (1.0, 10.0, 60.0):  # of which a process that starts on a busy machine may need more than the first
        done, findings = run(Plan(prepare, 1000, 1 << 40, seconds, 1, 5.0), lambda _line: None)
        assert not findings
        if done:
            break
    assert 0 < done < 1 << 40


def test_a_run_stops_when_enough_was_found() -> None:
    _, findings = run(Plan(misbehaving.prepare, 0, 15, 60.0, 1, 0.5, findings_max=1), lambda _line: None)
    assert [finding.number for finding in findings] == [CRASHES]
