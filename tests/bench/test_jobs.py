from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_benchmark_loses_no_job() -> None:
    command = [sys.executable, "-m", "tensor_wasm", "bench", "jobs", "--jobs", "100", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    cases = {case["name"]: case for case in json.loads(done.stdout)["cases"]}
    assert cases["queued and drained, 100 of 100 completed"]["rate"] > 0
    assert cases["from accepted to ended"]["count"] == 100
