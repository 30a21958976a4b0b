"""A strip of threads while its code is written: masks, registers as vectors, and one lane after another.

A register of up to 32 bits is kept as *quads*, vectors of four lanes of 32 bits, one of 64 bits as vectors of two; a
predicate lane is all ones or 0. A uniform register is kept once, as in a :class:`~tensor_wasm.compiler.frame.Frame`;
a linear one as vectors, and for the first lane alone with the span to the last (see :mod:`.spans`). A varying predicate
is also kept as bits, which is what masks are.

What has no vector form runs lane by lane (:meth:`Strip.each_lane`): its registers go to a buffer in the kernel's region,
where a second frame finds those of one lane, and a loop lowers the instruction for each lane of the mask, in ascending
order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tensor_wasm.compiler.carriers import carrier, carrier_bits
from tensor_wasm.compiler.faults import SIZE_SHIFT, THREAD_SHIFT
from tensor_wasm.compiler.frame import Frame, Ground, Locals
from tensor_wasm.compiler.region import WINDOW
from tensor_wasm.compiler.shapes import Shape, Shapes
from tensor_wasm.ptx.program import Guard, Register, ScalarType
from tensor_wasm.wasm import Body, Global, Local, ValType

if TYPE_CHECKING:
    from tensor_wasm.compiler.strips.contexts import StripContext

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
    present; ``kept`` the registers that lanes waiting elsewhere still need.
    """

    def __init__(
        self,
        body: Body,
        width: int,
        shapes: Shapes,
        ground: Ground,
        frames: tuple[Frame, Frame],
        registers: VectorRegisters,
        lanes: LaneRegisters,
        place: Global,
        context: StripContext | None,
    ) -> None:
        self.body = body
        self.width = width
        self.quads = width // QUAD
        self.all_bits = (1 << width) - 1
        self.shapes = shapes
        self.ground = ground
        self.first, self.lane = frames
        self.context = context
        self.mask = Mask(body.local(I32))
        self.kept: frozenset[Register] = frozenset()
        self.place_bits = body.local(I64)
        self._registers = registers
        self._lanes = lanes
        self._place = place

    # --- registers ----------------------------------------------------------------------------------------

    def shape(self, register: Register) -> Shape:
        """A register's shape."""
        return self.shapes.of(register)

    def vectors(self, register: Register) -> tuple[Local, ...]:
        """The vectors of a register that is not uniform."""
        return self._registers.quads[register]

    def bits(self, register: Register) -> Local:
        """The lanes where a varying predicate holds, as bits."""
        return self._registers.bits[register]

    def span(self, register: Register) -> Local:
        """How far a linear register of the last lane is from that of the first."""
        return self._registers.spans[register]

    # --- the strip's place ----------------------------------------------------------------------------------

    def enter(self) -> None:
        """Set what depends on where the strip is, after the first frame's coordinates were set."""
        body = self.body
        at = self.first.coordinates
        body.get(at.thread)
        body.op("i64.extend_i32_u")
        body.i64_const(THREAD_SHIFT)
        body.op("i64.shl")
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

    def say_thread(self) -> None:
        """Let a fault name the first lane of the mask."""
        body = self.body
        body.get(self.first.coordinates.thread)
        body.get(self.mask.bits)
        body.op("i32.ctz", "i32.add", "i64.extend_i32_u")
        body.i64_const(THREAD_SHIFT)
        body.op("i64.shl")
        body.global_set(self._place)

    def say_access(self, address: Local, size_bytes: int) -> None:
        """Let a fault be found by its address, in an access of all lanes from the i64 ``address`` on."""
        body = self.body
        body.get(self.place_bits)
        body.i64_const(size_bytes.bit_length() << SIZE_SHIFT)
        body.op("i64.or")
        body.get(address)
        body.op("i64.or")
        body.global_set(self._place)

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
            push_bits(self.body, self._registers.quads[register])
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

    # --- lane by lane -------------------------------------------------------------------------------------

    def each_lane(
        self,
        mask: Mask,
        read: Sequence[Register],
        written: Sequence[Register],
        write: Callable[[Frame], None],
    ) -> None:
        """Run what ``write`` writes for each lane of a mask, in a loop.

        ``read`` and ``written`` are the registers it uses. Lanes that are not in the mask keep theirs.
        """
        body, lane = self.body, self.lane
        moved = [r for r in dict.fromkeys((*read, *written)) if self.shape(r) is not Shape.UNIFORM]
        self._lanes.hold(moved)
        for register in moved:
            for number, local in enumerate(self.vectors(register)):
                body.get(self.ground.base)
                body.get(local)
                body.memory("v128.store", self._lanes.offset(register) + 16 * number, align=2, memory=SCRATCH)
        rest = body.local(I32)
        body.get(mask.bits)
        body.tee(rest)
        with body.if_():
            with body.loop() as again:
                self._enter_lane(rest)
                write(lane)
                body.get(rest)
                body.i32_const(1)
                body.op("i32.sub")
                body.get(rest)
                body.op("i32.and")
                body.tee(rest)
                body.br_if(again)
            for register in dict.fromkeys(written):
                if self.shape(register) is Shape.UNIFORM:
                    continue
                for number, local in enumerate(self.vectors(register)):
                    body.get(self.ground.base)
                    body.memory("v128.load", self._lanes.offset(register) + 16 * number, align=2, memory=SCRATCH)
                    body.set(local)
                self.find_bits(register)
        body.release(rest)
        self._lanes.drop()

    def _enter_lane(self, rest: Local) -> None:
        """Set what depends on the lane, the lowest of ``rest``."""
        body, at, mine = self.body, self.first.coordinates, self.lane.coordinates
        number = self._lanes.number
        body.get(rest)
        body.op("i32.ctz")
        body.set(number)
        for its, own in ((at.thread, mine.thread), (at.thread_index[0], mine.thread_index[0])):
            body.get(its)
            body.get(number)
            body.op("i32.add")
            body.set(own)
        body.get(mine.thread)
        body.op("i64.extend_i32_u")
        body.i64_const(THREAD_SHIFT)
        body.op("i64.shl")
        body.global_set(self._place)
        self._lanes.enter(body, self.ground.base)
        if self.first.region.local_bytes:
            body.get(self.first.local_base)
            body.get(number)
            body.i32_const(self.first.region.local_bytes)
            body.op("i32.mul", "i32.add")
            body.set(self.lane.local_base)
            set_window(body, self.lane)
        if self.context is not None:
            self.context.enter_lane(mine.thread)


def set_window(body: Body, frame: Frame) -> None:
    """Set a frame's windowed address of local variables from its plain one."""
    body.get(frame.local_base)
    body.op("i64.extend_i32_u")
    body.i64_const(WINDOW)
    body.op("i64.or")
    body.set(frame.local_window)


def push_bits(body: Body, quads: Sequence[Local]) -> None:
    """Push a mask's lanes as bits, the first lane lowest."""
    for number, quad in enumerate(quads):
        body.get(quad)
        body.op("i32x4.bitmask")
        if number:
            body.i32_const(QUAD * number)
            body.op("i32.shl", "i32.or")


@dataclass(frozen=True, slots=True)
class VectorRegisters:
    """Locals of registers that are not uniform: vectors, bits of predicates, spans of linear ones."""

    quads: Mapping[Register, tuple[Local, ...]]
    bits: Mapping[Register, Local]
    spans: Mapping[Register, Local]


class LaneRegisters:
    """The registers of one lane: uniform ones in locals, others in the buffer at ``start`` of the region."""

    def __init__(self, body: Body, uniform: Locals, shapes: Shapes, width: int, start: int) -> None:
        self.number = body.local(I32)
        self._narrow = body.local(I32)
        self._wide = body.local(I32)
        self._uniform = uniform
        self._shapes = shapes
        self._width = width
        self._start = start
        self._slots: dict[Register, int] = {}

    def hold(self, registers: Sequence[Register]) -> None:
        """Give registers places in the buffer until :meth:`drop`."""
        self._slots = {register: slot for slot, register in enumerate(registers)}

    def drop(self) -> None:
        """Give up all places."""
        self._slots = {}

    def offset(self, register: Register) -> int:
        """Where a register's first lane is, from the region's start."""
        return self._start + self._slots[register] * self._width * LANE_BYTES

    def enter(self, body: Body, base: Local) -> None:
        """Point to the lane whose number was set."""
        for local, shift in ((self._narrow, 2), (self._wide, 3)):
            body.get(base)
            body.get(self.number)
            body.i32_const(shift)
            body.op("i32.shl", "i32.add")
            body.set(local)

    def push(self, body: Body, register: Register) -> None:
        """Push a register's value."""
        if self._shapes.of(register) is Shape.UNIFORM:
            self._uniform.push(body, register)
            return
        kind = carrier(register.type)
        body.get(self._wide if is_double(register.type) else self._narrow)
        body.memory(f"{kind.name.lower()}.load", self.offset(register), memory=SCRATCH)
        if register.type is ScalarType.PRED:
            body.i32_const(1)
            body.op("i32.and")

    def pop(self, body: Body, register: Register) -> None:
        """Pop a value into a register."""
        kind = carrier(register.type)
        value = body.local(kind)
        if register.type is ScalarType.PRED:
            body.set(value)
            body.i32_const(0)
            body.get(value)
            body.op("i32.sub")
        body.set(value)
        body.get(self._wide if is_double(register.type) else self._narrow)
        body.get(value)
        body.memory(f"{kind.name.lower()}.store", self.offset(register), memory=SCRATCH)
        body.release(value)
