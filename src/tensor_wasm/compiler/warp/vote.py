"""``vote``, ``activemask``, ``elect`` and ``bar.warp``: what lanes know about each other.

Operand word of a vote: the predicate. Lanes that do not take part count nowhere: they are 0 in a ballot.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.values.formula import I32, Value, read
from tensor_wasm.compiler.warp.mailbox import FIRST, Builder, Resolver, bits_of, builder, vector, words
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.ptx.program import Instruction, ScalarType

_TRUTHS: Final = ("all", "any", "uni")


def plan_vote(instruction: Instruction) -> Plan | None:
    """The plan of a ``vote``, None for a form there is not."""
    mode = next((name for name in (*_TRUTHS, "ballot") if name in instruction.modifiers), None)
    is_sync = "sync" in instruction.modifiers
    result = ScalarType.B32 if mode == "ballot" else ScalarType.PRED
    shape = (len(instruction.sources), len(instruction.modifiers), instruction.types, len(instruction.destinations))
    if mode is None or shape != (1 + is_sync, 1 + is_sync, (result,), 1):
        return None
    return Plan(f"vote.{mode}", (Operand(0, ScalarType.PRED),), 1 if is_sync else None, (result,))


def plan_activemask(instruction: Instruction) -> Plan | None:
    """The plan of ``activemask``, None for a form there is not."""
    shape = (len(instruction.sources), instruction.modifiers, instruction.types, len(instruction.destinations))
    if shape != (0, (), (ScalarType.B32,), 1):
        return None
    return Plan("activemask", results=(ScalarType.B32,), waits=False)


def plan_elect(instruction: Instruction) -> Plan | None:
    """The plan of ``elect``, None for a form there is not."""
    shape = (len(instruction.sources), instruction.modifiers, instruction.types, len(instruction.destinations))
    if shape != (1, ("sync",), (), 2):
        return None
    return Plan("elect", mask=0, results=(ScalarType.B32, ScalarType.PRED))


def plan_barrier(instruction: Instruction) -> Plan | None:
    """The plan of ``bar.warp.sync``, None for another barrier."""
    shape = (len(instruction.sources), instruction.modifiers, instruction.types, len(instruction.destinations))
    return Plan("bar.warp", mask=0) if shape == (1, ("warp", "sync"), (), 0) else None


def _ballot(resolver: Resolver) -> Value:
    """The members whose predicate holds, a bit each."""
    found = resolver.local(I32)
    with resolver.each_four() as address:
        is_true = vector("i32x4.ne", resolver.gather(read(address), FIRST), words(0))
        # The first four lanes end up lowest: 8 steps shift each bit out of the way of the others.
        resolver.set(found, read(found).shr_u(4) | (bits_of(is_true) << 28))
    return resolver.let(read(found) & resolver.members)


def _write_ballot(resolver: Resolver) -> None:
    resolver.give_all(resolver.members, _ballot(resolver))


def _write_all(resolver: Resolver) -> None:
    resolver.give_all(resolver.members, _ballot(resolver).compare("eq", resolver.members))


def _write_any(resolver: Resolver) -> None:
    resolver.give_all(resolver.members, _ballot(resolver).compare("ne", 0))


def _write_uniform(resolver: Resolver) -> None:
    ballot = _ballot(resolver)
    resolver.give_all(resolver.members, ballot.compare("eq", resolver.members) | ballot.is_zero())


def _write_members(resolver: Resolver) -> None:
    resolver.give_all(resolver.members, resolver.members)


def _write_leader(resolver: Resolver) -> None:
    leader = resolver.let(resolver.members.unary("ctz"))
    with resolver.each(resolver.members) as box:
        resolver.give(box, 0, leader)
        resolver.give(box, 1, read(box.lane).compare("eq", leader))


def _write_nothing(_resolver: Resolver) -> None:
    """Lanes that met have no results to get."""


#: The resolvers by key.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        name: builder(name, write)
        for name, write in (
            ("vote.all", _write_all),
            ("vote.any", _write_any),
            ("vote.uni", _write_uniform),
            ("vote.ballot", _write_ballot),
            ("activemask", _write_members),
            ("elect", _write_leader),
            ("bar.warp", _write_nothing),
        )
    }
)
