"""``redux.sync``: a sum, minimum, maximum or bitwise combination over the members, for each of them.

Operand word: the value. Result word: the combination. Sums wrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.values.formula import I32, Value, read, select
from tensor_wasm.compiler.warp.mailbox import FIRST, Builder, Resolver, builder
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.ptx.program import Instruction

#: By key: what an operation starts from, and the relation that keeps the new value or the instruction that adds it.
_OPERATIONS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "add.u32": (0, "add"),
        "add.s32": (0, "add"),
        "min.u32": (0xFFFF_FFFF, "lt_u"),
        "min.s32": (0x7FFF_FFFF, "lt_s"),
        "max.u32": (0, "gt_u"),
        "max.s32": (0x8000_0000, "gt_s"),
        "and.b32": (0xFFFF_FFFF, "and"),
        "or.b32": (0, "or"),
        "xor.b32": (0, "xor"),
    }
)


def plan(instruction: Instruction) -> Plan | None:
    """The plan of a ``redux``, None for a form there is not."""
    if len(instruction.modifiers) != 2 or instruction.modifiers[0] != "sync" or len(instruction.types) != 1:
        return None
    key = f"{instruction.modifiers[1]}.{instruction.type.ptx_name}"
    if key not in _OPERATIONS or (len(instruction.sources), len(instruction.destinations)) != (2, 1):
        return None
    return Plan(f"redux.{key}", (Operand(0, instruction.type),), 1, (instruction.type,))


def _resolver(key: str) -> Builder:
    start, name = _OPERATIONS[key]

    def write(resolver: Resolver) -> None:
        total = resolver.local(I32)
        resolver.body.i32_const(start)
        resolver.body.set(total)
        with resolver.each(resolver.members) as box:
            value = resolver.let(resolver.operand(box, FIRST))
            resolver.set(total, _combined(name, read(total), value))
        resolver.give_all(resolver.members, read(total))

    return builder(f"redux.{key}", write)


def _combined(name: str, total: Value, value: Value) -> Value:
    if "_" in name:
        return select(value.compare(name, total), value, total)
    return total.binary(name, value)


#: The resolvers by key.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType({f"redux.{key}": _resolver(key) for key in _OPERATIONS})
