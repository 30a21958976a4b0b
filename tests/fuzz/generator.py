"""Random kernels of structured and other control flow, as PTX text.

Threads work on their own parts of memory (see :mod:`.places`) and write their registers to a record at their end. Every
loop has a bound, and every register that is read has a value.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from fuzz.instructions import CONST_BYTES, LOCAL_BYTES, Instructions
from fuzz.places import RECORD_BYTES, TABLE_BYTES, Axes, Floats, Places
from fuzz.writer import BITS, Writer

_DEPTH_MAX = 4
_POOLS = {"p": 4, "h": 4, "r": 6, "d": 4, "f": 4, "g": 3}


@dataclass(frozen=True)
class Target:
    """Where code inside may go: the end of a construct, or the next round of a loop."""

    leave: str
    again: str | None = None


class Generator:
    """Writes one kernel of about ``size`` statements for blocks of a known shape."""

    def __init__(self, source: random.Random, size: int, grid: int, block: Axes, *, is_plain: bool = False) -> None:
        self.chance = source
        self.left = size
        self.w = Writer(source)
        self.places = Places(source, self.w, grid, block, is_plain)
        self.instructions = Instructions(source, self.w, self.places)
        self._final = "FINAL"

    def text(self) -> str:
        """The kernel ``k`` with its module."""
        self.begin()
        with self.w.scope():
            while self.left > 0 and not self.w.is_dead:
                self.statements(0, ())
        self.w.place(self._final)
        self._end()
        return "\n".join(self._module())

    def _module(self) -> list[str]:
        x, y, z = self.places.block
        parameters = ", ".join(f".param .{p.kind} {p.name}" for p in self.places.parameters)
        weights = ", ".join(str(self.chance.getrandbits(8)) for _ in range(CONST_BYTES))
        directive = [f".reqntid {x}, {y}, {z}"] if self.chance.random() < 0.3 else []
        local = self.instructions.has_local
        return [
            ".version 8.0",
            ".target sm_80",
            ".address_size 64",
            *([f".const .align 16 .b8 weights[{CONST_BYTES}] = {{{weights}}};"] if self.instructions.has_const else []),
            *self.places.variables,
            *self.module_variables(),
            f".visible .entry k({parameters})",
            *directive,
            "{",
            *self.w.declarations(),
            *([f"    .local .align 16 .b8 depot[{LOCAL_BYTES}];"] if local else []),
            *(map(self.places.plain, self.w.lines) if self.places.is_plain else self.w.lines),
            "}",
            "",
        ]

    def module_variables(self) -> list[str]:
        """Lines at module level besides those of strips."""
        return []

    def begin(self) -> None:
        """Give every register of the pools a value."""
        w = self.w
        self.places.begin()
        for name, kind, sort in (("n", "u32", "r"), ("k", "u32", "r"), ("m", "s64", "d"), ("x", "f32", "f")):
            w.add(f"ld.param.{kind} {w.fresh(sort)}, [{name}]")
        for sort, count in _POOLS.items():
            if sort == "p":
                continue
            for _ in range(count):
                register = w.new(sort)
                kind = f"{'f' if sort in 'fg' else 'b'}{BITS[sort]}"
                first = w.any(sort) if w.visible[sort] and self.chance.random() < 0.5 else w.constant(sort)
                w.add(f"mov.{kind} {register}, {first}")
                w.pools[sort].append(w.keep(register))
        number, address, table = w.new("r"), w.new("d"), w.new("d")
        w.add(f"ld.param.u64 {table}, [table]")
        w.add(f"and.b32 {number}, {self.places.number}, {TABLE_BYTES // 64 - 1}")
        w.add(f"mad.wide.u32 {address}, {number}, 64, {table}")
        for sort, pool in w.pools.items():
            for register in pool[: self.chance.randint(1, 3)]:
                kind = f"{'f' if sort in 'fg' else 'b'}{BITS[sort]}"
                offset = self.chance.randrange(0, 64, 8)
                w.add(f"ld.global.{kind} {register}, [{address}+{offset}]")
        for index in range(_POOLS["p"]):
            register = w.new("p")
            bound = (self.chance.getrandbits(32), self.chance.choice((1, 5, 31, 40)), "%r0", "3")[index]
            one = (w.any("r"), self.places.number, "%tid.x", "%tid.x")[index]
            w.add(f"setp.{'lt' if index else 'ge'}.u32 {register}, {one}, {bound}")
            w.pools["p"].append(w.keep(register))
        self.instructions.begin()

    def _end(self) -> None:
        """Write what the registers hold to the thread's record."""
        w, place = self.w, 0
        record, number = w.new("d"), w.new("r")
        address = w.new("d")
        w.add(f"ld.param.u64 {record}, [record]")
        w.add(f"mov.u32 {number}, {self.places.number}")
        w.add(f"mad.wide.u32 {address}, {number}, {RECORD_BYTES}, {record}")
        for sort, pool in w.pools.items():
            for register in [*pool, *(self.instructions.steady if sort == "r" else [])]:
                value, kind = register, f"{'f' if sort in 'fg' else 'b'}{BITS.get(sort, 32)}"
                if sort == "p":
                    value = w.new("r")
                    w.add(f"selp.b32 {value}, 1, 0, {register}")
                w.add(f"st.global.{kind} [{address}+{place}], {value}")
                if sort in "fg":
                    start = self.places.record + place
                    self.places.floats.append(Floats(start, RECORD_BYTES, self.places.threads, BITS[sort]))
                place += 8
        assert place <= RECORD_BYTES
        w.add("ret")

    # --- control flow ---------------------------------------------------------------------------------

    def statements(self, depth: int, targets: tuple[Target, ...]) -> None:
        """A few statements in a scope of their own; what they compute is not lost at its end."""
        with self.w.scope():
            for _ in range(self.chance.randint(1, 6)):
                if self.w.is_dead or (self.left <= 0 and depth > 1):
                    break
                self.left -= 1
                self.statement(depth if self.left > 0 else _DEPTH_MAX, targets)
            self.instructions.absorb()

    def statement(self, depth: int, targets: tuple[Target, ...]) -> None:
        """One that any thread goes through by itself."""
        kinds = [self._compute] * 7
        if depth < _DEPTH_MAX:
            kinds += [self._if, self._if, self._if_else, self._if_else, self._loop, self._loop, self._loop]
            kinds += [self._switch, self._labelled, self._entered_twice]
        if targets:
            kinds += [self._leave] * 3
        self.chance.choice([*kinds, self.exit])(depth, targets)

    def _compute(self, _depth: int, _targets: tuple[Target, ...]) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self.instructions.one()

    def guard(self) -> str:
        """A condition of a branch: any predicate, or one made for it."""
        w, chance = self.w, self.chance
        choice = chance.random()
        if choice < 0.5:
            return w.guard()
        predicate = w.fresh("p")
        relation = chance.choice(("lt", "ge", "eq", "ne", "gt"))
        if choice < 0.7:
            one, other = chance.choice(("%tid.x", self.places.number, "%laneid", "%tid.y")), str(chance.randint(0, 40))
        elif choice < 0.85:
            one, other = chance.choice(("%ctaid.x", "%ntid.x", *self.instructions.steady)), str(chance.randint(0, 3))
        else:
            one, other = w.any("r"), w.value("r")
        w.add(f"setp.{relation}.{chance.choice('us')}32 {predicate}, {one}, {other}")
        return f"@{chance.choice(('', '!'))}{predicate}"

    def _if(self, depth: int, targets: tuple[Target, ...]) -> None:
        after = self.w.label()
        guards = [self.guard() for _ in range(self.chance.choice((1, 1, 1, 2)))]
        for guard in guards:  # two are a condition of two blocks
            self.w.jump(after, guard)
        self.statements(depth + 1, targets)
        self.w.place(after)

    def _if_else(self, depth: int, targets: tuple[Target, ...]) -> None:
        w = self.w
        other, after = w.label(), w.label()
        w.jump(other, self.guard())
        for is_last in (False, True):
            self.statements(depth + 1, targets)
            if self.chance.random() < 0.4:  # the same register on both sides
                w.add(f"mov.b32 {self.w.pools['r'][0]}, {w.value('r')}")
            if not is_last:
                w.jump(after)
                w.place(other)
        w.place(after)

    def _loop(self, depth: int, targets: tuple[Target, ...]) -> None:
        w, chance = self.w, self.chance
        header, again, after = w.label(), w.label(), w.label()
        counter, bound = w.new("r"), self._bound()
        step = chance.choice((1, 1, 1, 2, 4))
        w.add(f"mov.u32 {counter}, {chance.choice((0, 0, 0, 1))}")
        with w.scope():
            w.keep(counter)
            w.place(header)
            if chance.random() < 0.5:  # the test may be at the top
                w.jump(after, self._counts(counter, bound, is_over=True))
            self.statements(depth + 1, (*targets, Target(after, again)))
            w.place(again)
            w.add(f"add.s32 {counter}, {counter}, {step}")
            w.jump(header, self._counts(counter, bound, is_over=False))
        w.place(after)

    def _bound(self) -> str:
        """How often a loop goes round: as often for all threads, or not."""
        w, chance = self.w, self.chance
        if chance.random() < 0.35:
            return str(chance.randint(0, 4))
        bound = w.new("r")
        of = chance.choice((w.any("r"), self.places.number, "%tid.x", *self.instructions.steady, "%laneid"))
        w.add(f"and.b32 {bound}, {of}, {chance.choice((1, 3, 3, 7))}")
        return bound

    def _counts(self, counter: str, bound: str, *, is_over: bool) -> str:
        """Whether a loop goes on; its predicate is its own, so nothing inside changes it."""
        predicate = self.w.new("p")
        is_less = self.chance.random() < 0.5
        self.w.add(f"setp.{'lt' if is_less else 'ge'}.{self.chance.choice('us')}32 {predicate}, {counter}, {bound}")
        return f"@{'!' if is_less is is_over else ''}{predicate}"

    def _switch(self, depth: int, targets: tuple[Target, ...]) -> None:
        w, chance = self.w, self.chance
        selector, table = w.new("r"), w.label()
        of = chance.choice((w.any("r"), "%tid.x", "%ctaid.x"))
        arms = [w.label() for _ in range(chance.randint(1, 4))]
        after = w.label()
        places = [*arms, after, *(target.leave for target in targets)]
        w.add(f"and.b32 {selector}, {of}, 3")
        w.lines.append(f"{table}: .branchtargets {', '.join(chance.choice(places) for _ in range(4))};")
        w.add(f"brx.idx {selector}, {table}")
        w.is_dead = True
        for index, arm in enumerate(arms):
            w.place(arm)
            self.statements(depth + 1, (*targets, Target(after)))
            w.jump(chance.choice([after, *arms[index + 1 :]]))  # some arms go on in a later one
        w.place(after)

    def _labelled(self, depth: int, targets: tuple[Target, ...]) -> None:
        after = self.w.label()
        self.statements(depth + 1, (*targets, Target(after)))
        self.w.place(after)

    def _entered_twice(self, depth: int, targets: tuple[Target, ...]) -> None:
        """A loop of two parts that is entered at either; every round passes its test."""
        w = self.w
        first, second, test, after = w.label(), w.label(), w.label(), w.label()
        counter, bound = w.new("r"), self._bound()
        w.add(f"mov.u32 {counter}, 0")
        w.jump(second, self.guard())
        inside = (*targets, Target(after, test))
        for label in (first, second):
            w.place(label)
            self.statements(depth + 1, inside)
        w.place(test)
        w.add(f"add.u32 {counter}, {counter}, 1")
        w.jump(self.chance.choice((first, second)), self._counts(counter, bound, is_over=False))
        w.place(after)

    def _leave(self, _depth: int, targets: tuple[Target, ...]) -> None:
        target = self.chance.choice(targets)
        place = target.again if target.again is not None and self.chance.random() < 0.5 else target.leave
        self.w.jump(place, self.guard() if self.chance.random() < 0.75 else "")

    def exit(self, _depth: int, _targets: tuple[Target, ...]) -> None:
        """The thread goes to its end."""
        if self.chance.random() < 0.8:
            self.w.jump(self._final, self.guard())
        else:  # nothing of what it computed is seen but what it stored
            self.w.add(self.chance.choice(("ret", "exit")), self.guard())
