"""A stand-in for the NVIDIA driver's library, for nodes that are to think there are GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


class NvmlStandIn:
    """The library in a directory of its own, and the file that it answers from.

    ``environment`` is for the process that is to load it. :meth:`say` is what it tells from then on.
    """

    def __init__(self, directory: Path, *, is_old: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "gpus.txt"
        command = [sys.executable, "-m", "ziglang", "cc", "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
        command += ["-DOLD_DRIVER"] if is_old else []
        command += ["-o", str(directory / "libnvidia-ml.so.1"), str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self.environment = {"LD_LIBRARY_PATH": str(directory), "NVML_STAND_IN": str(self._file)}

    def say(self, *gpus: str, state: str = "ok") -> None:
        """The driver's state, and for each GPU: degrees, percent, bits, corrected and uncorrected errors; or "lost"."""
        new = self._file.with_suffix(".new")
        new.write_text("\n".join([state, *gpus]) + "\n")
        new.replace(self._file)
