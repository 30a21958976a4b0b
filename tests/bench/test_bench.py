"""The benchmarks run, measure what they say, and report every case with its peer. Their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tensor_wasm.bench.fairness import Meter, flooding
from tensor_wasm.bench.sandbox import Workshop
from tensor_wasm.bench.working_guest import steps_for, working_guest
from tensor_wasm.errors import InternalError


def run(*arguments: str) -> dict:
    command = [sys.executable, "-m", "tensor_wasm", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "cases"),
    [
        (("instance", "--count", "1000"), 3),
        (("kernel", "--count", "1000"), 2),
        (("board", "--count", "1000"), 4),
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


@pytest.mark.slow
def test_fairness_is_reported_beside_the_first_come_semaphore() -> None:
    report = run("fairness", "--seconds", "0.2")
    cases = {case["name"]: case for case in report["cases"]}
    assert len(cases) == len(report["cases"])
    fair = {name for name in cases if not name.endswith(", first come")}
    assert {f"{name}, first come" for name in fair} == cases.keys() - fair
    assert {name for name, case in cases.items() if case["bar"] is None} == (cases.keys() - fair) | {
        name for name in fair if "part of their time" in name
    }
    assert all(case["p50"] >= 0 for case in cases.values())
    assert all(cases[name]["ratio_to_peer"] > 0 for name in fair if name.endswith(": wait"))


@pytest.mark.slow
def test_admission_is_reported_idle_beside_anothers_flood_and_beside_its_own() -> None:
    report = run("admission", "--seconds", "1")
    names = [case["name"] for case in report["cases"]]
    for beside in ("idle", "beside another's flood", "beside its own flood"):
        assert (
            sum(beside in name and name.startswith(("noop", "5 ms")) and " to idle" not in name for name in names) == 2
        )
    ratios = [case for case in report["cases"] if case["name"].endswith(" to idle")]
    assert len(ratios) == 8
    assert [case["bar"] for case in ratios] == ["<= 2"] * 4 + [None] * 4
    assert not any("failures" in name for name in names)


@pytest.mark.slow
def test_scrapes_are_reported_from_both_ends_and_launches_with_and_without_them() -> None:
    report = run("scrape", "--seconds", "1")
    cases = {case["name"]: case for case in report["cases"]}
    scrapes = [case for name, case in cases.items() if name.startswith("a scrape of ")]
    ends = [case["name"].rpartition(": ")[2] for case in scrapes]
    assert ends == ["the node's own time", "the scraper's wait"] * 3
    assert [case["bar"] for case in scrapes] == [None, None, "P95 <= 20 ms", "P95 <= 20 ms", None, None]
    for case in scrapes:
        assert " 200 " in case["name"]
        assert case["count"] == 60
        assert 0 < case["p50"] <= case["highest"]
    for how in ("not scraped", "scraped each second", "scraped all the time"):
        assert cases[f"a launch, {how}"]["count"] >= 1000
    ratio = cases["P95 scraped each second to not scraped"]
    assert ratio["bar"] == "<= 1.05"
    assert ratio["p50"] == pytest.approx(
        cases["a launch, scraped each second"]["p95"] / cases["a launch, not scraped"]["p95"]
    )


@pytest.mark.slow
def test_termination_is_reported_for_every_state_and_leaves_nothing_behind() -> None:
    report = run("termination", "--instances", "8")
    cases = {case["name"]: case for case in report["cases"]}
    for state in ("tight loop", "endless kernel", "waiting for a permit", "asleep in poll_oneoff"):
        for what in ("ended", "its caller is answered"):
            case = cases[f"{state}: {what}"]
            assert case["count"] == 2
            assert 0 < case["p50"] <= case["highest"]
    assert sum(name.startswith("bystander") for name in cases) == 3
    assert cases["permits held at the end"]["highest"] == 0
    assert cases["instances at the end"]["highest"] == 0


@pytest.mark.slow
def test_tracing_is_reported_as_a_ratio_to_none() -> None:
    report = run("trace", "--seconds", "0.2")
    cases = {case["name"]: case for case in report["cases"]}
    ratios = [case for name, case in cases.items() if name.endswith(": its time to none traced")]
    assert [case["bar"] for case in ratios] == ["<= 1.1", "<= 1.01"] * 2
    assert all(0.1 < case["p50"] < 100 for case in ratios)
    for what in ("an empty kernel", "vector_add over 1,024 elements"):
        assert {case["peer"] for name, case in cases.items() if name.startswith(what) and case["peer"]} == {
            f"{what}, none traced"
        }


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path, working_guest(), permits=1)
    yield made
    made.close()


def test_a_meter_tells_waiting_from_holding(workshop: Workshop) -> None:
    with workshop.guest(1) as first, workshop.guest(2) as second:
        for guest in (first, second):
            guest.run("prepare")
        steps = steps_for(lambda count: first.run("launch", count), 0.02)
        meter = Meter(workshop.ledger, [second])
        second.run("launch", steps)
        alone = meter.read()
        assert alone.wait_s == 0
        assert alone.held_s > 0.01
        with flooding([first], "flood", steps):
            second.run("launch", steps)
        beside = meter.read() - alone
        assert beside.wait_s > 0
        assert beside.held_s > 0.01


def test_a_flood_whose_guest_ends_by_itself_is_an_error(workshop: Workshop) -> None:
    with workshop.guest() as kept, pytest.raises(InternalError, match="flood gave -"), flooding([kept], "flood", 1):
        pass  # nothing was loaded: the launch is refused


def test_steps_are_reckoned_in_time_on_the_processor(workshop: Workshop) -> None:
    with workshop.guest() as kept:
        steps = steps_for(lambda count: kept.call("work", count), 0.05)
        began_ns = time.thread_time_ns()
        kept.call("work", steps)
        assert 0.02 < (time.thread_time_ns() - began_ns) / 1e9 < 0.5
