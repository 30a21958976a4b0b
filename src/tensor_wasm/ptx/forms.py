"""Forms of opcodes: what a row of the table in :mod:`.opcodes` says, and whether a written opcode matches it.

A row gives the parts of an opcode after its root, and its operands, in two small notations.

Parts, separated by spaces, in the order in which they must stand: ``rn|rz`` is one of these, a ``?`` at the end makes
it optional. Parts joined by ``&`` may stand in any order among each other. A part is a type, a state space, a vector
width (``v2``) or, all else, a modifier.

Operands, separated by spaces:

- ``t`` a source of the opcode's last type; ``t0`` ``t1`` ``t2`` of its first, second, third; ``w`` of twice the last
  type's width; ``u32`` (any type's name) of that type; ``any`` a register or variable of any type.
- ``>t`` a destination. ``>t|pred`` with a predicate beside it, ``>t|pred?`` where that may be left out.
- ``t~``: the register may be wider than the type.
- ``t*v`` as many elements as the vector width says; ``t*x`` as the modifier ``x2`` says; ``t*n`` any number; ``t*p``
  the whole, or its parts in braces, packed; ``t*a`` ``t*b`` ``t*c`` the fragments of a matrix product.
- ``!pred`` a predicate that may be negated.
- ``imm`` an integer constant. ``[]`` an address. ``policy`` a cache policy. ``label``, ``table``: branch targets.
- A ``?`` at the end: may be left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from tensor_wasm.ptx.program import ScalarType, Space

TYPES: Final[Mapping[str, ScalarType]] = MappingProxyType({kind.ptx_name: kind for kind in ScalarType})
SPACES: Final[Mapping[str, Space]] = MappingProxyType(
    {
        **{space.value: space for space in Space if space is not Space.GENERIC},
        "shared::cta": Space.SHARED,
        "shared::cluster": Space.SHARED,
        "param::entry": Space.PARAM,
        "param::func": Space.PARAM,
    }
)
VECTORS: Final[Mapping[str, int]] = MappingProxyType({"v2": 2, "v4": 4, "v8": 8})


class Category(Enum):
    """What an opcode is about, as the PTX ISA groups them."""

    INTEGER = "integer arithmetic"
    EXTENDED = "extended-precision integer arithmetic"
    FLOAT = "floating-point arithmetic"
    HALF = "half-precision arithmetic"
    COMPARISON = "comparison and selection"
    LOGIC = "logic and shift"
    CONVERSION = "data movement and conversion"
    MEMORY = "memory"
    ASYNC = "asynchronous copy"
    TEXTURE = "texture and surface"
    CONTROL = "control flow"
    SYNCHRONISATION = "synchronisation and communication"
    MATRIX = "matrix"
    VIDEO = "video"
    STACK = "stack"
    OTHER = "miscellaneous"


class RoleKind(Enum):
    """What an operand is for."""

    DESTINATION = "destination"
    SOURCE = "source"
    ADDRESS = "address"
    IMMEDIATE = "constant"
    POLICY = "cache policy"
    LABEL = "label"
    TABLE = "branch table"
    ANY = "register or variable"


class Pairing(Enum):
    """Whether a predicate may stand beside a destination."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Role:
    """An operand of a form. ``type`` is in the notation of rows; ``many`` one of ``v x n p a b c`` or empty."""

    kind: RoleKind
    type: str = ""
    many: str = ""
    pairing: Pairing = Pairing.NONE
    is_relaxed: bool = False
    is_negatable: bool = False
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of an opcode: one of ``names``."""

    names: frozenset[str]
    is_optional: bool


@dataclass(frozen=True, slots=True)
class Form:
    """A row of the table. ``reason`` says why it is not lowered in this release; None where it is.

    ``groups`` are the parts in their order; those of a group may stand in any.
    """

    root: str
    groups: tuple[tuple[Slot, ...], ...]
    roles: tuple[Role, ...]
    category: Category
    reason: str | None = None

    @property
    def is_lowered(self) -> bool:
        """Whether the compiler of this release has it."""
        return self.reason is None

    @property
    def parts(self) -> tuple[Slot, ...]:
        """The parts of all groups."""
        return tuple(slot for group in self.groups for slot in group)

    def match(self, parts: Sequence[str]) -> tuple[int, tuple[str, ...]]:
        """How many of an opcode's parts fit, from the first on, and these in the order of the row.

        -1 when they fit and a part is missing after them.
        """
        place = 0
        ordered: list[str] = []
        for group in self.groups:
            found: dict[Slot, str] = {}
            while place < len(parts):
                slot = next((slot for slot in group if slot not in found and parts[place] in slot.names), None)
                if slot is None:
                    break
                found[slot] = parts[place]
                place += 1
            ordered += (found[slot] for slot in group if slot in found)
            if not all(slot.is_optional or slot in found for slot in group):
                return -1 if place == len(parts) else place, tuple(ordered)
        return place, tuple(ordered)


@dataclass(frozen=True, slots=True)
class Opcode:
    """A written opcode, taken apart, in the order of its row; ``vector`` is 1 where no width stands."""

    form: Form
    modifiers: tuple[str, ...]
    types: tuple[ScalarType, ...]
    space: Space | None
    vector: int


def take_apart(form: Form, parts: Iterable[str]) -> Opcode:
    """Sort the parts of an opcode that matches ``form`` into modifiers, types, space and vector width."""
    modifiers: list[str] = []
    types: list[ScalarType] = []
    space: Space | None = None
    vector = 1
    for part in parts:
        if part in TYPES:
            types.append(TYPES[part])
        elif part in SPACES and space is None:
            space = SPACES[part]
        elif part in VECTORS and form.category is Category.MEMORY:
            vector = VECTORS[part]
        elif part not in SPACES:
            modifiers.append(part)
    if space is None and any(role.kind is RoleKind.ADDRESS for role in form.roles):
        space = Space.GENERIC
    return Opcode(form, tuple(modifiers), tuple(types), space, vector)


def form(root: str, parts: str, operands: str, category: Category, reason: str | None = None) -> Form:
    """A row, from the notations in the module's docstring."""
    groups = tuple(tuple(_slot(part) for part in group.split("&")) for group in parts.split())
    return Form(root, groups, _roles(operands), category, reason)


def _slot(text: str) -> Slot:
    return Slot(frozenset(text.rstrip("?").split("|")), text.endswith("?"))


def _roles(text: str) -> tuple[Role, ...]:
    return tuple(_role(part) for part in text.split())


_PLAIN_ROLES: Final[Mapping[str, RoleKind]] = MappingProxyType(
    {
        "[]": RoleKind.ADDRESS,
        "imm": RoleKind.IMMEDIATE,
        "policy": RoleKind.POLICY,
        "label": RoleKind.LABEL,
        "table": RoleKind.TABLE,
        "any": RoleKind.ANY,
    }
)


def _role(text: str) -> Role:
    if text.startswith(">"):
        return _destination(text[1:])
    is_optional = text.endswith("?")
    text = text.removesuffix("?")
    if text in _PLAIN_ROLES:
        return Role(_PLAIN_ROLES[text], is_optional=is_optional)
    is_negatable = text.startswith("!")
    kind, _, many = text.removeprefix("!").partition("*")
    return Role(
        RoleKind.SOURCE,
        kind.removesuffix("~"),
        many,
        is_relaxed=kind.endswith("~"),
        is_negatable=is_negatable,
        is_optional=is_optional,
    )


def _destination(text: str) -> Role:
    pairing = Pairing.NONE
    if text.endswith("|pred?"):
        pairing = Pairing.OPTIONAL
    elif text.endswith("|pred"):
        pairing = Pairing.REQUIRED
    kind, _, many = text.removesuffix("?").removesuffix("|pred").partition("*")
    return Role(RoleKind.DESTINATION, kind.removesuffix("~"), many, pairing, is_relaxed=kind.endswith("~"))
