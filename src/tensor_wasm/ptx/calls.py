"""Functions and calls of them, as they are before they are inlined: no kernel that leaves the front end has any.

But for calls that cannot be inlined: these stay, with the reason, for :func:`~tensor_wasm.ptx.support.support`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensor_wasm.ptx.program import (
    Block,
    Exit,
    Instruction,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Variable,
)
from tensor_wasm.ptx.syntax import Constant


@dataclass(frozen=True, slots=True)
class Return(Exit):
    """The end of a function: its caller goes on."""


#: What a call names as an argument: a value, or a variable in the ``.param`` space (or a parameter of the caller's).
Argument = Operand | Constant | Variable | Parameter


@dataclass(frozen=True, slots=True)
class Call(Instruction):
    """A call of ``callee``, or where that is empty, of the function whose address is ``sources[0]``.

    ``results`` are registers or variables that get the function's results; None for ``_``. ``candidates`` are the
    functions that an indirect call may be of; None where the text lists none, and ``prototype`` says what they are
    like. ``reason`` says why the call could not be inlined.
    """

    callee: str = ""
    results: tuple[Register | Variable | None, ...] = ()
    arguments: tuple[Argument | None, ...] = ()
    candidates: tuple[str, ...] | None = None
    prototype: Prototype | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Prototype:
    """Sizes in bytes of the results and parameters of a function; 0 for an open array."""

    results: tuple[int, ...]
    parameters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Formals:
    """What a function takes and gives: registers, or variables in the ``.param`` space (parameters: what the body
    names in their place).
    """

    results: tuple[Register | Variable, ...]
    parameters: tuple[Register | Parameter, ...]

    @property
    def prototype(self) -> Prototype:
        """Their sizes."""
        return Prototype(tuple(map(size_bytes, self.results)), tuple(map(size_bytes, self.parameters)))


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A ``.func`` with a body: like a kernel whose ends are :class:`Return`, and with results."""

    name: str
    formals: Formals
    registers: tuple[Register, ...]
    variables: tuple[Variable, ...]
    blocks: tuple[Block, ...]
    line: int


@dataclass(slots=True)
class Linkage:
    """The functions of a program.

    ``functions`` are those with a body, ``symbols`` the variables that stand for functions where their addresses are
    taken, ``aliases`` further names, and ``variables`` those declared inside of kernels and functions.
    """

    functions: dict[str, Function] = field(default_factory=dict)
    symbols: dict[Variable, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)


def size_bytes(formal: Register | Variable | Parameter) -> int:
    """Bytes of a parameter or result; a predicate has 1."""
    return formal.type.size_bytes if isinstance(formal, Register) else formal.size_bytes


def value_type(kind: ScalarType) -> ScalarType:
    """The type with which values of ``kind`` are moved between registers: that of plain bits, but for floats."""
    if kind in (ScalarType.PRED, ScalarType.F32, ScalarType.F64, ScalarType.B128):
        return kind
    return {64: ScalarType.B64, 32: ScalarType.B32}.get(kind.bits, ScalarType.B16)


def memory_type(kind: ScalarType) -> ScalarType:
    """The type with which values of ``kind`` are loaded and stored."""
    return ScalarType.B8 if kind.bits == 8 else value_type(kind)
