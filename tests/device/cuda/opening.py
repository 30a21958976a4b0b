"""Opens the Python API's device on a GPU that is emulated."""

from __future__ import annotations

import tensor_wasm as tw
from device.cuda.emulated_worker import worker_command
from tensor_wasm.device.cuda.session import CudaSession


def open_emulated(*emulate: str, checked: bool = False) -> tw.OpenDevice:
    """As ``tensor_wasm.open_device("cuda:0")``. ``emulate`` is what :mod:`.emulated_worker` takes."""
    return tw.OpenDevice(CudaSession(0, is_checked=checked, command=worker_command(*emulate)))
