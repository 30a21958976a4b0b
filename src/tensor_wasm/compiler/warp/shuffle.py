"""``shfl``: each lane gets the value of another one (PTX ISA, "shfl.sync").

Operand words: the value, operand b, operand c. Result words: the value, the predicate. Where the lane to read from
does not take part, whose value the ISA leaves open, a lane gets its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.values.formula import Value, read, select
from tensor_wasm.compiler.warp.mailbox import (
    ALL_LANES,
    FIRST,
    IN_OFFSET,
    LANES,
    MAILBOX_BYTES,
    OUT_OFFSET,
    WORD_BYTES,
    Box,
    Builder,
    Resolver,
    box_address,
    builder,
    has_lane,
    shift,
    shuffle,
    vector,
    words,
)
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.ptx.program import Instruction, ScalarType
from tensor_wasm.wasm import Local, ValType

_MODES: Final = ("up", "down", "bfly", "idx")
_VALUE, _B, _C = FIRST, FIRST + 1, FIRST + 2
#: Bits of a lane's number; operand c has the clamp here and the segment mask eight bits up.
_LANE_MASK: Final = LANES - 1
_SEGMENT_SHIFT: Final = 8


def plan(instruction: Instruction) -> Plan | None:
    """The plan of a ``shfl``, None for a form there is not."""
    mode = next((name for name in _MODES if name in instruction.modifiers), None)
    is_sync = "sync" in instruction.modifiers
    shape = (len(instruction.sources), len(instruction.modifiers), instruction.types)
    if mode is None or shape != (3 + is_sync, 1 + is_sync, (ScalarType.B32,)):
        return None
    count = len(instruction.destinations)
    if count not in (1, 2):
        return None
    return Plan(
        f"shfl.{mode}",
        tuple(Operand(position, ScalarType.B32) for position in range(3)),
        3 if is_sync else None,
        (ScalarType.B32, ScalarType.PRED)[:count],
    )


def _resolver(mode: str) -> Builder:
    def write(resolver: Resolver) -> None:
        body = resolver.body
        resolver.members.compare("eq", ALL_LANES).push(body)
        with body.if_():
            _whole(resolver, mode)
            body.op("return")
        with resolver.each(resolver.members) as box:
            _one(resolver, mode, box)

    return builder(f"shfl.{mode}", write)


def _one(resolver: Resolver, mode: str, box: Box) -> None:
    """Serve a lane of a warp that is not whole."""
    lane = read(box.lane)
    offset = resolver.let(resolver.operand(box, _B) & _LANE_MASK)
    control = resolver.let(resolver.operand(box, _C))
    segment = resolver.let(control.shr_u(_SEGMENT_SHIFT) & _LANE_MASK)
    outside = segment ^ _LANE_MASK
    last = (lane & segment) | (control & outside)
    match mode:
        case "up":
            source = lane - offset
        case "down":
            source = lane + offset
        case "bfly":
            source = lane ^ offset
        case _:
            source = (lane & segment) | (offset & outside)
    source = resolver.let(source)
    is_inside = resolver.let(source.compare("ge_s" if mode == "up" else "le_s", last))
    # A number outside 0..31 is never inside; the shift of `has_lane` takes it modulo 32.
    is_there = is_inside & has_lane(resolver.members, source)
    chosen = resolver.let(select(is_there, source, lane))
    resolver.give(box, 0, resolver.word(box_address(resolver.mail, chosen), _VALUE))
    resolver.give(box, 1, is_inside)


def _whole(resolver: Resolver, mode: str) -> None:
    """Serve all 32 lanes, four at a time."""
    held = resolver.local(ValType.V128)
    resolver.body.v128_const(words(0, 1, 2, 3))
    resolver.body.set(held)
    mail = resolver.let(vector("i32x4.splat", resolver.mail))
    with resolver.each_four() as address:
        low, high = _controls(resolver, address, 0), _controls(resolver, address, 2)
        offset = resolver.let(vector("v128.and", shuffle(low, high, (0, 2, 4, 6)), words(_LANE_MASK)))
        control = resolver.let(shuffle(low, high, (1, 3, 5, 7)))
        segment = resolver.let(shift("i32x4.shr_u", control, _SEGMENT_SHIFT))
        last = vector("v128.bitselect", read(held), vector("v128.and", control, words(_LANE_MASK)), segment)
        source = resolver.let(_source(mode, read(held), offset, segment))
        is_inside = resolver.let(vector("i32x4.ge_s" if mode == "up" else "i32x4.le_s", source, last))
        chosen = vector("v128.bitselect", source, read(held), is_inside)
        places = resolver.let(vector("i32x4.add", shift("i32x4.shl", chosen, MAILBOX_BYTES.bit_length() - 1), mail))
        values = _fetch(resolver, places)
        truth = resolver.let(shift("i32x4.shr_u", is_inside, 31))
        _store_pairs(resolver, address, shuffle(values, truth, (0, 4, 1, 5)), 0)
        _store_pairs(resolver, address, shuffle(values, truth, (2, 6, 3, 7)), 2)
        resolver.set(held, vector("i32x4.add", read(held), words(4)))


def _controls(resolver: Resolver, address: Local, first: int) -> Value:
    """Operands b and c of two lanes, ``first`` and the next."""
    body = resolver.body
    pair = resolver.local(ValType.V128)
    offset = IN_OFFSET + WORD_BYTES * _B + MAILBOX_BYTES * first
    body.get(address)
    body.memory("v128.load64_zero", offset, memory=resolver.memory)
    body.set(pair)
    body.get(address)
    body.get(pair)
    body.memory_lane("v128.load64_lane", 1, offset + MAILBOX_BYTES, memory=resolver.memory)
    body.set(pair)
    return read(pair)


def _source(mode: str, lanes: Value, offset: Value, segment: Value) -> Value:
    """The lane that each lane reads from, if it is inside its segment."""
    match mode:
        case "up":
            return vector("i32x4.sub", lanes, offset)
        case "down":
            return vector("i32x4.add", lanes, offset)
        case "bfly":
            return vector("v128.xor", lanes, offset)
        case _:
            return vector("v128.bitselect", lanes, offset, segment)


def _fetch(resolver: Resolver, places: Value) -> Value:
    """The values of the four mailboxes at ``places``."""
    body = resolver.body
    values = resolver.local(ValType.V128)
    for lane in range(4):
        places.push(body)
        body.lane("i32x4.extract_lane", lane)
        if lane == 0:
            body.memory("v128.load32_zero", WORD_BYTES * _VALUE, memory=resolver.memory)
        else:
            body.get(values)
            body.memory_lane("v128.load32_lane", lane, WORD_BYTES * _VALUE, memory=resolver.memory)
        body.set(values)
    return read(values)


def _store_pairs(resolver: Resolver, address: Local, pairs: Value, first: int) -> None:
    """Write the two result words of two lanes, ``first`` and the next."""
    kept = resolver.let(pairs)
    for half in range(2):
        resolver.body.get(address)
        kept.push(resolver.body)
        offset = OUT_OFFSET + MAILBOX_BYTES * (first + half)
        resolver.body.memory_lane("v128.store64_lane", half, offset, memory=resolver.memory)


#: The resolvers by key.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType({f"shfl.{mode}": _resolver(mode) for mode in _MODES})
