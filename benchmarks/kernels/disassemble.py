"""What the compilers make of a kernel: our WebAssembly and Cranelift's machine code, to find slow code by reading it.

    python benchmarks/kernels/disassemble.py mandelbrot /tmp/code
    python benchmarks/kernels/disassemble.py tests/kernels/numerics.ptx:fft /tmp/code

Writes `NAME.wasm`, `NAME.wat` (with `wasm2wat` of wabt) and `NAME.s` (with `objdump` of binutils), and says how large
they are. Without these programs their file is left out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cases import CASES

from tensor_wasm.device.compilation import compile_ptx
from tensor_wasm.runtime import Engine


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write a kernel's WebAssembly and machine code.")
    parser.add_argument("kernel", help="a kernel of the benchmark, or FILE.ptx:ENTRY")
    parser.add_argument("folder", type=Path, help="where to write; made when missing")
    options = parser.parse_args(arguments)
    try:
        path, entry = _found(options.kernel)
    except LookupError as error:
        parser.error(str(error))
    options.folder.mkdir(parents=True, exist_ok=True)
    place = options.folder / entry

    compiled = compile_ptx(path.read_bytes(), entry)
    place.with_suffix(".wasm").write_bytes(compiled.wasm)
    print(f"{place}.wasm  {len(compiled.wasm):,} bytes")
    _convert(["wasm2wat", "--enable-all", f"{place}.wasm"], place.with_suffix(".wat"))

    engine = Engine()
    try:
        object_file = place.with_suffix(".o")
        object_file.write_bytes(engine.compile(compiled.wasm).serialize())
    finally:
        engine.close()
    listing = _convert(
        ["objdump", "-d", "-M", "intel", "--no-show-raw-insn", str(object_file)], place.with_suffix(".s")
    )
    for name, body in _functions(listing):
        instructions = re.findall(r"^\s+[0-9a-f]+:\s+(\w+)(.*)$", body, re.MULTILINE)
        words = Counter(word for word, _ in instructions)
        wide = sum("xmm" in rest for _, rest in instructions)
        stack = sum("[rsp" in rest for _, rest in instructions)
        common = ", ".join(f"{count} {word}" for word, count in words.most_common(6))
        print(f"  {name}: {len(instructions):,} instructions, {wide:,} on xmm, {stack:,} on the stack ({common})")
    return 0


def _found(name: str) -> tuple[Path, str]:
    """The text and entry of a kernel. Raises :class:`LookupError`."""
    for case in CASES:
        if case.name == name:
            return case.ptx, case.entry
    path, _, entry = name.rpartition(":")
    if not Path(path).is_file():
        raise LookupError(f"there is no kernel {name}; there are {', '.join(case.name for case in CASES)}")
    return Path(path), entry


def _convert(command: Sequence[str], target: Path) -> str:
    """Run a program into a file; what it wrote. Empty when it is not installed."""
    if shutil.which(command[0]) is None:
        print(f"{target}: left out, {command[0]} is not installed", file=sys.stderr)
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{target}: left out, {command[0]} says: {done.stderr.strip()}", file=sys.stderr)
        return ""
    target.write_text(done.stdout, "utf-8")
    print(f"{target}  {len(done.stdout.splitlines()):,} lines")
    return done.stdout


def _functions(listing: str) -> list[tuple[str, str]]:
    """Name and body of the functions that come from the kernel's module."""
    parts = re.split(r"^[0-9a-f]+ <(.*)>:$", listing, flags=re.MULTILINE)
    return [(name, body) for name, body in zip(parts[1::2], parts[2::2], strict=True) if "::function[" in name]


if __name__ == "__main__":
    sys.exit(main())
