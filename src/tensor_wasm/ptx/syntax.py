"""What the parser makes: the text's structure, with names not yet resolved and opcodes not yet looked up.

Every node holds ``offset``, the place in the text where it starts, in characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tensor_wasm.ptx.program import ScalarType, Space


class Notation(Enum):
    """How a constant was written: ``bits`` are then 64-bit two's complement, or of a float."""

    INTEGER = "integer"
    F32 = "32-bit float"
    F64 = "64-bit float"


@dataclass(slots=True)
class Name:
    """A word: a register, special register, variable, parameter, label, function, or ``_``."""

    text: str
    offset: int


@dataclass(slots=True)
class Constant:
    """A number, or an expression of numbers."""

    bits: int
    notation: Notation
    offset: int


@dataclass(slots=True)
class Sum:
    """``name+8``, ``generic(name)+8``: an address."""

    name: Name
    addend: int
    offset: int


@dataclass(slots=True)
class Negated:
    """``!name``."""

    name: Name
    offset: int


@dataclass(slots=True)
class Pair:
    """``first|second``: a destination with a predicate beside it."""

    first: Name
    second: Name
    offset: int


@dataclass(slots=True)
class Vector:
    """``{a, b}``."""

    elements: tuple[Operand, ...]
    offset: int


@dataclass(slots=True)
class Memory:
    """``[base+addend]``; textures and surfaces have more: ``[base, {x, y}]``."""

    base: Name | None
    addend: int
    more: tuple[Operand, ...]
    offset: int


@dataclass(slots=True)
class Group:
    """``(a, b)``: the arguments or results of a call."""

    elements: tuple[Operand, ...]
    offset: int


Operand = Name | Constant | Sum | Negated | Pair | Vector | Memory | Group


@dataclass(slots=True)
class Predicate:
    """``@name`` or ``@!name``."""

    name: str
    is_negated: bool
    offset: int


@dataclass(slots=True)
class Statement:
    """An instruction; ``opcode`` is the whole dotted word, ``line`` and ``column`` are where it stands."""

    opcode: str
    predicate: Predicate | None
    operands: tuple[Operand, ...]
    line: int
    column: int
    offset: int


@dataclass(slots=True)
class Label:
    """``name:``."""

    name: str
    line: int
    offset: int


@dataclass(slots=True)
class BranchTargets:
    """``name: .branchtargets a, b;``: the labels a ``brx.idx`` may go to."""

    name: str
    targets: tuple[Name, ...]
    offset: int


@dataclass(slots=True)
class CallTargets:
    """``name: .callprototype ...`` or ``name: .calltargets ...``: what an indirect call may be of.

    ``targets`` are the functions of ``.calltargets``; a prototype has None, and its results and parameters.
    """

    name: str
    targets: tuple[Name, ...] | None
    results: tuple[Formal, ...]
    parameters: tuple[Formal, ...]
    offset: int


@dataclass(slots=True)
class Registers:
    """``.reg .type name, name<count>``; ``count`` is None for a single register."""

    type: ScalarType
    names: tuple[tuple[Name, int | None], ...]
    offset: int


@dataclass(slots=True)
class Integers:
    """Plain integers, one after the other: tables of constants are long."""

    values: list[int]
    offset: int


Value = Constant | Sum | Integers


@dataclass(slots=True)
class Declaration:
    """A variable. ``dimensions`` holds None for ``[]``; ``values`` are (index of the first element, value).

    ``is_opaque``: a texture, sampler or surface reference.
    """

    name: str
    space: Space
    type: ScalarType
    alignment: int | None
    dimensions: tuple[int | None, ...]
    values: tuple[tuple[int, Value], ...] | None
    is_extern: bool
    offset: int
    is_opaque: bool = False


@dataclass(slots=True)
class Formal:
    """A parameter or result of a kernel or function; ``count`` is the length of an array, 0 for ``[]``."""

    name: str
    type: ScalarType
    alignment: int | None
    count: int | None
    is_register: bool
    offset: int


class Scope(Enum):
    """``{`` and ``}`` around statements."""

    OPEN = "{"
    CLOSE = "}"


BodyItem = Statement | Label | BranchTargets | CallTargets | Registers | Declaration | Scope


@dataclass(slots=True)
class Routine:
    """An ``.entry`` or ``.func``; ``body`` is None for a declaration. The limits are axes, missing ones 1."""

    name: str
    is_entry: bool
    parameters: tuple[Formal, ...]
    results: tuple[Formal, ...]
    body: list[BodyItem] | None
    reqntid: tuple[int, int, int] | None
    maxntid: tuple[int, int, int] | None
    line: int
    offset: int


@dataclass(slots=True)
class Alias:
    """``.alias name, target;``: another name of a function."""

    name: Name
    target: Name


@dataclass(slots=True)
class Heading:
    """``.version`` and ``.target``."""

    version: str
    target: str


ModuleItem = Routine | Declaration | Alias
