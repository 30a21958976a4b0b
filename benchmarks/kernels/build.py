"""Rebuild the PTX of these kernels from their CUDA C with NVRTC.

    python benchmarks/kernels/build.py           rebuild everything in place
    python benchmarks/kernels/build.py --check   compare with what is committed, change nothing; exit 1 on a difference

Needs no GPU and no CUDA installation: NVRTC is a Python package of the `dev` extra. The same version gives the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1] / "examples"))  # where the compiler's wrapper is

from nvrtc import BuildError, Nvrtc  # noqa: E402

#: Products and sums are fused where the sources say `fmaf`, and nowhere else: so it is in OpenCL C.
OPTIONS = ("--fmad=false",)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Rebuild the PTX of the benchmark's kernels.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, change nothing")
    options = parser.parse_args(arguments)
    stale = 0
    try:
        compiler = Nvrtc()
        for source in sorted(FOLDER.glob("*.cu")):
            text = compiler.compile(source.read_text("utf-8"), source.name, OPTIONS)
            product = source.with_suffix(".ptx")
            if not options.check:
                product.write_text(text, "utf-8")
                print(f"{product.name}  {len(text.splitlines())} lines")
            elif not product.exists() or product.read_text("utf-8") != text:
                stale += 1
                print(f"{product.name} differs from what its source gives")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
