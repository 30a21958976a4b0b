"""TensorWasm: a multi-tenant runtime for WebAssembly functions that launch GPU kernels, with or without a GPU.

Importing the package costs next to nothing: what it offers is imported when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would cost more than all the rest here
if TYPE_CHECKING:
    from tensor_wasm import errors as errors
    from tensor_wasm.device.array import DeviceArray as DeviceArray
    from tensor_wasm.device.kernel import Kernel as Kernel
    from tensor_wasm.device.kernel import KernelParameter as KernelParameter
    from tensor_wasm.device.session import DeviceInfo as DeviceInfo
    from tensor_wasm.device.session import OpenDevice as OpenDevice
    from tensor_wasm.device.session import open_device as open_device

#: What a source tree that was never installed calls itself; the version has its one home in the package's metadata.
_UNINSTALLED_VERSION = "0+source"

__version__: str

__all__ = [
    "DeviceArray",
    "DeviceInfo",
    "Kernel",
    "KernelParameter",
    "OpenDevice",
    "__version__",
    "errors",
    "open_device",
]

#: Where the public names are.
_MODULES = {
    "DeviceArray": "tensor_wasm.device.array",
    "DeviceInfo": "tensor_wasm.device.session",
    "Kernel": "tensor_wasm.device.kernel",
    "KernelParameter": "tensor_wasm.device.kernel",
    "OpenDevice": "tensor_wasm.device.session",
    "open_device": "tensor_wasm.device.session",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        found: object = _version()
    elif name in _MODULES or name == "errors":
        from importlib import import_module

        found = (
            import_module("tensor_wasm.errors") if name == "errors" else getattr(import_module(_MODULES[name]), name)
        )
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tensor-wasm")
    except PackageNotFoundError:
        return _UNINSTALLED_VERSION
