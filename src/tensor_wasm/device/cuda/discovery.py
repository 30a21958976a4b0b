"""Which GPUs this machine has that can be used, and where there are none, what is missing and what to do.

The driver is asked by a process of its own, and only where its library is there. In the process of a node it would take
a second and hundreds of megabytes of address space, read the environment once for ever, leave a process that cannot
fork, and a driver that hangs in the kernel could not be given up. No context is made: that takes memory of the GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Final

from tensor_wasm.device.cuda.driver import GpuFacts

#: How long the driver may take: it starts in a second or two, and in ten where it has to wake several GPUs.
LIMIT_S: Final = 60.0
INSTALL: Final = "pip install 'tensor-wasm[cuda]'"
#: The oldest CUDA whose driver reads the PTX that the fence writes, and that the bindings work with.
_DRIVER_LEAST: Final = 12040
_LIBRARY: Final = "libcuda.so.1"
#: Files of the driver's in ``/dev``: on machines, under WSL, on Tegra.
_FILES: Final = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "dxg", "nvgpu", "nvhost-gpu")
_NVIDIA_VENDOR: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"
_ANSWER_BYTES_MAX: Final = 1 << 20
_TEXT_MAX: Final = 200
_NO_DEVICE: Final = 100
#: What ``CUDA_VISIBLE_DEVICES`` is set to where no GPU is to be used.
_HIDES_ALL: Final = ("", "-1", "NoDevFiles", "none", "void")


@dataclass(frozen=True, slots=True)
class Lack:
    """What is missing, and what to do. ``is_plain``: there is no GPU here, which is nothing to mend."""

    text: str
    advice: str
    is_plain: bool = False

    def __str__(self) -> str:
        return f"{self.text}: {self.advice}"


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU; ``lack`` is why it cannot be used."""

    facts: GpuFacts
    lack: Lack | None = None


@dataclass(frozen=True, slots=True)
class Discovery:
    """``lack`` is why there are no GPUs. Versions are of CUDA, as 13000; 0 where they are not known."""

    gpus: tuple[FoundGpu, ...] = ()
    lack: Lack | None = None
    driver_version: int = 0
    bindings_version: int = 0


#: What a driver's results mean that says so when it starts.
_RESULTS: Final[Mapping[int, Lack]] = {
    34: Lack(
        f"{_LIBRARY} is the CUDA toolkit's stub, made to link with",
        "take its directory out of LD_LIBRARY_PATH, so that the driver's own is found",
    ),
    46: Lack("the GPU is busy or unavailable", "see whether another process has it alone (nvidia-smi)"),
    802: Lack("the GPUs are not ready", "start NVIDIA's fabric manager (systemctl start nvidia-fabricmanager)"),
    803: Lack(
        f"the driver's kernel module and {_LIBRARY} have different versions",
        "restart the machine after an update of the driver; in a container, take the host's library",
    ),
    804: Lack(
        f"{_LIBRARY} is a compatibility library that does not know this GPU",
        "take its directory out of LD_LIBRARY_PATH, so that the driver's own is found",
    ),
}
_LACKS: Final[Mapping[str, Lack]] = {
    "architecture": Lack("it is older than Volta (sm_70)", "use a newer GPU"),
    "prohibited": Lack("its compute mode is Prohibited", "nvidia-smi -c DEFAULT, as root"),
    "mapping": Lack("it cannot map memory by pages", "where it is a virtual GPU, have its host allow unified memory"),
    "pinning": Lack("it cannot reach memory of processes", "use it on a machine whose driver can pin memory"),
}


def find(*, root: Path = Path("/"), limit_s: float = LIMIT_S) -> Discovery:
    """Look. Without a driver that takes a few milliseconds, with one a second or two, and ``limit_s`` at the most.

    ``root`` is where ``dev`` and ``sys`` are.
    """
    if not _has_files(root) and not _has_library():
        return Discovery(lack=_no_library(root))
    if not _has_package():
        return Discovery(lack=Lack("the package cuda-bindings is not installed", INSTALL))
    answer = _ask(limit_s)
    if answer is None:
        advice = "see whether nvidia-smi answers; the kernel's log (dmesg) may say why not"
        return Discovery(lack=Lack(f"the driver does not answer within {limit_s:g} s", advice))
    return understood(answer, os.environ, root)


def _has_files(root: Path) -> bool:
    return any(next((root / "dev").glob(pattern), None) is not None for pattern in _FILES)


def _has_library() -> bool:
    try:
        # Loaded alone it does nothing; that is only done where there are no files of the driver's.
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


def _has_package() -> bool:
    try:
        return util.find_spec("cuda.bindings") is not None
    except ImportError:
        return False


def _no_library(root: Path) -> Lack:
    if _is_on_bus(root):
        advice = (
            "install NVIDIA's driver for CUDA 12.4 or newer; in a container, give it the GPU (docker run --gpus all)"
        )
        return Lack(f"there is an NVIDIA GPU, and no driver for it ({_LIBRARY} is not found)", advice)
    advice = f"on a machine that has one, install NVIDIA's driver and {INSTALL}"
    return Lack(f"there is no NVIDIA GPU and no driver ({_LIBRARY} is not found)", advice, is_plain=True)


def _is_on_bus(root: Path) -> bool:
    for device in (root / "sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
            if vendor.strip() == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS):
                return True
    return False


def _ask(limit_s: float) -> dict[str, Any] | None:
    """What the probe says; None when it does not end. Its answer goes to a file: nobody has to read while it writes."""
    from tensor_wasm.device.cuda.worker_handle import worker_environment  # not where there is no driver

    command = [sys.executable, "-S", "-P", "-m", "tensor_wasm.device.cuda.probe"]
    with os.fdopen(os.memfd_create("gpu-probe", os.MFD_CLOEXEC), "w+b") as answer:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=worker_environment(),
                start_new_session=True,
            )
        except OSError as error:
            return {"failure": "process", "text": error.strerror or "it does not start"}
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits in the kernel cannot be ended
                process.wait(1.0)
            return None
        answer.seek(0)
        text = answer.read(_ANSWER_BYTES_MAX).decode("utf-8", "replace").strip()
    last = text.splitlines()[-1] if text else f"it ended with {process.returncode}"
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"failure": "process", "text": last}


def understood(answer: dict[str, Any], environ: Mapping[str, str], root: Path) -> Discovery:
    """What the probe's answer comes to, in the environment and on the machine where it was asked."""
    failure, text = answer.get("failure"), str(answer.get("text"))[:_TEXT_MAX]
    if failure == "driver":
        return Discovery(lack=_not_started(answer["code"], text, environ, root))
    if failure == "package":
        return Discovery(lack=Lack(f"the package cuda-bindings does not work ({text})", INSTALL))
    if failure == "library":
        advice = (
            "install NVIDIA's driver for CUDA 12.4 or newer; in a container, give it the GPU (docker run --gpus all)"
        )
        return Discovery(lack=Lack(f"the driver's library {_LIBRARY} does not work ({text})", advice))
    if failure is not None:
        return Discovery(lack=Lack(f"the driver could not be asked ({text})", "see whether nvidia-smi works"))
    driver, bindings = int(answer["driver"]), int(answer["bindings"])
    gpus = tuple(FoundGpu(GpuFacts(**gpu["facts"]), _LACKS.get(gpu["lack"])) for gpu in answer["gpus"])
    lack = _too_old(driver, bindings)
    if lack is None and not gpus:
        lack = _no_gpu(environ, root)
    return Discovery((), lack, driver, bindings) if lack is not None else Discovery(gpus, None, driver, bindings)


def _too_old(driver: int, bindings: int) -> Lack | None:
    if driver < _DRIVER_LEAST:
        return Lack(f"the driver is for CUDA {_version(driver)}", "update it to one for CUDA 12.4 or newer")
    newest = driver // 1000
    if newest < bindings // 1000:
        return Lack(
            f"the driver is for CUDA {_version(driver)}, the package cuda-bindings for {_version(bindings)}",
            f"update the driver, or pip install 'cuda-bindings<{newest + 1}'",
        )
    return None


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _not_started(code: int, text: str, environ: Mapping[str, str], root: Path) -> Lack:
    if code == _NO_DEVICE:
        return _no_gpu(environ, root)
    if code in _RESULTS:
        return _RESULTS[code]
    return _closed(root) or Lack(
        f"the driver does not start ({text})", "see whether nvidia-smi works; the kernel's log (dmesg) may say why not"
    )


def _no_gpu(environ: Mapping[str, str], root: Path) -> Lack:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    hidden = Lack(f"CUDA_VISIBLE_DEVICES={(visible or '')[:80]!r} leaves no GPU", "unset it, or have it name one")
    if visible is not None and visible.strip() in _HIDES_ALL:
        return hidden
    if (closed := _closed(root)) is not None:
        return closed
    if visible is not None:
        return hidden
    if not _has_files(root):
        return Lack(
            "the driver's library is here, and no GPU (no /dev/nvidia0)",
            "in a container, give it the GPU (docker run --gpus all); else load the kernel module (modprobe nvidia)",
            is_plain=not _is_on_bus(root),
        )
    return Lack("the driver finds no GPU", "see whether nvidia-smi lists one; the kernel's log (dmesg) may say why not")


def _closed(root: Path) -> Lack | None:
    """A file of the driver's that this process may not use, or that is missing."""
    directory = root / "dev"
    for file in sorted(directory.glob("nvidia*")):
        if not file.is_dir() and not _opens(file):
            advice = f"let this user read and write it ({_owner(file)}), or run where it may"
            return Lack(f"/dev/{file.name} may not be opened", advice)
    if (directory / "nvidiactl").exists() and not (directory / "nvidia-uvm").exists():
        return Lack("/dev/nvidia-uvm is missing", "nvidia-modprobe -u -c 0, as root; in a container, give it that file")
    return None


def _opens(file: Path) -> bool:
    if not os.access(file, os.R_OK | os.W_OK):
        return False
    # A control group forbids what a mode allows. Opening a GPU's own file could take seconds: it is woken by that.
    if file.name == "nvidiactl":
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except PermissionError:
            return False
        except OSError:
            pass
    return True


def _owner(file: Path) -> str:
    try:
        return f"it is {file.owner()}'s, of group {file.group()}, mode {file.stat().st_mode & 0o777:o}"
    except (OSError, KeyError):
        return "its owner is unknown here"
