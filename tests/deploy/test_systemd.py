"""The systemd unit: systemd itself reads and rates it, and a real node does all its work within the unit's filters."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import unit
from deploy.unit import SYSTEMD, UNIT
from system.front_door import VECTOR_ADD, Served
from tensor_wasm.config import load

ROOT = SYSTEMD.parents[1]
#: systemd-analyze's exposure times ten: what the unit has now, and no more.
EXPOSURE_MAX, CUDA_EXPOSURE_MAX = 12, 25


def analyze(*arguments):
    assert shutil.which("systemd-analyze"), "systemd-analyze is not installed: apt-get install systemd"
    command = ["systemd-analyze", *arguments, "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def units(tmp_path):
    """The unit as installed, but with an executable that is there."""
    text = UNIT.read_text().replace("/opt/tensor-wasm/current/bin/tensor-wasm", shutil.which("true"))
    (tmp_path / UNIT.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("drop_in", "most"), [(None, EXPOSURE_MAX), ("cuda.conf", CUDA_EXPOSURE_MAX)])
@pytest.mark.slow  # needs systemd-analyze
def test_systemd_reads_the_unit_without_a_word_and_finds_it_well_confined(units, drop_in, most):
    if drop_in is not None:
        (units / f"{UNIT.name}.d").mkdir()
        shutil.copy(SYSTEMD / drop_in, units / f"{UNIT.name}.d")
    verified = analyze("verify", "--man=no", str(units / UNIT.name))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    rated = analyze("security", "--offline=true", f"--threshold={most}", str(units / UNIT.name))
    assert rated.returncode == 0, rated.stdout
    score = re.search(r"exposure level for \S+: ([0-9.]+)", rated.stdout)[1]
    quoted = (ROOT / "docs" / "deployment.md").read_text()
    if f"of systemd {analyze('--version').stdout.split()[1]} " in quoted:  # another release may rate otherwise
        assert f"{'with `cuda.conf` ' if drop_in else 'exposure '}{score}" in quoted


def seconds(key):
    (text,) = unit.values(UNIT, key)
    return float(text)


def test_stopping_takes_longer_than_draining(tmp_path):
    assert seconds("TimeoutStopSec") >= load({}, {"home": tmp_path}).config.drain_s + 20


def test_the_example_of_an_environment_is_one(tmp_path):
    lines = (SYSTEMD / "environment.example").read_text().splitlines()
    assignments = [line.removeprefix("# ") for line in lines if re.match(r"(# )?TENSOR_WASM_\w+=", line)]
    assert len(assignments) > 5
    environment = dict(line.split("=", 1) for line in assignments)
    assert load(environment).warnings == ()
    (home,) = re.findall(r"TENSOR_WASM_HOME=(\S+)", UNIT.read_text())
    assert home == f"/var/lib/{unit.values(UNIT, 'StateDirectory')[0]}"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86-64")
def test_a_node_does_its_work_within_the_unit_s_filters(tmp_path, monkeypatch):
    """What the unit forbids ends the process here: functions, kernels, snapshots and jobs need none of it."""
    filter_file = tmp_path / "filter"
    # SQLite gives its files to the database's owner when root opens it: the test may run as root, the unit never does.
    calls = unit.allowed(UNIT) | ({"fchown"} if os.geteuid() == 0 else set())
    filter_file.write_bytes(unit.program(calls, unit.values(UNIT, "RestrictAddressFamilies")[0].split()))
    confined = tmp_path / "python"
    python, helper = sys.executable, Path(unit.__file__)
    confined.write_text(f'#!/bin/sh\nexec {python} {helper} {filter_file} {python} "$@"\n')
    confined.chmod(0o755)
    monkeypatch.setattr("system.front_door.sys.executable", str(confined))
    served = Served(tmp_path / "home")
    monkeypatch.undo()
    try:
        function = served.client.deploy("vector_add", VECTOR_ADD.read_bytes())["id"]
        assert served.cli("invoke", function, "--args", "[100000]").out == "100000\n"
        instance = served.cli("instance", "spawn", function, "--json").json["id"]
        snapshot = served.cli("snapshot", "save", instance, "--json").json["snapshot_id"]
        assert served.cli("snapshot", "restore", snapshot).code == 0
        job = served.cli("invoke", function, "--args", "[10]", "--async", "--json")
        assert job.code == 0, job.err
        assert served.cli("metrics").code == 0
        assert served.cli("invoke", function, "--args", "[10]", "--stream").code == 0
    finally:
        code = served.stop()
    assert code == 0, served.log


@pytest.mark.slow
def test_the_filter_of_the_test_is_one(tmp_path):
    """A program that does what the unit forbids is ended by it."""
    filter_file = tmp_path / "filter"
    filter_file.write_bytes(unit.program(unit.allowed(UNIT), ["AF_UNIX"]))
    command = [sys.executable, unit.__file__, str(filter_file), sys.executable, "-c"]
    forbidden = subprocess.run([*command, "import os; os.chroot('/')"], check=False)
    assert forbidden.returncode < 0
    tried = "import socket\ntry:\n    socket.socket(socket.AF_INET)\nexcept OSError as error:\n    print(error.errno)"
    refused = subprocess.run([*command, tried], check=True, capture_output=True, text=True)
    assert refused.stdout == "97\n"
