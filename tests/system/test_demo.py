"""The main job: one command, from nothing to checked sums."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from system.front_door import environment, run_cli
from tensor_wasm.cli.client import Client


def test_the_demo_checks_a_million_sums_and_leaves_nothing_behind(tmp_path):
    result = run_cli("demo", TMPDIR=str(tmp_path))
    assert result.code == 0, result.err
    assert "1,000,000 of 1,000,000 sums are right" in result.out
    assert re.search(r"dispatch +P50 [0-9.]+ µs, P95 [0-9.]+ µs", result.out)
    assert "device" in result.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_as_json_with_settings_around_that_are_not_its_own(tmp_path):
    settings = {"TENSOR_WASM_HOME": str(tmp_path / "home"), "TENSOR_WASM_API_TOKENS": "a:role=admin"}
    result = run_cli("demo", "--json", "--elements", "1000", TENSOR_WASM_TOKEN="x", **settings)
    assert result.code == 0, result.err
    report = result.json
    assert report["ok"] is True
    assert (report["elements"], report["right_sums"], report["launches"]) == (1000, 1000, 1)
    assert 0 < report["dispatch_p50_us"] <= report["dispatch_p95_us"] < 1e6
    assert not (tmp_path / "home").exists()


def test_keep_leaves_the_node_up_and_its_hints_work():
    process = subprocess.Popen(
        [sys.executable, "-m", "tensor_wasm", "demo", "--keep", "--elements", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "curl" in line:
                break
        text = "".join(lines)
        found = re.search(r"--server (\S+) invoke (\S+) --args '(\S+)'", text)
        assert found, text
        url, function_id, args = found.groups()
        assert run_cli("--server", url, "invoke", function_id, "--args", args).out == "4096\n"
        done = subprocess.run(["bash", "-c", text[text.index("curl ") :]], capture_output=True, text=True, check=False)
        assert '"result"' in done.stdout, done.stdout + done.stderr
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert answer.status == 200
        assert Client(url).functions()
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        code = process.wait(30)
    assert code == 0
