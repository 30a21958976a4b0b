"""Which device a node uses, by its setting."""

from __future__ import annotations

from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cpu import CpuDevice
from tensor_wasm.device.protocol import Device
from tensor_wasm.errors import ConfigurationError
from tensor_wasm.runtime import ModuleCache, SealedFiles


def open_device(name: str, modules: ModuleCache, files: SealedFiles, compilers: Compilers | None = None) -> Device:
    """The device of that name: ``cpu``, or ``auto`` for the best there is.

    ``compilers`` compile its kernels outside this process; the pool stays its maker's to close.

    Raises :class:`~tensor_wasm.errors.ConfigurationError` for one that this build or machine does not have.
    """
    if name in ("auto", "cpu"):
        return CpuDevice(modules, files, compilers)
    raise ConfigurationError(
        f"TENSOR_WASM_DEVICE={name}: this release runs kernels on the CPU device only; use auto or cpu"
    )
