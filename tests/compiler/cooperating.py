"""Random kernels whose threads wait for each other: barriers, shared memory, warp operations. For tests only.

Every result is one that the PTX ISA defines:

- Code stands at a *level*: all threads of the block go through it (``BLOCK``), or all lanes of a mask do (``WARP``), or
  any threads (``ALONE``). Barriers are at ``BLOCK``, under uniform branches and in uniform loops too; warp operations
  at ``BLOCK`` and ``WARP``, under a mask that is full or was voted.
- A *phase* lets threads write their own words of shared memory, or read everybody's. A barrier lies between.
- A thread may end anywhere, but not in a kernel with barriers that say a count; these are for whole warps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum

from compiler.build import immediate
from compiler.generator import _DEPTH_MAX, _TYPES, Generator, _Target
from tensor_wasm.ptx.program import (
    Address,
    Branch,
    Guard,
    Immediate,
    Jump,
    Kernel,
    Operand,
    Program,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Variable,
)

S = ScalarType
THREADS_MAX = 96
SLOT_BYTES = 32
SHARED_BYTES = THREADS_MAX * SLOT_BYTES
_FULL = Immediate(0xFFFF_FFFF, S.B32)
_ROUNDS_MAX = 3
_Opcode = tuple[str, ScalarType]


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
    """As :class:`Generator`; the kernel runs in blocks of up to ``THREADS_MAX`` threads of any shape.

    ``may_count`` allows barriers that say how many threads they are for.
    """

    def __init__(self, source: random.Random, size: int, *, may_count: bool = True) -> None:
        super().__init__(source, size)
        self._buffer = Variable("buffer", Space.SHARED, S.B8, SHARED_BYTES, 16)
        self._may_exit = source.random() < 0.5
        self._may_count = may_count and not self._may_exit
        self._level = Level.BLOCK
        self._phase = Phase.WRITE
        self._mask: Register | Immediate = _FULL
        b = self.b
        self._thread, self._start, self._slot = (b.register(S.B32) for _ in range(3))
        self._threads, self._counted = b.register(S.B32), b.register(S.B32)
        self._uniform = [b.register(S.B32) for _ in range(3)]
        self._uniform_predicates = [b.register(S.PRED) for _ in range(2)]

    def kernel(self) -> tuple[Kernel, Program]:
        """As that of :class:`Generator`, with one variable in shared memory."""
        super().kernel()
        return self.b.kernel(variables=[self._buffer])

    def _begin(self) -> None:
        self._count_threads()
        super()._begin()
        b = self.b
        for bits, short in self._short.items():
            for _ in range(3):
                short.append(b.register(_TYPES[bits][2]))
                b.add("mov", [_TYPES[bits][2]], [short[-1]], [self._immediate(_TYPES[bits][2])])
        wide = b.register(S.B64)
        b.add("ld", [S.U64], [self._pointer], [], address=Address(b.parameters[0], 0), space=Space.PARAM)
        block = b.register(S.B32)
        b.add("mov", [S.U32], [block], [Special("ctaid", "x", S.U32)])
        b.add("mul.lo", [S.U32], [block], [block, self._threads])
        b.add("add", [S.U32], [block], [block, self._thread])
        b.add("cvt", [S.U64, S.U32], [wide], [block])
        b.add("mul.lo", [S.U64], [wide], [wide, immediate(256, S.U64)])
        b.add("add", [S.U64], [self._pointer], [self._pointer, wide])
        b.add("ld", [S.U32], [self._uniform[0]], [], address=Address(b.parameters[1], 0), space=Space.PARAM)
        b.add("mov", [S.U32], [self._uniform[1]], [Special("ctaid", "x", S.U32)])
        b.add("mov", [S.U32], [self._uniform[2]], [self._threads])
        for predicate in self._uniform_predicates:
            b.add("setp.lt", [S.S32], [predicate], [self._uniform[0], immediate(self._random.getrandbits(32), S.S32)])
        for predicate in self._predicates:
            b.add(
                "setp.lt", [S.U32], [predicate], [self._thread, immediate(self._random.choice((1, 5, 31, 40)), S.U32)]
            )
        for offset in range(0, SLOT_BYTES, 8):
            wide = self._random.choice(self._pools[64])
            b.add("st", [S.B64], [], [wide], address=Address(self._slot, offset), space=Space.SHARED)

    def _count_threads(self) -> None:
        """Thread numbers, x fastest; the block's threads; and these as barriers count them: whole warps."""
        b = self.b
        b.add("mov", [S.U32], [self._thread], [Special("tid", "z", S.U32)])
        for axis in "yx":
            b.add("mul.lo", [S.U32], [self._thread], [self._thread, Special("ntid", axis, S.U32)])
            b.add("add", [S.U32], [self._thread], [self._thread, Special("tid", axis, S.U32)])
        b.add("mul.lo", [S.U32], [self._threads], [Special("ntid", "x", S.U32), Special("ntid", "y", S.U32)])
        b.add("mul.lo", [S.U32], [self._threads], [self._threads, Special("ntid", "z", S.U32)])
        b.add("add", [S.U32], [self._counted], [self._threads, immediate(31, S.U32)])
        b.add("and", [S.B32], [self._counted], [self._counted, immediate(-32, S.B32)])
        b.add("mov", [S.U32], [self._start], [Symbol(self._buffer)])
        b.add("shl", [S.B32], [self._slot], [self._thread, immediate(5, S.U32)])
        b.add("add", [S.U32], [self._slot], [self._slot, self._start])

    # --- statements -----------------------------------------------------------------------------------

    def _statement(self, depth: int, targets: tuple[_Target, ...]) -> None:
        if self._level is Level.ALONE:
            super()._statement(depth, targets)
            return
        kinds = [self._alone] * 3 + [self._warp_operation] * 3
        if depth < _DEPTH_MAX:
            kinds += [self._vote_branch, self._split, self._both_sides, self._vote_loop]
        if self._level is Level.BLOCK:
            kinds += [self._barrier] * 4 + [self._uniform_compute]
            if depth < _DEPTH_MAX:
                kinds += [self._uniform_branch, self._uniform_loop, self._uniform_loop, self._entered_twice_together]
                if self._may_count:
                    kinds += [self._produce]
        if self._may_exit:
            kinds += [self._exit]
        self._random.choice(kinds)(depth, ())

    def _exit(self, depth: int, targets: tuple[_Target, ...]) -> None:
        if self._may_exit:
            super()._exit(depth, targets)

    def _alone(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """A statement that any thread goes through by itself."""
        level, self._level = self._level, Level.ALONE
        super()._statement(depth, ())
        self._level = level

    def _inside(self, depth: int, level: Level, mask: Register | Immediate) -> None:
        """Statements at another level, or under another mask, that leave the phase as it is."""
        before = self._level, self._mask
        self._level, self._mask = level, mask
        phase = self._phase
        self._statements(depth, ())
        if self._phase is not phase:
            self._next_phase()
        self._level, self._mask = before

    # --- barriers -------------------------------------------------------------------------------------

    def _barrier(self, _depth: int, _targets: tuple[_Target, ...]) -> None:
        if self._random.random() < 0.15:  # one that all pass or none does, and changes no phase
            guard = Guard(self._random.choice(self._uniform_predicates), self._random.random() < 0.5)
            self.b.add("bar.sync", [], [], self._whole_block(), guard=guard)
        else:
            self._next_phase()

    def _next_phase(self) -> None:
        b = self.b
        form = self._random.choice(("sync", "sync", "popc", "and", "or"))
        opcode = self._random.choice(("bar", "barrier.cta", "barrier"))
        if form == "sync":
            b.add(f"{opcode}.sync", [], [], self._whole_block())
        else:
            sources = [*self._whole_block(), self._random.choice(self._predicates)]
            negated = frozenset({len(sources) - 1}) if self._random.random() < 0.5 else frozenset()
            kind = S.U32 if form == "popc" else S.PRED
            pool = self._uniform if form == "popc" else self._uniform_predicates
            b.add(f"{opcode}.red.{form}", [kind], [self._random.choice(pool)], sources, negated=negated)
        self._phase = Phase.READ if self._phase is Phase.WRITE else Phase.WRITE

    def _whole_block(self) -> list[Register | Immediate]:
        """The operands of a barrier for all threads: one of the sixteen, and perhaps how many they are."""
        number = immediate(self._random.choice((0, 0, 1, self._random.randrange(8))), S.U32)
        return [number, self._counted] if self._may_count and self._random.random() < 0.3 else [number]

    def _produce(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """Warps of even number write and only arrive; those of odd number wait, and read what these wrote."""
        b = self.b
        if self._phase is not Phase.WRITE:
            self._next_phase()
        number = immediate(self._random.randrange(8, 16), S.U32)  # none that all threads use
        several, odd = b.register(S.PRED), b.register(S.PRED)
        bit = b.register(S.B32)
        b.add("setp.gt", [S.U32], [several], [self._threads, immediate(32, S.U32)])
        b.add("and", [S.B32], [bit], [self._thread, immediate(32, S.B32)])
        b.add("setp.ne", [S.U32], [odd], [bit, immediate(0, S.U32)])
        inside, producers, consumers, after = (b.block() for _ in range(4))
        b.end(Branch(Guard(several, False), inside, after))
        b.start(inside)
        b.end(Branch(Guard(odd, False), consumers, producers))
        b.start(producers)
        self._inside(depth + 1, Level.WARP, _FULL)
        b.add("bar.arrive", [], [], [number, self._counted])
        self._phase = Phase.NEITHER
        self._inside(depth + 1, Level.WARP, _FULL)
        b.end(Jump(after))
        b.start(consumers)
        b.add("bar.sync", [], [], [number, self._counted])
        for _ in range(2):
            self._read_shared(producers_only=True)
        self._inside(depth + 1, Level.WARP, _FULL)
        b.end(Jump(after))
        b.start(after)
        self._phase = Phase.WRITE
        self._next_phase()

    # --- uniform control flow -------------------------------------------------------------------------

    def _uniform_guard(self) -> Guard:
        """A guard that holds for all threads or for none, of a register that nothing changes later."""
        predicate = self.b.register(S.PRED)
        sources = [self._random.choice(self._uniform), immediate(self._random.choice((0, 1, 1 << 31)), S.U32)]
        self.b.add(f"setp.{self._random.choice(('lt', 'ge', 'ne'))}", [S.U32], [predicate], sources)
        return Guard(self._random.choice([predicate, *self._uniform_predicates]), self._random.random() < 0.5)

    def _uniform_compute(self, _depth: int, _targets: tuple[_Target, ...]) -> None:
        b, source = self.b, self._random
        opcode = source.choice(("add", "mul.lo", "xor", "min"))
        kind = S.B32 if opcode == "xor" else S.U32
        operands = [source.choice(self._uniform), immediate(source.getrandbits(32), kind)]
        b.add(opcode, [kind], [source.choice(self._uniform)], operands)
        guard = self._uniform_guard()
        b.add("mov", [S.PRED], [source.choice(self._uniform_predicates)], [guard.register])

    def _uniform_branch(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        self._two_sides(depth, self._uniform_guard(), ((self._level, self._mask), (self._level, self._mask)))

    def _two_sides(self, depth: int, guard: Guard, sides: tuple[tuple[Level, Register | Immediate], ...]) -> None:
        b = self.b
        first, second, after = b.block(), b.block(), b.block()
        b.end(Branch(guard, first, second))
        for block, (level, mask) in zip((first, second), sides, strict=True):
            b.start(block)
            if block == first or self._random.random() < 0.7:
                self._inside(depth + 1, level, mask)
            b.end(Jump(after))
        b.start(after)

    def _uniform_loop(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        bound = self.b.register(S.B32)
        self.b.add("and", [S.B32], [bound], [self._random.choice(self._uniform), immediate(_ROUNDS_MAX - 1, S.B32)])
        self._counted_loop(depth, bound)

    def _counted_loop(self, depth: int, bound: Register) -> None:
        """A loop of ``bound`` + 1 rounds; some leave it in the middle, all together."""
        b = self.b
        counter, more = b.register(S.B32), b.register(S.PRED)
        header, after = b.block(), b.block()
        b.add("mov", [S.U32], [counter], [immediate(0, S.U32)])
        b.end(Jump(header))
        b.start(header)
        b.add("setp.lt", [S.U32], [more], [counter, bound])
        b.add("add", [S.U32], [counter], [counter, immediate(1, S.U32)])
        self._inside(depth + 1, self._level, self._mask)
        if self._level is Level.BLOCK and self._random.random() < 0.3:
            rest = b.block()
            b.end(Branch(self._uniform_guard(), after, rest))
            b.start(rest)
            self._inside(depth + 1, self._level, self._mask)
        b.end(Branch(Guard(more, False), header, after))
        b.start(after)

    def _entered_twice_together(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """A loop of two parts that the block enters at either."""
        b = self.b
        counter, more = b.register(S.B32), b.register(S.PRED)
        first, second, after = b.block(), b.block(), b.block()
        b.add("mov", [S.U32], [counter], [immediate(0, S.U32)])
        b.end(Branch(self._uniform_guard(), first, second))
        b.start(first)
        self._inside(depth + 1, self._level, self._mask)
        b.end(Jump(second))
        b.start(second)
        self._inside(depth + 1, self._level, self._mask)
        b.add("setp.lt", [S.U32], [more], [counter, immediate(self._random.randrange(_ROUNDS_MAX), S.U32)])
        b.add("add", [S.U32], [counter], [counter, immediate(1, S.U32)])
        b.end(Branch(Guard(more, False), first, after))
        b.start(after)

    # --- warps ----------------------------------------------------------------------------------------

    def _vote_branch(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """All lanes of the mask go the same way."""
        predicate = self.b.register(S.PRED)
        mode = self._random.choice(("all", "any", "uni"))
        self.b.add(f"vote.sync.{mode}", [S.PRED], [predicate], [self._random.choice(self._predicates), self._mask])
        side = (Level.WARP, self._mask)
        self._two_sides(depth, Guard(predicate, self._random.random() < 0.5), (side, side))

    def _vote_loop(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """As many rounds for all lanes of the mask."""
        bound = self._ballot(False, self._random.choice(self._predicates))
        self.b.add("and", [S.B32], [bound], [bound, immediate(_ROUNDS_MAX - 1, S.B32)])
        level, self._level = self._level, Level.WARP
        self._counted_loop(depth, bound)
        self._level = level

    def _split(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """Lanes go two ways, each under the mask of those that do."""
        b = self.b
        predicate = b.register(S.PRED)
        b.add("mov", [S.PRED], [predicate], [self._random.choice(self._predicates)])
        sides = tuple((Level.WARP, self._ballot(negated, predicate)) for negated in (False, True))
        self._two_sides(depth, Guard(predicate, False), sides)

    def _ballot(self, negated: bool, predicate: Register) -> Register:
        mask = self.b.register(S.B32)
        flags = frozenset({0}) if negated else frozenset[int]()
        self.b.add("vote.sync.ballot", [S.B32], [mask], [predicate, self._mask], negated=flags)
        return mask

    def _both_sides(self, depth: int, _targets: tuple[_Target, ...]) -> None:
        """Lanes go two ways and meet in the same operations, which stand on both."""
        b = self.b
        writers = [self._random.choice(self._warp_writers()) for _ in range(self._random.randint(1, 2))]
        opcodes = [writer() for writer in writers]
        first, second, after = b.block(), b.block(), b.block()
        b.end(Branch(self._guard(), first, second))
        for block in (first, second):
            b.start(block)
            for opcode in opcodes:
                self._alone(depth + 1, ())
                self._write_warp_operation(opcode)
            b.end(Jump(after))
        b.start(after)

    def _warp_operation(self, _depth: int, _targets: tuple[_Target, ...]) -> None:
        for _ in range(self._random.randint(1, 2)):
            self._write_warp_operation(self._random.choice(self._warp_writers())())

    def _warp_writers(self) -> list[Callable[[], _Opcode]]:
        choose = self._random.choice
        return [
            lambda: ("shfl.sync." + choose(("up", "down", "bfly", "idx")), S.B32),
            lambda: ("shfl.sync." + choose(("up", "down", "bfly", "idx")), S.B32),
            lambda: ("vote.sync." + choose(("all", "any", "uni")), S.PRED),
            lambda: ("vote.sync.ballot", S.B32),
            lambda: ("match.any.sync", choose((S.B32, S.B64))),
            lambda: ("match.all.sync", choose((S.B32, S.B64))),
            lambda: ("redux.sync." + choose(("add", "min", "max")), choose((S.U32, S.S32))),
            lambda: ("redux.sync." + choose(("and", "or", "xor")), S.B32),
            lambda: ("bar.warp.sync", S.B32),
        ]

    def _write_warp_operation(self, opcode: _Opcode) -> None:
        name, kind = opcode
        source = self._random
        predicate = source.choice(self._predicates)
        pair = [predicate] if source.random() < 0.5 else []
        match name.split(".")[0]:
            case "shfl":
                is_up = name.endswith("up")
                amount = self._any(32) if source.random() < 0.3 else immediate(source.randrange(32), S.B32)
                segment = source.choice((0, 0, 0x1000, 0x1800, 0x1C00))
                control = immediate(segment | (0 if is_up else 31), S.B32)
                if source.random() < 0.2:
                    control = self._any(32)
                self._collective(name, [kind], [self._target(32), *pair], [self._any(32), amount, control])
            case "vote":
                into = self._target(32) if name.endswith("ballot") else source.choice(self._predicates)
                negated = frozenset({0}) if source.random() < 0.5 else frozenset[int]()
                self._collective(name, [kind], [into], [predicate], negated)
            case "match":
                value = source.choice((self._few(kind), self._any(kind.bits)))
                results = [self._target(32), *(pair if "all" in name else [])]
                self._collective(name, [kind], results, [value])
            case "redux":
                self._collective(name, [kind], [self._target(32)], [self._any(32)])
            case _:
                self._collective(name, [], [], [])

    def _collective(
        self,
        name: str,
        types: Sequence[ScalarType],
        results: Sequence[Register],
        sources: Sequence[Operand],
        negated: frozenset[int] = frozenset(),
    ) -> None:
        self.b.add(name, types, results, [*sources, self._mask], negated=negated)

    def _few(self, kind: ScalarType) -> Register:
        """A register with one of few values."""
        few = self.b.register(_TYPES[kind.bits][2])
        self.b.add("and", [few.type], [few], [self._any(kind.bits), immediate(3, few.type)])
        return few

    # --- instructions ---------------------------------------------------------------------------------

    def _instruction(self) -> None:
        choice = self._random.random()
        if choice < 0.2 and self._phase is not Phase.NEITHER:
            if self._phase is Phase.WRITE:
                self._write_shared()
            else:
                self._read_shared()
        elif choice < 0.25:
            name = self._random.choice(("laneid", "lanemask_lt", "lanemask_le", "lanemask_ge", "lanemask_gt", "warpid"))
            self.b.add("mov", [S.U32], [self._target(32)], [Special(name, "", S.U32)])
        elif choice < 0.3:
            uniform = self._random.choice([*self._uniform, self._thread])
            self.b.add("add", [S.U32], [self._target(32)], [self._any(32), uniform])
        else:
            super()._instruction()

    def _target(self, bits: int) -> Register:
        """A register that has a value already: one never written has none that threads of all blocks agree on."""
        return self._any(bits)

    def _carry(self, guard: Guard | None) -> None:
        """The carry flag is set and used in straight-line code only, which is what the ISA has it for."""
        self.b.add("add.cc", [S.U32], [self._target(32)], [self._any(32), self._any(32)])
        super()._carry(guard)

    def _write_shared(self) -> None:
        """Write to the thread's own words."""
        kind, count, offset = self._piece()
        pool = self._pools[max(kind.bits, 32)]
        values = self._random.choices(pool, k=count)
        guard = self._guard() if self._random.random() < 0.25 else None
        self.b.add("st", [kind], [], values, address=Address(self._slot, offset), space=Space.SHARED, guard=guard)

    def _read_shared(self, *, producers_only: bool = False) -> None:
        """Read any thread's words; or only those of the warps of even number."""
        b = self.b
        kind, count, offset = self._piece()
        place = b.register(S.B32)
        b.add("rem", [S.U32], [place], [self._any(32), self._threads])
        if producers_only:
            b.add("and", [S.B32], [place], [place, immediate(~32, S.B32)])
        b.add("shl", [S.B32], [place], [place, immediate(5, S.U32)])
        b.add("add", [S.U32], [place], [place, self._start])
        address = Address(place, offset)
        if not producers_only and self._random.random() < 0.2:
            address = Address(self._buffer, offset)
        pool = self._pools[max(kind.bits, 32)]
        b.add("ld", [kind], self._random.sample(pool, count), [], address=address, space=Space.SHARED)

    def _piece(self) -> tuple[ScalarType, int, int]:
        kind = self._random.choice((S.U8, S.S16, S.U32, S.B32, S.B32, S.U64))
        count = self._random.choice((1, 1, 1, 2))
        size = kind.size_bytes * count
        return kind, count, self._random.randrange(SLOT_BYTES // size) * size
