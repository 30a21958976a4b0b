"""Launches on a GPU through the Python API, and compares every array with what the CPU device leaves.

``TENSOR_WASM_TEST_GPU`` names the GPU: its index, ``0``; ``emulated`` for a worker whose driver is emulated; ``cpu``
for the CPU device in a GPU's place, by which this is tried where there is no GPU. Without it none of this is used.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor_wasm as tw
from compiler.launch import LaunchFault, Machine
from device.cuda.emulated_worker import worker_command
from kernels import differing
from kernels.loading import origin
from kernels.products import Product
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.device.cuda.session import CudaSession
from tensor_wasm.device.kernel import Kernel
from tensor_wasm.errors import ConfigurationError, PtxError
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.runtime import Engine

#: Names the GPU.
VARIABLE = "TENSOR_WASM_TEST_GPU"
#: A folder in which every process leaves what it compared, a line of JSON for each kernel.
REPORT_VARIABLE = "TENSOR_WASM_TEST_GPU_REPORT"

_TIMEOUT_S = 20.0
#: Several processes test one GPU at the same time.
_MEMORY_BYTES = 128 << 20
#: Kernels that are kept on the device to be launched again.
_KERNELS_MAX = 64


def gpu_name() -> str:
    """What the environment names, empty for none."""
    return os.environ.get(VARIABLE, "")


def open_gpu() -> tw.OpenDevice:
    """The device under test. Skips when there is none."""
    name = gpu_name()
    try:
        if name == "emulated":
            return tw.OpenDevice(CudaSession(0, memory_bytes=_MEMORY_BYTES, command=worker_command()))
        return tw.open_device(f"cuda:{name}" if name.isdigit() else name, memory_bytes=_MEMORY_BYTES)
    except ConfigurationError as error:
        pytest.skip(f"no GPU: {error}")


class GpuMachine:
    """A GPU beside the CPU device: each launch runs on both, on the same arrays."""

    def __init__(self, device: tw.OpenDevice, engine: Engine) -> None:
        self._device = device
        self._cpu = Machine(engine)
        self._kernels: OrderedDict[tuple[str, str, str, bool], Kernel] = OrderedDict()
        self._texts: dict[tuple[str, str, str], tuple[str, str, tuple[str, ...]]] = {}
        report = os.environ.get(REPORT_VARIABLE)
        self._report = Path(report) / f"compared-{os.getpid()}.jsonl" if report else None

    def run(
        self,
        kernel: CompiledKernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared_bytes: int = 0,
    ) -> None:
        """Launch once on each device; arrays hold afterwards what the GPU wrote.

        Kernels whose results may differ (:mod:`kernels.differing`) are not compared here: the tests have references.
        """
        source, entry, variant = key = origin(kernel)
        text, name, reasons = self._read(key, kernel.name)
        arrays = [a for a in arguments if isinstance(a, np.ndarray) and a.flags.writeable]
        before = [array.copy() for array in arrays]
        launch = (grid, block, [np.atleast_1d(a) if isinstance(a, np.ndarray) else a for a in arguments], shared_bytes)
        try:
            self._cpu.run(kernel, grid, block, *arguments, shared_bytes=shared_bytes)
        except LaunchFault:
            self._load(key, text, name, is_rounded=False).launch(*launch, timeout=_TIMEOUT_S)
            pytest.fail("the kernel faults on the CPU device and not on the GPU")
        expected = [array.copy() for array in arrays]
        # What an assembler may fuse it may also leave: with every rounding named the bits must be the same.
        rounded = differing.rounded(text)
        if not reasons:
            _restore(arrays, before)
            self._load(key, rounded, name, is_rounded=True).launch(*launch, timeout=_TIMEOUT_S)
            for place, (found, wanted) in enumerate(zip(arrays, expected, strict=True)):
                compare(f"{source} {entry or name} {variant}: array {place}", found, wanted)
        if reasons or rounded != text:
            _restore(arrays, before)
            self._load(key, text, name, is_rounded=rounded == text).launch(*launch, timeout=_TIMEOUT_S)

    def _read(self, key: tuple[str, str, str], name: str) -> tuple[str, str, tuple[str, ...]]:
        """A kernel's text, its name, and why its results may differ."""
        known = self._texts.get(key)
        if known is None:
            source, _, variant = key
            text = Product(source, variant).path.read_text("utf-8")
            reasons = differing.reasons(find_kernel(read(text, name), name))
            known = self._texts[key] = text, name, reasons
            if self._report is not None:
                with self._report.open("a", encoding="utf-8") as lines:
                    line = {"source": source, "variant": variant, "entry": name, "reasons": reasons}
                    lines.write(json.dumps(line) + "\n")
        return known

    def _load(self, key: tuple[str, str, str], text: str, name: str, *, is_rounded: bool) -> Kernel:
        kept = (*key, is_rounded)
        kernel = self._kernels.pop(kept, None)
        if kernel is None:
            try:
                kernel = self._device.load_ptx(text, name)
            except PtxError as error:
                if "prints" in str(error):
                    pytest.skip(str(error))
                raise
        self._kernels[kept] = kernel
        if len(self._kernels) > _KERNELS_MAX:
            self._kernels.popitem(last=False)
        return kernel


def _restore(arrays: list[np.ndarray], content: list[np.ndarray]) -> None:
    for array, before in zip(arrays, content, strict=True):
        array[...] = before


def compare(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Fail where bits differ. One NaN is as good as another: which one comes out is left open."""
    left, right = (np.ascontiguousarray(each).view(np.uint8).reshape(-1, each.itemsize) for each in (found, expected))
    differs = (left != right).any(axis=1)
    if found.dtype.kind in "fc":
        differs &= ~(np.isnan(found) & np.isnan(expected)).reshape(-1)
    if differs.any():
        places = np.flatnonzero(differs)
        first = places[0]
        pytest.fail(
            f"{name} ({found.dtype}): {len(places)} of {differs.size} differ from the CPU device, first at {first}: "
            f"{found.reshape(-1)[first]!r}, not {expected.reshape(-1)[first]!r}",
            pytrace=False,
        )
