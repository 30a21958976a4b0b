"""Random straight-line code: instructions of every form, loads, stores and atomics."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fuzz.opcodes import Drawn, draw, draw_approximation
from fuzz.places import APPROXIMATE_BYTES, COUNTERS, Places, Reach
from fuzz.writer import BITS, Writer
from tensor_wasm.ptx.forms import Pairing, RoleKind
from tensor_wasm.ptx.plans import Expected
from tensor_wasm.ptx.program import ScalarType

_INTEGERS = {1: ("u8", "s8", "b8"), 2: ("u16", "s16", "b16"), 4: ("u32", "s32", "b32"), 8: ("u64", "s64", "b64")}
_SORTS_OF_BITS = {8: "hrd", 16: "hrd", 32: "rd", 64: "d"}
LOCAL_BYTES = 64
CONST_BYTES = 128


def sorts(wanted: Expected) -> str:
    """The sorts of registers that an operand takes here: floats only where its type is one."""
    kind = wanted.type
    assert kind is not None
    if kind is ScalarType.PRED:
        return "p"
    if kind in (ScalarType.F32, ScalarType.F64):
        return "f" if kind is ScalarType.F32 else "g"
    if not wanted.role.is_relaxed:
        return {16: "h", 32: "r", 64: "d"}[kind.bits]
    return _SORTS_OF_BITS[kind.bits]


class Instructions:
    """Writes instructions of which each has one right result."""

    def __init__(self, source: random.Random, writer: Writer, places: Places) -> None:
        self.chance = source
        self.w = writer
        self.places = places
        self.has_local = source.random() < 0.35
        self.has_const = source.random() < 0.3
        #: What only ever gets values that are the same for all threads.
        self.steady: list[str] = []
        #: What grew with the thread's number when it was written, of 32 and 64 bits.
        self.lines: dict[str, list[str]] = {"r": [], "d": []}

    def begin(self) -> None:
        """Give steady registers and every byte of local memory a value; and make a first line of some step."""
        first = self.w.new("r")
        self.w.add(f"mul.lo.s32 {first}, {self.places.number}, {self.chance.choice((2, 4, 12, -3))}")
        self.lines["r"].append(self.w.keep(first))
        for first in ("%ctaid.x", "1"):
            register = self.w.new("r")
            self.w.add(f"mov.u32 {register}, {first}")
            self.steady.append(self.w.keep(register))
        if self.has_local:
            for offset in range(0, LOCAL_BYTES, 16):
                self.w.add(f"st.local.v2.b64 [depot+{offset}], {{{self.w.any('d')}, {self.w.any('d')}}}")

    def one(self) -> None:
        """One thing to do, of several instructions where it takes them."""
        choice = self.chance.random()
        if choice < 0.50:
            self._compute()
        elif choice < 0.61:
            self._own(self.chance.random() < 0.5)
        elif choice < 0.71:
            self._read_table()
        elif choice < 0.80:
            self._linear()
        elif choice < 0.84:
            self._steady()
        else:
            others = [self._pack, self._unpack, self._carry, self._bits_of_float, self._float_of_bits, self._move]
            others += [self._atomic, self._set_both, self._parameter, self._count, self._approximate]
            others += [self._local] * 3 * self.has_local + [self._const] * 2 * self.has_const
            self.chance.choice(others)()

    def absorb(self) -> None:
        """Let registers that every thread ends with depend on the newest others."""
        w = self.w
        for sort, opcode in (("r", "xor.b32"), ("d", "add.s64"), ("h", "xor.b16"), ("p", "xor.pred")):
            newest = w.visible[sort][-1]
            if newest not in w.pools[sort] and self.chance.random() < 0.6:
                register = w.target(sort)
                w.add(f"{opcode} {register}, {register}, {newest}")
        for sort, kind in (("f", "f32"), ("g", "f64")):
            newest = w.visible[sort][-1]
            if newest not in w.pools[sort] and self.chance.random() < 0.6:
                w.add(f"mov.{kind} {w.target(sort)}, {newest}")

    def _guard(self) -> str:
        return self.w.guard() if self.chance.random() < 0.2 else ""

    def _result(self, sort: str, guard: str) -> str:
        """A register to write: a new one only where all write it."""
        return self.w.target(sort) if guard or self.chance.random() < 0.4 else self.w.new(sort)

    def _write(self, text: str, guard: str, results: Sequence[str]) -> None:
        self.w.add(text, guard)
        if not guard:
            for result in results:
                if result not in self.w.pools[result[1]]:
                    self.w.keep(result)

    # --- values ---------------------------------------------------------------------------------------

    def _compute(self) -> None:
        drawn = draw(self.chance)
        guard = self._guard()
        results: list[str] = []
        operands = [self._operand(drawn, wanted, guard, results) for wanted in drawn.operands]
        self._write(f"{drawn.text} {', '.join(operands)}", guard, results)

    def _operand(self, drawn: Drawn, wanted: Expected, guard: str, results: list[str]) -> str:
        chance, w = self.chance, self.w
        role = wanted.role
        if role.kind is RoleKind.IMMEDIATE:
            return str(chance.randrange(256))
        sort = chance.choice(sorts(wanted))
        if role.kind is RoleKind.DESTINATION:
            results.append(self._result(sort, guard))
            if role.pairing is Pairing.REQUIRED or (role.pairing is Pairing.OPTIONAL and chance.random() < 0.3):
                other = self._result("p", guard)
                while other in results:
                    other = w.target("p")
                results.append(other)
                return "|".join(results)
            return results[-1]
        if sort == "p":
            return f"{chance.choice(('', '!')) if role.is_negatable else ''}{w.any('p')}"
        assert wanted.type is not None
        if sort in "fg":
            looks_at_nan = drawn.root == "copysign" or "xorsign" in drawn.text
            return w.clean(sort) if looks_at_nan else w.value(sort)
        if wanted.type.kind == "x" or wanted.type is ScalarType.F16:
            return w.any(sort)
        if drawn.root in ("shl", "shr", "shf", "bfe", "bfi") and role.type == "u32":
            return str(chance.randint(0, 70)) if chance.random() < 0.7 else w.any(sort)
        if drawn.root in ("mul", "mad") and chance.random() < 0.3:
            return str(chance.choice((1, 2, 3, 4, 8, 16, -1, -4, 100)))
        if BITS[sort] != wanted.type.bits:
            return w.any(sort)
        return w.value(sort)

    def _linear(self) -> None:
        """Index arithmetic: sums, differences and multiples of what grows with the thread's number."""
        w, chance = self.w, self.chance
        lines = ["%tid.x", self.places.number, *(line for line in self.lines["r"] if line in w.visible["r"])]
        one, result = chance.choice(lines), w.new("r")
        other = chance.choice((w.any("r"), "%ntid.x", str(chance.randint(-20, 300)), w.constant("r")))
        opcode = chance.choice(("add.s32", "sub.s32", "sub.s32", "mul.lo.s32", "mad.lo.s32", "shl.b32", "neg.s32"))
        if chance.random() < 0.6:
            other = chance.choice(lines)
        operands = [one, other]
        if opcode == "mad.lo.s32":
            operands = [one, str(chance.choice((1, 2, 4, 12, -4))), other]
        elif opcode == "shl.b32":
            operands = [one, str(chance.randrange(5))]
        elif opcode == "mul.lo.s32" and chance.random() < 0.7:
            operands = [one, str(chance.choice((2, 3, 4, 8, 100, -1, -4)))]
        elif opcode == "neg.s32":
            operands = [one]
        elif chance.random() < 0.3:
            operands.reverse()
        w.add(f"{opcode} {result}, {', '.join(operands)}")
        self.lines["r"].append(w.keep(result))
        w.add(f"add.u32 {w.pools['r'][0]}, {w.pools['r'][0]}, {result}")
        if chance.random() < 0.4:
            self._wide_linear(result)

    def _wide_linear(self, line: str) -> None:
        """The same in 64 bits, after a conversion that sees whether it wrapped."""
        w, chance = self.w, self.chance
        wide, result = w.new("d"), w.new("d")
        opcode = chance.choice(("cvt.u64.u32", "cvt.s64.s32", "mul.wide.u32", "mul.wide.s32"))
        w.add(f"{opcode} {wide}, {line}{', 4' if opcode.startswith('mul') else ''}")
        others = [register for register in self.lines["d"] if register in w.visible["d"]]
        operands = [wide, chance.choice((*others, wide, w.any("d"), str(chance.randint(-9, 9))))]
        if chance.random() < 0.4:
            operands.reverse()
        w.add(f"{chance.choice(('add.s64', 'sub.s64', 'sub.u64', 'mul.lo.s64'))} {result}, {', '.join(operands)}")
        self.lines["d"] += [w.keep(wide), w.keep(result)]
        if chance.random() < 0.5:
            w.add(f"add.s64 {w.pools['d'][0]}, {w.pools['d'][0]}, {result}")

    def _steady(self) -> None:
        """A register that only ever gets what is the same for all threads, here perhaps from some of them."""
        w, chance = self.w, self.chance
        register = chance.choice(self.steady)
        opcode = chance.choice(("add.u32", "mul.lo.u32", "xor.b32", "min.u32", "sub.s32"))
        other = chance.choice((str(chance.randint(-5, 5)), "%ntid.x", "%ctaid.x", register))
        w.add(f"{opcode} {register}, {register}, {other}", self._guard())

    def _set_both(self) -> None:
        """``setp`` with both destinations and a combination."""
        w, chance = self.w, self.chance
        sort, kind = chance.choice((("r", "u32"), ("r", "s32"), ("d", "s64"), ("f", "f32"), ("h", "s16")))
        guard = self._guard()
        one, two = chance.sample(w.pools["p"], 2)
        relation, combination = chance.choice(("lt", "ge", "eq", "ne")), chance.choice((".and", ".or", ".xor"))
        text = f"setp.{relation}{combination}.{kind} {one}|{two}, {w.any(sort)}, {w.value(sort)}"
        w.add(f"{text}, {chance.choice(('', '!'))}{w.any('p')}", guard)

    def _pack(self) -> None:
        whole, part, count = self.chance.choice((("d", "r", 2), ("r", "h", 2), ("d", "h", 4)))
        guard = self._guard()
        result = self._result(whole, guard)
        parts = ", ".join(self.w.any(part) for _ in range(count))
        self._write(f"mov.b{BITS[whole]} {result}, {{{parts}}}", guard, [result])

    def _unpack(self) -> None:
        whole, part, count = self.chance.choice((("d", "r", 2), ("r", "h", 2), ("d", "h", 4)))
        guard = self._guard()
        results = self._several(part, count, guard)
        self._write(f"mov.b{BITS[whole]} {{{', '.join(results)}}}, {self.w.any(whole)}", guard, results)

    def _several(self, sort: str, count: int, guard: str) -> list[str]:
        """Different registers to write."""
        if guard or self.chance.random() < 0.3:
            return self.chance.sample(self.w.pools[sort], count)
        return [self.w.new(sort) for _ in range(count)]

    def _carry(self) -> None:
        w, chance = self.w, self.chance
        sort = chance.choice("rd")
        kind = f"{chance.choice('us')}{BITS[sort]}"
        first = chance.choice(("add.cc", "sub.cc", "mad.lo.cc", "mad.hi.cc"))
        for opcode in (first, *chance.choices(("addc.cc", "subc.cc", "madc.hi.cc", "madc.lo.cc"), k=2), "addc"):
            count = 3 if opcode.startswith("mad") else 2
            guard = self._guard() if opcode != first else ""
            result = self._result(sort, guard)
            self._write(f"{opcode}.{kind} {result}, {', '.join(w.value(sort) for _ in range(count))}", guard, [result])
            if chance.random() < 0.3:
                break

    def _bits_of_float(self) -> None:
        sort, bits = self.chance.choice((("f", "r"), ("g", "d")))
        register = self.w.clean(sort)
        result = self.w.new(bits)
        self._write(f"mov.b{BITS[bits]} {result}, {register}", "", [result])

    def _float_of_bits(self) -> None:
        sort, bits = self.chance.choice((("f", "r"), ("g", "d")))
        guard = self._guard()
        result = self._result(sort, guard)
        self._write(f"mov.b{BITS[bits]} {result}, {self.w.any(bits)}", guard, [result])

    def _move(self) -> None:
        sort, kind = self.chance.choice(
            (("h", "u16"), ("r", "b32"), ("d", "s64"), ("f", "f32"), ("g", "f64"), ("p", "pred"))
        )
        guard = self._guard()
        result = self._result(sort, guard)
        self._write(f"mov.{kind} {result}, {self.w.value(sort)}", guard, [result])

    def _parameter(self) -> None:
        name, kind, sort = self.chance.choice(
            (("k", "u32", "r"), ("m", "s64", "d"), ("x", "f32", "f"), ("n", "u32", "r"))
        )
        guard = self._guard()
        result = self._result(sort, guard)
        self._write(f"ld.param.{kind} {result}, [{name}]", guard, [result])

    # --- memory ---------------------------------------------------------------------------------------

    def access(self, alignment: int, kind: str, room: int) -> tuple[str, str, int, int]:
        """A type, a sort of registers, how many, and an offset, for an access within ``room`` bytes."""
        chance = self.chance
        if kind != "b":
            size, name, sort = int(kind[1:]) // 8, kind, "f" if kind == "f32" else "g"
        else:
            size = chance.choice([size for size in (1, 2, 4, 4, 8) if size <= alignment])
            name = chance.choice(_INTEGERS[size])
            sort = chance.choice(_SORTS_OF_BITS[size * 8])
        count = chance.choice([count for count in (1, 1, 2, 4) if count * size <= alignment])
        places = range(0, room - count * size + 1, count * size)
        return name, sort, count, chance.choice(places)

    def load(self, reach: Reach, what: tuple[str, str, int, int], opcode: str) -> None:
        """A load of a part of what an address leads to."""
        name, sort, count, offset = what
        guard = reach.guard or self._guard()
        results = self._several(sort, count, guard)
        vector = f".v{count}" if count > 1 else ""
        written = ["_" if count > 1 and self.chance.random() < 0.05 else result for result in results]
        into = f"{{{', '.join(written)}}}" if count > 1 else results[0]
        self._write(f"{opcode}{vector}.{name} {into}, {reach.at(offset)}", guard, [r for r in written if r != "_"])

    def store(self, reach: Reach, what: tuple[str, str, int, int], opcode: str) -> None:
        """A store of registers or constants."""
        name, sort, count, offset = what
        guard = reach.guard or self._guard()
        values = [self.w.any(sort) if self.chance.random() < 0.9 or name[1:] != str(BITS[sort]) else "0"
                  for _ in range(count)]  # fmt: skip
        if sort in "fg":
            values = [self.w.any(sort) for _ in range(count)]
        vector = f".v{count}" if count > 1 else ""
        given = f"{{{', '.join(values)}}}" if count > 1 else values[0]
        self.w.add(f"{opcode}{vector}.{name} {reach.at(offset)}, {given}", guard)

    def _own(self, is_store: bool) -> None:
        """Read or write the thread's part of a strip."""
        strip = self.chance.choice(self.places.strips)
        reach = self.places.own(strip)
        for _ in range(self.chance.choice((1, 1, 2))):
            what = self.access(strip.alignment, strip.kind, strip.stride)
            if is_store:
                self.store(reach, what, self.chance.choice(("st.global", "st.global", "st", "st.volatile.global")))
            else:
                self.load(reach, what, self.chance.choice(("ld.global", "ld.global", "ld", "ld.volatile.global")))
            is_store = self.chance.random() < 0.5

    def _read_table(self) -> None:
        reach, alignment = self.places.anywhere()
        kinds = ["b", "b"] + ["f32"] * (alignment >= 4) + ["f64"] * (alignment >= 8)
        if self.chance.random() < 0.15 and not reach.guard:
            reach = self._spoiled(reach)
        what = self.access(alignment, self.chance.choice(kinds), alignment)
        self.load(reach, what, self.chance.choice(("ld.global", "ld.global.nc", "ld", "ld.global.ca")))

    def _spoiled(self, reach: Reach) -> Reach:
        """An address that is a bad one where the guard turns the access off."""
        w, chance = self.w, self.chance
        predicate, result, off = w.any("p"), w.new("d"), w.new("p")
        w.add(f"not.pred {off}, {predicate}")
        bad = chance.choice(("0xdead00000000", "0x7fffffff", "3", "-1", w.any("d")))
        w.add(f"selp.b64 {result}, {bad}, {reach.register}, {off}")
        guard = w.new("p")
        w.add(f"mov.pred {guard}, {predicate}")
        return Reach(result, reach.offset, f"@{guard}")

    def _atomic(self) -> None:
        """On the thread's own part, where every result is known."""
        w, chance = self.w, self.chance
        fitting = [strip for strip in self.places.strips if strip.alignment >= 4]
        if not fitting:
            return
        strip = chance.choice(fitting)
        wide = strip.kind == "f64" or (strip.kind == "b" and strip.alignment >= 8 and chance.random() < 0.4)
        bits, sort = (64, "d") if wide else (32, "r")
        if strip.kind != "b":
            name, sort = f"add.{strip.kind}", "g" if wide else "f"
        else:
            plain = [f"{word}.b{bits}" for word in ("and", "or", "xor", "exch", "cas")]
            plain += [f"{word}.{sign}{bits}" for word in ("min", "max") for sign in "us"] + [f"add.u{bits}"]
            plain += [] if wide else ["inc.u32", "dec.u32", "add.noftz.f16x2", "add.noftz.bf16x2"]
            name = chance.choice(plain)
        reach = self.places.own(strip)
        guard = reach.guard or self._guard()
        offset = chance.choice(range(0, strip.stride - bits // 8 + 1, bits // 8))
        values = ", ".join(w.any(sort) for _ in range(2 if name.startswith("cas") else 1))
        if chance.random() < 0.3 and not name.startswith(("exch", "cas")):
            w.add(f"red.global.{name} {reach.at(offset)}, {values}", guard)
            return
        result = self._result(sort, guard)
        order = chance.choice(("", "", ".relaxed.gpu", ".acq_rel.sys"))
        self._write(f"atom{order}.global.{name} {result}, {reach.at(offset)}, {values}", guard, [result])

    def _count(self) -> None:
        """Add to a counter of all threads, which nobody reads."""
        w, chance = self.w, self.chance
        index, pointer = chance.randrange(len(COUNTERS)), w.new("d")
        w.add(f"ld.param.u64 {pointer}, [counters]")
        place = f"[{pointer}+{4 * index}], {w.value('r')}"
        if chance.random() < 0.3:
            w.add(f"atom.global.{COUNTERS[index]} {w.new('r')}, {place}", self._guard())
        else:
            w.add(f"red.global.{COUNTERS[index]} {place}", self._guard())

    def _approximate(self) -> None:
        """A result with an error, which only goes to memory, of an operand that is not large."""
        w, chance = self.w, self.chance
        opcode = draw_approximation(chance)
        low, high, result = w.new("f"), w.new("f"), w.new("f")
        w.add(f"max.f32 {low}, {w.any('f')}, 0fC0A00000")
        w.add(f"min.f32 {high}, {low}, 0f40A00000")
        operands = [high, "0f40490FDB"] if opcode.startswith("div") else [high]
        w.add(f"{opcode} {result}, {', '.join(operands)}")
        pointer = w.new("d")
        w.add(f"ld.param.u64 {pointer}, [approximate]")
        reach = self.places.address(pointer, self.places.number, APPROXIMATE_BYTES, is_signed=False)
        w.add(f"st.global.f32 {reach.at(chance.randrange(0, APPROXIMATE_BYTES, 4))}, {result}", self._guard())

    def _local(self) -> None:
        w, chance = self.w, self.chance
        what = self.access(16, "b", 16)
        start = w.new("d")
        w.add(f"mov.u64 {start}, depot")
        space = ".local"
        if chance.random() < 0.3:
            w.add(f"cvta.local.u64 {start}, {start}")
            space = ""
        index, wide, address = w.new("r"), w.new("d"), w.new("d")
        if chance.random() < 0.3:
            w.add(f"mov.u32 {index}, {chance.randrange(0, LOCAL_BYTES, 16)}")
        else:
            w.add(f"and.b32 {index}, {w.any('r')}, {LOCAL_BYTES - 16}")
        w.add(f"cvt.u64.u32 {wide}, {index}")
        w.add(f"add.s64 {address}, {start}, {wide}")
        reach = Reach(address, 0, "")
        if chance.random() < 0.5:
            self.store(reach, what, f"st{space}")
        else:
            self.load(reach, what, f"ld{space}")

    def _const(self) -> None:
        w, chance = self.w, self.chance
        what = self.access(16, "b", 16)
        start, index, wide, address = w.new("d"), w.new("r"), w.new("d"), w.new("d")
        if chance.random() < 0.3:
            self.load(Reach("weights", chance.randrange(0, CONST_BYTES, 16), ""), what, "ld.const")
            return
        w.add(f"mov.u64 {start}, weights")
        w.add(f"and.b32 {index}, {chance.choice(('%tid.x', w.any('r')))}, {CONST_BYTES // 16 - 1}")
        w.add(f"mul.wide.u32 {wide}, {index}, 16")
        w.add(f"add.s64 {address}, {start}, {wide}")
        self.load(Reach(address, 0, ""), what, "ld.const")
