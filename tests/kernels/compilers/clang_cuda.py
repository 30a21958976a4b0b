"""CUDA C by Clang: the one in Zig's package, which the `dev` extra has for the guests.

Without NVIDIA's headers and its library of functions: `clang.h` stands for the one, and sources that call for the
other are not built.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from nvrtc import BuildError

from kernels.products import FOLDER, Product

_COMMAND = (
    *("clang", "-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=sm_80", "-nocudainc", "-nocudalib"),
    *("-Xclang", "-target-feature", "-Xclang", "+ptx78", "-w", "-include", "clang.h", "-S", "-o", "-"),
)

#: By the word that stands in a PTX file's name.
OPTIONS = {"clang": "-O3", "clang-plain": "-O0"}

_BOTH = ("clang", "clang-plain")

#: What is built of each source file.
VARIANTS = {
    "atomics": ("clang",),
    "counting": _BOTH,
    "graphs": _BOTH,
    "halves": _BOTH,
    "hashes": ("clang",),
    "images": _BOTH,
    "machines": _BOTH,
    "matrices": _BOTH,
    "merges": _BOTH,
    "reductions": _BOTH,
    "scans": _BOTH,
    "sorts": _BOTH,
    "stencils": _BOTH,
    "tensors": ("clang",),
    "texts": _BOTH,
    "warps": _BOTH,
    "wide": ("clang",),
    "words": ("clang",),
}


class Clang:
    """Clang with LLVM's own code generator for these devices."""

    name = "Clang"
    is_optional = False
    products = tuple(Product(source, word) for source, words in VARIANTS.items() for word in words)

    def lack(self) -> str:
        """Why it cannot run here, empty when it can."""
        return "" if importlib.util.find_spec("ziglang") else "not installed"

    def build(self, product: Product) -> str:
        """The PTX of a product."""
        command = [sys.executable, "-m", "ziglang", *_COMMAND, OPTIONS[product.variant], f"{product.source}.cu"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(done.stderr)
        return done.stdout
