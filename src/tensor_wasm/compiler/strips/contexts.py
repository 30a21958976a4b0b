"""A strip at the borders of its regions: which of its threads go on, what they load, what they leave when they stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tensor_wasm.compiler import suspending
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.contexts import EXITED, STATE_BYTES, WAITING, Contexts
from tensor_wasm.compiler.frame import Frame
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips import lanes
from tensor_wasm.compiler.strips.operands import lanes_of
from tensor_wasm.compiler.strips.strip import QUAD, SCRATCH, Mask, Strip, is_double, push_bits
from tensor_wasm.compiler.synchronisation import Suspend, Suspension, is_plain
from tensor_wasm.compiler.values.lanes import fill
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES, OUT_OFFSET, WORD_BYTES
from tensor_wasm.compiler.warp.plans import word_count
from tensor_wasm.ptx.program import Instruction, Register, ScalarType
from tensor_wasm.wasm import Body, Local, ValType

I32, I64, V128 = ValType.I32, ValType.I64, ValType.V128


class StripContext:
    """Where the threads of a strip keep what outlives a region.

    Each thread's registers have a place of their own. Where the threads of a strip go in step, what is uniform or
    linear is kept once, in the place of the first; else threads that come together are looked at whether they agree.
    """

    def __init__(self, body: Body, contexts: Contexts, base: Local, *, is_in_step: bool) -> None:
        self.contexts = contexts
        self._is_in_step = is_in_step
        self._body = body
        self._base = base
        self._words = body.local(I32)
        self._longs = body.local(I32)
        self._lead = body.local(I32)

    # --- places -------------------------------------------------------------------------------------------

    def enter(self, thread: Local) -> None:
        """Point to the strip whose first thread is ``thread``."""
        body = self._body
        for local, shift in ((self._words, 2), (self._longs, 3)):
            body.get(self._base)
            body.get(thread)
            body.i32_const(shift)
            body.op("i32.shl", "i32.add")
            body.set(local)

    def _push_mailbox(self, thread: Local) -> None:
        body = self._body
        body.get(self._base)
        body.get(thread)
        body.i32_const(MAILBOX_BYTES.bit_length() - 1)
        body.op("i32.shl", "i32.add")

    def _push_vector(self, register: Register, number: int) -> None:
        """Push vector ``number`` of what the strip's threads saved of a register."""
        self._push_place(register)
        offset = self.contexts.slots[register] + 16 * number
        self._body.memory("v128.load", offset, align=2, memory=SCRATCH)

    def _push_place(self, register: Register) -> None:
        self._body.get(self._longs if is_double(register.type) else self._words)

    # --- arriving -----------------------------------------------------------------------------------------

    def push_state(self, number: int) -> None:
        """Push a vector of the states of four threads."""
        self._body.get(self._words)
        self._body.memory("v128.load", self.contexts.states + STATE_BYTES * QUAD * number, align=2, memory=SCRATCH)

    def arrive(self, strip: Strip, arrival: Suspension, live: Iterable[Register]) -> list[Register]:
        """Load the registers that a region reads, for the lanes of the mask; those never written are returned.

        Lanes that do not agree on what is taken to be uniform, or in line, leave the mask: they come later.
        """
        saved, results, unknown = [], [], []
        has_result = {register for register in arrival.instruction.destinations if register is not None}
        for register in live:
            if register in has_result:
                results.append(register)
            elif register in self.contexts.slots and register in arrival.saved:
                saved.append(register)
            else:
                unknown.append(register)
        self._agree(strip, saved)
        for register in saved:
            if strip.shape(register) is Shape.VARYING:
                for number, local in enumerate(strip.vectors(register)):
                    self._push_vector(register, number)
                    self._body.set(local)
                strip.find_bits(register)
        self._load_results(strip, arrival, results)
        return unknown

    def _agree(self, strip: Strip, saved: Sequence[Register]) -> None:
        """Cut the mask to lanes that agree with its first one on what is uniform or linear, and load that."""
        body, mask = self._body, strip.mask
        if self._is_in_step:
            for register in saved:
                if strip.shape(register) is not Shape.VARYING:
                    self._load_once(strip, register)
            return
        agreed = [register for register in saved if strip.shape(register) is not Shape.VARYING]
        if agreed:
            body.get(mask.bits)
            body.op("i32.ctz")
            body.set(self._lead)
            for register in agreed:
                self._load_agreed(strip, register, mask)

    def _load_once(self, strip: Strip, register: Register) -> None:
        self._push_place(register)
        self._load_lane(register, 0)
        strip.first.pop_register(register)
        if strip.shapes.is_wide(register):
            self._body.get(self._words)
            self._body.memory("i32.load", self.contexts.origins[register], memory=SCRATCH)
            self._body.set(strip.origin(register))

    def _save_once(self, strip: Strip, register: Register) -> None:
        body = self._body
        self._push_place(register)
        if register.type is ScalarType.PRED:
            body.i32_const(0)
            strip.first.push_register(register)
            body.op("i32.sub")
        else:
            strip.first.push_register(register)
        kind = carrier(register.type).name.lower()
        body.memory(f"{kind}.store", self.contexts.slots[register], memory=SCRATCH)
        if strip.shapes.is_wide(register):
            body.get(self._words)
            body.get(strip.origin(register))
            body.memory("i32.store", self.contexts.origins[register], memory=SCRATCH)

    def _load_agreed(self, strip: Strip, register: Register, mask: Mask) -> None:
        body = self._body
        is_long = is_double(register.type)
        line = strip.shapes.line(register)
        self._push_place(register)
        body.get(self._lead)
        body.i32_const(3 if is_long else 2)
        body.op("i32.shl", "i32.add")
        self._load_lane(register, 0)
        if line is not None:
            body.get(self._lead)
            if is_long:
                body.op("i64.extend_i32_u")
            (body.i64_const if is_long else body.i32_const)(line.step)
            body.op(*(("i64.mul", "i64.sub") if is_long else ("i32.mul", "i32.sub")))
            if line.is_wide:  # from here on nothing wraps, be it signed or not
                body.i32_const(1 << 30)
                body.set(strip.origin(register))
        strip.first.pop_register(register)
        shape, count = ("i64x2", strip.width // 2) if is_long else ("i32x4", strip.quads)

        def push_agrees(number: int) -> None:
            self._push_vector(register, number)
            self._push_lanes(strip, register, number)
            body.op(f"{shape}.eq")

        body.get(mask.bits)
        push_bits(body, count, push_agrees, shape)
        body.op("i32.and")
        body.set(mask.bits)

    def _load_lane(self, register: Register, lane: int) -> None:
        """Pop a place, push what a lane saved of a register."""
        kind = carrier(register.type)
        size = 8 if is_double(register.type) else 4
        self._body.memory(f"{kind.name.lower()}.load", self.contexts.slots[register] + size * lane, memory=SCRATCH)
        if register.type is ScalarType.PRED:
            self._body.i32_const(1)
            self._body.op("i32.and")

    def _push_lanes(self, strip: Strip, register: Register, number: int) -> None:
        """Push vector ``number`` of a register, as it is saved."""
        if register.type is ScalarType.PRED:
            lanes_of(strip, register, ScalarType.PRED, number, is_wide=False).push(self._body)
        else:
            kind = ScalarType.B64 if is_double(register.type) else ScalarType.B32
            lanes_of(strip, register, kind, number, is_wide=is_double(register.type)).push(self._body)

    def _load_results(self, strip: Strip, arrival: Suspension, wanted: Sequence[Register]) -> None:
        """The results of a suspension, from the mailboxes."""
        body = self._body
        mail = body.local(I32)
        if wanted:
            self._push_mailbox(strip.first.coordinates.thread)
            body.set(mail)
        place = self.contexts.mailboxes + OUT_OFFSET
        for register, kind in zip(
            arrival.instruction.destinations, suspending.result_types(arrival.instruction), strict=True
        ):
            if register is not None and register in wanted:
                size = 8 if is_double(register.type) else 4
                per = 16 // size
                for number, local in enumerate(strip.vectors(register)):
                    for lane in range(per):
                        body.get(mail)
                        offset = place + MAILBOX_BYTES * (per * number + lane)
                        if lane == 0:
                            body.memory(f"v128.load{8 * size}_zero", offset, align=2, memory=SCRATCH)
                        else:
                            body.get(local)
                            body.memory_lane(f"v128.load{8 * size}_lane", lane, offset, align=2, memory=SCRATCH)
                        body.set(local)
                    if register.type is ScalarType.PRED:
                        body.get(local)
                        body.op("i32x4.neg")
                        body.set(local)
                strip.find_bits(register)
            place += WORD_BYTES * word_count(kind)
        body.release(mail)

    # --- stopping -----------------------------------------------------------------------------------------

    def finish(self, strip: Strip) -> None:
        """The lanes of the mask have ended."""
        self._set_states(strip, EXITED)

    def suspend(self, strip: Strip, instruction: Suspend) -> None:
        """Save what the lanes of the mask need, write their operands to their mailboxes, and let them wait."""
        suspension = instruction.suspension
        assert suspension is not None
        body, mask = self._body, strip.mask
        once = [r for r in instruction.stored if self._is_in_step and strip.shape(r) is not Shape.VARYING]
        for register in once:
            self._save_once(strip, register)
        several = [register for register in instruction.stored if register not in once]
        strip.push_is_full(mask)
        with body.if_():
            for register in several:
                self._save(strip, register, None)
            body.else_()
            for register in several:
                self._save(strip, register, mask)
        if not is_plain(suspension.instruction):
            sources = [source for source in instruction.sources if isinstance(source, Register)]
            if instruction.address is not None and isinstance(instruction.address.base, Register):
                sources.append(instruction.address.base)
            lanes.run(strip, instruction, mask, sources, (), _write_operands)
        self._set_states(strip, WAITING - suspension.number)

    def _save(self, strip: Strip, register: Register, mask: Mask | None) -> None:
        body = self._body
        count = strip.width // (2 if is_double(register.type) else 4)
        for number in range(count):
            self._push_place(register)
            self._push_lanes(strip, register, number)
            if mask is not None:
                self._push_vector(register, number)
                strip.push_lanes(mask, number, is_wide=is_double(register.type))
                body.op("v128.bitselect")
            body.memory("v128.store", self.contexts.slots[register] + 16 * number, align=2, memory=SCRATCH)

    def _set_states(self, strip: Strip, state: int) -> None:
        body = self._body
        for number in range(strip.quads):
            body.get(self._words)
            fill("i32x4", state).push(body)
            self.push_state(number)
            strip.push_lanes(strip.mask, number, is_wide=False)
            body.op("v128.bitselect")
            body.memory("v128.store", self.contexts.states + 16 * number, align=2, memory=SCRATCH)


def _write_operands(frame: Frame, instruction: Instruction) -> None:
    assert isinstance(instruction, Suspend)
    suspending.write_operands(frame, instruction)
