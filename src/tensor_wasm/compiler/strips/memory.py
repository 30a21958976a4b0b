"""Loads and stores of a strip.

An access at one address for all lanes is made once. One at a linear address is made with vectors where all lanes run
and their elements are adjacent, in guest memory or in shared memory; that is a test of the first and the last lane's
address. Everything else goes lane by lane, through :mod:`tensor_wasm.compiler.memory`, which knows all windows and
says what is wrong with an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.allocation import defined, used
from tensor_wasm.compiler.carriers import carrier, convert, kept_form
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.memory import Place
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips import lanes
from tensor_wasm.compiler.strips.groups import Group, moved_bytes
from tensor_wasm.compiler.strips.masked import load_some, store_some
from tensor_wasm.compiler.strips.strip import SCRATCH, Mask, Strip, is_double, shuffle
from tensor_wasm.compiler.strips.values import cut, lanes_of
from tensor_wasm.ptx.program import Guard, Instruction, Parameter, Register, ScalarType, Space, Variable
from tensor_wasm.wasm import Local, ValType

I32, I64, V128 = ValType.I32, ValType.I64, ValType.V128
_GUEST: Final = 0
_SPLATS: Final = {ValType.I32: "i32x4", ValType.I64: "i64x2", ValType.F32: "f32x4", ValType.F64: "f64x2"}


def load(strip: Strip, instruction: Instruction) -> None:
    """Lower ``ld`` and ``ldu``."""
    with uniform_guard(strip, instruction):
        address = strip.shapes.address(instruction)
        if address is Shape.UNIFORM:
            _load_once(strip, instruction)
        elif may_be_contiguous(strip, instruction):
            mask = strip.guarded_mask(instruction.guard)
            _if_contiguous(
                strip,
                instruction,
                mask,
                lambda place: _load_vectors(strip, instruction, place),
                lambda place: _load_some(strip, instruction, place, mask),
                lambda: _by_lanes(strip, instruction, mask, memory.load),
            )
            strip.release_mask(mask)
        else:
            by_lanes(strip, instruction, memory.load)


def store(strip: Strip, instruction: Instruction) -> None:
    """Lower ``st``."""
    with uniform_guard(strip, instruction):
        address = strip.shapes.address(instruction)
        values = max(map(strip.shapes.operand, instruction.sources), default=Shape.UNIFORM)
        guard = strip.shapes.guard(instruction)
        if max(address, values, guard) is Shape.UNIFORM:
            strip.say_thread()
            memory.store(strip.first, _unguarded(instruction))
        elif may_be_contiguous(strip, instruction):
            mask = strip.guarded_mask(instruction.guard)
            _if_contiguous(
                strip,
                instruction,
                mask,
                lambda place: _store_vectors(strip, instruction, place),
                lambda place: _store_some(strip, instruction, place, mask),
                lambda: _by_lanes(strip, instruction, mask, memory.store),
            )
            strip.release_mask(mask)
        else:
            by_lanes(strip, instruction, memory.store)


@contextmanager
def uniform_guard(strip: Strip, instruction: Instruction) -> Iterator[None]:
    """Run what is written inside only where a guard that is the same for all lanes holds; others are for masks."""
    guard = instruction.guard
    is_uniform = guard is not None and strip.shape(guard.register) is Shape.UNIFORM
    with strip.first.guarded(guard if is_uniform else None):
        yield


def by_lanes(strip: Strip, instruction: Instruction, lower: Callable[[Frame, Instruction], None]) -> None:
    """Lower an instruction lane by lane, for those where its varying guard holds."""
    mask = strip.guarded_mask(instruction.guard)
    _by_lanes(strip, instruction, mask, lower)
    strip.release_mask(mask)


def _by_lanes(strip: Strip, instruction: Instruction, mask: Mask, lower: Callable[[Frame, Instruction], None]) -> None:
    alone = _unguarded(instruction)
    lanes.run(strip, alone, mask, tuple(used(alone)), tuple(defined(alone)), lower)


def _unguarded(instruction: Instruction) -> Instruction:
    return instruction if instruction.guard is None else replace(instruction, guard=None)


# --- one for all lanes ----------------------------------------------------------------------------------------


def _load_once(strip: Strip, instruction: Instruction) -> None:
    """Load what is the same for all lanes, where any lane takes part."""
    body, kind = strip.body, instruction.type
    alone = _unguarded(instruction)
    mask = strip.guarded_mask(instruction.guard)
    temporaries: list[tuple[Register, Local]] = [
        (register, body.local(carrier(register.type))) for register in instruction.destinations if register is not None
    ]
    found = dict(temporaries)

    def keep(register: Register) -> None:
        convert(body, kind, kept_form(register.type))
        body.set(found[register])

    def move(place: Place) -> None:
        for position, register in enumerate(instruction.destinations):
            if register is not None:
                memory.push_loaded(strip.first, kind, place.after(position * kind.size_bytes))
                keep(register)

    def search() -> None:
        strip.say_thread(mask)
        memory.reach(strip.first, alone, len(alone.destinations), move)

    def read() -> None:
        if memory.push_parameters(strip.first, alone, keep):
            return
        group = strip.groups.get(id(instruction))
        if group is None:
            search()
            return
        _push_group_holds(strip, instruction, group)
        with body.if_():
            _load_inside(strip, alone, move)
            body.else_()
            search()

    if mask is strip.mask:
        read()
    else:
        body.get(mask.bits)
        with body.if_():
            read()
    for register, local in temporaries:
        spread(strip, register, local, instruction.guard, mask)
        body.release(local)
    strip.release_mask(mask)


def _load_inside(strip: Strip, instruction: Instruction, move: Callable[[Place], None]) -> None:
    """Load from an address that is known to be inside of its memory."""
    body = strip.body
    is_shared = instruction.space is Space.SHARED
    with strip.first.temporary(I32) as base:
        memory.push_address(strip.first, instruction)
        body.op("i32.wrap_i64")
        if is_shared:
            body.get(strip.ground.shared_base)
            body.op("i32.add")
        else:
            strip.say_thread()
        body.set(base)
        move(Place(SCRATCH if is_shared else _GUEST, base))


def _push_group_holds(strip: Strip, instruction: Instruction, group: Group) -> None:
    """Push whether all accesses of a group are inside of memory and aligned, and where they are linear, contiguous."""
    body = strip.body
    if group.holds is not None:
        body.get(group.holds)
        return
    group.holds = body.local(I32)
    size, address = group.size_bytes, instruction.address
    assert address is not None
    is_linear = strip.shape(group.base) is Shape.LINEAR
    reach = group.highest - group.lowest + (size * (strip.width - 1) if is_linear else 0)
    with strip.first.temporary(I64) as first, strip.first.temporary(I64) as end:
        memory.push_address(strip.first, replace(instruction, address=replace(address, offset=group.lowest)))
        body.set(first)
        push_end(strip, instruction, size)
        body.set(end)
        _push_has_room(strip, first, size, reach, lambda: body.get(end))
    if is_linear:
        if not may_be_contiguous(strip, instruction):
            body.op("drop")
            body.i32_const(0)
        check_origin(strip, group.base, None)
    body.tee(group.holds)


def spread(strip: Strip, register: Register, value: Local, guard: Guard | None, mask: Mask) -> None:
    """Set a register of any shape to one value in all lanes."""
    body = strip.body
    shape = strip.shape(register)
    if shape is Shape.UNIFORM:
        body.get(value)
        strip.first.pop_register(register)
        return
    blend = mask if strip.must_blend(register, guard) else None
    for number in range(len(strip.vectors(register))):
        if register.type is ScalarType.PRED:
            body.i32_const(0)
            body.get(value)
            body.op("i32.sub", "i32x4.splat")
        else:
            body.get(value)
            body.op(f"{_SPLATS[value.type]}.splat")
        strip.set_vector(register, number, blend)
    strip.find_bits(register)


# --- all lanes side by side -----------------------------------------------------------------------------------


def _has_vectors(instruction: Instruction) -> bool:
    """Whether there is vector code for what an instruction moves, in the space it does."""
    if instruction.space not in (Space.GLOBAL, Space.GENERIC, Space.SHARED, None):
        return False
    address = instruction.address
    if address is not None and isinstance(address.base, Parameter | Variable):
        return False
    bits = instruction.type.bits
    registers = [
        operand for operand in (*instruction.destinations, *instruction.sources) if isinstance(operand, Register)
    ]
    is_wide = bits == 64
    if any(is_double(register.type) != is_wide or register.type is ScalarType.PRED for register in registers):
        return False
    count = len(instruction.destinations or instruction.sources)
    return (count, bits) in {(1, 8), (1, 16), (1, 32), (1, 64), (2, 32), (4, 32), (2, 64)}


def may_be_contiguous(strip: Strip, instruction: Instruction) -> bool:
    """Whether all lanes' elements may be adjacent: at a linear address of the right step."""
    if strip.shapes.address(instruction) is not Shape.LINEAR or not _has_vectors(instruction):
        return False
    assert instruction.address is not None
    base = instruction.address.base
    line = strip.shapes.line(base) if isinstance(base, Register) else None
    return line is not None and line.step == moved_bytes(instruction)


def _if_contiguous(
    strip: Strip,
    instruction: Instruction,
    mask: Mask,
    together: Callable[[Place], None],
    some: Callable[[Place], None],
    alone: Callable[[], None],
) -> None:
    """Write ``together`` for where all lanes run and their elements are adjacent in memory, ``some`` for where not all
    run (of vectors of one component), else ``alone``.
    """
    body, ground = strip.body, strip.ground
    size = moved_bytes(instruction)
    first = body.local(I64)
    memory.push_address(strip.first, instruction)
    body.set(first)
    is_shared = instruction.space is Space.SHARED

    def side_by_side(move: Callable[[Place], None]) -> None:
        with strip.first.temporary(I32) as base:
            body.get(first)
            body.op("i32.wrap_i64")
            if is_shared:
                body.get(ground.shared_base)
                body.op("i32.add")
            elif not strip.assumes:
                strip.say_access(first, size)
            body.set(base)
            move(Place(SCRATCH if is_shared else _GUEST, base))

    if strip.assumes:
        side_by_side(together)
        body.release(first)
        return
    inside = body.local(I32)
    group = strip.groups.get(id(instruction))
    if group is not None:
        _push_group_holds(strip, instruction, group)
    else:
        _push_is_inside(strip, instruction, first, size)
    body.tee(inside)
    strip.push_is_full(mask)
    body.op("i32.and")
    with body.if_():
        side_by_side(together)
        body.else_()
        if size > instruction.type.size_bytes:
            alone()
        else:
            body.get(inside)
            with body.if_():
                side_by_side(some)
                body.else_()
                alone()
    body.release(first, inside)


def _push_is_inside(strip: Strip, instruction: Instruction, first: Local, size: int) -> None:
    """Push whether the elements of all lanes, ``size`` bytes each, are adjacent, aligned and inside of their memory."""
    _push_has_room(strip, first, size, size * (strip.width - 1), lambda: push_end(strip, instruction, size))
    assert instruction.address is not None
    check_origin(strip, instruction.address.base, None)


def _push_has_room(strip: Strip, first: Local, size: int, reach: int, push_end: Callable[[], None]) -> None:
    """Push whether an address is aligned to ``size``, and ``reach`` bytes more are inside too.

    The end is a multiple of ``size``: an aligned address that is as far below it has room for all.
    """
    body = strip.body
    body.get(first)
    push_end()
    body.i64_const(reach)
    body.op("i64.sub")
    body.i64_const(0)
    push_end()
    body.i64_const(reach)
    body.op("i64.gt_u", "select", "i64.lt_u")
    if size > 1:
        push_is_aligned(strip, first, size)
        body.op("i32.and")


def push_end(strip: Strip, instruction: Instruction, size: int) -> None:
    """Push where the memory ends that an instruction accesses, as a multiple of ``size`` bytes, an i64."""
    body, ground = strip.body, strip.ground
    if instruction.space is Space.SHARED:
        body.get(ground.shared_end)
        if size > 1:
            body.i64_const(-size)
            body.op("i64.and")
    else:
        body.get(ground.guest_end)


def push_is_aligned(strip: Strip, address: Local, size: int) -> None:
    """Push whether an i64 address is a multiple of ``size`` bytes."""
    body = strip.body
    body.get(address)
    body.op("i32.wrap_i64")
    body.i32_const(size - 1)
    body.op("i32.and", "i32.eqz")


def check_origin(strip: Strip, base: object, reach: Local | None) -> None:
    """Combine the i32 on the stack with whether no address of the ``reach`` lanes after the first (default: those of
    the strip) wrapped before it was widened.
    """
    line = strip.shapes.line(base) if isinstance(base, Register) else None
    if line is None or not line.is_wide:
        return
    assert isinstance(base, Register)
    body, origin = strip.body, strip.origin(base)
    sign = "s" if line.is_signed else "u"
    body.get(origin)
    if reach is None:
        body.i32_const(line.origin_step * (strip.width - 1))
    else:
        body.get(reach)
        body.i32_const(line.origin_step)
        body.op("i32.mul")
    body.op("i32.add")
    body.get(origin)
    body.op(f"i32.{'ge' if line.origin_step > 0 else 'le'}_{sign}", "i32.and")


def _load_vectors(strip: Strip, instruction: Instruction, place: Place) -> None:
    """All lanes run here, so nothing is blended."""
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


def _load_some(strip: Strip, instruction: Instruction, place: Place, mask: Mask) -> None:
    (register,) = instruction.destinations
    if register is not None:
        load_some(strip, instruction, register, place, mask)


def _store_some(strip: Strip, instruction: Instruction, place: Place, mask: Mask) -> None:
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


def _store_vectors(strip: Strip, instruction: Instruction, place: Place) -> None:
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
