"""How long a kernel takes from PTX to machine code, and from a cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cases import CORPUS, FOLDER

import tensor_wasm

_SMALL = (CORPUS / "vector_add.ptx", "vector_add")
_LONG = (FOLDER / "long.ptx", "long_kernel")


@dataclass(frozen=True, slots=True)
class Load:
    """A way of loading a kernel: ``bar_ms`` is what it may take, ``samples_ms`` what it took."""

    name: str
    bar_ms: float
    samples_ms: list[float]


def measure(quick: bool) -> Iterator[Load]:
    """Time each way of loading; the first launch is not in it. ``quick`` leaves the long kernel out."""
    text, entry = _SMALL[0].read_bytes(), _SMALL[1]
    _fresh(text, entry)  # imports what compiling needs
    count = 3 if quick else 25
    yield Load("vector_add, new device", 25.0, [_fresh(text, entry) for _ in range(count)])
    if not quick:
        long_text = _LONG[0].read_bytes()
        name = f"{len(long_text.splitlines()):,} lines, new device"
        yield Load(name, 5000.0, [_fresh(long_text, _LONG[1]) for _ in range(3)])
    yield Load("vector_add, cached in the device", 0.2, _again(text, entry, 20 * count))
    yield Load("vector_add, cached on disk, new device", 0.2, _from_disk(text, entry, count))
    if not quick:
        yield Load("the long kernel, cached on disk, new device", 0.2, _from_disk(long_text, _LONG[1], 5))


@contextmanager
def _timed(samples_ms: list[float]) -> Iterator[None]:
    started = time.perf_counter_ns()
    yield
    samples_ms.append((time.perf_counter_ns() - started) / 1e6)


def _fresh(text: bytes, entry: str) -> float:
    samples: list[float] = []
    with tensor_wasm.open_device("cpu") as device, _timed(samples):
        device.load_ptx(text, entry)
    return samples[0]


def _again(text: bytes, entry: str, count: int) -> list[float]:
    samples: list[float] = []
    with tensor_wasm.open_device("cpu") as device:
        device.load_ptx(text, entry)
        for _ in range(count):
            with _timed(samples):
                device.load_ptx(text, entry)
    return samples


def _from_disk(text: bytes, entry: str, count: int) -> list[float]:
    samples: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o700)
        with tensor_wasm.open_device("cpu", cache_dir=folder) as device:
            device.load_ptx(text, entry)
        for _ in range(count):
            with tensor_wasm.open_device("cpu", cache_dir=folder) as device, _timed(samples):
                device.load_ptx(text, entry)
    return samples
