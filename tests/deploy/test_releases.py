"""Releases of real wheels: installed beside each other, switched and rolled back under a node that serves."""

import json
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from deploy import wheels
from deploy.test_release_script import FAILED, REFUSED, SCRIPT
from system.front_door import VECTOR_ADD, environment
from tensor_wasm.cli.client import Client
from tensor_wasm.store.database import SCHEMA_VERSION

pytestmark = pytest.mark.slow

OLD, NEW, NEWER, BROKEN = "0.8.0", "0.9.0", "0.9.5", "0.9.9"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """A wheel a version: NEWER brings the database to a version of its own, BROKEN listens and is never ready."""
    wheel = wheels.build(tmp_path_factory.mktemp("wheels"))

    def one_more(text: str) -> str:
        return text.replace("\nSCHEMA_VERSION = ", "\n_MIGRATIONS += ((),)\nSCHEMA_VERSION = ")

    def unready(text: str) -> str:
        return text.replace("if reasons:", "reasons = reasons or ['this release is broken']\n        if reasons:", 1)

    return {
        OLD: wheels.altered(wheel, OLD),
        NEW: wheels.altered(wheel, NEW),
        NEWER: wheels.altered(wheel, NEWER, {"tensor_wasm/store/database.py": one_more}),
        BROKEN: wheels.altered(wheel, BROKEN, {"tensor_wasm/http/routes/probes.py": unready}),
    }


class Machine:
    """A root, a home, and a service: what `systemctl restart` would do, in a few lines of shell."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.home, self.log = root, folder / "home", folder / "service.log"
        self.pid_file = folder / "pid"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # The packages that TensorWasm needs are this environment's: a release has its own TensorWasm alone.
        self.python = folder / "python"
        packages = sysconfig.get_path("purelib")
        self.python.write_text(
            f'#!/bin/sh\nset -e\n{sys.executable} "$@"\nfor last; do :; done\n'
            f'for place in "$last"/lib/python*/site-packages; do echo {packages} > "$place/shared.pth"; done\n'
        )
        self.python.chmod(0o755)
        self.service = folder / "restart"
        self.service.write_text(
            f"#!/bin/sh\nif [ -s {self.pid_file} ]; then\n  pid=$(cat {self.pid_file})\n  kill $pid 2>/dev/null\n"
            f"  while kill -0 $pid 2>/dev/null; do sleep 0.05; done\nfi\n"
            f"{self.root}/current/bin/tensor-wasm serve --home {self.home} --listen 127.0.0.1:{self.port}"
            f" >> {self.log} 2>&1 &\necho $! > {self.pid_file}\n"
        )
        self.service.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), "--root", str(self.root), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=600, env=environment(), close_fds=True
        )

    def install(self, wheel: Path, *more: str) -> subprocess.CompletedProcess:
        return self.run("install", str(wheel), "--pip-option=--no-deps", "--python", str(self.python), *more)

    def change(self, *arguments: str, ready_s: str = "120") -> subprocess.CompletedProcess:
        return self.run(
            *arguments,
            *("--environment-file", str(self.root / "none"), "--home", str(self.home), "--url", self.url),
            *("--restart-command", str(self.service), "--timeout", ready_s, "--settle", "0.5"),
        )

    @property
    def running(self) -> str:
        client = Client(self.url)
        text = client.metrics()
        client.close()
        (line,) = [line for line in text.splitlines() if line.startswith("tensor_wasm_build_info{")]
        return line.partition('version="')[2].partition('"')[0]

    def stop(self) -> None:
        if self.pid_file.exists():
            subprocess.run(["sh", "-c", f"kill $(cat {self.pid_file})"], check=False)


@pytest.fixture(scope="module")
def root(made, tmp_path_factory) -> Path:
    """All of them, installed."""
    folder = tmp_path_factory.mktemp("root")
    machine = Machine(folder / "opt", folder)
    for version in (OLD, NEW, NEWER, BROKEN):
        done = machine.install(made[version])
        assert done.returncode == 0, done.stderr
        assert f"installed {version} (database version {SCHEMA_VERSION + (version == NEWER)})" in done.stdout
    return machine.root


@pytest.fixture
def machine(root, tmp_path):
    """A machine on which none of them is current yet."""
    for name in ("current", "history", "releases.log"):
        (root / name).unlink(missing_ok=True)
    one = Machine(root, tmp_path)
    yield one
    one.stop()


def test_a_release_is_switched_to_and_left_again_when_it_is_not_ready(machine):
    first = machine.change("switch", OLD)
    assert first.returncode == 0, first.stderr + machine.log.read_text()
    client = Client(machine.url)
    function = client.deploy("vector_add", VECTOR_ADD.read_bytes())["id"]
    client.close()

    done = machine.change("switch", NEW)
    assert done.returncode == 0, done.stderr + machine.log.read_text()
    assert machine.running == NEW
    failed = machine.change("switch", BROKEN, ready_s="5")
    assert failed.returncode == FAILED, failed.stderr
    assert "this release is broken" in failed.stderr
    assert f"{NEW} is current again and ready" in failed.stderr
    assert machine.running == NEW

    back = machine.change("rollback")
    assert back.returncode == 0, back.stderr
    assert f"rollback: {NEW} -> {OLD}" in back.stdout
    assert machine.running == OLD
    client = Client(machine.url)
    assert client.invoke(function, {"args": [1000]}, None)["result"] == [1000]
    client.close()
    ends = [json.loads(line) for line in (machine.root / "releases.log").read_text().splitlines()]
    assert (ends[-1]["from"], ends[-1]["to"], ends[-1]["outcome"]) == (NEW, OLD, "done")


def test_no_way_back_from_a_newer_database_but_a_backup(machine, tmp_path):
    assert machine.change("switch", OLD).returncode == 0
    refused = machine.change("switch", NEWER)
    assert refused.returncode == REFUSED
    assert machine.running == OLD
    command = [str(machine.root / "current" / "bin" / "tensor-wasm"), "backup", str(tmp_path / "backup")]
    subprocess.run([*command, "--home", str(machine.home)], check=True, env=environment(), capture_output=True)
    raised = machine.change("switch", NEWER, "--raise-database")
    assert raised.returncode == 0, raised.stderr + machine.log.read_text()
    back = machine.change("rollback")
    assert back.returncode == REFUSED
    assert f"has database version {SCHEMA_VERSION + 1}, and release {OLD} reads up to {SCHEMA_VERSION}" in back.stderr
    assert machine.running == NEWER

    # What the message says to do, by hand.
    machine.stop()
    old = machine.root / "releases" / OLD / "bin" / "tensor-wasm"
    restore = [str(old), "restore", str(tmp_path / "backup"), "--home", str(machine.home), "--force"]
    for _ in range(600):
        done = subprocess.run(restore, check=False, env=environment(), capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    again = machine.change("rollback")
    assert again.returncode == 0, again.stderr
    assert machine.running == OLD


def test_only_so_many_releases_are_kept_and_what_is_no_release_leaves_nothing(tmp_path, made):
    machine = Machine(tmp_path / "opt", tmp_path)
    for day, version in enumerate(("0.1", "0.2", "0.3"), 1):
        place = machine.root / "releases" / version
        place.mkdir(parents=True)
        record = {"version": version, "database": 1, "git_sha": "", "python": "", "source": "", "sha256": None}
        (place / "release.json").write_text(json.dumps(record | {"installed_at": f"2020-01-0{day}T00:00:00Z"}))
    assert machine.change("switch", "0.1", "--no-restart").returncode == 0
    done = machine.install(made[NEW], "--keep", "2")
    assert done.returncode == 0, done.stderr
    rows = json.loads(machine.run("list", "--json").stdout)["releases"]
    assert [row["version"] for row in rows] == ["0.1", NEW]  # the current one is kept however old it is
    lines = [json.loads(line) for line in (machine.root / "releases.log").read_text().splitlines()]
    assert [line.get("version") for line in lines if line["action"] == "remove"] == ["0.2", "0.3"]

    misnamed = tmp_path / "tensor_wasm-0.7.1-py3-none-any.whl"
    shutil.copy(made[NEW], misnamed)
    assert machine.install(misnamed).returncode == FAILED
    assert {path.name for path in (machine.root / "releases").iterdir()} == {"0.1", NEW}
