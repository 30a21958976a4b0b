"""A stand-in for the library of NVIDIA's driver, for processes that are to think there are GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
FIRST = "gpu 9.0 00112233445566778899aabbccddeeff First GPU"
SECOND = "gpu 8.0 ff112233445566778899aabbccddee00 Second"


class DriverStandIn:
    """The library in a directory of its own. ``environment`` is for the process that is to load it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file, self._log = directory / "told.txt", directory / "log.txt"
        command = [sys.executable, "-m", "ziglang", "cc", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
        command += [f'-DSTAND_IN="{self._file}"', f'-DSTAND_IN_LOG="{self._log}"']
        command += ["-o", str(directory / "libcuda.so.1"), str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self.environment = {"LD_LIBRARY_PATH": str(directory)}

    def say(self, *lines: str) -> None:
        """What it answers from then on; what it was asked before is forgotten."""
        self._file.write_text("".join(line + "\n" for line in lines))
        self._log.write_text("")

    @property
    def asked(self) -> list[str]:
        """Function and arguments of each call."""
        return [line.rstrip() for line in self._log.read_text().splitlines()]
