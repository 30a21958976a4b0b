"""The measurement of a GPU: each part is on its own, and the whole of it runs on an emulated driver."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "gpu"
NAMES = ("part", "table", "measure")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("measure")
    for name in NAMES:  # to be forgotten
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    return module


def command(*arguments: str, limit_s: float = 600) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(FOLDER / "measure.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=limit_s, check=False)


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = command("--gpu", "999", "--output", str(tmp_path / "report"))
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: no GPU (")
    assert not (tmp_path / "report").exists()


FINDING = '{"rows": [{"name": "copy", "found": "7", "bar": ">= 8", "is_met": false, "note": ""}], "details": {"a": 1}}'


def part(measure: ModuleType, output: Path, code: str) -> object:
    code = f"import pathlib, time; file = pathlib.Path({str(output / 'one.json')!r}); {code}"
    return measure.Part("one", (sys.executable, "-S", "-c", code), 600)


def test_what_a_part_found_counts_when_it_fails_afterwards(measure: ModuleType, tmp_path: Path) -> None:
    one = part(measure, tmp_path, f"file.write_text({FINDING!r}); raise OSError('no such luck')")
    outcome = measure.run_part(one, tmp_path, 600)
    assert outcome.trouble == "ended with 1: OSError: no such luck"
    assert [row.found for row in outcome.rows] == ["7"]
    assert outcome.details == {"a": 1}


def test_a_part_that_finds_nothing_has_no_lines(measure: ModuleType, tmp_path: Path) -> None:
    outcome = measure.run_part(part(measure, tmp_path, "print('well')"), tmp_path, 600)
    assert (outcome.rows, outcome.trouble) == ([], "")
    outcome = measure.run_part(part(measure, tmp_path, "file.write_text('{')"), tmp_path, 600)
    assert (outcome.rows, outcome.trouble) == ([], "")


@pytest.mark.slow
def test_a_part_that_hangs_is_ended(measure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_GRACE_S", 0.1)
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    outcome = measure.run_part(
        part(measure, tmp_path, f"file.write_text({FINDING!r}); print('here'); {deaf}"), tmp_path, 5
    )
    assert outcome.trouble == "was ended after 5 s: here"
    assert [row.found for row in outcome.rows] == ["7"]


def test_what_is_printed_is_bounded(measure: ModuleType) -> None:
    report = measure.Report({"date": "today", "gpu": "G", "memory": "1", "sm": "s", "cuda": "1", "cores": "1"}
                            | {"system": "1", "python": "3"})  # fmt: skip
    report.add("memory", [measure.Row(f"case {n}", "x" * 80) for n in range(300)])
    failures = [{"nodeid": f"tests/test_a.py::test_{n}[1]", "text": "y" * 900} for n in range(300)]
    outcome = measure.Outcome(None, [], {"failures": failures}, 1.0)
    outcome.part = measure.Part("kernels", (), 1)
    text = measure.summary(report, [outcome])
    assert len(text) < 8000
    assert "300 failures of kernels" in text
    assert "test_a.py::test_0" in text


@pytest.mark.slow
def test_all_parts_run_on_an_emulated_driver(tmp_path: Path) -> None:
    parts = "memory,dispatch,fences,guest_windows,windows,tenants,devices,kernels"
    options = ("--quick", "--seconds", "0.1", "--processes", "1", "--only", parts)
    done = command("--gpu", "emulated", *options, "--output", str(tmp_path), limit_s=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert sorted(found["parts"]) == sorted(parts.split(","))
    rows = {row["name"]: row for each in found["parts"].values() for row in each["rows"]}
    assert not [row for row in rows.values() if "failed" in row["found"] or "differ" in row["note"]]
    changed = next(row for name, row in rows.items() if "of a checker's" in name)
    assert changed["found"].startswith("0 in ")
    assert rows["tests: kernels"]["is_met"]
    assert (tmp_path / "report.md").read_text("utf-8").count("\n|") > len(rows)
