"""Rebuild the PTX of these kernels from their sources, by the compilers that are installed.

    python tests/kernels/build.py                   rebuild everything in place
    python tests/kernels/build.py scans             only this source's variants
    python tests/kernels/build.py --check           compare with what is committed; exit 1 on a difference

Needs no GPU and no CUDA installation: the compilers are Python packages, NVRTC 13 and Clang of the `dev` extra, the
others of `requirements.txt`. One that is not installed is skipped, and said to be. The same versions give the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS), str(_TESTS.parent / "examples")]  # this script's packages, and the wrapper of NVRTC

from nvrtc import BuildError  # noqa: E402

from kernels.compilers.clang_cuda import Clang  # noqa: E402
from kernels.compilers.cuda_c import CudaC  # noqa: E402
from kernels.compilers.numba_python import Numba  # noqa: E402
from kernels.compilers.triton_python import Triton  # noqa: E402
from kernels.products import Compiler, Product  # noqa: E402

COMPILERS: tuple[Compiler, ...] = (
    CudaC(13),
    CudaC(12, "nvidia-cuda-nvrtc-cu12"),
    CudaC(11, "nvidia-cuda-nvrtc-cu11"),
    Clang(),
    Numba(),
    Triton(),
)

PRODUCTS = tuple(product for compiler in COMPILERS for product in compiler.products)

#: The words of what is built of each source, in the order of the compilers.
VARIANTS = {
    source: tuple(product.variant for product in PRODUCTS if product.source == source)
    for source in dict.fromkeys(product.source for product in PRODUCTS)
}


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
    try:
        stale = sum(_run(compiler, set(options.names or VARIANTS), check=options.check) for compiler in COMPILERS)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if stale else 0


def _run(compiler: Compiler, names: set[str], *, check: bool) -> int:
    """Build or compare what one compiler makes of these sources; returns how many files differ."""
    wanted = [product for product in compiler.products if product.source in names]
    if not wanted:
        return 0
    lack = compiler.lack()
    if lack:
        print(f"{compiler.name} skipped: {lack}")
        return 0
    stale = 0
    for product in wanted:
        text = compiler.build(product)
        if not check:
            product.path.write_text(text, "utf-8")
            print(f"{product.name}  {len(text)} bytes")
        elif not is_current(product, text):
            stale += 1
            print(f"{product.name} differs from what its source gives")
    return stale


if __name__ == "__main__":
    sys.exit(main())
