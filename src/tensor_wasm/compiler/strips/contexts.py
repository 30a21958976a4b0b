"""A strip at the borders of its regions: which of its threads go on, what they load, what they leave when they stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tensor_wasm.compiler import suspending
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.contexts import EXITED, STATE_BYTES, WAITING, Contexts
from tensor_wasm.compiler.shapes import Shape
from tensor_wasm.compiler.strips.strip import QUAD, SCRATCH, Mask, Strip, is_double
from tensor_wasm.compiler.synchronisation import Suspend, Suspension, is_plain
from tensor_wasm.compiler.warp.mailbox import MAILBOX_BYTES, OUT_OFFSET, WORD_BYTES
from tensor_wasm.compiler.warp.plans import word_count
from tensor_wasm.ptx.program import Register, ScalarType
from tensor_wasm.wasm import Body, Local, ValType

I32, I64, V128 = ValType.I32, ValType.I64, ValType.V128


class StripContext:
    """Where the threads of a strip keep what outlives a region.

    ``mailbox`` is a local with the place of one lane's mailbox, for code that runs lane by lane.
    """

    def __init__(self, body: Body, contexts: Contexts, base: Local) -> None:
        self.contexts = contexts
        self.mailbox = body.local(I32)
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

    def enter_lane(self, thread: Local) -> None:
        """Point to one thread's mailbox."""
        self._push_mailbox(thread)
        self._body.set(self.mailbox)

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
            if strip.shape(register) is not Shape.UNIFORM:
                for number, local in enumerate(strip.vectors(register)):
                    self._push_vector(register, number)
                    self._body.set(local)
                strip.find_bits(register)
        self._load_results(strip, arrival, results)
        return unknown

    def _agree(self, strip: Strip, saved: Sequence[Register]) -> None:
        """Cut the mask to lanes that agree with its first one; load what is uniform and the ends of what is linear."""
        body, mask = self._body, strip.mask
        uniform = [register for register in saved if strip.shape(register) is Shape.UNIFORM]
        linear = [register for register in saved if strip.shape(register) is Shape.LINEAR]
        if uniform:
            body.get(mask.bits)
            body.op("i32.ctz")
            body.set(self._lead)
            for register in uniform:
                self._load_uniform(strip, register, mask)
        for register in linear:
            self._push_place(register)
            self._load_lane(register, 0)
            strip.first.pop_register(register)
            if strip.shapes.step(register) is None:
                self._push_place(register)
                self._load_lane(register, strip.width - 1)
                strip.first.push_register(register)
                body.op("i64.sub" if is_double(register.type) else "i32.sub")
                body.set(strip.span(register))
        if linear:
            self._check_lines(strip, linear, mask)

    def _load_uniform(self, strip: Strip, register: Register, mask: Mask) -> None:
        body = self._body
        shift = 3 if is_double(register.type) else 2
        self._push_place(register)
        body.get(self._lead)
        body.i32_const(shift)
        body.op("i32.shl", "i32.add")
        self._load_lane(register, 0)
        strip.first.pop_register(register)
        shape = "i64x2" if is_double(register.type) else "i32x4"
        per = 2 if is_double(register.type) else QUAD
        body.get(mask.bits)
        for number in range(strip.width // per):
            self._push_vector(register, number)
            self._push_splat(strip, register)
            body.op(f"{shape}.eq", f"{shape}.bitmask")
            if number:
                body.i32_const(per * number)
                body.op("i32.shl", "i32.or")
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

    def _push_splat(self, strip: Strip, register: Register) -> None:
        """Push a uniform register in all lanes, as it is saved."""
        body = self._body
        if register.type is ScalarType.PRED:
            body.i32_const(0)
            strip.first.push_register(register)
            body.op("i32.sub", "i32x4.splat")
            return
        strip.first.push_register(register)
        shapes = {I32: "i32x4", I64: "i64x2", ValType.F32: "f32x4", ValType.F64: "f64x2"}
        body.op(f"{shapes[carrier(register.type)]}.splat")

    def _check_lines(self, strip: Strip, linear: Sequence[Register], mask: Mask) -> None:
        """Where a register is not in line, only the first lane goes on: one alone is in line with itself."""
        body = self._body
        wrong = body.local(V128)
        body.v128_const(bytes(16))
        body.set(wrong)
        strip.push_is_full(mask)
        with body.if_():
            for register in linear:
                self._find_bends(strip, register, wrong)
            body.get(wrong)
            body.op("v128.any_true")
            with body.if_():
                body.i32_const(1)
                body.set(mask.bits)
        body.release(wrong)

    def _find_bends(self, strip: Strip, register: Register, wrong: Local) -> None:
        """Add to ``wrong`` where the step from one lane to the next is not the known one, or that of the first two."""
        body = self._body
        is_long = is_double(register.type)
        shape, size, per = ("i64x2", 8, 2) if is_long else ("i32x4", 4, 4)
        step = body.local(V128)

        def push_steps(number: int) -> None:
            self._push_place(register)
            offset = self.contexts.slots[register] + 16 * number
            body.memory("v128.load", offset + size, align=2, memory=SCRATCH)
            self._push_vector(register, number)
            body.op(f"{shape}.sub")

        known = strip.shapes.step(register)
        if known is None:
            push_steps(0)
            body.lane(f"{shape}.extract_lane", 0)
        else:
            body.i32_const(known)
        body.op(f"{shape}.splat")
        body.set(step)
        for number in range(strip.width // per):
            push_steps(number)
            body.get(step)
            body.op(f"{shape}.ne")
            if number == strip.width // per - 1:  # after the last lane comes another strip
                body.v128_const(b"\xff" * (16 - size) + bytes(size))
                body.op("v128.and")
            body.get(wrong)
            body.op("v128.or")
            body.set(wrong)
        body.release(step)

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
        strip.push_is_full(mask)
        with body.if_():
            for register in instruction.stored:
                self._save(strip, register, None)
            body.else_()
            for register in instruction.stored:
                self._save(strip, register, mask)
        if not is_plain(suspension.instruction):
            sources = [source for source in instruction.sources if isinstance(source, Register)]
            if instruction.address is not None and isinstance(instruction.address.base, Register):
                sources.append(instruction.address.base)
            strip.each_lane(mask, sources, (), lambda frame: suspending.write_operands(frame, instruction))
        self._set_states(strip, WAITING - suspension.number)

    def _save(self, strip: Strip, register: Register, mask: Mask | None) -> None:
        body = self._body
        count = strip.width // (2 if is_double(register.type) else 4)
        is_uniform = strip.shape(register) is Shape.UNIFORM
        for number in range(count):
            self._push_place(register)
            if is_uniform:
                self._push_splat(strip, register)
            else:
                body.get(strip.vectors(register)[number])
            if mask is not None:
                self._push_vector(register, number)
                strip.push_lanes(mask, number, is_wide=is_double(register.type))
                body.op("v128.bitselect")
            body.memory("v128.store", self.contexts.slots[register] + 16 * number, align=2, memory=SCRATCH)

    def _set_states(self, strip: Strip, state: int) -> None:
        body = self._body
        for number in range(strip.quads):
            body.get(self._words)
            body.v128_const((state & 0xFFFF_FFFF).to_bytes(4, "little") * 4)
            self.push_state(number)
            strip.push_lanes(strip.mask, number, is_wide=False)
            body.op("v128.bitselect")
            body.memory("v128.store", self.contexts.states + 16 * number, align=2, memory=SCRATCH)
