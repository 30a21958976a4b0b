"""``match``: which members hold the same value (PTX ISA, "match.sync").

Operand words: the value, one or two. Result words: the mask of lanes; for ``all`` then whether all agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.values.formula import I32, Value, constant, read, select
from tensor_wasm.compiler.warp.mailbox import (
    FIRST,
    LANES,
    Builder,
    Resolver,
    bits_of,
    box_address,
    builder,
    vector,
)
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.ptx.program import Instruction, ScalarType

_TYPES: Final = (ScalarType.B32, ScalarType.B64)


def plan(instruction: Instruction) -> Plan | None:
    """The plan of a ``match``, None for a form there is not."""
    if instruction.modifiers not in (("any", "sync"), ("all", "sync")) or len(instruction.types) != 1:
        return None
    mode, kind = instruction.modifiers[0], instruction.type
    count = len(instruction.destinations)
    counts = (1, 2) if mode == "all" else (1,)
    if kind not in _TYPES or len(instruction.sources) != 2 or count not in counts:
        return None
    results = (ScalarType.B32, ScalarType.PRED)[:count]
    return Plan(f"match.{mode}.{kind.ptx_name}", (Operand(0, kind),), 1, results)


def _same_as(resolver: Resolver, gathered: list[list[Value]], value: list[Value]) -> Value:
    """The lanes, members or not, that hold ``value``: ``gathered`` has eight vectors for each of its words."""
    wanted = [resolver.let(vector("i32x4.splat", word)) for word in value]
    found = constant(I32, 0)
    for group in range(LANES // 4):
        truths = vector("i32x4.eq", gathered[0][group], wanted[0])
        for word in range(1, len(value)):
            truths = vector("v128.and", truths, vector("i32x4.eq", gathered[word][group], wanted[word]))
        found = found | (bits_of(truths) << (4 * group))
    return resolver.let(found)


def _gathered(resolver: Resolver, width: int) -> list[list[Value]]:
    groups = range(LANES // 4)
    return [
        [resolver.let(resolver.gather(resolver.mail, FIRST + word, 4 * group)) for group in groups]
        for word in range(width)
    ]


def _any(width: int) -> Builder:
    def write(resolver: Resolver) -> None:
        """Take the lowest member without an answer, answer all that hold its value, and go on with the rest."""
        body = resolver.body
        gathered = _gathered(resolver, width)
        rest = resolver.local(I32)
        resolver.set(rest, resolver.members)
        with body.block() as done, body.loop() as again:
            read(rest).is_zero().push(body)
            body.br_if(done)
            address = resolver.let(box_address(resolver.mail, read(rest).unary("ctz")))
            value = [resolver.let(resolver.word(address, FIRST + word)) for word in range(width)]
            same = resolver.let(_same_as(resolver, gathered, value) & resolver.members)
            resolver.give_all(same, same)
            resolver.set(rest, read(rest) ^ same)
            body.br(again)

    return builder(f"match.any.b{32 * width}", write)


def _all(width: int) -> Builder:
    def write(resolver: Resolver) -> None:
        # ctz of no members is 32: bounded here, though nobody would get the answer.
        lowest = resolver.members.unary("ctz") & (LANES - 1)
        address = resolver.let(box_address(resolver.mail, lowest))
        value = [resolver.let(resolver.word(address, FIRST + word)) for word in range(width)]
        differs = resolver.local(I32)
        resolver.set(differs, constant(I32, 0))
        with resolver.each(resolver.members) as box:
            for word in range(width):
                resolver.set(differs, read(differs) | (resolver.operand(box, FIRST + word) ^ value[word]))
        agree = resolver.let(read(differs).is_zero())
        resolver.give_all(resolver.members, select(agree, resolver.members, 0), agree)

    return builder(f"match.all.b{32 * width}", write)


#: The resolvers by key.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "match.any.b32": _any(1),
        "match.any.b64": _any(2),
        "match.all.b32": _all(1),
        "match.all.b64": _all(2),
    }
)
