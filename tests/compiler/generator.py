"""Random kernels of structured control flow over integers. For tests only.

Each thread works on its own :data:`THREAD_BYTES` of guest memory and writes its registers there at its end. Every
loop has a bound.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from compiler.build import Builder, immediate
from tensor_wasm.ptx.program import (
    Address,
    Branch,
    Exit,
    Guard,
    Jump,
    Kernel,
    Program,
    Register,
    ScalarType,
    Space,
    Special,
    Switch,
)

S = ScalarType
DATA_BYTES = 64
THREAD_BYTES = 256
_TYPES = {16: (S.U16, S.S16, S.B16), 32: (S.U32, S.S32, S.B32), 64: (S.U64, S.S64, S.B64)}
_MEMORY_TYPES = (S.U8, S.S8, S.U16, S.S16, S.U32, S.S32, S.U64, S.S64, S.B8, S.B16, S.B32, S.B64)
_RELATIONS = ("eq", "ne", "lt", "le", "gt", "ge")
_POOL = 5
_DEPTH_MAX = 4


@dataclass(frozen=True)
class _Target:
    """Where code inside may go: the end of a construct, or the next round of a loop."""

    leave: int
    again: int | None = None


class Generator:
    """Writes one kernel of about ``size`` statements."""

    def __init__(self, source: random.Random, size: int) -> None:
        self._random = source
        self._left = size
        self.b = Builder()
        self._pools = {bits: [self.b.register(_TYPES[bits][2]) for _ in range(_POOL)] for bits in (16, 32, 64)}
        self._short: dict[int, list[Register]] = {bits: [] for bits in self._pools}
        self._predicates = [self.b.register(S.PRED) for _ in range(4)]
        self._counters = [self.b.register(S.B32) for _ in range(_DEPTH_MAX + 1)]
        self._pointer = self.b.register(S.B64)
        self._final = self.b.block()

    def kernel(self) -> tuple[Kernel, Program]:
        """The kernel: parameters are the address of the threads' memory, a u32, and an s64."""
        self._begin()
        self._statements(0, ())
        self.b.end(Jump(self._final))
        self.b.start(self._final)
        place = DATA_BYTES
        for bits, pool in self._pools.items():
            for register in pool:
                self._store(_TYPES[bits][0], register, place)
                place += 8
        for register in self._predicates:
            flag = self._pools[32][0]
            self.b.add("selp", [S.U32], [flag], [immediate(1, S.U32), immediate(0, S.U32), register])
            self._store(S.U32, flag, place)
            place += 8
        assert place <= THREAD_BYTES
        self.b.end(Exit())
        return self.b.kernel()

    def _begin(self) -> None:
        b = self.b
        parameters = [b.parameter(kind) for kind in (S.U64, S.U32, S.S64)]
        one, two, *_ = self._pools[32]
        wide, other, *_ = self._pools[64]
        b.add("ld", [S.U64], [wide], [], address=Address(parameters[0], 0), space=Space.PARAM)
        for register, name in ((one, "ctaid"), (two, "ntid")):
            b.add("mov", [S.U32], [register], [Special(name, "x", S.U32)])
        b.add("mul.lo", [S.U32], [one], [one, two])
        b.add("mov", [S.U32], [two], [Special("tid", "x", S.U32)])
        b.add("add", [S.U32], [one], [one, two])
        b.add("cvt", [S.U64, S.U32], [other], [one])
        b.add("mul.lo", [S.U64], [other], [other, immediate(THREAD_BYTES, S.U64)])
        b.add("add", [S.U64], [self._pointer], [wide, other])
        b.add("ld", [S.U32], [two], [], address=Address(parameters[1], 0), space=Space.PARAM)
        b.add("ld", [S.S64], [wide], [], address=Address(parameters[2], 0), space=Space.PARAM)
        for bits, pool in self._pools.items():
            for register in pool[2:]:
                b.add("mov", [_TYPES[bits][2]], [register], [self._immediate(_TYPES[bits][2])])

    # --- control flow ---------------------------------------------------------------------------------

    def _statements(self, depth: int, targets: tuple[_Target, ...]) -> None:
        for _ in range(self._random.randint(1, 6)):
            if self._left <= 0 or self.b.is_ended:
                return
            self._left -= 1
            self._statement(depth, targets)

    def _statement(self, depth: int, targets: tuple[_Target, ...]) -> None:
        kinds = [self._compute] * 6
        if depth < _DEPTH_MAX:
            kinds += [self._if, self._if, self._if_else, self._loop, self._loop, self._switch, self._labelled]
            kinds += [self._entered_twice]
        if targets:
            kinds += [self._leave] * 2
        kinds += [self._exit]
        self._random.choice(kinds)(depth, targets)

    def _compute(self, _depth: int, _targets: tuple[_Target, ...]) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._instruction()

    def _if(self, depth: int, targets: tuple[_Target, ...]) -> None:
        b = self.b
        inside, after = b.block(), b.block()
        taken, otherwise = (inside, after) if self._random.random() < 0.5 else (after, inside)
        b.end(Branch(self._guard(), taken, otherwise))
        b.start(inside)
        self._statements(depth + 1, targets)
        b.end(Jump(after))
        b.start(after)

    def _if_else(self, depth: int, targets: tuple[_Target, ...]) -> None:
        b = self.b
        first, second, after = b.block(), b.block(), b.block()
        b.end(Branch(self._guard(), first, second))
        for block in (first, second):
            b.start(block)
            self._statements(depth + 1, targets)
            b.end(Jump(after))
        b.start(after)

    def _loop(self, depth: int, targets: tuple[_Target, ...]) -> None:
        b = self.b
        header, again, after = b.block(), b.block(), b.block()
        counter = self._counters[depth]
        b.add("mov", [S.U32], [counter], [immediate(0, S.U32)])
        b.end(Jump(header))
        b.start(header)
        if self._random.random() < 0.5:  # the test may be at the top
            body = b.block()
            b.end(Branch(self._counts(counter), body, after))
            b.start(body)
        self._statements(depth + 1, (*targets, _Target(after, again)))
        b.end(Jump(again))
        b.start(again)
        b.add("add", [S.U32], [counter], [counter, immediate(1, S.U32)])
        b.end(Branch(self._counts(counter), header, after))
        b.start(after)

    def _counts(self, counter: Register) -> Guard:
        """Whether a loop goes on; its predicate is its own, so nothing inside changes it."""
        predicate = self.b.register(S.PRED)
        bound = immediate(self._random.randint(0, 4), S.U32)
        self.b.add("setp.lt", [S.U32], [predicate], [counter, bound])
        return Guard(predicate, False)

    def _switch(self, depth: int, targets: tuple[_Target, ...]) -> None:
        b = self.b
        selector = b.register(S.B32)
        b.add("and", [S.B32], [selector], [self._any(32), immediate(3, S.B32)])
        arms = [b.block() for _ in range(self._random.randint(1, 4))]
        after = b.block()
        places = [*arms, after, *(target.leave for target in targets)]
        b.end(Switch(selector, tuple(self._random.choice(places) for _ in range(4))))
        for arm in arms:
            b.start(arm)
            self._statements(depth + 1, (*targets, _Target(after)))
            b.end(Jump(self._random.choice([after, *(a for a in arms if a > arm)])))  # some arms fall through
        b.start(after)

    def _labelled(self, depth: int, targets: tuple[_Target, ...]) -> None:
        after = self.b.block()
        self._statements(depth + 1, (*targets, _Target(after)))
        self.b.end(Jump(after))
        self.b.start(after)

    def _entered_twice(self, depth: int, targets: tuple[_Target, ...]) -> None:
        """A loop of two parts that is entered at either; every round passes its test."""
        b = self.b
        first, second, test, after = b.block(), b.block(), b.block(), b.block()
        counter = self._counters[depth]
        b.add("mov", [S.U32], [counter], [immediate(0, S.U32)])
        b.end(Branch(self._guard(), first, second))
        inside = (*targets, _Target(after, test))
        for block, following in ((first, second), (second, test)):
            b.start(block)
            self._statements(depth + 1, inside)
            b.end(Jump(following))
        b.start(test)
        b.add("add", [S.U32], [counter], [counter, immediate(1, S.U32)])
        goes_on = self._counts(counter)
        b.end(Branch(goes_on, self._random.choice((first, second)), after))
        b.start(after)

    def _leave(self, _depth: int, targets: tuple[_Target, ...]) -> None:
        target = self._random.choice(targets)
        place = target.again if target.again is not None and self._random.random() < 0.5 else target.leave
        if self._random.random() < 0.3:
            self.b.end(Jump(place))
            return
        on = self.b.block()
        self.b.end(Branch(self._guard(), place, on))
        self.b.start(on)

    def _exit(self, _depth: int, _targets: tuple[_Target, ...]) -> None:
        on = self.b.block()
        self.b.end(Branch(self._guard(), self._final, on))
        self.b.start(on)

    # --- instructions ---------------------------------------------------------------------------------

    def _instruction(self) -> None:
        guard = self._guard() if self._random.random() < 0.25 else None
        write = self._random.choice(
            (
                self._binary,
                self._binary,
                self._shift,
                self._compare,
                self._select,
                self._convert,
                self._move,
                self._load,
                self._write,
                self._carry,
            )
        )
        write(guard)

    def _binary(self, guard: Guard | None) -> None:
        bits = self._random.choice((16, 32, 64))
        opcode = self._random.choice(("add", "sub", "mul.lo", "min", "max", "and", "or", "xor"))
        kind = _TYPES[bits][2] if opcode in ("and", "or", "xor") else self._random.choice(_TYPES[bits][:2])
        sources = [self._any(bits), self._operand(kind)]
        self.b.add(opcode, [kind], [self._target(bits)], sources, guard=guard)

    def _shift(self, guard: Guard | None) -> None:
        bits = self._random.choice((16, 32, 64))
        opcode = self._random.choice(("shl", "shr"))
        kind = _TYPES[bits][2] if opcode == "shl" else self._random.choice(_TYPES[bits])
        amount = self._any(32) if self._random.random() < 0.3 else immediate(self._random.randint(0, 70), S.U32)
        self.b.add(opcode, [kind], [self._target(bits)], [self._any(bits), amount], guard=guard)

    def _compare(self, guard: Guard | None) -> None:
        bits = self._random.choice((16, 32, 64))
        kind = self._random.choice(_TYPES[bits][:2])
        opcode = f"setp.{self._random.choice(_RELATIONS)}"
        sources = [self._any(bits), self._operand(kind)]
        self.b.add(opcode, [kind], [self._random.choice(self._predicates)], sources, guard=guard)

    def _select(self, guard: Guard | None) -> None:
        bits = self._random.choice((16, 32, 64))
        kind = self._random.choice(_TYPES[bits])
        sources = [self._any(bits), self._operand(kind), self._random.choice(self._predicates)]
        self.b.add("selp", [kind], [self._target(bits)], sources, guard=guard)

    def _convert(self, guard: Guard | None) -> None:
        from_bits, to_bits = (self._random.choice((16, 32, 64)) for _ in range(2))
        types = [self._random.choice((*_TYPES[to_bits][:2], S.U8, S.S8)), self._random.choice(_TYPES[from_bits][:2])]
        self.b.add("cvt", types, [self._target(to_bits)], [self._any(from_bits)], guard=guard)

    def _move(self, guard: Guard | None) -> None:
        whole, part, count = self._random.choice(((64, 32, 2), (32, 16, 2), (64, 16, 4)))
        parts = self._random.sample(self._pools[part], count)
        kind = _TYPES[whole][2]
        match self._random.randint(0, 2):
            case 0:
                self.b.add("mov", [kind], [self._target(whole)], parts, guard=guard)
            case 1:
                kept = [None if self._random.random() < 0.1 else register for register in parts[1:]]
                self.b.add("mov", [kind], [parts[0], *kept], [self._any(whole)], guard=guard)
            case _:
                self.b.add("mov", [kind], [self._target(whole)], [self._operand(kind)], guard=guard)

    def _load(self, guard: Guard | None) -> None:
        kind, count, address = self._place()
        pool = self._pools[max(kind.bits, self._random.choice((16, 32, 64)))]
        self.b.add(
            "ld", [kind], self._random.sample(pool, count), [], guard=guard, address=address, space=self._space()
        )

    def _write(self, guard: Guard | None) -> None:
        kind, count, address = self._place()
        pool = self._pools[max(kind.bits, self._random.choice((16, 32, 64)))]
        self.b.add(
            "st", [kind], [], self._random.choices(pool, k=count), guard=guard, address=address, space=self._space()
        )

    def _carry(self, guard: Guard | None) -> None:
        bits = self._random.choice((32, 64))
        opcode = self._random.choice(("add.cc", "sub.cc", "addc.cc", "subc.cc", "addc", "subc"))
        sources = [self._any(bits), self._any(bits)]
        self.b.add(opcode, [_TYPES[bits][0]], [self._target(bits)], sources, guard=guard)

    # --- operands -------------------------------------------------------------------------------------

    def _any(self, bits: int) -> Register:
        """A register to read: one that every thread ends with, or a short-lived one."""
        short = self._short[bits]
        return self._random.choice(short[-4:] if short and self._random.random() < 0.4 else self._pools[bits])

    def _target(self, bits: int) -> Register:
        """A register to write, sometimes a new one."""
        if self._random.random() < 0.3:
            self._short[bits].append(self.b.register(_TYPES[bits][2]))
            return self._short[bits][-1]
        return self._any(bits)

    def _operand(self, kind: ScalarType) -> Register | object:
        return self._any(kind.bits) if self._random.random() < 0.6 else self._immediate(kind)

    def _immediate(self, kind: ScalarType) -> object:
        edges = (0, 1, -1, 1 << (kind.bits - 1), (1 << (kind.bits - 1)) - 1, self._random.getrandbits(kind.bits))
        return immediate(self._random.choice(edges), kind)

    def _guard(self) -> Guard:
        return Guard(self._random.choice(self._predicates), self._random.random() < 0.5)

    def _space(self) -> Space:
        return self._random.choice((Space.GLOBAL, Space.GENERIC))

    def _place(self) -> tuple[ScalarType, int, Address]:
        kind = self._random.choice(_MEMORY_TYPES)
        count = self._random.choice((1, 1, 2, 4))
        total = kind.size_bytes * count
        if total > 16:
            count, total = 1, kind.size_bytes
        offset = self._random.randrange(DATA_BYTES // total) * total
        return kind, count, Address(self._pointer, offset)

    def _store(self, kind: ScalarType, register: Register, place: int) -> None:
        self.b.add("st", [kind], [], [register], address=Address(self._pointer, place), space=Space.GLOBAL)
