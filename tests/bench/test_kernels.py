"""The comparison of kernels with NumPy runs, checks what it times, and reports it. Its figures are not judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "kernels"
KERNELS = (
    "saxpy",
    "matmul_tiled",
    "softmax_rows",
    "warp_reduce",
    "histogram256",
    "conv2d",
    "nbody",
    "blackscholes",
    "mandelbrot",
)


def run(script: str, *arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[str, dict]:
    """What `--quick` printed for a page, and its JSON."""
    path = tmp_path_factory.mktemp("compared") / "report.json"
    done = run("compare.py", "--quick", "--peers", "NumPy", "--markdown", "--json", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text("utf-8"))


@pytest.mark.slow
def test_every_kernel_is_compared_by_its_samples(compared):
    report = compared[1]
    assert tuple(row["name"] for row in report["kernels"]) == KERNELS
    for row in report["kernels"]:
        ours, peer = row["results"]["TensorWasm"], row["results"]["NumPy"]
        assert 0 < ours["min_ms"] <= ours["median_ms"]
        pairs = sorted(b / a for a, b in zip(ours["wall_ms"], peer["wall_ms"], strict=True))
        assert pairs[0] <= peer["ratio"] <= pairs[-1]


@pytest.mark.slow
def test_the_ways_of_loading_are_timed_and_a_cache_is_quicker(compared):
    fresh, again, from_disk = (load["min_ms"] for load in compared[1]["compilation"])
    assert fresh > from_disk > again > 0


@pytest.mark.slow
def test_the_page_has_a_row_for_each_kernel_and_says_what_was_not_measured(compared):
    text = compared[0]
    for name in KERNELS:
        (row,) = re.findall(rf"^\| {name} \|.*$", text, re.MULTILINE)
        assert ("not measured" in row) == (name != "saxpy"), "only saxpy has its bar against NumPy"


def test_one_kernel_can_be_chosen_and_an_unknown_one_is_refused():
    done = run("compare.py", "--quick", "--peers", "NumPy", "--only", "saxpy")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\w+) .* × (?:NumPy|PoCL): ", done.stdout, re.MULTILINE) == ["saxpy"]
    done = run("compare.py", "--quick", "--only", "sax")
    assert done.returncode == 2
    assert "there is no sax" in done.stderr


def test_a_peer_that_is_not_installed_is_said_to_be(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
sys.modules["pyopencl"] = None  # as if it were not installed
import compare
sys.exit(compare.main(["--quick", "--only", "saxpy", "--peers", "PoCL,NumPy"]))
"""
    (tmp_path / "without.py").write_text(script, "utf-8")
    done = run("without.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "skipped: PoCL is not installed" in done.stdout


def test_a_wrong_result_is_not_timed(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import arrays
arrays.saxpy = lambda n, a, x, y: None
import compare
sys.exit(compare.main(["--quick", "--only", "saxpy", "--peers", "NumPy"]))
"""
    (tmp_path / "wrong.py").write_text(script, "utf-8")
    done = run("wrong.py", folder=tmp_path)
    assert done.returncode != 0
    assert "saxpy: NumPy computes something else" in done.stderr


def test_a_kernel_s_code_is_written_to_read(tmp_path):
    done = run("disassemble.py", "mandelbrot", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mandelbrot.wasm").read_bytes()[:4] == b"\0asm"


@pytest.mark.slow
def test_the_kernels_are_what_their_sources_give():
    done = run("build.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
