"""CUDA C to PTX with NVIDIA's runtime compiler, for whoever rebuilds kernels: no GPU, no CUDA installation."""

# ruff: noqa: INP001 - beside the scripts that use it.

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path

#: The oldest architecture the kernels are for; newer devices and the CPU device take its PTX too.
ARCHITECTURE = "compute_80"


class BuildError(Exception):
    """A compiler is missing or refused a source; the message has its words."""


class Nvrtc:
    """NVIDIA's runtime compiler, loaded from the `nvidia-cuda-nvrtc` package.

    ``generation`` is CUDA's major version. Raises :class:`BuildError` when it is not installed.
    """

    def __init__(self, generation: int = 13) -> None:
        spec = importlib.util.find_spec("nvidia")
        folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
        found = sorted(path for folder in folders for path in folder.glob(f"*/lib/libnvrtc.so.{generation}*"))
        if not found:
            raise BuildError("NVRTC is not installed: pip install -e '.[dev]'")
        self._library = ctypes.CDLL(str(found[-1]))

    def compile(self, source: str, name: str, options: Sequence[str] = (), *, architecture: str = ARCHITECTURE) -> str:
        """CUDA C to PTX, with further ``options``. Raises :class:`BuildError` with the compiler's log."""
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
        )
        given = [option.encode() for option in (f"--gpu-architecture={architecture}", *options)]
        if self._library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given)):
            raise BuildError(f"{name}: {self._text(program, 'ProgramLog')}")
        text = self._text(program, "PTX")
        self._check(self._library.nvrtcDestroyProgram(ctypes.byref(program)))
        return text

    def _text(self, program: ctypes.c_void_p, what: str) -> str:
        size = ctypes.c_size_t()
        self._check(self._library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(self._library[f"nvrtcGet{what}"](program, buffer))
        return buffer.value.decode()

    def _check(self, result: int) -> None:
        if result:
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise BuildError(f"NVRTC: {self._library.nvrtcGetErrorString(result).decode()}")
