"""Runs compiled kernels as :class:`compiler.launch.Machine` does, but on several cores. For tests only."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np

import tensor_wasm as tw
from tensor_wasm.compiler import CompiledKernel
from tensor_wasm.device.cpu import tags
from tensor_wasm.device.cpu_session import CpuKernel
from tensor_wasm.device.kernel import Kernel
from tensor_wasm.device.protocol import LoadedKernel
from tensor_wasm.dispatch import KernelEntry, crew


class CoresMachine:
    """A device whose every launch of more than a block uses ``threads`` cores."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.device = tw.open_device("cpu", threads=threads)
        self._kernels: dict[bytes, LoadedKernel] = {}

    def run(
        self,
        kernel: CompiledKernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared_bytes: int = 0,
    ) -> None:
        """Launch once; arrays hold afterwards what the kernel wrote."""
        machine = self.device._session.machine
        loaded = self._kernels.get(kernel.wasm)
        if loaded is None:
            entry = KernelEntry([(tags(p.kind), p.offset, p.size_bytes) for p in kernel.parameters])
            loaded = LoadedKernel(kernel, machine.engine.compile(kernel.wasm), entry)
            self._kernels[kernel.wasm] = loaded
        ready = Kernel(self.device, self.device._session, CpuKernel(machine, loaded))
        with patch.object(crew, "WORTH_NS", 0):
            ready.launch(grid, block, [_plain(argument) for argument in arguments], shared_bytes, timeout=120)

    def close(self) -> None:
        """Close the device."""
        self.device.close()


def _plain(argument: Any) -> Any:
    return np.ascontiguousarray(argument) if isinstance(argument, np.ndarray) and not argument.ndim else argument
