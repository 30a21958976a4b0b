"""What of a device's memory is in use."""

from __future__ import annotations

import gc

import tensor_wasm as tw
from tensor_wasm.device.cuda.session import CudaSession


def used_bytes(dev: tw.OpenDevice, *, of_kernels: bool = False) -> int:
    """By arrays, or by kernels, once the garbage collector's returns are taken. On a GPU both are in one memory."""
    gc.collect()
    session = dev._session
    if isinstance(session, CudaSession):
        with session.visit() as visit:
            return session.tenant(visit).used_bytes
    with session.machine.turn():
        return (session.machine.scratch if of_kernels else session.machine.memory).used_bytes
