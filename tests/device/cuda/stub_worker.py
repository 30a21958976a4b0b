"""A worker in which something is wrong: the arguments before the worker's own say what, of each start the next.

``stub_worker.py PLANS COUNT …``: ``PLANS`` are what goes wrong, by commas, the last of them again and again; ``COUNT``
is a file that tells how many starts there were.

- ``well``: nothing
- ``unusable``: there is no GPU
- ``ends``: it says something on standard error and ends
- ``silent``: it says nothing
- ``noise``: it says what no worker says
- ``dies:N``: it is killed when the driver is called the Nth time after the start
- ``dies-late:N``: the same, after that call
- ``freezes:CALL``: the driver does not come back from that call
- ``other``: it has another GPU
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from device.cuda.emulated import EmulatedDriver


def stub_command(count: Path, *plans: str) -> list[str]:
    """The command of a worker with plans."""
    return [sys.executable, str(Path(__file__)), ",".join(plans), str(count)]


class _Stub:
    """Passes calls on to an emulated driver, until what is planned happens."""

    def __init__(self, name: str, value: str) -> None:
        self._driver: Any = EmulatedDriver()
        self._name = name
        self._value = value
        self._calls = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._driver, name)

        def counted(*arguments: Any) -> Any:
            if name == "create_stream":
                self._calls = max(self._calls, 1)  # the last call of the start
            elif self._calls and name != "is_stream_done":  # asked all the time
                self._calls += 1
            if self._name == "freezes" and name == self._value and self._calls:
                time.sleep(3600)
            if self._name == "dies" and self._calls == int(self._value) + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments)
            if self._name == "dies-late" and self._calls == int(self._value) + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if self._name == "other" and name == "facts":
                return dataclasses.replace(result, uuid="GPU-other")
            return result

        return counted


def _plan(plans: str, count: Path) -> tuple[str, str]:
    starts = int(count.read_text("utf-8")) if count.exists() else 0
    count.write_text(str(starts + 1), "utf-8")
    listed = plans.split(",")
    name, _, value = listed[min(starts, len(listed) - 1)].partition(":")
    return name, value


def _run(arguments: list[str]) -> None:
    from tensor_wasm.device.cuda.worker import main

    plans, count, *own = arguments[1:]
    name, value = _plan(plans, Path(count))
    connection = socket.socket(fileno=os.dup(int(own[1])))

    def make_driver() -> Any:
        if name == "unusable":
            raise OSError("there is no GPU here")
        return _Stub(name, value)

    match name:
        case "ends":
            print("something is broken", file=sys.stderr, flush=True)
            os._exit(3)
        case "silent":
            time.sleep(3600)
        case "noise":
            connection.sendall(b"Traceback (most recent call last):")
            time.sleep(3600)
    main([arguments[0], *own], make_driver)


if __name__ == "__main__":
    _run(sys.argv)
