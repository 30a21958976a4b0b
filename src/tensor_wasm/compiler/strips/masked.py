"""Loads and stores of some lanes of a strip whose elements are adjacent in memory.

A function for each kind of element, shared by all accesses of a kernel. Vectors all of whose lanes take part are moved
as such, of others each lane that does: nothing outside of what the lanes address is touched, so that memory that is
closed next to it stays unread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tensor_wasm.compiler.memory import Place
from tensor_wasm.compiler.strips.strip import Mask, Strip
from tensor_wasm.ptx.program import Instruction, Register, ScalarType
from tensor_wasm.wasm import Body, Function, Local, ValType

I32, V128 = ValType.I32, ValType.V128


def load_some(strip: Strip, instruction: Instruction, register: Register, place: Place, mask: Mask) -> None:
    """Load a register's lanes of a mask, the first lane's from ``place``; others keep theirs where they are needed."""
    body = strip.body
    body.get(place.base)
    body.get(mask.bits)
    body.call(_loader(strip, instruction.type, register, place.memory))
    blend = mask if strip.must_blend(register, instruction.guard) else None
    for number in reversed(range(len(strip.vectors(register)))):
        strip.set_vector(register, number, blend)


def store_some(strip: Strip, kind: ScalarType, place: Place, mask: Mask, values: Sequence[Local]) -> None:
    """Store the lanes of a mask of elements that are given all in vectors."""
    body = strip.body
    body.get(place.base)
    body.get(mask.bits)
    for value in values:
        body.get(value)
    body.call(_storer(strip, kind, place.memory))


def _loader(strip: Strip, kind: ScalarType, register: Register, memory: int) -> Function:
    """``(address, bits) -> vectors``; lanes that are not among the bits are 0."""
    key = ("load some", kind, register.type.bits, memory)
    found = strip.parts.lane_functions.get(key)
    if found is not None:
        return found
    shape, name, lanes = _form(kind, "load")
    count = strip.width // lanes
    function = strip.parts.module.function([I32, I32], [V128] * count, name="load_some")
    strip.parts.lane_functions[key] = function
    body = function.code
    address, bits = function.parameters

    def load_lane(vector: Local, lane: int) -> None:
        body.get(vector)
        body.get(address)
        body.memory(name, kind.size_bytes * lane, align=0, memory=memory)
        if kind.is_signed and register.type.bits < 32:  # kept zero-extended
            body.i32_const((1 << register.type.bits) - 1)
            body.op("i32.and")
        body.lane(f"{shape}.replace_lane", lane % lanes)
        body.set(vector)

    def load_whole(vector: Local, first: int) -> None:
        body.get(address)
        body.memory("v128.load", kind.size_bytes * first, align=0, memory=memory)
        body.set(vector)

    vectors = [body.local(V128) for _ in range(count)]
    for number, vector in enumerate(vectors):
        _move(body, bits, kind, (number * lanes, lanes), partial(load_whole, vector), partial(load_lane, vector))
    for vector in vectors:
        body.get(vector)
    return function


def _storer(strip: Strip, kind: ScalarType, memory: int) -> Function:
    """``(address, bits, vectors)``."""
    key = ("store some", kind.bits, memory)
    found = strip.parts.lane_functions.get(key)
    if found is not None:
        return found
    shape, name, lanes = _form(kind, "store")
    function = strip.parts.module.function([I32, I32] + [V128] * (strip.width // lanes), name="store_some")
    strip.parts.lane_functions[key] = function
    body = function.code
    address, bits, *vectors = function.parameters

    def store_lane(vector: Local, lane: int) -> None:
        body.get(address)
        body.get(vector)
        body.lane(f"{shape}.extract_lane", lane % lanes)
        body.memory(name, kind.size_bytes * lane, align=0, memory=memory)

    def store_whole(vector: Local, first: int) -> None:
        body.get(address)
        body.get(vector)
        body.memory("v128.store", kind.size_bytes * first, align=0, memory=memory)

    for number, vector in enumerate(vectors):
        _move(body, bits, kind, (number * lanes, lanes), partial(store_whole, vector), partial(store_lane, vector))
    return function


def _form(kind: ScalarType, move: str) -> tuple[str, str, int]:
    """The shape of vectors of a kind, the instruction that moves one lane, and how many lanes there are."""
    if kind.bits == 64:
        return "i64x2", f"i64.{move}", 2
    suffix = "" if kind.bits == 32 else str(kind.bits)
    if suffix and move == "load":
        suffix += "_s" if kind.is_signed else "_u"
    return "i32x4", f"i32.{move}{suffix}", 4


def _move(
    body: Body,
    bits: Local,
    kind: ScalarType,
    lanes: tuple[int, int],
    whole: Callable[[int], None],
    one: Callable[[int], None],
) -> None:
    """Move the lanes of one vector, (first, count): all at once where all take part, else each that does."""
    first, count = lanes
    every = ((1 << count) - 1) << first

    def each() -> None:
        for lane in range(first, first + count):
            body.get(bits)
            body.i32_const(1 << lane)
            body.op("i32.and")
            with body.if_():
                one(lane)

    body.get(bits)
    body.i32_const(every)
    body.op("i32.and")
    with body.if_():
        if kind.bits < 32:
            each()
            return
        body.get(bits)
        body.i32_const(every)
        body.op("i32.and")
        body.i32_const(every)
        body.op("i32.eq")
        with body.if_():
            whole(first)
            body.else_()
            each()
