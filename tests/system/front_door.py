"""The real command as a process of its own, and a real node on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensor_wasm.cli.client import Client

ROOT = Path(__file__).resolve().parents[2]
VECTOR_ADD = ROOT / "examples" / "vector_add" / "vector_add.wasm"
_END_S = 30
_URL = re.compile(r"https?://[0-9.:]+")


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
    """``tensor-wasm serve`` on a free port. ``first_line`` is what it said on stdout, ``url`` where it is.

    ``program`` is what Python is told to run.
    """

    def __init__(
        self, home: Path, *flags: str, program: Sequence[str] = ("-m", "tensor_wasm"), **settings: str
    ) -> None:
        command = [sys.executable, *program, "serve", "--listen", "127.0.0.1:0", "--home", str(home), *flags]
        self._log = home.parent / f"{uuid.uuid4().hex}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(**settings)
            )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        found = _URL.search(self.first_line)
        if found is None:
            self.kill()
            raise AssertionError(f"the node did not start: {self.log}")
        self.url = found[0]
        #: One for all threads; its connections end with the node.
        self.client = Client(self.url)

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return self._log.read_text()

    def cli(self, *arguments: object, **more: Any) -> Result:
        return run_cli("--server", self.url, *arguments, **more)

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(_END_S)
        if hasattr(self, "client"):
            self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def kill(self) -> int:
        self.process.kill()
        return self.wait()


@contextmanager
def nodes(home: Path) -> Iterator[Callable[..., Served]]:
    """Starts nodes on one home; what still runs at the end is killed."""
    started: list[Served] = []

    def start(*flags: str, **settings: str) -> Served:
        started.append(Served(home, *flags, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for served in started:
            if served.process.poll() is None:
                served.kill()
