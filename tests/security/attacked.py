"""A node under attack: the real command on loopback, and what shows whether it was harmed."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from system.front_door import Served

TESTS = Path(__file__).resolve().parents[1]
MIB = 1 << 20

#: How long the node may take for /healthz while it is attacked, on a machine with nothing else to do: 99 of 100
#: answers, and any. Guests that storm the host compete with the event loop for the interpreter lock, so that single
#: answers have a tail of chance.
USUAL_S, HEALTH_S = 0.25, 0.5
#: Longest time that things may take to come back after an attack.
_SETTLE_S = 10.0
_ANSWER_S = 60.0
#: Threads that an attack itself keeps running.
_OWN_LOAD = 4


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever its status."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The error's kind; "" for an answer that is none."""
        return "" if self.status < 300 else str(self.json["error"]["kind"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])

    @property
    def result(self) -> list[int]:
        assert self.status == 200, self.body
        return list(self.json["result"])


@dataclass(frozen=True)
class Worst:
    """The worst since it was asked last: /healthz, the watcher's own lateness in its sleep, memory, answers missed.

    ``usual_s`` is what 99 of 100 answers of /healthz took at most.
    """

    health_s: float
    usual_s: float
    late_s: float
    resident_bytes: int
    missed: int


class Attacked(Served):
    """A node, and a watcher beside it: a process that asks for /healthz every few milliseconds."""

    def __init__(self, home: Path, *flags: str, **settings: str) -> None:
        super().__init__(home, *flags, **settings)
        host, port = self.url.removeprefix("http://").split(":")
        self.address = host, int(port)
        self.headers: dict[str, str] = {}
        self.home = home
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "security.watcher", host, port, str(self.process.pid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(TESTS)},
        )  # fmt: skip

    def end(self) -> int:
        """Stop watcher and node; the node's exit code."""
        self._watcher.communicate(timeout=10)
        return self.stop()

    def worst(self) -> Worst:
        assert self._watcher.stdin is not None
        assert self._watcher.stdout is not None
        self._watcher.stdin.write("\n")
        self._watcher.stdin.flush()
        return Worst(**json.loads(self._watcher.stdout.readline()))

    # --- requests ---------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(*self.address, timeout=_ANSWER_S)
        try:
            given = self.headers | {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            named = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout_s: float = 10.0) -> bytes:
        """What comes back for these bytes until the node closes."""
        received = b""
        with socket.create_connection(self.address, timeout=timeout_s) as connection:
            try:
                connection.sendall(data)
                while piece := connection.recv(65_536):
                    received += piece
            except (ConnectionResetError, BrokenPipeError):
                pass
        return received

    def offer(self, wasm: bytes, **headers: str) -> Answer:
        """Deploy a module; the answer."""
        return self.ask("POST", "/functions?name=attack", wasm, Content_Type="application/wasm", **headers)

    def deploy(self, wasm: bytes, **headers: str) -> str:
        """Deploy a module that must be taken; its id."""
        answer = self.offer(wasm, **headers)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def invoke(
        self,
        function: str,
        export: str = "run",
        args: Sequence[object] = (),
        data: bytes = b"",
        deadline_ms: int | None = None,
        **headers: str,
    ) -> Answer:
        request: dict[str, object] = {"export": export, "args": list(args)}
        if data:
            request["input_b64"] = base64.b64encode(data).decode()
        if deadline_ms is not None:
            request["deadline_ms"] = deadline_ms
        path = f"/functions/{function}/invoke"
        return self.ask("POST", path, json.dumps(request).encode(), Content_Type="application/json", **headers)

    def invoke_many(self, count: int, function: str, *args: Any, **more: Any) -> list[Answer]:
        """The same invocation ``count`` times at once."""
        with ThreadPoolExecutor(count) as pool:
            return [f.result() for f in [pool.submit(self.invoke, function, *args, **more) for _ in range(count)]]

    # --- what it occupies -------------------------------------------------------------------------------

    def metric(self, name: str) -> float:
        """A family's sum over all labels."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics").body.decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    @property
    def threads(self) -> int:
        return _entries(f"/proc/{self.process.pid}/task")

    @property
    def descriptors(self) -> int:
        return _entries(f"/proc/{self.process.pid}/fd")

    @property
    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid)

    def settle(self, descriptors: int) -> None:
        """Wait until nothing of an attack is left: instances, permits, requests, connections."""
        until = time.monotonic() + _SETTLE_S
        while True:
            left = {
                "instances": self.metric("tensor_wasm_active_instances"),
                "permits": self.metric("tensor_wasm_dispatch_permits_used"),
                "requests": self.metric("tensor_wasm_http_requests_in_flight") - 1,  # this one asks
                "guest bytes": self.metric("tensor_wasm_guest_memory_bytes"),
                "device bytes": self.metric("tensor_wasm_gpu_memory_used_bytes"),
                "descriptors": max(self.descriptors - descriptors, 0),
            }
            if not any(left.values()):
                return
            assert time.monotonic() < until, f"the attack left something behind: {left}"
            time.sleep(0.05)


def _entries(directory: str) -> int:
    return sum(1 for _ in Path(directory).iterdir())


def check_calm(worst: Worst) -> None:
    """Assert that /healthz was answered quickly, for a machine as busy as this one is with other things."""
    assert worst.missed == 0
    busy = max(1.0, (os.getloadavg()[0] - _OWN_LOAD) / (os.cpu_count() or 1))
    assert worst.health_s < HEALTH_S * busy + 2 * worst.late_s, f"the event loop stood still: {worst}"
    assert worst.usual_s < USUAL_S * busy + 2 * worst.late_s, f"the event loop was slow: {worst}"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset(connection: socket.socket) -> None:
    """Close a connection as one that broke: the peer is told at once, whatever it has still to send."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
