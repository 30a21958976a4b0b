"""What the node says to the service manager that started it, seen from the manager's end of the socket."""

from __future__ import annotations

import asyncio
import itertools
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from system.front_door import environment
from tensor_wasm.http.supervision import Supervision

_WAIT_S = 60


class Manager:
    """A service manager's socket and the node that it started; the node's stderr is its journal."""

    def __init__(self, folder, **settings):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.journal = folder / "journal"
        with self.journal.open("wb") as journal:
            status = self.journal.stat()
            settings = {
                "NOTIFY_SOCKET": str(folder / "notify"),
                "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
                **settings,
            }
            command = [sys.executable, "-m", "tensor_wasm", "serve", "--listen", "127.0.0.1:0"]
            self.process = subprocess.Popen(
                [*command, "--home", str(folder / "home")],
                env=environment(**settings),
                stdout=subprocess.DEVNULL,
                stderr=journal,
            )

    def told(self):
        until = time.monotonic() + _WAIT_S
        while not select.select([self.socket], [], [], 0.2)[0]:
            is_over = self.process.poll() is not None or time.monotonic() > until
            assert not is_over, f"the node said nothing more; its log: {self.journal.read_text()}"
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(_WAIT_S)
        self.socket.close()


@pytest.fixture
def manager(tmp_path):
    started = []

    def start(**settings):
        started.append(Manager(tmp_path, **settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_it_says_when_it_is_ready_pings_and_says_that_it_stops(manager):
    node = manager(WATCHDOG_USEC="200000")
    first = node.told()
    assert first["READY"] == "1"
    assert re.fullmatch(r"listening on 127\.0\.0\.1 port \d+, device cpu", first["STATUS"])
    assert [node.told() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
    node.process.terminate()
    said = node.told()
    while "WATCHDOG" in said:
        said = node.told()
    assert said == {"STOPPING": "1", "STATUS": "draining: 0 requests in flight and 0 jobs"}
    assert node.process.wait(_WAIT_S) == 0

    lines = node.journal.read_text().splitlines()
    assert "<4>tensor_wasm.http no tokens are set: every caller on this machine is admin for any tenant" in lines
    assert all(re.match(r"<[2-7]>tensor_wasm\.", line) for line in lines), lines


def test_asked_by_the_manager_it_says_where_each_thread_stands_and_ends(manager):
    node = manager(TENSOR_WASM_LOG_FORMAT="json")
    assert node.told()["READY"] == "1"
    node.process.send_signal(signal.SIGQUIT)
    assert node.process.wait(_WAIT_S) == -signal.SIGQUIT
    text = node.journal.read_text()
    assert "http/server.py" in text
    assert text.startswith('<6>{"time":')


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "2000000"}, 0.5),
        ({"NOTIFY_SOCKET": "@s", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, 0.5),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "2000000"}, None),
        ({"WATCHDOG_USEC": "2000000"}, None),
    ],
)
def test_pings_go_to_whoever_asked_this_process_for_them(variables, interval_s):
    assert Supervision.of(variables, pid=7).ping_interval_s == interval_s


def test_a_stalled_loop_does_not_ping(tmp_path):
    pings = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(_WAIT_S)

        def listen():
            while channel.recv(4096) != b"end":
                pings.append(time.monotonic())

        listener = threading.Thread(target=listen)
        listener.start()

        async def stall():
            supervision = Supervision(str(tmp_path / "notify"), watchdog_s=0.04)
            supervision.started("listening")
            await asyncio.sleep(0.1)
            time.sleep(1)  # a handler that blocks
            await asyncio.sleep(0.1)
            supervision.close()

        asyncio.run(stall())
        channel_to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel_to.sendto(b"end", str(tmp_path / "notify"))
        channel_to.close()
        listener.join(_WAIT_S)
    gaps = [after - before for before, after in itertools.pairwise(pings)]
    assert len(pings) > 4
    assert max(gaps) > 0.9


def test_a_manager_that_is_gone_changes_nothing(tmp_path):
    Supervision(str(tmp_path / "nobody")).stopping("draining")
    Supervision("@nobody-listens-there").stopping("draining")
