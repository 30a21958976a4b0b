"""``tensor-wasm`` whose device is a GPU without a GPU: its worker has an emulated driver.

``EMULATE`` says what is to go wrong there, with blanks between: see ``device/cuda/emulated_worker.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from device.cuda.emulated_worker import worker_command
from tensor_wasm.device import selection
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cuda.device import CudaDevice
from tensor_wasm.device.cuda.driver import GpuFacts
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.cuda.supervisor import WorkerEnd
from tensor_wasm.runtime import ModuleCache


def emulated_gpu(
    index: int, modules: ModuleCache, partition_bytes: int, staging_bytes: int, compilers: Compilers | None
) -> CudaDevice:
    """As :func:`selection.open_gpu`."""
    command = worker_command(*os.environ.get("EMULATE", "").split())

    def start(on_end: Callable[[WorkerEnd], None]) -> Gpu:
        return Gpu(index, staging_bytes=staging_bytes, command=command, on_end=on_end)

    return CudaDevice(start, modules, partition_bytes, compilers)


def choose(name: str) -> selection.Choice:
    """There is one GPU, for whoever asks for one."""
    if name == "cpu":
        return selection.Choice(None, "the CPU was asked for")
    return selection.Choice(GpuFacts(0, "", "", "", 0, 0, 0), "a GPU was asked for")


def emulate() -> None:
    """Have nodes of this process find the GPU."""
    selection.choose = choose  # type: ignore[assignment]
    selection.open_gpu = emulated_gpu


if __name__ == "__main__":
    from tensor_wasm.cli import main

    emulate()
    raise SystemExit(main(sys.argv[1:]))
