"""Instructions written out from rows of the opcode table, with operands of the types the row asks for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tensor_wasm.ptx.forms import Form, Pairing, RoleKind, Slot
from tensor_wasm.ptx.plans import Expected, plan
from tensor_wasm.ptx.program import ScalarType

#: Declares a register of every type, named after it, and what else operands may name.
DECLARATIONS = "\n".join(
    [f".reg .{kind.ptx_name} %{kind.ptx_name}, %{kind.ptx_name}_;" for kind in ScalarType] + [".local .b64 spot[8];"]
)


def module(body: str, *, before: str = "", parameters: str = "") -> str:
    """A module with one kernel ``k`` of this body."""
    heading = ".version 8.0\n.target sm_80\n.address_size 64\n"
    return f"{heading}{before}.visible .entry k({parameters})\n{{\n{body}\n}}\n"


def spellings(form: Form) -> Iterator[str]:
    """Opcodes that match ``form``: every choice of its required parts, and each choice of each optional part once."""
    required = [sorted(slot.names) if not slot.is_optional else [""] for slot in form.parts]
    for chosen in itertools.product(*required):
        yield _joined(form, chosen)
    first = [names[0] for names in required]
    for place, slot in enumerate(form.parts):
        for name in _optional_names(slot):
            yield _joined(form, (*first[:place], name, *first[place + 1 :]))


def statements(opcode: str) -> Iterator[str]:
    """``opcode`` with every number of operands it may have."""
    chosen = plan(opcode)
    for expected in chosen.by_count.values():
        wants_policy = "L2::cache_hint" in chosen.opcode.modifiers
        if any(wanted.role.kind is RoleKind.POLICY for wanted in expected) is wants_policy:
            yield f"{opcode} {', '.join(_operand(wanted) for wanted in expected)};"


def _optional_names(slot: Slot) -> list[str]:
    return sorted(slot.names) if slot.is_optional else []


def _joined(form: Form, parts: tuple[str, ...]) -> str:
    return ".".join([form.root, *(part for part in parts if part)])


def _operand(wanted: Expected) -> str:
    match wanted.role.kind:
        case RoleKind.ADDRESS:
            return "[%b64+8]"
        case RoleKind.IMMEDIATE:
            return "4"
        case RoleKind.POLICY:
            return "%b64"
        case RoleKind.LABEL:
            return "somewhere"
        case RoleKind.TABLE:
            return "places"
        case RoleKind.ANY:
            return "%b32"
    register = _register(wanted.type)
    if wanted.count is not None and wanted.count != 1:
        register = "{" + ", ".join([register] * (wanted.count or 2)) + "}"
    if wanted.role.pairing is not Pairing.NONE:
        register += "|%pred_"
    return ("!" if wanted.role.is_negatable else "") + register


def _register(kind: ScalarType | None) -> str:
    if kind is None:
        return "%b32"
    if kind.kind == "x":
        return f"%b{kind.bits}"
    return f"%{kind.ptx_name}"
