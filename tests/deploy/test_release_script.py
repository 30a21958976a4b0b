"""`tensor-wasm-release` on made-up releases: a "node" that says ready or not, and a restart that is a shell command."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tensor_wasm.store import Database
from tensor_wasm.store.database import SCHEMA_VERSION

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "tensor-wasm-release"
REFUSED, FAILED, DOWN = 3, 1, 4


class Machine:
    """A root with releases, a home, and what answers for the node: ready while the current release is in ``good``."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home, self.restarts = folder / "opt", folder / "home", folder / "restarts"
        self.good: set[str] = set()
        self.answering: str | None = None
        machine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                version = machine.answering or machine.current
                is_ready = version in machine.good
                body = b'{"status":"ready"}'
                if self.path == "/metrics":
                    body = b'# TYPE x gauge\ntensor_wasm_build_info{device="cpu",version="%b"} 1\n' % version.encode()
                self.send_response(200 if is_ready or self.path == "/metrics" else 503)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name

    @property
    def log(self) -> list[dict]:
        return [json.loads(line) for line in (self.root / "releases.log").read_text().splitlines()]

    @property
    def restart_count(self) -> int:
        return len(self.restarts.read_text()) if self.restarts.exists() else 0

    def add(self, version: str, database: int = SCHEMA_VERSION, is_good: bool = True) -> None:
        place = self.root / "releases" / version
        place.mkdir(parents=True)
        record = {"version": version, "database": database, "git_sha": "unknown", "python": "3.11.7"}
        record |= {"installed_at": f"2026-01-01T00:00:{len(self.good):02d}Z", "source": "x", "sha256": None}
        (place / "release.json").write_text(json.dumps(record))
        if is_good:
            self.good.add(version)

    def make_current(self, version: str) -> None:
        """As after a switch to it, the first there was."""
        (self.root / "current").symlink_to(Path("releases") / version)
        (self.root / "history").write_text(f"{version}\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), "--root", str(self.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def change(self, *arguments: str, timeout_s: str = "0.3", restart: str = "") -> subprocess.CompletedProcess:
        port = self.server.server_address[1]
        return self.run(
            *arguments,
            *("--environment-file", str(self.root / "none"), "--home", str(self.home)),
            *("--url", f"http://127.0.0.1:{port}", "--timeout", timeout_s, "--settle", "0"),
            *("--restart-command", restart or f"sh -c 'printf x >> {self.restarts}'"),
        )


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_switches_go_back_one_by_one(machine):
    for version in ("1.0", "1.1", "1.2"):
        machine.add(version)
        done = machine.change("switch", version, timeout_s="30")
        assert done.returncode == 0, done.stderr
    assert machine.run("current").stdout == "1.2\n"
    for expected in ("1.1", "1.0"):
        assert machine.change("rollback", timeout_s="30").returncode == 0
        assert machine.current == expected
    last = machine.change("rollback")
    assert (last.returncode, machine.current) == (REFUSED, "1.0")
    assert "no earlier release" in last.stderr
    ended = [(line["action"], line["from"], line["to"]) for line in machine.log if line["outcome"] == "done"]
    assert ended[1:] == [
        ("switch", "1.0", "1.1"),
        ("switch", "1.1", "1.2"),
        ("rollback", "1.2", "1.1"),
        ("rollback", "1.1", "1.0"),
    ]
    assert all(line["at"].endswith("Z") and line["by"] for line in machine.log)


def test_a_release_that_does_not_come_up_is_left_again(machine):
    machine.add("1.0")
    machine.add("2.0", is_good=False)
    machine.make_current("1.0")
    done = machine.change("switch", "2.0")
    assert done.returncode == FAILED
    assert "1.0 is current again and ready" in done.stderr
    assert (machine.current, machine.restart_count) == ("1.0", 2)
    assert machine.log[-1]["outcome"] == "went back"
    assert "503" in machine.log[-1]["reason"]
    assert machine.change("rollback").returncode == REFUSED  # 2.0 never counted


def test_a_restart_that_fails_or_another_version_that_answers_is_noticed(machine):
    machine.add("1.0")
    machine.add("2.0")
    machine.make_current("1.0")
    machine.answering = "1.0"
    done = machine.change("switch", "2.0")
    assert done.returncode == FAILED
    assert "version 1.0 answers there" in done.stderr
    machine.restarts.unlink()
    machine.restarts.mkdir()  # nothing can be written there: the restart fails
    done = machine.change("switch", "2.0")
    assert done.returncode == DOWN
    assert "ended with exit code" in done.stderr


def test_a_home_that_a_release_cannot_read_is_refused_before_anything_is_stopped(machine):
    Database(machine.home / "node.db").close()
    machine.add("1.0", database=SCHEMA_VERSION - 1)
    machine.add("2.0")
    machine.make_current("2.0")
    before = machine.restart_count
    done = machine.change("switch", "1.0")
    assert (done.returncode, machine.current, machine.restart_count) == (REFUSED, "2.0", before)
    assert f"has database version {SCHEMA_VERSION}, and release 1.0 reads up to {SCHEMA_VERSION - 1}" in done.stderr
    assert "tensor-wasm restore" in done.stderr


def test_a_release_that_makes_the_database_newer_wants_to_be_told(machine):
    opened = Database(machine.home / "node.db")  # a node that runs: the version is in the log beside the file
    machine.add("1.0")
    machine.add("2.0", database=SCHEMA_VERSION + 1)
    machine.make_current("1.0")
    refused = machine.change("switch", "2.0")
    assert (refused.returncode, machine.current) == (REFUSED, "1.0")
    assert "backup DIRECTORY" in refused.stderr
    assert machine.change("switch", "2.0", "--raise-database", timeout_s="30").returncode == 0
    opened.close()
    with sqlite3.connect(machine.home / "node.db") as raised:
        raised.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raised.close()
    back = machine.change("rollback")
    assert (back.returncode, machine.current) == (REFUSED, "2.0")
    assert [path.name for path in machine.home.iterdir() if path.name.startswith("node.db-")] == []


def test_a_release_that_made_the_database_newer_and_fell_is_not_left_by_itself(machine):
    Database(machine.home / "node.db").close()
    machine.add("1.0")
    machine.add("2.0", database=SCHEMA_VERSION + 1, is_good=False)
    machine.make_current("1.0")
    raising = machine.root / "raise.py"
    raising.write_text(
        f"import sqlite3\nfile = sqlite3.connect({str(machine.home / 'node.db')!r})\n"
        f"file.execute('PRAGMA user_version = {SCHEMA_VERSION + 1}')\nfile.close()\n"
    )
    done = machine.change("switch", "2.0", "--raise-database", restart=f"{sys.executable} {raising}")
    assert (done.returncode, machine.current) == (DOWN, "2.0")
    assert "cannot go back to 1.0" in done.stderr
    assert machine.log[-1]["outcome"] == "failed, cannot go back"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["switch", "9.9"], "not installed"),
        (["switch", "../../etc"], "not"),
        (["install", "tensor_other-1.0-py3-none-any.whl"], "not the name of a wheel"),
        (["install", "tensor_wasm-1.0-py3-none-any.whl"], "no file"),
        (["install", "1.0; rm -rf /"], "not a version"),
        (["remove", "1.0"], "is current"),
        (["install", "1.0"], "installed already"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(machine, arguments, said):
    machine.add("1.0")
    machine.make_current("1.0")
    done = machine.run(*arguments)
    assert done.returncode == REFUSED
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_systemd_is_told_to_forget_the_starts_that_failed(machine, tmp_path):
    """A release that fell at each start has used up what systemd allows: the way back from it must be let in."""
    machine.add("1.0")
    said = tmp_path / "said"
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    (tmp_path / "systemctl").chmod(0o755)
    command = [sys.executable, str(SCRIPT), "--root", str(machine.root), "switch", "1.0", "--home", str(machine.home)]
    command += ["--url", f"http://127.0.0.1:{machine.server.server_address[1]}", "--settle", "0"]
    command += ["--environment-file", str(machine.root / "none")]
    subprocess.run(
        command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True, capture_output=True, timeout=60
    )
    assert said.read_text().splitlines() == ["reset-failed tensor-wasm.service", "restart tensor-wasm.service"]


def test_two_operators_do_not_meet(machine):
    machine.add("1.0")
    machine.add("1.1")
    port = machine.server.server_address[1]
    flag = machine.root / "started"
    first = subprocess.Popen(
        [
            *(sys.executable, str(SCRIPT), "--root", str(machine.root), "switch", "1.0", "--home", str(machine.home)),
            *("--url", f"http://127.0.0.1:{port}", "--settle", "0", "--environment-file", str(machine.root / "none")),
            *("--restart-command", f"sh -c 'touch {flag}; while [ -e {flag} ]; do sleep 0.05; done'"),
        ],
        stdout=subprocess.DEVNULL,
    )
    while not flag.exists():
        assert first.poll() is None
    second = machine.change("switch", "1.1")
    assert second.returncode == REFUSED
    assert "another tensor-wasm-release" in second.stderr
    flag.unlink()
    assert first.wait(60) == 0


def test_the_environment_file_says_where_the_node_is(machine):
    machine.add("1.0")
    file = machine.root / "environment"
    port = machine.server.server_address[1]
    file.write_text(f"# the node's\nTENSOR_WASM_LISTEN_ADDR='0.0.0.0:{port}'\nTENSOR_WASM_HOME={machine.home}\n")
    done = machine.run(
        *("switch", "1.0", "--environment-file", str(file), "--settle", "0"), *("--restart-command", "true")
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(machine.run("list", "--json").stdout)["releases"]
    assert [(row["version"], row["current"]) for row in listed] == [("1.0", True)]
    assert "current" in machine.run("list").stdout
