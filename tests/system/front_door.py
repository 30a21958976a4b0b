"""The real command as a process of its own, and a real node on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensor_wasm.cli.client import Client

ROOT = Path(__file__).resolve().parents[2]
VECTOR_ADD = ROOT / "examples" / "vector_add" / "vector_add.wasm"
_START_S = 30
_END_S = 30
_LISTENING = re.compile(r"listening on (http://\S+)")


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without the node's settings, with those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TENSOR_WASM_")}
    return clean | settings


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_cli(*arguments: object, stdin: bytes = b"", timeout_s: float = 60, **settings: str) -> Result:
    """Run ``tensor-wasm`` to its end."""
    command = [sys.executable, "-m", "tensor_wasm", *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin, capture_output=True, env=environment(**settings), timeout=timeout_s, check=False
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


class Served:
    """``tensor-wasm serve`` on a free port. ``url`` is where; ``log`` what it wrote to stderr so far."""

    def __init__(self, home: Path, *flags: str, **settings: str) -> None:
        command = [sys.executable, "-m", "tensor_wasm", "serve", "--listen", "127.0.0.1:0", "--home", str(home), *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**settings)
        )
        self.log: list[str] = []
        self.url = ""
        self._is_listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._is_listening.wait(_START_S) or not self.url:
            self.kill()
            raise AssertionError("the node did not start: " + "".join(self.log))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            found = _LISTENING.search(line)
            if found:
                self.url = found[1]
                self._is_listening.set()
        self._is_listening.set()

    def cli(self, *arguments: object, **more: Any) -> Result:
        return run_cli("--server", self.url, *arguments, **more)

    @property
    def client(self) -> Client:
        return Client(self.url)

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(_END_S)
        self._reader.join(_END_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def stop(self) -> int:
        if self.process.poll() is None:
            self.ask_to_stop()
        return self.wait()

    def kill(self) -> int:
        self.process.kill()
        return self.wait()
