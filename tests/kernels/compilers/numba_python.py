"""Python by Numba.

Names that Numba makes hold a counter of the functions it has compiled in its process. So each kernel has a process of
its own, and gets the same name in whichever order, and alone.
"""

from __future__ import annotations

import importlib
import multiprocessing
import warnings
from types import SimpleNamespace

from kernels.products import Product, lack_of

#: The device that is compiled for.
CAPABILITY = (8, 0)

#: What is given to Numba, by the word that stands in a PTX file's name.
OPTIONS: dict[str, dict[str, bool]] = {"": {}, "fast": {"fastmath": True}, "plain": {"opt": False}}

#: The kernels of `from_numba/source.py` and what is built of each.
VARIANTS = {
    "saxpy": ("", "fast", "plain"),
    "stencil_2d": ("", "fast", "plain"),
    "matmul_tiled": ("", "plain"),
    "sum_shared": ("", "plain"),
    "sum_shuffle": ("", "plain"),
    "histogram": ("", "plain"),
    "prefix_scan": ("", "plain"),
    "mandelbrot": ("", "fast", "plain"),
    "nbody": ("", "fast"),
    "black_scholes": ("", "fast", "plain"),
    "bitonic": ("", "plain"),
    "local_sort": ("", "plain"),
    "hashes": ("", "plain"),
    "complex_numbers": ("", "plain"),
    "floor_division": ("", "plain"),
    "functions": ("", "fast", "plain"),
    "collatz": ("", "plain"),
    "grey": ("", "plain"),
    "extremes": ("", "plain"),
    "votes": ("", "plain"),
    "records": ("", "plain"),
    "interpolate": ("", "fast", "plain"),
    "stencil_3d": ("", "plain"),
}


class Numba:
    """Numba's CUDA target, with NVVM."""

    name = "Numba"
    is_optional = True
    products = tuple(Product(f"from_numba/{name}", word) for name, words in VARIANTS.items() for word in words)

    def lack(self) -> str:
        """Why it cannot run here, empty when it can."""
        return lack_of("numba-cuda", "numba", "llvmlite", "nvidia-nvvm")

    def build(self, product: Product) -> str:
        """The PTX of a product."""
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(_compile, (product.source.rpartition("/")[2], product.variant))


def _compile(name: str, variant: str) -> str:
    warnings.simplefilter("ignore")
    from numba import cuda
    from numba.cuda import dispatcher

    # Functions that a kernel calls are compiled for the device at hand; there is none.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CAPABILITY)
    kernel = getattr(importlib.import_module("kernels.from_numba.source"), name)
    text, _ = cuda.compile_ptx(kernel, kernel.takes, cc=CAPABILITY, device=False, abi="numba", **OPTIONS[variant])
    return str(text)
