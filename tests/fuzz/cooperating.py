"""Random kernels whose threads wait for each other: barriers, shared memory, warp operations, as PTX text.

Every result is one that the PTX ISA defines:

- Code stands at a *level*: all threads of the block go through it (``BLOCK``), or all lanes of a mask do (``WARP``), or
  any threads (``ALONE``). Barriers are at ``BLOCK``, under uniform branches and in uniform loops too; warp operations
  at ``BLOCK`` and ``WARP``, under a mask that is full or was voted.
- A *phase* lets threads write their own words of shared memory and add to counters, or read everybody's. A barrier
  lies between.
- A thread may end anywhere, but not in a kernel with barriers that say a count; these are for whole warps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum

from fuzz.generator import _DEPTH_MAX, Generator, Target
from fuzz.places import COUNTERS, Axes, Reach

SLOT_BYTES_MAX = 32
COUNTER_BYTES = 32
DYNAMIC_BYTES = 256 * SLOT_BYTES_MAX + COUNTER_BYTES
_FULL = "0xffffffff"
_ROUNDS_MAX = 3
_Opcode = tuple[str, str]


class Level(Enum):
    """Who goes through a piece of code together."""

    BLOCK = "block"
    WARP = "warp"
    ALONE = "alone"


class Phase(Enum):
    """What threads do with shared memory."""

    WRITE = "write"
    READ = "read"
    NEITHER = "neither"


class CooperatingGenerator(Generator):
    """As :class:`Generator`, with code that threads of a block go through together."""

    def __init__(self, source: random.Random, size: int, grid: int, block: Axes) -> None:
        super().__init__(source, size, grid, block)
        self._may_exit = source.random() < 0.5
        self._may_count = self.places.block_threads % 32 == 0 and not self._may_exit
        self._level = Level.BLOCK
        self._phase = Phase.WRITE
        self._mask = _FULL
        self._is_dynamic = source.random() < 0.3
        self._slot_bytes = source.choice((4, 4, 8, 16, 32))
        self._thread = self._slot = self._start = ""
        self._counted = -(-self.places.block_threads // 32) * 32
        self._uniform: list[str] = []
        self._uniform_predicates: list[str] = []

    def module_variables(self) -> list[str]:
        """The shared memory."""
        size = COUNTER_BYTES + self._slot_bytes * self.places.block_threads
        if self._is_dynamic:
            return [".extern .shared .align 16 .b8 buffer[];"]
        return [f".shared .align 16 .b8 buffer[{size}];"]

    def begin(self) -> None:
        """Also compute the thread's number in the block, its slot, and what is the same for all threads."""
        super().begin()
        w, chance = self.w, self.chance
        self._thread, self._start, self._slot = w.new("r"), w.new("r"), w.new("r")
        if self.places.block[1:] == (1, 1):
            w.add(f"mov.u32 {self._thread}, %tid.x")
        else:
            rows = w.new("r")
            w.add(f"mad.lo.s32 {rows}, %tid.z, %ntid.y, %tid.y")
            w.add(f"mad.lo.s32 {self._thread}, {rows}, %ntid.x, %tid.x")
        w.add(f"mov.u32 {self._start}, buffer")
        w.add(f"mad.lo.u32 {self._slot}, {self._thread}, {self._slot_bytes}, {self._start}")
        w.keep(self._thread)
        for first in ("%r0", "%ctaid.x", str(self.places.block_threads)):
            register = w.new("r")
            w.add(f"ld.param.u32 {register}, [k]" if first == "%r0" else f"mov.u32 {register}, {first}")
            self._uniform.append(w.keep(register))
        for _ in range(2):
            predicate = w.new("p")
            w.add(f"setp.lt.s32 {predicate}, {self._uniform[0]}, {chance.getrandbits(31)}")
            self._uniform_predicates.append(w.keep(predicate))
        for offset in range(0, self._slot_bytes, 4):
            w.add(f"st.shared.b32 [{self._slot}+{COUNTER_BYTES + offset}], {w.any('r')}")
        first = w.new("p")
        w.add(f"setp.eq.u32 {first}, {self._thread}, 0")
        for offset in range(0, COUNTER_BYTES, 4):
            w.add(f"st.shared.u32 [{self._start}+{offset}], 0", f"@{first}")
        w.add("bar.sync 0")

    # --- statements -----------------------------------------------------------------------------------

    def statement(self, depth: int, targets: tuple[Target, ...]) -> None:
        """One for the level that control is at."""
        if self._level is Level.ALONE:
            super().statement(depth, targets)
            return
        kinds = [self._alone] * 3 + [self._warp_operation] * 3
        if depth < _DEPTH_MAX:
            kinds += [self._vote_branch, self._split, self._both_sides, self._vote_loop]
        if self._level is Level.BLOCK:
            kinds += [self._barrier] * 4 + [self._uniform_compute]
            if depth < _DEPTH_MAX:
                kinds += [self._uniform_branch, self._uniform_loop, self._uniform_loop, self._entered_twice_together]
                if self._may_count and self.places.block_threads > 32:
                    kinds += [self._produce] * 2
        self.chance.choice([*kinds, self.exit])(depth, ())

    def exit(self, depth: int, targets: tuple[Target, ...]) -> None:
        """The thread goes to its end, where it may."""
        if self._may_exit:
            super().exit(depth, targets)

    def _compute(self, _depth: int, _targets: tuple[Target, ...]) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self._instruction()

    def _alone(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """A statement that any thread goes through by itself."""
        level, self._level = self._level, Level.ALONE
        super().statement(depth, ())
        self._level = level

    def _inside(self, depth: int, level: Level, mask: str) -> None:
        """Statements at another level, or under another mask, that leave the phase as it is."""
        before = self._level, self._mask
        self._level, self._mask = level, mask
        phase = self._phase
        self.statements(depth, ())
        if self._phase is not phase:
            self._next_phase()
        self._level, self._mask = before

    # --- barriers -------------------------------------------------------------------------------------

    def _barrier(self, _depth: int, _targets: tuple[Target, ...]) -> None:
        if self.chance.random() < 0.15:  # one that all pass or none does, and changes no phase
            guard = f"@{self.chance.choice(('', '!'))}{self.chance.choice(self._uniform_predicates)}"
            self.w.add(f"bar.sync {self._whole_block()}", guard)
        else:
            self._next_phase()

    def _next_phase(self) -> None:
        chance = self.chance
        form = chance.choice(("sync", "sync", "popc", "and", "or"))
        opcode = chance.choice(("bar", "barrier.cta", "barrier"))
        if form == "sync":
            self.w.add(f"{opcode}.sync {self._whole_block()}")
        else:
            kind = "u32" if form == "popc" else "pred"
            result = chance.choice(self._uniform if form == "popc" else self._uniform_predicates)
            predicate = f"{chance.choice(('', '!'))}{self.w.any('p')}"
            self.w.add(f"{opcode}.red.{form}.{kind} {result}, {self._whole_block()}, {predicate}")
        self._phase = Phase.READ if self._phase is Phase.WRITE else Phase.WRITE

    def _whole_block(self) -> str:
        """The operands of a barrier for all threads: one of the sixteen, and perhaps how many they are."""
        number = self.chance.choice((0, 0, 1, self.chance.randrange(8)))
        return f"{number}, {self._counted}" if self._may_count and self.chance.random() < 0.3 else str(number)

    def _produce(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """Warps of even number write and only arrive; those of odd number wait, and read what these wrote."""
        w = self.w
        if self._phase is not Phase.WRITE:
            self._next_phase()
        number = self.chance.randrange(8, 16)  # none that all threads use
        odd, bit = w.new("p"), w.new("r")
        w.add(f"and.b32 {bit}, {self._thread}, 32")
        w.add(f"setp.ne.u32 {odd}, {bit}, 0")
        consumers, after = w.label(), w.label()
        w.jump(consumers, f"@{odd}")
        self._inside(depth + 1, Level.WARP, _FULL)
        w.add(f"bar.arrive {number}, {self._counted}")
        self._phase = Phase.NEITHER
        self._inside(depth + 1, Level.WARP, _FULL)
        w.jump(after)
        w.place(consumers)
        w.add(f"bar.sync {number}, {self._counted}")
        with w.scope():
            for _ in range(2):
                self._read_shared(producers_only=True)
            self._inside(depth + 1, Level.WARP, _FULL)
        w.place(after)
        self._phase = Phase.WRITE
        self._next_phase()

    # --- uniform control flow -------------------------------------------------------------------------

    def _uniform_guard(self) -> str:
        """A guard that holds for all threads or for none, of a register that nothing changes later."""
        predicate = self.w.new("p")
        relation = self.chance.choice(("lt", "ge", "ne"))
        one, other = self.chance.choice(self._uniform), self.chance.choice((0, 1, 1 << 31))
        self.w.add(f"setp.{relation}.u32 {predicate}, {one}, {other}")
        chosen = self.chance.choice([predicate, *self._uniform_predicates])
        return f"@{self.chance.choice(('', '!'))}{chosen}"

    def _uniform_compute(self, _depth: int, _targets: tuple[Target, ...]) -> None:
        w, chance = self.w, self.chance
        opcode = chance.choice(("add.u32", "mul.lo.u32", "xor.b32", "min.u32"))
        one, into = chance.choice(self._uniform), chance.choice(self._uniform)
        w.add(f"{opcode} {into}, {one}, {chance.getrandbits(32):#x}")
        guard = self._uniform_guard().lstrip("@!")
        w.add(f"mov.pred {chance.choice(self._uniform_predicates)}, {guard}")

    def _uniform_branch(self, depth: int, _targets: tuple[Target, ...]) -> None:
        side = (self._level, self._mask)
        self._two_sides(depth, self._uniform_guard(), (side, side))

    def _two_sides(self, depth: int, guard: str, sides: Sequence[tuple[Level, str]]) -> None:
        w = self.w
        other, after = w.label(), w.label()
        w.jump(other, guard)
        for index, (level, mask) in enumerate(sides):
            if index:
                w.jump(after)
                w.place(other)
            if not index or self.chance.random() < 0.7:
                self._inside(depth + 1, level, mask)
        w.place(after)

    def _uniform_loop(self, depth: int, _targets: tuple[Target, ...]) -> None:
        bound = self.w.new("r")
        self.w.add(f"and.b32 {bound}, {self.chance.choice(self._uniform)}, {_ROUNDS_MAX - 1}")
        self._counted_loop(depth, bound)

    def _counted_loop(self, depth: int, bound: str) -> None:
        """A loop of ``bound`` + 1 rounds; some leave it in the middle, all together."""
        w = self.w
        counter, more = w.new("r"), w.new("p")
        header, after = w.label(), w.label()
        w.add(f"mov.u32 {counter}, 0")
        with w.scope():
            w.keep(counter)
            w.place(header)
            w.add(f"setp.lt.u32 {more}, {counter}, {bound}")
            w.add(f"add.u32 {counter}, {counter}, 1")
            self._inside(depth + 1, self._level, self._mask)
            if self._level is Level.BLOCK and self.chance.random() < 0.3:
                w.jump(after, self._uniform_guard())
                self._inside(depth + 1, self._level, self._mask)
            w.jump(header, f"@{more}")
        w.place(after)

    def _entered_twice_together(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """A loop of two parts that the block enters at either."""
        w = self.w
        counter, more = w.new("r"), w.new("p")
        first, second = w.label(), w.label()
        w.add(f"mov.u32 {counter}, 0")
        w.jump(second, self._uniform_guard())
        w.place(first)
        self._inside(depth + 1, self._level, self._mask)
        w.place(second)
        self._inside(depth + 1, self._level, self._mask)
        w.add(f"setp.lt.u32 {more}, {counter}, {self.chance.randrange(_ROUNDS_MAX)}")
        w.add(f"add.u32 {counter}, {counter}, 1")
        w.jump(first, f"@{more}")

    # --- warps ----------------------------------------------------------------------------------------

    def _vote_branch(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """All lanes of the mask go the same way."""
        predicate = self.w.new("p")
        mode = self.chance.choice(("all", "any", "uni"))
        self.w.add(f"vote.sync.{mode}.pred {predicate}, {self.w.any('p')}, {self._mask}")
        side = (Level.WARP, self._mask)
        self._two_sides(depth, f"@{self.chance.choice(('', '!'))}{predicate}", (side, side))

    def _vote_loop(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """As many rounds for all lanes of the mask."""
        bound = self._ballot("", self.w.any("p"))
        self.w.add(f"and.b32 {bound}, {bound}, {_ROUNDS_MAX - 1}")
        level, self._level = self._level, Level.WARP
        self._counted_loop(depth, bound)
        self._level = level

    def _split(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """Lanes go two ways, each under the mask of those that do."""
        predicate = self.w.new("p")
        self.w.add(f"mov.pred {predicate}, {self.w.any('p')}")
        sides = [(Level.WARP, self._ballot(negated, predicate)) for negated in ("!", "")]
        self._two_sides(depth, f"@{predicate}", sides)

    def _ballot(self, negated: str, predicate: str) -> str:
        mask = self.w.new("r")
        self.w.add(f"vote.sync.ballot.b32 {mask}, {negated}{predicate}, {self._mask}")
        return mask

    def _both_sides(self, depth: int, _targets: tuple[Target, ...]) -> None:
        """Lanes go two ways and meet in the same operations, which stand on both."""
        w = self.w
        opcodes = [self.chance.choice(self._warp_writers())() for _ in range(self.chance.randint(1, 2))]
        other, after = w.label(), w.label()
        w.jump(other, w.guard())
        for is_last in (False, True):
            with w.scope():
                for opcode in opcodes:
                    self._alone(depth + 1, ())
                    self._write_warp_operation(opcode)
            if not is_last:
                w.jump(after)
                w.place(other)
        w.place(after)

    def _warp_operation(self, _depth: int, _targets: tuple[Target, ...]) -> None:
        for _ in range(self.chance.randint(1, 2)):
            self._write_warp_operation(self.chance.choice(self._warp_writers())())

    def _warp_writers(self) -> list[Callable[[], _Opcode]]:
        choose = self.chance.choice
        return [
            lambda: ("shfl.sync." + choose(("up", "down", "bfly", "idx")), "b32"),
            lambda: ("shfl.sync." + choose(("up", "down", "bfly", "idx")), "b32"),
            lambda: ("vote.sync." + choose(("all", "any", "uni")), "pred"),
            lambda: ("vote.sync.ballot", "b32"),
            lambda: ("match.any.sync", choose(("b32", "b64"))),
            lambda: ("match.all.sync", choose(("b32", "b64"))),
            lambda: ("redux.sync." + choose(("add", "min", "max")), choose(("u32", "s32"))),
            lambda: ("redux.sync." + choose(("and", "or", "xor")), "b32"),
            lambda: ("bar.warp.sync", ""),
        ]

    def _write_warp_operation(self, opcode: _Opcode) -> None:
        (name, kind), w, chance = opcode, self.w, self.chance
        into = w.target("r")
        pair = f"{into}|{w.target('p')}" if chance.random() < 0.5 else into
        match name.split(".")[0]:
            case "shfl":
                amount = w.any("r") if chance.random() < 0.3 else str(chance.randrange(32))
                segment = chance.choice((0, 0, 0x1000, 0x1800, 0x1C00))
                control = str(segment | (0 if name.endswith("up") else 31))
                if chance.random() < 0.2:
                    control = w.any("r")
                w.add(f"{name}.b32 {pair}, {w.any('r')}, {amount}, {control}, {self._mask}")
            case "vote":
                result = into if name.endswith("ballot") else w.target("p")
                w.add(f"{name}.{kind} {result}, {chance.choice(('', '!'))}{w.any('p')}, {self._mask}")
            case "match":
                sort = "r" if kind == "b32" else "d"
                value = chance.choice((self._few(sort), w.any(sort)))
                w.add(f"{name}.{kind} {pair if 'all' in name else into}, {value}, {self._mask}")
            case "redux":
                w.add(f"{name}.{kind} {into}, {w.any('r')}, {self._mask}")
            case _:
                w.add(f"{name} {self._mask}")

    def _few(self, sort: str) -> str:
        """A register with one of few values."""
        few = self.w.new(sort)
        self.w.add(f"and.b{32 if sort == 'r' else 64} {few}, {self.w.any(sort)}, 3")
        return few

    # --- shared memory --------------------------------------------------------------------------------

    def _instruction(self) -> None:
        if self.chance.random() < 0.25 and self._phase is not Phase.NEITHER:
            if self._phase is Phase.READ:
                self._read_shared()
            elif self.chance.random() < 0.2:
                self._count()
            else:
                self._own_shared()
        else:
            self.instructions.one()

    def _own_shared(self) -> None:
        """Write, read or update the thread's own words."""
        what = self.instructions.access(min(self._slot_bytes, 16), "b", self._slot_bytes)
        reach, space = self._reach(self._slot)
        choice = self.chance.random()
        if choice < 0.6:
            self.instructions.store(reach, what, f"st{space}")
        elif choice < 0.8:
            self.instructions.load(reach, what, f"ld{space}")
        else:
            guard = self.w.guard() if self.chance.random() < 0.3 else ""
            operation = self.chance.choice(("add.u32", "exch.b32", "max.s32", "inc.u32"))
            self.w.add(f"atom{space}.{operation} {self.w.target('r')}, {reach.at(0)}, {self.w.any('r')}", guard)

    def _count(self) -> None:
        """Add to a counter, which nobody reads before a barrier."""
        index = self.chance.randrange(len(COUNTERS))
        guard = self.w.guard() if self.chance.random() < 0.5 else ""
        self.w.add(f"red.shared.{COUNTERS[index]} [{self._start}+{4 * index}], {self.w.any('r')}", guard)

    def _read_shared(self, *, producers_only: bool = False) -> None:
        """Read any thread's words, or only those of the warps of even number; or a counter."""
        w, chance, threads = self.w, self.chance, self.places.block_threads
        if not producers_only and chance.random() < 0.15:
            self.instructions.load(
                Reach(chance.choice(("buffer", self._start)), 0, ""),
                ("u32", "r", 1, 4 * chance.randrange(8)),
                "ld.shared",
            )
            return
        place, address = w.new("r"), w.new("r")
        match chance.randrange(5):
            case 0:
                w.add(f"sub.u32 {place}, {threads - 1}, {self._thread}")
            case 1:
                w.add(f"xor.b32 {place}, {self._thread}, {chance.choice((1, 2, 16))}")
                w.add(f"min.u32 {place}, {place}, {threads - 1}")
            case 2:
                w.add(f"add.u32 {place}, {self._thread}, {chance.choice((1, 4, 32))}")
                w.add(f"rem.u32 {place}, {place}, {threads}")
            case 3:
                w.add(f"rem.u32 {place}, {chance.choice(self._uniform)}, {threads}")
            case _:
                w.add(f"rem.u32 {place}, {w.any('r')}, {threads}")
        if producers_only:
            w.add(f"and.b32 {place}, {place}, {~32}")
        w.add(f"mad.lo.u32 {address}, {place}, {self._slot_bytes}, {self._start}")
        reach, space = self._reach(address)
        what = self.instructions.access(min(self._slot_bytes, 16), "b", self._slot_bytes)
        self.instructions.load(reach, what, f"ld{space}")

    def _reach(self, address: str) -> tuple[Reach, str]:
        """Slots as an address of 32 or 64 bits, or a generic one; and the space to say."""
        w, choice = self.w, self.chance.random()
        if choice < 0.6:
            return Reach(address, COUNTER_BYTES, ""), ".shared"
        wide = w.new("d")
        w.add(f"cvt.u64.u32 {wide}, {address}")
        if choice < 0.75:
            return Reach(wide, COUNTER_BYTES, ""), ".shared"
        generic = w.new("d")
        w.add(f"cvta.shared.u64 {generic}, {wide}")
        return Reach(generic, COUNTER_BYTES, ""), ""
