"""``tensor-wasm observe`` through the front door: whatever the node is doing, there is a document."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from administered import guest
from system.drills.diagnosis import diagnose
from system.drills.guests import guest as launching_guest
from system.front_door import ROOT, Result, Served, environment, run_cli
from tensor_wasm.sockets import OPERATOR_SOCKET, address_of

pytestmark = pytest.mark.slow

SCHEMA = json.loads((ROOT / "docs" / "observe.schema.json").read_text())
PATIENCE_S = 60.0
#: What observing may take; beyond that only the start of the program, which a slow machine decides.
OBSERVE_S = 2.0
URL = re.compile(r"http://[0-9.:]+")


def wait_for(is_so: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return found


def observed(url: str, home: Path) -> dict[str, Any]:
    """The document of ``observe --once``, held to the schema and to its time."""
    began = time.monotonic()
    run_cli("version")
    start_s = time.monotonic() - began
    began = time.monotonic()
    result = run_cli("--server", url, "observe", "--once", "--home", home)
    took_s = time.monotonic() - began
    assert result.code == 0, result.err
    assert took_s <= OBSERVE_S + 2 * start_s, f"{took_s:.2f} s, of which {start_s:.2f} s for the start"
    document: dict[str, Any] = result.json
    jsonschema.validate(document, SCHEMA)
    return document


class Calls:
    """Calls of the command beside the test."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._threads: list[threading.Thread] = []

    def invoke(self, function: str, export: str, arguments: str = "[]", count: int = 1) -> None:
        for _ in range(count):
            thread = threading.Thread(
                target=self._served.cli, args=("invoke", function, "--export", export, "--args", arguments)
            )
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        def is_over() -> bool:
            for instance in self._served.client.instances(None):
                with contextlib.suppress(Exception):  # it ended by itself
                    self._served.client.terminate(instance["id"])
            return not any(thread.is_alive() for thread in self._threads)

        wait_for(is_over, "the calls do not end")


def test_while_all_permits_are_taken(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(TENSOR_WASM_DISPATCH_PERMITS="1", TENSOR_WASM_WORKERS="8", TENSOR_WASM_OBSERVE_WINDOW_S="3")
    function = str(served.client.deploy("guest", guest())["id"])
    calls = Calls(served)
    calls.invoke(function, "kernel", count=3)
    wait_for(lambda: len(served.client.instances(None)) >= 2, "no launch waits")
    document = wait_for(
        lambda: (found := observed(served.url, tmp_path / "home"))["permits"]["utilization"] == 1.0 and found,
        "the permit is not always taken",
    )
    assert document["permits"]["used"] == 1
    assert document["permits"]["waiting"] >= 1
    assert document["permits"]["held_without_launch"] == 0
    assert document["tenants"][0]["held"] == 1
    calls.end()


def test_while_all_workers_are_saturated(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(TENSOR_WASM_WORKERS="8", TENSOR_WASM_OBSERVE_WINDOW_S="3")
    function = str(served.client.deploy("guest", launching_guest())["id"])
    calls = Calls(served)
    calls.invoke(function, "launch", "[1, 0]", count=12)
    wait_for(lambda: len(served.client.instances(None)) >= 2, "nothing runs")
    document = wait_for(
        lambda: (found := observed(served.url, tmp_path / "home"))["dispatch"]["count"] > 0 and found, "no launches"
    )
    assert document["workers"]["busy"] >= 2
    assert document["instances"][0]["launches_per_s"] > 0
    assert diagnose(document) == "tight_launch_loop"
    calls.end()


class Stalling:
    """A node whose event loop hangs when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self._until = folder / "until"
        command = [sys.executable, str(Path(__file__).with_name("stalling_node.py")), "serve"]
        command += ["--listen", "127.0.0.1:0", "--home", str(self.home)]
        settings = environment(STALL_UNTIL=str(self._until), TENSOR_WASM_OBSERVE_WINDOW_S="3")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=settings
        )
        assert self.process.stdout is not None
        found = URL.search(self.process.stdout.readline())
        assert found is not None, "the node did not start"
        self.url = found[0]
        self._thread = threading.Thread(target=self._ask)

    def hang(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._until.touch()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _ask(self) -> None:
        host, _, port = self.url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10 * PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            connection.getresponse().read()


@pytest.fixture
def stalling(tmp_path: Path) -> Iterator[Stalling]:
    node = Stalling(tmp_path)
    yield node
    node.end()


def test_while_a_handler_holds_the_event_loop(stalling: Stalling) -> None:
    assert observed(stalling.url, stalling.home)["unread"] == []
    stalling.hang()
    document = wait_for(
        lambda: (found := observed(stalling.url, stalling.home))["event_loop"]["stalled_s"] >= 1 and found,
        "the loop does not hang",
    )
    assert any(line.startswith("the API: no answer") for line in document["unread"])
    assert len(document["unread"]) == 1
    assert diagnose(document) == "event_loop_stalled"
    assert b"tensor_wasm_event_loop_lag_seconds_bucket" in by_socket(stalling.home, "/metrics")


def by_socket(home: Path, target: str) -> bytes:
    """What the operator's socket answers."""
    received = b""
    with socket.socket(socket.AF_UNIX) as connection, address_of(home / OPERATOR_SOCKET) as address:
        connection.settimeout(PATIENCE_S)
        connection.connect(address)
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while piece := connection.recv(65_536):
            received += piece
    return received


def test_without_any_node_there_is_no_document(tmp_path: Path) -> None:
    result = run_cli("--server", "http://127.0.0.1:1", "observe", "--once", "--home", tmp_path)
    assert result.code == 3
    assert result.out == ""
    assert "operator.sock" in result.err


def test_a_killed_node_s_release_is_remembered_and_its_socket_replaced(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    killed = serve()
    killed.kill()
    assert (home / "operator.sock").exists()
    (home / "releases.json").write_text(
        json.dumps(
            {
                "format": 1,
                "current": {
                    "version": "0.0.9",
                    "git_sha": "unknown",
                    "started_at": "2026-01-01T00:00:00.000Z",
                    "until": "2026-01-02T00:00:00.000Z",
                    "dispatch_counts": [100] + [0] * 19,
                },
                "previous": None,
            }
        )
    )
    served = serve()
    document = observed(served.url, home)
    assert document["release"]["previous"]["version"] == "0.0.9"
    assert document["release"]["previous"]["dispatch_p95_s"] == pytest.approx(4.75e-7)
    assert run_cli("observe", "--socket", home / "operator.sock").json["node"]["pid"] == served.process.pid
    assert served.stop() == 0
    assert not (home / "operator.sock").exists()
    assert json.loads((home / "releases.json").read_text())["previous"]["version"] == "0.0.9"


# --- the board --------------------------------------------------------------------------------------------


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            command = [sys.executable, "-m", "tensor_wasm", *map(str, arguments)]
            os.execvpe(command[0], command, environment(TERM="xterm-256color", LINES="60", COLUMNS="140"))
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        until = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            assert time.monotonic() < until, self.seen[-2000:]
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.descriptor, 65_536)
                except OSError:  # the other side has closed
                    assert text in self.seen, self.seen[-2000:]

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def code(self) -> int:
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                if select.select([self.descriptor], [], [], 0.02)[0]:
                    self.seen += os.read(self.descriptor, 65_536)
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                os.close(self.descriptor)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < until, "it does not end"


LEAVE_SCREEN = b"\x1b[?1049l"


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_the_board_is_drawn_and_ends_with_a_key(shared_node: Served, key: bytes) -> None:
    terminal = Terminal("--server", shared_node.url, "observe", "--interval", "0.2")
    terminal.read_until(b"latency_dispatch_serial_P95")
    terminal.read_until(b"permits")
    terminal.type(key)
    assert terminal.code() == 0
    assert LEAVE_SCREEN in terminal.seen


def test_the_board_leaves_the_terminal_as_it_was_when_it_is_ended(shared_node: Served) -> None:
    terminal = Terminal("--server", shared_node.url, "observe", "--interval", "0.2")
    terminal.read_until(b"latency_dispatch_serial_P95")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.code() == 0
    assert LEAVE_SCREEN in terminal.seen


def test_the_board_goes_on_while_the_event_loop_hangs(stalling: Stalling) -> None:
    terminal = Terminal("--server", stalling.url, "observe", "--interval", "0.2", "--home", stalling.home)
    terminal.read_until(b"latency_dispatch_serial_P95")
    stalling.hang()
    terminal.read_until(b"STALLED FOR")
    terminal.type(b"q")
    assert terminal.code() == 0


def test_output_that_is_no_terminal_gets_the_document(shared_node: Served) -> None:
    result: Result = shared_node.cli("observe")
    jsonschema.validate(result.json, SCHEMA)
    assert shared_node.cli("observe", "--json").json["schema"] == "tensor-wasm/observe/1"
