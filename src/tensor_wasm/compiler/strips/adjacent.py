"""Elements of a strip's lanes that are adjacent in memory, moved by vectors: where :mod:`.memory` has found them so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tensor_wasm.compiler.memory import Place
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips.masked import load_some, store_some
from tensor_wasm.compiler.strips.operands import cut, lanes_of
from tensor_wasm.compiler.strips.strip import Mask, Strip, shuffle
from tensor_wasm.ptx.program import Instruction, Register, ScalarType
from tensor_wasm.wasm import Local, ValType

V128 = ValType.V128


def load_vectors(strip: Strip, instruction: Instruction, place: Place) -> None:
    """Load the elements of all lanes, the first lane's from ``place``; all run, so nothing is blended."""
    kind, registers = instruction.type, instruction.destinations
    count = len(registers)
    body = strip.body
    if count == 1:
        (register,) = registers
        if register is not None:
            for number, local in enumerate(strip.vectors(register)):
                _load_vector(strip, kind, register, number, place)
                body.set(local)
        return
    lanes = 16 // kind.size_bytes
    for number in range(strip.width // lanes):
        parts = [body.local(V128) for _ in range(count)]
        for position, part in enumerate(parts):
            _push_vector(strip, place.after(16 * (count * number + position)))
            body.set(part)
        _transpose(strip, parts, kind.size_bytes)
        for register, part in zip(registers, parts, strict=True):
            if register is not None:
                body.get(part)
                body.set(strip.vectors(register)[number])
        body.release(*parts)


def load_lanes(strip: Strip, instruction: Instruction, place: Place, mask: Mask) -> None:
    """Load one element for each lane of a mask, the first lane's from ``place``."""
    (register,) = instruction.destinations
    if register is not None:
        load_some(strip, instruction, register, place, mask)


def store_lanes(strip: Strip, instruction: Instruction, place: Place, mask: Mask) -> None:
    """Store one element for each lane of a mask, the first lane's at ``place``."""
    body, kind = strip.body, instruction.type
    values = [body.local(V128) for _ in range(strip.width * max(kind.size_bytes, 4) // 16)]
    for unit, value in enumerate(values):
        _push_stored(strip, instruction, 0, unit)
        body.set(value)
    store_some(strip, kind, place, mask, values)
    body.release(*values)


def _push_stored(strip: Strip, instruction: Instruction, position: int, unit: int) -> None:
    """Push a unit of what a store stores, with anything above its bits."""
    kind, source = instruction.type, instruction.sources[position]
    if isinstance(source, Register) and kind.bits < 32 and strip.shape(source) is Shape.UNIFORM:
        strip.first.push_register(source)
        strip.body.op("i32x4.splat")
        return
    as_kind = kind if kind.bits >= 32 else ScalarType.B32
    lanes_of(strip, source, as_kind, unit, is_wide=kind.bits == 64).push(strip.body)


def _push_vector(strip: Strip, place: Place) -> None:
    strip.body.get(place.base)
    strip.body.memory("v128.load", place.offset, align=2, memory=place.memory)


def _load_vector(strip: Strip, kind: ScalarType, register: Register, number: int, place: Place) -> None:
    """Push vector ``number`` of a register from adjacent elements."""
    body = strip.body
    sign = "s" if kind.is_signed else "u"
    if kind.bits >= 32:
        _push_vector(strip, place.after(16 * number))
        return
    body.get(place.base)
    if kind.bits == 16:
        body.memory(f"v128.load16x4_{sign}", place.offset + 8 * number, align=1, memory=place.memory)
    else:
        body.memory("v128.load32_zero", place.offset + 4 * number, align=0, memory=place.memory)
        body.op(f"i16x8.extend_low_i8x16_{sign}", f"i32x4.extend_low_i16x8_{sign}")
    if kind.is_signed and register.type.bits < 32:  # kept zero-extended
        cut(body, register.type.bits)


#: The low halves of two vectors, and the high ones, in words.
_PAIRS: Final = ((0, 1, 4, 5), (2, 3, 6, 7))


def _transpose(strip: Strip, parts: list[Local], size: int) -> None:
    """Turn elements of 2 or 4 components, one after another in vectors, into a vector for each component."""
    body = strip.body
    if len(parts) == 2:
        _shuffle_pair(strip, parts, size, [range(component, 2 * (16 // size), 2) for component in (0, 1)])
        return
    # Two rounds of pairs: (0, 1) and (2, 3) by words, then their halves.
    halves = []
    for one, two in ((0, 1), (2, 3)):
        for words in ((0, 4, 1, 5), (2, 6, 3, 7)):
            local = body.local(V128)
            body.get(parts[one])
            body.get(parts[two])
            shuffle(body, words)
            body.set(local)
            halves.append(local)
    low, high, low_2, high_2 = halves
    sides = [(first, second, words) for first, second in ((low, low_2), (high, high_2)) for words in _PAIRS]
    for part, (first, second, chosen_words) in zip(parts, sides, strict=True):
        body.get(first)
        body.get(second)
        shuffle(body, chosen_words)
        body.set(part)
    body.release(*halves)


def store_vectors(strip: Strip, instruction: Instruction, place: Place) -> None:
    """Store the elements of all lanes, the first lane's at ``place``."""
    body, kind, sources = strip.body, instruction.type, instruction.sources
    count = len(sources)

    def push(position: int, unit: int) -> None:
        _push_stored(strip, instruction, position, unit)

    if kind.bits < 32:
        _store_narrow(strip, kind, place, push)
        return
    lanes = 16 // kind.size_bytes
    for number in range(strip.width // lanes):
        parts = [body.local(V128) for _ in range(count)]
        for position, part in enumerate(parts):
            push(position, number)
            body.set(part)
        if count > 1:
            _interleave(strip, parts, kind.size_bytes)
        for position, part in enumerate(parts):
            body.get(place.base)
            body.get(part)
            body.memory("v128.store", place.offset + 16 * (count * number + position), align=2, memory=place.memory)
        body.release(*parts)


def _interleave(strip: Strip, parts: list[Local], size: int) -> None:
    """The inverse of :func:`_transpose`; of four components it is the same."""
    if len(parts) == 4:
        _transpose(strip, parts, size)
        return
    per = 16 // size
    pairs = [element for lane in range(per) for element in (lane, per + lane)]
    _shuffle_pair(strip, parts, size, [pairs[:per], pairs[per:]])


def _shuffle_pair(strip: Strip, parts: Sequence[Local], size: int, picks: Sequence[Sequence[int]]) -> None:
    """Turn two vectors into two of some of their elements, as :func:`shuffle` counts these."""
    body = strip.body
    new = [body.local(V128) for _ in parts]
    for local, chosen in zip(new, picks, strict=True):
        body.get(parts[0])
        body.get(parts[1])
        shuffle(body, chosen, size)
        body.set(local)
    for local, part in zip(new, parts, strict=True):
        body.get(local)
        body.set(part)
    body.release(*new)


def _store_narrow(strip: Strip, kind: ScalarType, place: Place, push: Callable[[int, int], None]) -> None:
    """Elements of 8 or 16 bits: the lanes cut and put together, 16 bytes at most at a time."""
    body = strip.body

    def push_cut(unit: int) -> None:
        push(0, unit)
        cut(body, kind.bits)

    def push_pair(unit: int) -> None:
        push_cut(unit)
        push_cut(min(unit + 1, strip.quads - 1))
        body.op("i16x8.narrow_i32x4_u")

    packed = body.local(V128)
    if kind.bits == 16:
        for unit in range(0, strip.quads, 2):
            push_pair(unit)
            body.set(packed)
            _store_low(strip, place.after(8 * unit), packed, min(16, 8 * (strip.quads - unit)))
    else:
        for unit in range(0, strip.quads, 4):
            push_pair(unit)
            push_pair(min(unit + 2, strip.quads - 1))
            body.op("i8x16.narrow_i16x8_u")
            body.set(packed)
            _store_low(strip, place.after(4 * unit), packed, min(16, 4 * (strip.quads - unit)))
    body.release(packed)


def _store_low(strip: Strip, place: Place, packed: Local, size: int) -> None:
    """Store the low 4, 8 or 16 bytes of a vector."""
    body = strip.body
    body.get(place.base)
    body.get(packed)
    if size == 16:
        body.memory("v128.store", place.offset, align=0, memory=place.memory)
    else:
        body.memory_lane(f"v128.store{8 * size}_lane", 0, place.offset, align=0, memory=place.memory)
