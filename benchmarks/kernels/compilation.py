"""How long a kernel takes from PTX to machine code, and from a cache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from cases import CORPUS, FOLDER
from timing import Samples

import tensor_wasm

_SMALL = (CORPUS / "vector_add.ptx", "vector_add")
_LONG = (FOLDER / "long.ptx", "long_kernel")


@dataclass(frozen=True, slots=True)
class Load:
    """A way of loading a kernel: ``bar_ms`` is what it may take, ``samples`` what it took."""

    name: str
    bar_ms: float
    samples: Samples


def measure(quick: bool) -> Iterator[Load]:
    """Time each way of loading; the first launch is not in it. ``quick`` leaves the long kernel out."""
    text, entry = _SMALL[0].read_bytes(), _SMALL[1]
    _fresh(text, entry, 1)  # imports what compiling needs
    count = 3 if quick else 25
    yield Load("vector_add, new device", 25.0, _fresh(text, entry, count))
    if not quick:
        long_text = _LONG[0].read_bytes()
        name = f"{len(long_text.splitlines()):,} lines, new device"
        yield Load(name, 5000.0, _fresh(long_text, _LONG[1], 3))
    yield Load("vector_add, cached in the device", 0.2, _again(text, entry, 20 * count))
    yield Load("vector_add, cached on disk, new device", 0.2, _from_disk(text, entry, count))
    if not quick:
        yield Load("the long kernel, cached on disk, new device", 0.2, _from_disk(long_text, _LONG[1], 5))


def _fresh(text: bytes, entry: str, count: int) -> Samples:
    samples = Samples()
    for _ in range(count):
        with tensor_wasm.open_device("cpu") as device:
            samples.time(partial(device.load_ptx, text, entry))
    return samples


def _again(text: bytes, entry: str, count: int) -> Samples:
    samples = Samples()
    with tensor_wasm.open_device("cpu") as device:
        device.load_ptx(text, entry)
        for _ in range(count):
            samples.time(partial(device.load_ptx, text, entry))
    return samples


def _from_disk(text: bytes, entry: str, count: int) -> Samples:
    samples = Samples()
    with tempfile.TemporaryDirectory() as name:
        with tensor_wasm.open_device("cpu", cache_dir=name) as device:
            device.load_ptx(text, entry)
        for _ in range(count):
            with tensor_wasm.open_device("cpu", cache_dir=name) as device:
                samples.time(partial(device.load_ptx, text, entry))
    return samples
