"""TensorWasm: a multi-tenant runtime for WebAssembly functions that launch GPU kernels, with or without a GPU.

Importing the package costs next to nothing: what it offers is imported when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would cost more than all the rest here
if TYPE_CHECKING:
    from tensor_wasm import errors as errors
    from tensor_wasm.api.async_client import AsyncClient as AsyncClient
    from tensor_wasm.api.async_node import AsyncNode as AsyncNode
    from tensor_wasm.api.client import Client as Client
    from tensor_wasm.api.errors import AnswerTimeout as AnswerTimeout
    from tensor_wasm.api.errors import RemoteError as RemoteError
    from tensor_wasm.api.errors import Unreachable as Unreachable
    from tensor_wasm.api.handles import AsyncInstance as AsyncInstance
    from tensor_wasm.api.handles import Instance as Instance
    from tensor_wasm.api.jobs import AsyncJob as AsyncJob
    from tensor_wasm.api.jobs import Job as Job
    from tensor_wasm.api.model import Captured as Captured
    from tensor_wasm.api.model import Export as Export
    from tensor_wasm.api.model import Function as Function
    from tensor_wasm.api.model import Import as Import
    from tensor_wasm.api.model import JobDescription as JobDescription
    from tensor_wasm.api.model import KeptInstance as KeptInstance
    from tensor_wasm.api.model import PublishedKernel as PublishedKernel
    from tensor_wasm.api.model import Result as Result
    from tensor_wasm.api.model import Snapshot as Snapshot
    from tensor_wasm.api.model import VerifiedKernel as VerifiedKernel
    from tensor_wasm.api.node import Node as Node
    from tensor_wasm.api.signing import SignedKernel as SignedKernel
    from tensor_wasm.api.signing import sign_kernel as sign_kernel
    from tensor_wasm.api.streams import AsyncStream as AsyncStream
    from tensor_wasm.api.streams import Stream as Stream
    from tensor_wasm.device.array import DeviceArray as DeviceArray
    from tensor_wasm.device.kernel import Kernel as Kernel
    from tensor_wasm.device.kernel import KernelParameter as KernelParameter
    from tensor_wasm.device.session import OpenDevice as OpenDevice
    from tensor_wasm.device.session import open_device as open_device
    from tensor_wasm.device.session_protocol import DeviceInfo as DeviceInfo

#: What a source tree that was never installed calls itself; the version has its one home in the package's metadata.
_UNINSTALLED_VERSION = "0+source"

__version__: str

__all__ = [
    "AnswerTimeout",
    "AsyncClient",
    "AsyncInstance",
    "AsyncJob",
    "AsyncNode",
    "AsyncStream",
    "Captured",
    "Client",
    "DeviceArray",
    "DeviceInfo",
    "Export",
    "Function",
    "Import",
    "Instance",
    "Job",
    "JobDescription",
    "KeptInstance",
    "Kernel",
    "KernelParameter",
    "Node",
    "OpenDevice",
    "PublishedKernel",
    "RemoteError",
    "Result",
    "SignedKernel",
    "Snapshot",
    "Stream",
    "Unreachable",
    "VerifiedKernel",
    "__version__",
    "errors",
    "open_device",
    "sign_kernel",
]

#: Where the public names are.
_MODULES = {
    "AnswerTimeout": "tensor_wasm.api.errors",
    "AsyncClient": "tensor_wasm.api.async_client",
    "AsyncInstance": "tensor_wasm.api.handles",
    "AsyncJob": "tensor_wasm.api.jobs",
    "AsyncNode": "tensor_wasm.api.async_node",
    "AsyncStream": "tensor_wasm.api.streams",
    "Captured": "tensor_wasm.api.model",
    "Client": "tensor_wasm.api.client",
    "DeviceArray": "tensor_wasm.device.array",
    "DeviceInfo": "tensor_wasm.device.session_protocol",
    "Export": "tensor_wasm.api.model",
    "Function": "tensor_wasm.api.model",
    "Import": "tensor_wasm.api.model",
    "Instance": "tensor_wasm.api.handles",
    "Job": "tensor_wasm.api.jobs",
    "JobDescription": "tensor_wasm.api.model",
    "KeptInstance": "tensor_wasm.api.model",
    "Kernel": "tensor_wasm.device.kernel",
    "KernelParameter": "tensor_wasm.device.kernel",
    "Node": "tensor_wasm.api.node",
    "OpenDevice": "tensor_wasm.device.session",
    "PublishedKernel": "tensor_wasm.api.model",
    "RemoteError": "tensor_wasm.api.errors",
    "Result": "tensor_wasm.api.model",
    "SignedKernel": "tensor_wasm.api.signing",
    "Snapshot": "tensor_wasm.api.model",
    "Stream": "tensor_wasm.api.streams",
    "Unreachable": "tensor_wasm.api.errors",
    "VerifiedKernel": "tensor_wasm.api.model",
    "open_device": "tensor_wasm.device.session",
    "sign_kernel": "tensor_wasm.api.signing",
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
