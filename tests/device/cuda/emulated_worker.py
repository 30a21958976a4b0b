"""A worker whose driver is emulated: what a :class:`Gpu` runs in tests, as ``command=worker_command(...)``.

What is to go wrong stands in its arguments, ``--emulate`` before each, and is taken out of them:

- ``memory_bytes=268435456``, ``granularity_bytes=65536``, ``sm=sm_80``, ``gpus=2``: what the GPU is
- ``fail:CALL:CODE[:AFTER[:run|kept]]``: a function of the protocol fails, see :meth:`EmulatedDriver.fail`
- ``hang[:KERNEL[:AFTER]]``: a launch never ends
- ``slow:SECONDS[:KERNEL]``: launches take longer
- ``threads:KERNEL:COUNT``: blocks of a kernel have no more threads
- ``lose:CODE:SECONDS``: the GPU breaks after so long
- ``misuses:PATH``: where misuses are written, a line each, as they happen
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from device.cuda.emulated import EmulatedDriver


def worker_command(*emulate: str) -> list[str]:
    """The command of a worker with an emulated driver."""
    return [sys.executable, str(Path(__file__)), *(each for text in emulate for each in ("--emulate", text))]


def make_driver(emulate: Sequence[str]) -> EmulatedDriver:
    """The driver that texts describe. Raises ValueError for others."""
    settings: dict[str, Any] = {}
    for text in emulate:
        name, is_setting, value = text.partition("=")
        if is_setting and ":" not in name:
            settings[name] = value if name == "sm" else int(value)
    driver = EmulatedDriver(**settings)
    for text in emulate:
        match text.split(":"):
            case ["fail", call, code, *more]:
                after, how = int(more[0]) if more else 0, more[1:]
                driver.fail(call, int(code), after, at_run="run" in how, is_kept="kept" in how)
            case ["hang", *more]:
                driver.hang(more[0] if more else "", int(more[1]) if more[1:] else 0)
            case ["slow", seconds, *more]:
                driver.slow(float(seconds), more[0] if more else "")
            case ["threads", kernel, count]:
                driver.threads_max[kernel] = int(count)
            case ["lose", code, seconds]:
                timer = threading.Timer(float(seconds), driver.lose, [int(code)])
                timer.daemon = True
                timer.start()
            case ["misuses", path]:
                driver.misuses = _Written(Path(path))
            case [_]:
                pass  # a setting
            case _:
                raise ValueError(text)
    return driver


class _Written(list[str]):
    """A list that is also in a file: the worker may end at any moment."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def append(self, text: str) -> None:
        super().append(text)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What an emulated driver is told, and the worker's own arguments."""
    emulate: list[str] = []
    own: list[str] = []
    rest = iter(arguments)
    for each in rest:
        if each == "--emulate":
            emulate.append(next(rest))
        else:
            own.append(each)
    return emulate, own


if __name__ == "__main__":
    from tensor_wasm.device.cuda.worker import main

    told, own_arguments = split(sys.argv)
    main(own_arguments, lambda: make_driver(told))
