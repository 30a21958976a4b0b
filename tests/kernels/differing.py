"""Which kernels may leave other bits on a GPU than on the CPU device, and why: read from the typed program.

    PYTHONPATH=tests python -m kernels.differing        lists them

All others must leave the same bits. What differs is what the PTX ISA leaves open, and what depends on which thread
comes first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tensor_wasm.ptx import Kernel
from tensor_wasm.ptx.program import Instruction, Register, ScalarType, Space, Special

APPROXIMATE = "approximate: .approx or .full"
FLOAT_ATOMICS = "atomics of floats: the order of the sums"
ORDER = "atomics that give the value before: which thread comes first"
MATRICES = "mma of floats: the order and width of the sums"
PLACES = "clocks, and places on the machine"
CONVERGENCE = "activemask: which lanes are together"
WAITING = "waits for other threads by memory"

_FLOATS = frozenset({"f", "x"})
_PLACES = (
    "clock",
    "globaltimer",
    "smid",
    "nsmid",
    "warpid",
    "nwarpid",
    "gridid",
    "total_smem",
    "aggr_smem",
    "reserved",
)
#: Modifiers of atomics that leave the same in memory whoever comes first.
_COMMUTES = frozenset({"add", "min", "max", "and", "or", "xor", "relaxed", "gpu", "cta", "sys", "noftz"})
_SHARED_BY_BLOCKS = (Space.GLOBAL, Space.GENERIC)

#: An addition or product of floats that names no rounding: an assembler may make one ``fma`` of two of them.
_UNROUNDED = re.compile(r"(?<![.\w])(add|sub|mul)((?:\.ftz)?(?:\.sat)?\.(?:f32|f64|f16x2|f16|bf16x2|bf16)\b)")


def reasons(kernel: Kernel) -> tuple[str, ...]:
    """Why a kernel's results need not be the same bits; nothing when they must."""
    read = set(_read(kernel))
    found = dict.fromkeys(
        reason for block in kernel.blocks for each in block.instructions for reason in _of(each, read)
    )
    return tuple(found)


def _read(kernel: Kernel) -> Iterator[Register]:
    """Registers whose value is used."""
    for block in kernel.blocks:
        for instruction in block.instructions:
            yield from (source for source in instruction.sources if isinstance(source, Register))
            if instruction.address is not None and isinstance(instruction.address.base, Register):
                yield instruction.address.base
            if instruction.guard is not None:
                yield instruction.guard.register
        guard = getattr(block.terminator, "guard", None)
        if guard is not None:
            yield guard.register
        selector = getattr(block.terminator, "selector", None)
        if isinstance(selector, Register):
            yield selector


def _of(instruction: Instruction, read: set[Register]) -> Iterator[str]:
    root, modifiers = instruction.root, instruction.modifiers
    if "approx" in modifiers or "full" in modifiers:
        yield APPROXIMATE
    if root in ("atom", "red"):
        if any(kind.kind in _FLOATS for kind in instruction.types) and "exch" not in modifiers:
            yield FLOAT_ATOMICS
        if not read.isdisjoint(instruction.destinations) or not _COMMUTES.issuperset(modifiers):
            yield ORDER
    if root in ("mma", "wmma") and ScalarType.S32 not in instruction.types:
        yield MATRICES
    if root == "activemask":
        yield CONVERGENCE
    waits = {"volatile", "acquire", "relaxed"}.intersection(modifiers)
    if root == "ld" and waits and instruction.space in _SHARED_BY_BLOCKS:
        yield WAITING
    if any(isinstance(source, Special) and source.name.startswith(_PLACES) for source in instruction.sources):
        yield PLACES


def rounded(text: str) -> str:
    """A text whose additions and products all name their rounding, so that none are fused, as on the CPU device."""
    return _UNROUNDED.sub(r"\1.rn\2", text)


def main() -> None:
    """Print each kernel with its reasons, then how many have each."""
    from kernels.build import PRODUCTS
    from kernels.loading import program

    counts: Counter[str] = Counter()
    total = 0
    for product in PRODUCTS:
        for kernel in program(product.source, product.variant).kernels:
            total += 1
            found = reasons(kernel)
            counts.update(found or ("the same bits",))
            if found:
                print(f"{product.name} {kernel.name}: {'; '.join(found)}")
    print(f"{total} entries")
    for reason, count in counts.most_common():
        print(f"{count:6} {reason}")


if __name__ == "__main__":
    main()
