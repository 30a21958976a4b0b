"""Loads and stores of a strip.

An access at one address for all lanes is made once. One at a linear address is made with vectors where all lanes run
and their elements are adjacent, in guest memory or in shared memory; that is a test of the first and the last lane's
address. Everything else goes lane by lane, through :mod:`tensor_wasm.compiler.memory`, which knows all windows and
says what is wrong with an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from tensor_wasm.compiler import memory
from tensor_wasm.compiler.allocation import defined, used
from tensor_wasm.compiler.carriers import carrier, convert, kept_form
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.memory import GUEST_END, Place
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips import lanes
from tensor_wasm.compiler.strips.adjacent import load_lanes, load_vectors, store_lanes, store_vectors
from tensor_wasm.compiler.strips.groups import Group, moved_bytes
from tensor_wasm.compiler.strips.strip import SCRATCH, Mask, Strip, is_double
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
                lambda place: load_vectors(strip, instruction, place),
                lambda place: load_lanes(strip, instruction, place, mask),
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
                lambda place: store_vectors(strip, instruction, place),
                lambda place: store_lanes(strip, instruction, place, mask),
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
    """Push where the memory ends that an instruction accesses, as a multiple of ``size`` bytes, an i64.

    Guest memory is taken to have all addresses: what is closed there traps, and device memory may lie behind its end.
    """
    body, ground = strip.body, strip.ground
    if instruction.space is Space.SHARED:
        body.get(ground.shared_end)
        if size > 1:
            body.i64_const(-size)
            body.op("i64.and")
    else:
        body.i64_const(GUEST_END)


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
