from __future__ import annotations

import json

import pytest

from tensor_wasm.dispatch.ledger import LATENCY_BUCKETS_S
from tensor_wasm.telemetry.build import Build
from tensor_wasm.telemetry.releases import FILE, Releases

BUCKETS = len(LATENCY_BUCKETS_S) + 1
FIRST, SECOND = Build("0.1.0", "a" * 40, "", ""), Build("0.2.0", "b" * 40, "", "")
DAY_S = 86_400.0


def counts(bucket, count=100):
    return tuple(count if index == bucket else 0 for index in range(BUCKETS))


def test_the_first_release_has_none_before_it(tmp_path):
    release = Releases(tmp_path, FIRST, 0.0).describe()
    assert (release.version, release.git_sha, release.started_at) == ("0.1.0", "a" * 40, "1970-01-01T00:00:00.000Z")
    assert release.previous is None


def test_the_next_release_knows_the_one_before_and_how_fast_it_was(tmp_path):
    Releases(tmp_path, FIRST, 0.0).save(counts(1), DAY_S)
    previous = Releases(tmp_path, SECOND, 2 * DAY_S).describe().previous
    assert (previous.version, previous.git_sha, previous.until) == ("0.1.0", "a" * 40, "1970-01-02T00:00:00.000Z")
    assert previous.dispatch_p95_s == pytest.approx(5e-7 + 5e-7 * 0.95)


def test_a_restart_goes_on_with_the_same_release(tmp_path):
    Releases(tmp_path, FIRST, 0.0).save(counts(1), 1.0)
    second = Releases(tmp_path, SECOND, DAY_S)
    second.save(counts(2, 60), DAY_S)
    again = Releases(tmp_path, SECOND, 2 * DAY_S)
    again.save(counts(3, 40), 2 * DAY_S)
    found = Releases(tmp_path, SECOND, 3 * DAY_S).describe()
    assert found.started_at == "1970-01-02T00:00:00.000Z"
    assert found.previous.version == "0.1.0"
    kept = json.loads((tmp_path / FILE).read_text())["current"]["dispatch_counts"]
    assert kept == [0, 0, 60, 40, *[0] * (BUCKETS - 4)]


def test_what_is_saved_again_counts_once(tmp_path):
    releases = Releases(tmp_path, FIRST, 0.0)
    releases.save(counts(1, 10), 1.0)
    releases.save(counts(1, 25), 2.0)
    assert sum(json.loads((tmp_path / FILE).read_text())["current"]["dispatch_counts"]) == 25


def test_a_release_that_launched_nothing_has_no_latency(tmp_path):
    Releases(tmp_path, FIRST, 0.0).save((), 1.0)
    assert Releases(tmp_path, SECOND, 2.0).describe().previous.dispatch_p95_s is None


def test_the_file_is_its_owner_s_alone(tmp_path):
    Releases(tmp_path, FIRST, 0.0).save((), 1.0)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "null",
        '{"format": 2}',
        '{"format": 1, "current": null, "previous": null}',
        json.dumps({"format": 1, "previous": None, "current": {
            "version": "\x1b[2J", "git_sha": "x", "started_at": "yesterday", "until": "now", "dispatch_counts": []}}),
        json.dumps({"format": 1, "previous": None, "current": {
            "version": "1", "git_sha": "x", "started_at": "1970-01-01T00:00:00.000Z",
            "until": "1970-01-01T00:00:00.000Z", "dispatch_counts": [1]}}),
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    releases = Releases(tmp_path, FIRST, 0.0)
    assert releases.describe().previous is None
    releases.save((), 1.0)
    assert json.loads((tmp_path / FILE).read_text())["current"]["version"] == "0.1.0"


def test_what_is_no_file_of_ours_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / FILE)
    assert Releases(tmp_path, FIRST, 0.0).describe().previous is None
