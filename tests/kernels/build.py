"""Rebuild the PTX of these kernels from their CUDA C with NVRTC.

    python tests/kernels/build.py                rebuild everything in place
    python tests/kernels/build.py scans          only this file's variants
    python tests/kernels/build.py --check        compare with what is committed, change nothing; exit 1 on a difference

Needs no GPU and no CUDA installation: NVRTC is a Python package of the `dev` extra. The same version gives the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1] / "examples"))  # where the compiler's wrapper is, for this script and the tests

from nvrtc import BuildError, Nvrtc  # noqa: E402

#: Compiler options by the word that stands in a PTX file's name; the default has none.
OPTIONS = {
    "": (),
    "fast": ("-use_fast_math",),
    "unfused": ("--fmad=false",),
    "quick": ("--Ofast-compile=max",),  # hardly optimised
    "debug": ("-G",),  # not at all, with debugging data
}

#: What is built of each source file.
VARIANTS = {
    "atomics": ("", "quick"),
    "calls": ("", "quick", "debug"),
    "counting": ("", "quick"),
    "halves": ("", "quick"),
    "matrices": ("", "unfused", "quick"),
    "numerics": ("", "fast", "unfused", "quick"),
    "reductions": ("", "quick", "debug"),
    "rows": ("", "fast", "quick", "debug"),
    "scans": ("", "quick"),
    "sorts": ("", "quick"),
    "stencils": ("", "unfused", "quick"),
    "warps": ("", "quick"),
    "words": ("",),
}


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
