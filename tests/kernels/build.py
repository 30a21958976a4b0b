"""Rebuild the PTX of these kernels from their CUDA C with NVRTC.

    python tests/kernels/build.py                rebuild everything in place
    python tests/kernels/build.py scans          only this file's variants
    python tests/kernels/build.py --check        compare with what is committed, change nothing; exit 1 on a difference

Needs no GPU and no CUDA installation: NVRTC is a Python package of the `dev` extra. The same version gives the same
bytes.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ARCHITECTURE = "compute_80"

#: Compiler options by the word that stands in a PTX file's name; the default has none.
OPTIONS = {
    "": (),
    "fast": ("-use_fast_math",),
    "unfused": ("--fmad=false",),
    "quick": ("--Ofast-compile=max",),  # hardly optimised
}

#: What is built of each source file.
VARIANTS = {
    "atomics": ("", "quick"),
    "counting": ("", "quick"),
    "halves": ("", "quick"),
    "matrices": ("", "unfused", "quick"),
    "numerics": ("", "fast", "unfused", "quick"),
    "reductions": ("", "quick"),
    "rows": ("", "fast", "quick"),
    "scans": ("", "quick"),
    "sorts": ("", "quick"),
    "stencils": ("", "unfused", "quick"),
    "warps": ("", "quick"),
    "words": ("",),
}


class BuildError(Exception):
    """The compiler is missing or refused a source; the message has its words."""


@dataclass(frozen=True, slots=True)
class Product:
    """One PTX file: its source and the word for its options."""

    source: str
    variant: str

    @property
    def path(self) -> Path:
        """Where it is committed."""
        return FOLDER / ".".join(part for part in (self.source, self.variant, "ptx") if part)


PRODUCTS = tuple(Product(source, variant) for source, variants in VARIANTS.items() for variant in variants)


class Nvrtc:
    """NVIDIA's runtime compiler, loaded from the `nvidia-cuda-nvrtc` package."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("nvidia")
        folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
        found = sorted(path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*"))
        if not found:
            raise BuildError("NVRTC is not installed: pip install -e '.[dev]'")
        self._library = ctypes.CDLL(str(found[-1]))

    def compile(self, source: str, name: str, options: Sequence[str]) -> str:
        """CUDA C to PTX. Raises :class:`BuildError` with the compiler's log."""
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
        )
        given = [option.encode() for option in (f"--gpu-architecture={ARCHITECTURE}", *options)]
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


def build(product: Product, compiler: Nvrtc) -> str:
    """The PTX of a product. Raises :class:`BuildError` when the compiler refuses its source."""
    name = f"{product.source}.cu"
    return compiler.compile((FOLDER / name).read_text("utf-8"), name, OPTIONS[product.variant])


def is_current(product: Product, text: str) -> bool:
    """Whether the committed file is there with this content."""
    return product.path.exists() and product.path.read_text("utf-8") == text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Rebuild the PTX of the test kernels.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, change nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS) + "; default: all")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(VARIANTS))
    if unknown:
        parser.error(f"no such source: {', '.join(unknown)}")
    stale = 0
    try:
        compiler = Nvrtc()
        for product in PRODUCTS:
            if options.names and product.source not in options.names:
                continue
            text = build(product, compiler)
            if not options.check:
                product.path.write_text(text, "utf-8")
                print(f"{product.path.name}  {len(text)} bytes")
            elif not is_current(product, text):
                stale += 1
                print(f"{product.path.name} differs from what its source gives")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
