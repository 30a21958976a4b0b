"""A node as a service: started again when it ends, with the settings of its environment file and its current release.

It stands in for systemd and ``/opt/tensor-wasm``, so that a runbook's steps are done as they are written: a line in the
environment file and a restart, or ``tensor-wasm-release rollback``.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from system.front_door import ROOT, environment
from tensor_wasm.store.database import SCHEMA_VERSION

RELEASE_SCRIPT = ROOT / "deploy" / "systemd" / "tensor-wasm-release"
#: The release that is at hand: the package itself.
GOOD = "0.1.0"
#: The version of what is laid beside it.
FAULTY = "0.1.1"

_FAULTY = Path(__file__).parent / "releases"
_URL = re.compile(r"http://[0-9.:]+")
#: A machine may be slow, or busy with something else.
PATIENCE_S = 120.0
_END_S = 60.0
#: A node that does not start is tried again, as systemd does: another release may be current by then.
_FAILURES_MAX, _AFTER_FAILURE_S = 10, 0.5
_PORTS = 20_000, 32_000


class Service:
    """A node under a supervisor. ``root`` gets releases, the environment file, the home and the log.

    With ``faulty``, a program of ``releases``, that one is current from the beginning.
    """

    def __init__(self, root: Path, environment_variables: dict[str, str], faulty: str | None, **settings: str) -> None:
        self.root = root
        self.home = root / "home"
        self.file = root / "environment"
        self.url = ""
        self.starts = 0
        self.started_s = 0.0
        self._variables = environment_variables
        self._log = root / "node.log"
        self._pid_file = root / "node.pid"
        self._address = f"127.0.0.1:{_free_port()}"
        self._closing = False
        self._changed = threading.Condition()
        self.process: subprocess.Popen[str] | None = None
        root.mkdir(parents=True, exist_ok=True)
        self.set(TENSOR_WASM_DRAIN_S="1", TENSOR_WASM_AUDIT="none", **settings)
        self.install(GOOD, None)
        if faulty is not None:
            self.install(FAULTY, faulty)
        self._point(GOOD if faulty is None else FAULTY)
        self._keeper = threading.Thread(target=self._keep_running, name="supervisor", daemon=True)

    # --- the machine's files ----------------------------------------------------------------------------

    def set(self, **settings: str) -> None:
        """Write lines of the environment file; they hold from the next start."""
        with self.file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    @property
    def settings(self) -> dict[str, str]:
        """What the environment file says: the last line of a name holds."""
        lines = self.file.read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines if line)}

    def install(self, version: str, program: str | None) -> None:
        """Lay a release beside the others: the package, or a program of ``releases`` that changes a part of it."""
        place = self.root / "releases" / version
        (place / "bin").mkdir(parents=True)
        start = [sys.executable, "-m", "tensor_wasm"]
        if program is not None:
            start = [sys.executable, str(_FAULTY / f"{program}.py"), version]
        command = place / "bin" / "tensor-wasm"
        command.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
        command.chmod(0o755)
        record = {"version": version, "database": SCHEMA_VERSION, "git_sha": "unknown", "python": "", "source": "drill"}
        installed_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (place / "release.json").write_text(json.dumps(record | {"installed_at": installed_at, "sha256": None}))

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the operator's script for releases on this service: ``switch VERSION``, ``rollback``, ``list``."""
        where = ["--home", str(self.home), "--url", self.url, "--environment-file", str(self.file)]
        end = f"kill -TERM $(cat {shlex.quote(str(self._pid_file))}) || true"  # it may have ended by itself
        restart = ["--restart-command", shlex.join(["sh", "-c", end]), "--settle", "0.5"]
        if arguments[0] not in ("switch", "rollback"):
            where = restart = []
        command = [sys.executable, str(RELEASE_SCRIPT), "--root", str(self.root), *arguments, *where, *restart]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        with self._changed:  # the script saw it answer; the supervisor may learn of it a moment later
            self._changed.wait_for(lambda: bool(self.url), PATIENCE_S)
        return done

    def _point(self, version: str) -> None:
        (self.root / "current").symlink_to(Path("releases") / version)
        (self.root / "history").write_text(f"{version}\n")

    # --- the process ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it takes requests."""
        self._keeper.start()
        self._wait_for_start(1)

    def restart(self) -> None:
        """What ``systemctl restart`` does: end it in order, start it again, where it was."""
        before = self.starts
        self._running().terminate()
        self._wait_for_start(before + 1)

    def stop(self) -> None:
        """End it for good."""
        self._closing = True
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        if self._keeper.is_alive():
            self._keeper.join(_END_S)

    @property
    def log(self) -> str:
        """What the node wrote to stderr so far."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def _running(self) -> subprocess.Popen[str]:
        assert self.process is not None
        return self.process

    def _wait_for_start(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: (self.starts >= number and self.url) or self._closing, PATIENCE_S)
        has_started = self.starts >= number and not self._closing
        assert has_started, f"the node did not start: {self.log[-3000:]}"

    def _keep_running(self) -> None:
        failures = 0
        while not self._closing and failures < _FAILURES_MAX:
            if failures:
                time.sleep(_AFTER_FAILURE_S)
            command = [str(self.root / "current" / "bin" / "tensor-wasm"), "serve"]
            command += ["--listen", self._address, "--home", str(self.home)]
            variables = environment(**self._variables, **self.settings)
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables)
            self._pid_file.write_text(str(self.process.pid))
            with self.process:
                assert self.process.stdout is not None
                found = _URL.search(self.process.stdout.readline())
                failures = failures + 1 if found is None else 0
                if found is not None:
                    self._note_start(found[0])
                if self._closing and self.process.poll() is None:
                    self.process.terminate()
                self.process.wait()
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _note_start(self, url: str) -> None:
        with self._changed:
            self.url, self.starts, self.started_s = url, self.starts + 1, time.monotonic()
            self._changed.notify_all()


def _free_port() -> int:
    """A port that stays the node's over restarts: below those that the system gives to connections."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
