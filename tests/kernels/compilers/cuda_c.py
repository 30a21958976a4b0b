"""CUDA C by NVRTC, of three generations."""

from __future__ import annotations

from contextlib import chdir
from dataclasses import dataclass
from functools import cached_property

from nvrtc import ARCHITECTURE, BuildError, Nvrtc

from kernels.products import FOLDER, Product, lack_of, without_folders


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a variant is compiled."""

    generation: int = 13
    options: tuple[str, ...] = ()
    architecture: str = ARCHITECTURE


#: By the word that stands in a PTX file's name; the default has none.
RECIPES = {
    "": Recipe(),
    "fast": Recipe(options=("-use_fast_math",)),
    "unfused": Recipe(options=("--fmad=false",)),
    "quick": Recipe(options=("--Ofast-compile=max",)),  # hardly optimised
    "debug": Recipe(options=("--device-debug",)),  # not optimised, every variable in memory, line tables
    "nvrtc12": Recipe(12),
    "nvrtc11": Recipe(11, ("--std=c++17",)),  # it knows less by itself
    "nvrtc12-sm52": Recipe(12, architecture="compute_52"),
}

#: What is built of each source file. By older compilers and for older devices where that gives other instructions.
VARIANTS = {
    "atomics": ("", "quick", "nvrtc12"),
    "counting": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "elements": ("", "quick", "debug", "nvrtc12"),
    "graphs": ("", "quick", "debug", "nvrtc12"),
    "halves": ("", "quick", "debug", "nvrtc12", "nvrtc11", "nvrtc12-sm52"),
    "hashes": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "images": ("", "quick", "debug", "nvrtc12"),
    "machines": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "matrices": ("", "unfused", "quick", "debug", "nvrtc12", "nvrtc11"),
    "merges": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "norms": ("", "fast", "quick", "debug", "nvrtc12", "nvrtc11"),
    "numerics": ("", "fast", "unfused", "quick", "debug", "nvrtc12", "nvrtc11"),
    "reductions": ("", "quick", "debug", "nvrtc12"),
    "rows": ("", "fast", "quick", "debug", "nvrtc12", "nvrtc11"),
    "scans": ("", "quick", "debug", "nvrtc12", "nvrtc12-sm52"),
    "solvers": ("", "fast", "quick", "debug", "nvrtc12", "nvrtc11"),
    "sorts": ("", "quick", "debug", "nvrtc12"),
    "spectra": ("", "fast", "quick", "debug", "nvrtc12", "nvrtc11"),
    "stencils": ("", "unfused", "quick", "debug", "nvrtc12"),
    "tensors": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "texts": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "warps": ("", "quick", "debug", "nvrtc12", "nvrtc11"),
    "wide": ("", "quick", "nvrtc12"),
    "words": ("", "nvrtc12"),
}

#: What a source needs beside that.
SOURCE_OPTIONS = {"wide": ("--device-int128",)}


class CudaC:
    """One generation of NVRTC; ``packages`` are those whose version decides what it makes, beside the `dev` extra."""

    def __init__(self, generation: int, *packages: str) -> None:
        self._generation = generation
        self._packages = packages
        self.name = f"NVRTC {generation}"
        self.is_optional = bool(packages)
        self.products = tuple(
            Product(source, word)
            for source, words in VARIANTS.items()
            for word in words
            if RECIPES[word].generation == generation
        )

    def lack(self) -> str:
        """Why it cannot run here, empty when it can."""
        try:
            return lack_of(*self._packages) or (self._library and "")
        except BuildError:
            return "not installed"

    def build(self, product: Product) -> str:
        """The PTX of a product."""
        recipe = RECIPES[product.variant]
        name = f"{product.source}.cu"
        options = (*recipe.options, *SOURCE_OPTIONS.get(product.source, ()))
        source = (FOLDER / name).read_text("utf-8")
        with chdir("/"):  # debug sections have the folder that the compiler runs in, as numbers
            text = self._library.compile(source, name, options, architecture=recipe.architecture)
        return without_folders(text)

    @cached_property
    def _library(self) -> Nvrtc:
        return Nvrtc(self._generation)
