"""The soak, bounded: mixed traffic of eight tenants, one of them hostile, after which nothing stays behind.

The whole of it is a command; see CONTRIBUTING.md.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from system.soak.gauges import BOUNDS, Reading, compare
from system.soak.report import lines
from system.soak.soak import Plan, soak

READING = Reading(
    busy={"active_instances": 0.0},
    functions=16,
    artifacts=2,
    snapshots=1,
    stored_bytes=1 << 20,
    tokens=9,
    connections=0,
    threads=26,
    descriptors=28,
    compilers=2,
    mappings=3000,
    resident_bytes=170 << 20,
    anonymous_bytes=130 << 20,
    compilers_resident_bytes=140 << 20,
    files=3000,
    files_bytes=30 << 20,
)


def strain(directory: Path, seconds: float, warm_up_s: float, *, fills_caches: bool) -> None:
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    outcome = soak(Plan(seconds, seed, warm_up_s, fills_caches), directory, print)
    print("\n".join(lines(outcome)))
    assert outcome.findings == {}, f"seed {seed}"


@pytest.mark.slow
def test_nothing_is_left_after_some_seconds(tmp_path):
    strain(tmp_path, 5.0, 1.0, fills_caches=False)


@pytest.mark.slow
def test_nothing_is_left_after_a_minute(tmp_path):
    strain(tmp_path, 60.0, 15.0, fills_caches=True)


def test_what_is_as_it_was_is_no_leak():
    assert compare(READING, READING) == {}
    assert compare(READING, replace(READING, threads=20, descriptors=20)) == {}


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_what_grew_is_a_leak(bound):
    start = getattr(READING, bound.name)
    grown = replace(READING, **{bound.name: int(start + bound.spare(start)) + 1})
    assert list(compare(READING, grown)) == [f"{bound.name} at the end"]


@pytest.mark.parametrize("name", ["functions", "artifacts", "snapshots", "stored_bytes", "tokens"])
def test_what_was_lost_is_found_too(name):
    assert list(compare(READING, replace(READING, **{name: 0}))) == [f"{name} at the end"]


def test_what_is_still_held_is_a_leak():
    held = replace(READING, busy={"active_instances": 0.0, "dispatch_permits_used": 1.0})
    assert list(compare(READING, held)) == ["dispatch_permits_used at the end"]
