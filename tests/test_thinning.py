"""The fast tests run every value of each parameter, and a test that is repeated is slow for the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thinning import covering, some

_CONFTEST = """
from pathlib import Path
import pytest, thinning

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    thinning.mark_the_rest_slow(items, Path(__file__).parent)

@pytest.fixture(params=["one", "two"])
def machine(request):
    return request.param
"""
_TESTS = """
import pytest
from thinning import some

@pytest.mark.parametrize("kind", ["a", "b", pytest.param("c", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("x", "y"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_combined(machine, x, y, kind): pass

@pytest.mark.parametrize("seed", some(range(6), 2))
def test_drawn(seed): pass

def test_alone(): pass
"""


def _fast(folder: Path) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "not slow", "-p", "no:cacheprovider"]
    markers = "markers=slow: takes long"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command += ["--rootdir", str(folder), "-c", os.devnull, "-o", markers, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.parametrize("room", ["kernels", "http"])
def test_every_value_of_each_parameter_stays_fast_and_no_more_in_the_rooms_of_many_variants(
    tmp_path: Path, room: str
) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST, "utf-8")
    (tmp_path / room).mkdir()
    (tmp_path / room / "test_many.py").write_text(_TESTS, "utf-8")
    found = _fast(tmp_path)
    combined = [name[:-1].partition("[")[2].split("-", 1) for name in found if "combined" in name]
    assert {machine for machine, _ in combined} == {"one", "two"}
    rows = {other.rpartition("-")[0] for _, other in combined}
    assert rows == {"1-1", "1-2", "2-1", "2-2"}
    assert {other.rpartition("-")[2] for _, other in combined} == {"a", "b"}
    assert len(combined) == (4 if room == "kernels" else 16)
    assert [name for name in found if "combined" not in name] == ["test_drawn[0]", "test_drawn[3]", "test_alone"]


def test_covering_takes_the_first_of_what_adds_most() -> None:
    sets = [frozenset({((name,), (0,)) for name in names}) for names in ("ab", "abc", "c", "", "cd")]
    assert covering(sets) == {1, 4}
    assert covering([]) == set()


def test_some_are_spread_evenly() -> None:
    fast = [place for place, each in enumerate(some(range(10), 3)) if not each.marks]
    assert fast == [0, 3, 6]
    assert [each.values for each in some(range(3), 3)] == [(0,), (1,), (2,)]
