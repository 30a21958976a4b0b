"""Rebuild the example guests and kernels from source: CUDA C to PTX with NVRTC, C to WebAssembly with Zig's clang.

    python examples/build.py              rebuild everything in place
    python examples/build.py saxpy        only this one
    python examples/build.py --check      rebuild elsewhere, compare, and exit 1 when a committed file differs

Needs no GPU and no CUDA installation: both compilers are Python packages of the `dev` extra. The same versions give
the same bytes.
"""

# ruff: noqa: INP001, T201 - a script: no package, and it prints what it does.

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrtc import BuildError, Nvrtc

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "examples" / "include"

#: 64 KiB: a fresh instance then starts with two or three pages of memory.
STACK_BYTES = 65_536

COMPILE_FLAGS = (
    "-target",
    "wasm32-freestanding",
    "-mcpu=generic+simd128",
    "-std=c23",
    "-O2",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    f"-Wl,-z,stack-size={STACK_BYTES}",
)


#: Where the installed package has the guests that it runs itself.
BENCH_GUESTS = "src/tensor_wasm/bench/guests"
DEMO_GUESTS = "src/tensor_wasm/_examples"


@dataclass(frozen=True, slots=True)
class Target:
    """One guest: the folder of its C file and CUDA files (under the repository's root) and where its Wasm goes.

    PTX goes beside its source. ``wasm_folders`` empty means beside the source too. ``embeds`` are more folders whose
    files the C file may `#embed`.
    """

    name: str
    folder: str
    kernels: tuple[str, ...] = ()
    wasm_folders: tuple[str, ...] = ()
    embeds: tuple[str, ...] = ()

    @property
    def products(self) -> tuple[str, ...]:
        """What a build makes, relative to the root."""
        ptx = tuple(f"{self.folder}/{kernel}.ptx" for kernel in self.kernels)
        return (*ptx, *(f"{folder}/{self.name}.wasm" for folder in self.wasm_folders or (self.folder,)))


# In this order: the benchmark's guest embeds vector_add's PTX.
TARGETS = (
    Target("hello", "examples/hello"),
    Target("vector_add", "examples/vector_add", ("vector_add",), ("examples/vector_add", DEMO_GUESTS)),
    Target("saxpy", "examples/saxpy", ("saxpy",)),
    Target("language_model", "examples/language_model", ("language_model",)),
    Target("bench", "benchmarks/guests", ("empty",), (BENCH_GUESTS,), ("examples/vector_add",)),
    Target("noop", "benchmarks/guests", (), (BENCH_GUESTS,)),
)


def compile_guest(source: Path, wasm: Path, embeds: Sequence[Path]) -> None:
    """C to WebAssembly; ``embeds`` are the folders where `#embed` finds files. Raises :class:`BuildError`."""
    command = [sys.executable, "-m", "ziglang", "cc", *COMPILE_FLAGS, f"-I{INCLUDE}"]
    command += [f"--embed-dir={folder}" for folder in embeds]
    done = subprocess.run([*command, "-o", str(wasm), str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{source.name}: {done.stderr.strip()}")
    wasm.chmod(0o644)  # linkers make it executable, which it is not


def build(target: Target, root: Path) -> tuple[Path, ...]:
    """Build one target from this repository's sources into folders under ``root``; returns the files made.

    Raises :class:`BuildError` when a compiler refuses.
    """
    source = ROOT / target.folder
    made = tuple(root / product for product in target.products)
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
    for kernel, path in zip(target.kernels, made, strict=False):
        text = (source / f"{kernel}.cu").read_text("utf-8")
        path.write_text(Nvrtc().compile(text, path.with_suffix(".cu").name), "utf-8")
    first, *copies = made[len(target.kernels) :]
    # What this build made comes before what is committed.
    folders = (target.folder, *target.embeds)
    compile_guest(source / f"{target.name}.c", first, [base / name for base in (root, ROOT) for name in folders])
    for copy in copies:
        shutil.copyfile(first, copy)
    return made


def differing(targets: Sequence[Target]) -> list[str]:
    """Committed files that a build from source does not give again."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        return [
            str(path.relative_to(root))
            for target in targets
            for path in build(target, root)
            if not same(path, ROOT / path.relative_to(root))
        ]


def same(made: Path, committed: Path) -> bool:
    """Whether the committed file is there with the content that was made."""
    return committed.exists() and made.read_bytes() == committed.read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Rebuild the example guests and kernels.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, change nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(t.name for t in TARGETS) + "; default: all")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {target.name for target in TARGETS}
    if unknown:
        parser.error(f"no such example: {', '.join(sorted(unknown))}")
    targets = [target for target in TARGETS if not options.names or target.name in options.names]
    try:
        if options.check:
            stale = differing(targets)
            for name in stale:
                print(f"{name} differs from what its source gives")
            return 1 if stale else 0
        for target in targets:
            for path in build(target, ROOT):
                print(f"{path.relative_to(ROOT)}  {path.stat().st_size} bytes")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
