"""The way in: PTX as it comes, to a typed program and a kernel of it."""

from __future__ import annotations

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.check import check
from tensor_wasm.ptx.lexer import decode, quote
from tensor_wasm.ptx.parser import parse
from tensor_wasm.ptx.program import Kernel, Program

# Names of kernels that a message lists.
_NAMES_SHOWN = 5


def read(text: bytes | str, entry: str | None = None) -> Program:
    """The typed program of a PTX text; bytes are UTF-8, and a NUL at the end is taken off.

    Calls are replaced by what they call; with ``entry`` in the kernel of that name only: others cannot be compiled.

    Everything in the opcode table is read, also what :func:`~tensor_wasm.ptx.support.support` then lists. Raises
    :class:`PtxError` with line and column for anything malformed, undeclared, mistyped, or not in the table.
    """
    return check(decode(text), entry)


def target_of(text: bytes | str) -> str:
    """The target that a PTX text begins with, as ``sm_80``; the rest is not read. Raises :class:`PtxError`."""
    heading, _, _ = parse(decode(text))
    return heading.target


def find_kernel(program: Program, entry: str) -> Kernel:
    """The kernel named ``entry``. Raises :class:`PtxError`, which lists the names there are."""
    for kernel in program.kernels:
        if kernel.name == entry:
            return kernel
    names = [quote(kernel.name) for kernel in program.kernels]
    if not names:
        raise PtxError(f"there is no entry {quote(entry)}: the text has no kernel at all")
    shown = ", ".join(names[:_NAMES_SHOWN]) + (" and more" if len(names) > _NAMES_SHOWN else "")
    raise PtxError(f"there is no entry {quote(entry)}; there is {shown}")
