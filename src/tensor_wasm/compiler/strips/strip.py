"""A strip of threads while its code is written: its place, its mask, and its registers.

A varying register of up to 32 bits is kept as *quads*, vectors of four lanes of 32 bits, one of 64 bits as vectors of
two. A predicate's lanes are all ones or 0, and it is kept as bits too, which is what masks are. A uniform register is
kept once, and of a linear one the first lane's value (:mod:`tensor_wasm.compiler.shapes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tensor_wasm.compiler.carriers import carrier, carrier_bits
from tensor_wasm.compiler.faults import SIZE_SHIFT, push_thread_place
from tensor_wasm.compiler.frame import Frame, Ground, push_windowed
from tensor_wasm.compiler.shapes import Line, Shape, Shapes
from tensor_wasm.ptx.program import Guard, Register, ScalarType
from tensor_wasm.wasm import Body, Local, ValType

if TYPE_CHECKING:
    from tensor_wasm.compiler.strips.contexts import StripContext
    from tensor_wasm.compiler.strips.groups import Group
    from tensor_wasm.compiler.strips.parts import Parts

SCRATCH: Final = 1
QUAD: Final = 4
#: Bytes of a lane in the buffer, for a register of either width.
LANE_BYTES: Final = 8

I32, I64, V128 = ValType.I32, ValType.I64, ValType.V128


def vectors(register: Register, width: int) -> int:
    """How many vectors hold a register's lanes."""
    return width // 2 if is_double(register.type) else width // QUAD


def is_double(kind: ScalarType) -> bool:
    """Whether a lane has 64 bits."""
    return kind is not ScalarType.PRED and carrier_bits(carrier(kind)) == 64


@dataclass(frozen=True, slots=True)
class Mask:
    """Lanes that take part: a bit each in an i32, the first lane lowest."""

    bits: Local


class Strip:
    """The state while the code of a strip of ``width`` threads is written.

    ``first`` is the frame of the first lane, which also has all uniform registers. ``mask`` are the lanes that run at
    present; ``kept`` the registers that lanes waiting elsewhere still need. Where ``assumes`` holds all lanes run and
    all accesses that may be contiguous are. ``groups`` are those of the present block's accesses (:mod:`.groups`).
    """

    def __init__(
        self,
        body: Body,
        width: int,
        shapes: Shapes,
        ground: Ground,
        first: Frame,
        registers: VectorRegisters,
        parts: Parts,
        context: StripContext | None,
    ) -> None:
        self.body = body
        self.width = width
        self.quads = width // QUAD
        self.all_bits = (1 << width) - 1
        self.shapes = shapes
        self.ground = ground
        self.first = first
        self.parts = parts
        self.context = context
        self.mask = Mask(body.local(I32))
        self.kept: frozenset[Register] = frozenset()
        self.assumes = False
        self.groups: Mapping[int, Group] = {}
        self.place_bits = body.local(I64)
        self._registers = registers

    # --- registers ----------------------------------------------------------------------------------------

    def shape(self, register: Register) -> Shape:
        """A register's shape."""
        return self.shapes.of(register)

    def vectors(self, register: Register) -> tuple[Local, ...]:
        """The vectors of a register that varies."""
        return self._registers.quads[register]

    def bits(self, register: Register) -> Local:
        """The lanes where a varying predicate holds, as bits."""
        return self._registers.bits[register]

    def origin(self, register: Register) -> Local:
        """The first lane's value of what a linear register was widened from."""
        return self._registers.origins[register]

    def add_register(self, like: Register) -> Register:
        """A new register of the type and shape of another one, with locals of its own."""
        register = Register(like.name, like.type, -1)
        self.shapes.add(register, like)
        body, registers = self.body, self._registers
        if self.shape(like) is Shape.VARYING:
            registers.quads[register] = tuple(body.local(V128) for _ in range(vectors(register, self.width)))
            if register.type is ScalarType.PRED:
                registers.bits[register] = body.local(I32)
            return register
        registers.firsts[register] = body.local(carrier(register.type))
        if self.shapes.is_wide(register):
            registers.origins[register] = body.local(I32)
        return register

    def push_scalars(self, register: Register) -> None:
        """Push what is kept of a register that does not vary: its value in the first lane, and its origin's."""
        self.first.push_register(register)
        if self.shapes.is_wide(register):
            self.body.get(self.origin(register))

    def pop_scalars(self, register: Register) -> None:
        """Pop what :meth:`push_scalars` pushes for a register of the same shape."""
        if self.shapes.is_wide(register):
            self.body.set(self.origin(register))
        self.first.pop_register(register)

    def push_zero(self, register: Register) -> None:
        """Push the scalars of a register that is 0 in the first lane."""
        body = self.body
        constants = {I32: body.i32_const, I64: body.i64_const, ValType.F32: body.f32_bits, ValType.F64: body.f64_bits}
        constants[carrier(register.type)](0)
        if self.shapes.is_wide(register):
            body.i32_const(0)

    def push_scalars_at(self, register: Register, lane: Local) -> None:
        """Push the scalars of a linear register for another lane than the first, given its number from there."""
        body, line = self.body, self.shapes.line(register)
        assert line is not None
        push_lane(body, line, self._registers.firsts[register], self._registers.origins.get(register), lane)
        if line.is_wide:
            body.get(self.origin(register))
            body.get(lane)
            body.i32_const(line.origin_step)
            body.op("i32.mul", "i32.add")

    # --- the strip's place ----------------------------------------------------------------------------------

    @property
    def row(self) -> Local:
        """How many threads its row has."""
        row = self.first.coordinates.row
        assert row is not None
        return row

    def enter(self) -> None:
        """Set what depends on where the strip is, after the first frame's coordinates were set."""
        body = self.body
        at = self.first.coordinates
        body.get(at.thread)
        push_thread_place(body)
        body.set(self.place_bits)
        local_bytes = self.first.region.local_bytes
        if not local_bytes:
            return
        body.get(self.ground.base)
        if self.context is not None:  # each thread of the block has its own; else each lane
            body.get(at.thread)
            body.i32_const(local_bytes)
            body.op("i32.mul", "i32.add")
        body.set(self.first.local_base)
        set_window(body, self.first)

    def say_thread(self, mask: Mask | None = None) -> None:
        """Let a fault name the first lane of a mask, by default that of the strip."""
        body = self.body
        body.get(self.first.coordinates.thread)
        body.get((mask or self.mask).bits)
        body.op("i32.ctz", "i32.add")
        push_thread_place(body)
        body.global_set(self.parts.place_global)

    def say_access(self, address: Local, size_bytes: int) -> None:
        """Let a fault be found by its address, in an access of all lanes from the i64 ``address`` on."""
        body = self.body
        body.get(self.place_bits)
        body.i64_const(size_bytes.bit_length() << SIZE_SHIFT)
        body.op("i64.or")
        body.get(address)
        body.op("i64.or")
        body.global_set(self.parts.place_global)

    # --- masks --------------------------------------------------------------------------------------------

    def guarded_mask(self, guard: Guard | None) -> Mask:
        """The lanes of the mask where a guard holds; a new one where the guard varies."""
        if guard is None or self.shape(guard.register) is Shape.UNIFORM:
            return self.mask
        mask = Mask(self.body.local(I32))
        self.push_guarded(guard)
        self.body.set(mask.bits)
        return mask

    def push_guarded(self, guard: Guard) -> None:
        """Push the lanes of the mask where a varying guard holds."""
        body = self.body
        body.get(self.mask.bits)
        body.get(self.bits(guard.register))
        if guard.negated:
            body.i32_const(-1)
            body.op("i32.xor")
        body.op("i32.and")

    def release_mask(self, mask: Mask) -> None:
        """Give the local of a mask of :meth:`guarded_mask` back."""
        if mask is not self.mask:
            self.body.release(mask.bits)

    def push_is_full(self, mask: Mask) -> None:
        """Push whether a mask has all lanes."""
        self.body.get(mask.bits)
        self.body.i32_const(self.all_bits)
        self.body.op("i32.eq")

    def push_lanes(self, mask: Mask, unit: int, *, is_wide: bool) -> None:
        """Push a mask's lanes of a unit, all ones or 0."""
        if is_wide:
            bits = [1 << 2 * unit + lane // 2 for lane in range(4)]
        else:
            bits = [1 << QUAD * unit + lane for lane in range(QUAD)]
        pattern = b"".join(bit.to_bytes(4, "little") for bit in bits)
        body = self.body
        body.get(mask.bits)
        body.op("i32x4.splat")
        body.v128_const(pattern)
        body.op("v128.and")
        body.v128_const(pattern)
        body.op("i32x4.eq")

    # --- results ------------------------------------------------------------------------------------------

    def must_blend(self, register: Register, guard: Guard | None) -> bool:
        """Whether a write must leave some lanes as they are."""
        is_guarded = guard is not None and self.shape(guard.register) is not Shape.UNIFORM
        return is_guarded or register in self.kept

    def set_vector(self, register: Register, number: int, mask: Mask | None) -> None:
        """Pop vector ``number`` of a register; with a mask only its lanes. Of a predicate, :meth:`set_bits` as well."""
        body, local = self.body, self._registers.quads[register][number]
        if mask is not None:
            body.get(local)
            self.push_lanes(mask, number, is_wide=is_double(register.type))
            body.op("v128.bitselect")
        body.set(local)

    def find_bits(self, register: Register) -> None:
        """Set a predicate's bits from its vectors; nothing to do for another register."""
        if register.type is ScalarType.PRED:
            quads = self._registers.quads[register]
            push_bits(self.body, len(quads), lambda number: self.body.get(quads[number]))
            self.body.set(self._registers.bits[register])

    def set_bits(self, register: Register, mask: Mask | None) -> None:
        """Pop a predicate's bits; with a mask only its lanes."""
        body, local = self.body, self._registers.bits[register]
        if mask is not None:  # old ^ ((old ^ new) & mask)
            body.get(local)
            body.op("i32.xor")
            body.get(mask.bits)
            body.op("i32.and")
            body.get(local)
            body.op("i32.xor")
        body.set(local)


def set_window(body: Body, frame: Frame) -> None:
    """Set a frame's windowed address of local variables from its plain one."""
    push_windowed(body, frame.local_base)
    body.set(frame.local_window)


def push_bits(body: Body, count: int, push: Callable[[int], None], shape: str = "i32x4") -> None:
    """Push lanes as bits, the first one lowest; ``push`` pushes one of ``count`` vectors, all ones or 0 a lane."""
    lanes = 4 if shape == "i32x4" else 2
    for number in range(count):
        push(number)
        body.op(f"{shape}.bitmask")
        if number:
            body.i32_const(lanes * number)
            body.op("i32.shl", "i32.or")


def shuffle(body: Body, elements: Sequence[int], size_bytes: int = 4) -> None:
    """Pop two vectors, push some of their elements; those of the second one are counted on from the first."""
    body.shuffle([size_bytes * element + byte for element in elements for byte in range(size_bytes)])


def scalar_types(shapes: Shapes, register: Register) -> tuple[ValType, ...]:
    """The types of what :meth:`Strip.push_scalars` pushes."""
    kind = carrier(register.type)
    return (kind, I32) if shapes.is_wide(register) else (kind,)


@dataclass(frozen=True, slots=True)
class VectorRegisters:
    """Locals of registers.

    ``firsts`` hold uniform registers, and linear ones for the first lane; ``origins`` what these were widened from;
    ``quads`` are the vectors of varying ones, ``bits`` those of predicates.
    """

    firsts: dict[Register, Local]
    origins: dict[Register, Local]
    quads: dict[Register, tuple[Local, ...]]
    bits: dict[Register, Local]


def push_lane(body: Body, line: Line, first: Local, origin: Local | None, lane: Local) -> None:
    """Push a linear value of a lane, given that of the first lane."""
    body.get(first)
    if origin is not None:
        extend = "i64.extend_i32_s" if line.is_signed else "i64.extend_i32_u"
        body.get(origin)
        body.get(lane)
        body.i32_const(line.origin_step)
        body.op("i32.mul", "i32.add", extend)
        body.get(origin)
        body.op(extend, "i64.sub")
        body.i64_const(line.scale)
        body.op("i64.mul", "i64.add")
        return
    body.get(lane)
    if first.type is I64:
        body.op("i64.extend_i32_u")
        body.i64_const(line.step)
        body.op("i64.mul", "i64.add")
    else:
        body.i32_const(line.step)
        body.op("i32.mul", "i32.add")
