"""TensorWasm: a multi-tenant runtime for WebAssembly functions that launch GPU kernels, with or without a GPU.

Importing the package costs next to nothing: what it offers is imported when it is used.
"""

from __future__ import annotations

#: What a source tree that was never installed calls itself; the version has its one home in the package's metadata.
_UNINSTALLED_VERSION = "0+source"

__version__: str

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("tensor-wasm")
    except PackageNotFoundError:
        found = _UNINSTALLED_VERSION
    globals()["__version__"] = found
    return found
