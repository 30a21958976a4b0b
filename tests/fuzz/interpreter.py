"""Runs the typed program one instruction and one thread at a time: small, slow and obvious, to compare compiled
kernels with. What several threads do together is in :mod:`.block`.

Each instruction is turned into a function once, then these are called in the order of the program. A thread's cells
hold the bits of its registers, zero-extended, then those of the constants and special registers that the kernel names.
A register that was never written holds None, and nothing computes with that.

An address is a number: that of guest memory, or a window and an offset in it. Windows are higher than any address.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzz.integer_meaning import signed
from fuzz.meaning import meaning
from fuzz.updates import update
from tensor_wasm.ptx.program import (
    Branch,
    Exit,
    Guard,
    Immediate,
    Instruction,
    Jump,
    Kernel,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Switch,
    Symbol,
    Terminator,
    Variable,
)

#: What a thread may do; no random kernel comes near. Waiting for others counts for more, for it takes longer.
STEPS_MAX = 200_000
_WAIT_STEPS = 100

_TOGETHER = ("bar", "barrier", "shfl", "vote", "match", "redux")
_WINDOW = 40
_VARIABLES, _LOCAL, _SHARED, _PARAMETERS = 1, 2, 3, 4
_CLAIMED = {Space.GLOBAL: 0, Space.GENERIC: 0, Space.SHARED: _SHARED, Space.PARAM: _PARAMETERS}

Cells = list[Any]
Step = Callable[["Thread"], None]


@dataclass(frozen=True)
class Wait:
    """A thread waits at an instruction for others; ``values`` are the operands it came with.

    Threads meet where the ``kind`` is the same: ``bar`` is ``barrier.aligned``. ``mask`` are the lanes that a warp
    operation is for; it is 0 at a barrier.
    """

    instruction: Instruction
    values: tuple[int, ...]
    kind: tuple[object, ...]
    is_barrier: bool

    @property
    def mask(self) -> int:
        return 0 if self.is_barrier else self.values[-1]


#: A thread that runs: it gives what it waits at, and is sent the values of the destinations.
Running = Generator[Wait, Sequence[int], None]


@dataclass(frozen=True)
class _Stop:
    """An instruction at which threads wait for each other."""

    instruction: Instruction
    guard: Guard | None
    sources: tuple[int, ...]
    kind: tuple[object, ...]
    is_barrier: bool


@dataclass(frozen=True)
class _Part:
    """A block's steps, in runs that each end with a stop, or with the block's way on."""

    runs: tuple[tuple[tuple[Step, ...], _Stop | None], ...]
    count: int
    terminator: Terminator
    selector: int


@dataclass
class Memories:
    """What the threads of a grid share."""

    guest: bytearray
    parameters: bytes
    variables: bytearray
    shared: bytearray = field(default_factory=bytearray)


class Code:
    """A kernel whose instructions were turned into functions; ``local_bytes`` and ``shared_bytes`` of variables.

    A thread may do ``steps_max``; ``steps`` is what the one did that did most.
    """

    def __init__(self, kernel: Kernel, steps_max: int = STEPS_MAX) -> None:
        self.steps_max, self.steps = steps_max, 0
        self.local_bytes = self.shared_bytes = 0
        self._places: dict[Variable, int] = {}
        self._initial = bytearray()
        self._cells: dict[object, int] = {register: register.index for register in kernel.registers}
        self._constants: list[int | Special | None] = [None] * len(kernel.registers)
        for variable in sorted(_variables(kernel), key=lambda variable: variable.is_extern):
            self._place(variable)
        self.parts = tuple(self._part(block.instructions, block.terminator) for block in kernel.blocks)

    def memories(self, guest: bytearray, parameters: bytes) -> Memories:
        """Fresh memories for a launch on ``guest``."""
        return Memories(guest, parameters, bytearray(self._initial))

    def cells(self, special: Mapping[str, int]) -> Cells:
        """Those of a thread that starts."""
        return [special[f"{c.name}.{c.axis}"] if isinstance(c, Special) else c for c in self._constants]

    # --- operands -------------------------------------------------------------------------------------

    def _cell(self, operand: object) -> int:
        """Where the value of an operand is."""
        if isinstance(operand, Symbol):
            operand = Immediate(self._address_of(operand.target) + operand.offset, ScalarType.U64)
        found = self._cells.get(operand)
        if found is None:
            found = self._cells[operand] = len(self._constants)
            self._constants.append(operand.bits if isinstance(operand, Immediate) else operand)  # type: ignore[arg-type]
        return found

    def _address_of(self, target: Variable | Parameter) -> int:
        """The value of a variable's address: an offset for shared memory, else with its window."""
        if isinstance(target, Parameter):
            return _PARAMETERS << _WINDOW | target.offset
        window = {Space.LOCAL: _LOCAL, Space.SHARED: 0}.get(target.space, _VARIABLES)
        return window << _WINDOW | self._place(target)

    def _place(self, variable: Variable) -> int:
        found = self._places.get(variable)
        if found is not None:
            return found
        size = variable.size_bytes
        if variable.space is Space.LOCAL:
            place = self.local_bytes = -(-self.local_bytes // 16) * 16
            self.local_bytes += size
        elif variable.space is Space.SHARED:
            place = self.shared_bytes = -(-self.shared_bytes // 16) * 16
            self.shared_bytes += size
        else:
            assert not variable.pointers
            place = -(-len(self._initial) // 16) * 16
            self._initial.extend(bytes(place - len(self._initial)))
            self._initial.extend((variable.initial or b"").ljust(size, b"\0"))
        self._places[variable] = place
        return place

    # --- blocks ---------------------------------------------------------------------------------------

    def _part(self, instructions: Sequence[Instruction], terminator: Terminator) -> _Part:
        runs: list[tuple[tuple[Step, ...], _Stop | None]] = []
        steps: list[Step] = []
        for i in instructions:
            if i.root in _TOGETHER:
                is_barrier = i.root in ("bar", "barrier") and "warp" not in i.modifiers
                words = tuple(word for word in i.modifiers if word not in ("cta", "aligned"))
                kind = ("barrier" if is_barrier else i.root, words, tuple(t.ptx_name for t in i.types))
                stop = _Stop(i, i.guard, tuple(map(self._cell, i.sources)), kind, is_barrier)
                runs.append((tuple(steps), stop))
                steps = []
            else:
                step = self._step(i)
                steps.append(step if i.guard is None else _guarded(step, i.guard))
        runs.append((tuple(steps), None))
        selector = self._cell(terminator.selector) if isinstance(terminator, Switch) else 0
        return _Part(tuple(runs), len(instructions) + 1, terminator, selector)

    def _step(self, i: Instruction) -> Step:
        if i.root in ("ld", "ldu"):
            return self._load(i)
        if i.root == "st":
            return self._store(i)
        if i.root in ("atom", "red"):
            return self._atomic(i)
        if i.root == "mov":
            return self._move(i)
        if i.root == "cvta":
            return self._window(i)
        if i.root in ("addc", "subc", "madc") or "cc" in i.modifiers:
            return self._extended(i)
        if i.root in ("membar", "fence"):
            return lambda _thread: None
        return self._compute(i)

    def _compute(self, i: Instruction) -> Step:
        function = meaning(i)
        sources = tuple(map(self._cell, i.sources))
        if i.negated:
            function = _negating(function, i.negated)
        if len(i.destinations) == 1 and i.destinations[0] is not None:
            return _writing_one(function, i.destinations[0].index, sources)
        return _writing_several(function, i.destinations, sources)

    def _move(self, i: Instruction) -> Step:
        sources = tuple(map(self._cell, i.sources))
        if len(i.sources) == len(i.destinations) == 1:
            assert i.destinations[0] is not None
            mask = (1 << i.destinations[0].type.bits) - 1
            if i.negated:
                return _writing_one(lambda a: 1 - a, i.destinations[0].index, sources)
            if isinstance(i.sources[0], Register):
                return _writing_one(lambda a: a, i.destinations[0].index, sources)
            return _writing_one(lambda a: a & mask, i.destinations[0].index, sources)
        bits = i.type.bits // max(len(i.sources), len(i.destinations))
        mask = (1 << bits) - 1
        if len(sources) > 1:
            assert i.destinations[0] is not None
            pack = lambda *parts: sum((part & mask) << n * bits for n, part in enumerate(parts))  # noqa: E731
            return _writing_one(pack, i.destinations[0].index, sources)
        count = len(i.destinations)
        unpack = lambda whole: [whole >> n * bits & mask for n in range(count)]  # noqa: E731
        return _writing_several(unpack, i.destinations, sources)

    def _window(self, i: Instruction) -> Step:
        (destination,), (source,) = i.destinations, i.sources
        assert destination is not None
        change = 0
        if i.space is Space.SHARED:
            change = -_SHARED << _WINDOW if "to" in i.modifiers else _SHARED << _WINDOW
        return _writing_one(lambda a: a + change, destination.index, (self._cell(source),))

    def _extended(self, i: Instruction) -> Step:
        """The carry chain: a sum or difference with the carry flag, which ``.cc`` writes."""
        (destination,), sources = i.destinations, tuple(map(self._cell, i.sources))
        assert destination is not None
        kind, place = i.type, destination.index
        mask, reads, writes = (1 << kind.bits) - 1, i.root.endswith("c"), "cc" in i.modifiers
        is_product, is_difference, is_high = i.root.startswith("mad"), i.root.startswith("sub"), "hi" in i.modifiers

        def step(thread: Thread) -> None:
            operands = [thread.cells[source] for source in sources]
            if is_product:
                a, b, _ = (signed(value, kind.bits) if kind.is_signed else value for value in operands)
                operands = [(a * b >> kind.bits if is_high else a * b) & mask, operands[2]]
            a, b = operands
            carry = thread.carry if reads else 0
            value = a - b - carry if is_difference else a + b + carry
            if writes:
                thread.carry = int(not 0 <= value <= mask)
            thread.cells[place] = value & mask

        return step

    # --- memory ---------------------------------------------------------------------------------------

    def _find(self, i: Instruction) -> Callable[[Thread], tuple[bytearray, int]]:
        """What gives the memory that an access goes to, and where in it."""
        assert i.address is not None
        base, offset = i.address.base, i.address.offset
        size = i.type.size_bytes * max(len(i.sources) if i.root == "st" else len(i.destinations), 1)
        claimed = _CLAIMED.get(i.space, 0) if i.space is not None else 0
        cell = None
        if isinstance(base, Register):
            cell = base.index
        elif base is not None:
            offset += self._address_of(base)
            claimed = _SHARED if isinstance(base, Variable) and base.space is Space.SHARED else 0

        def find(thread: Thread) -> tuple[bytearray, int]:
            place = offset if cell is None else thread.cells[cell] + offset & 0xFFFF_FFFF_FFFF_FFFF
            window = place >> _WINDOW or claimed
            place &= (1 << _WINDOW) - 1
            memory = thread.memories[window]
            if place % size or place + size > len(memory):
                raise IndexError(f"line {i.line}: {i.text} at {window}:{place:#x}")
            return memory, place

        return find

    def _load(self, i: Instruction) -> Step:
        find, kind = self._find(i), i.type
        size, is_signed = kind.size_bytes, kind.is_signed
        targets = [
            (n * size, register.index, (1 << register.type.bits) - 1)
            for n, register in enumerate(i.destinations)
            if register is not None
        ]

        def step(thread: Thread) -> None:
            memory, place = find(thread)
            for offset, register, mask in targets:
                part = memory[place + offset : place + offset + size]
                thread.cells[register] = int.from_bytes(part, "little", signed=is_signed) & mask

        return step

    def _store(self, i: Instruction) -> Step:
        find, size = self._find(i), i.type.size_bytes
        mask = (1 << i.type.bits) - 1
        sources = [(n * size, self._cell(source)) for n, source in enumerate(i.sources)]

        def step(thread: Thread) -> None:
            memory, place = find(thread)
            for offset, source in sources:
                memory[place + offset : place + offset + size] = (thread.cells[source] & mask).to_bytes(size, "little")

        return step

    def _atomic(self, i: Instruction) -> Step:
        find, size, change = self._find(i), i.type.size_bytes, update(i)
        sources = [self._cell(source) for source in i.sources]
        destination = i.destinations[0].index if i.destinations and i.destinations[0] is not None else None

        def step(thread: Thread) -> None:
            memory, place = find(thread)
            old = int.from_bytes(memory[place : place + size], "little")
            new = change(old, *(thread.cells[source] for source in sources))
            memory[place : place + size] = new.to_bytes(size, "little")
            if destination is not None:
                thread.cells[destination] = old

        return step


def _variables(kernel: Kernel) -> list[Variable]:
    """Those that the kernel names, in the order of the text."""
    named: dict[object, None] = {}
    for block in kernel.blocks:
        for i in block.instructions:
            operands = [operand.target for operand in i.sources if isinstance(operand, Symbol)]
            named.update(dict.fromkeys([*operands, i.address.base if i.address is not None else None]))
    return [one for one in named if isinstance(one, Variable)]


def _guarded(step: Step, guard: Guard) -> Step:
    cell, negated = guard.register.index, guard.negated

    def guarded(thread: Thread) -> None:
        holds = thread.cells[cell]
        if holds is None:
            raise ValueError("a guard that was never written")
        if (holds == 1) is not negated:
            step(thread)

    return guarded


def _negating(function: Callable[..., object], negated: frozenset[int]) -> Callable[..., object]:
    return lambda *operands: function(*(1 - a if n in negated else a for n, a in enumerate(operands)))


def _writing_one(function: Callable[..., object], place: int, sources: tuple[int, ...]) -> Step:
    """A step for each number of operands, because the loop over them would cost more than what they are used for."""
    match sources:
        case (a,):

            def step(thread: Thread) -> None:
                cells = thread.cells
                cells[place] = function(cells[a])

        case (a, b):

            def step(thread: Thread) -> None:
                cells = thread.cells
                cells[place] = function(cells[a], cells[b])

        case (a, b, c):

            def step(thread: Thread) -> None:
                cells = thread.cells
                cells[place] = function(cells[a], cells[b], cells[c])

        case _:

            def step(thread: Thread) -> None:
                cells = thread.cells
                cells[place] = function(*[cells[source] for source in sources])

    return step


def _writing_several(
    function: Callable[..., Any], destinations: Sequence[Register | None], sources: tuple[int, ...]
) -> Step:
    places = [None if register is None else register.index for register in destinations]

    def step(thread: Thread) -> None:
        results = function(*[thread.cells[source] for source in sources])
        for place, result in zip(places, results if len(places) > 1 else [results], strict=True):
            if place is not None:
                thread.cells[place] = result

    return step


class Thread:
    """One thread of a kernel; memories are used in place."""

    def __init__(self, code: Code, memories: Memories, special: Mapping[str, int]) -> None:
        self._code = code
        self.cells = code.cells(special)
        self.carry = 0
        local = bytearray(code.local_bytes)
        self.memories = (memories.guest, memories.variables, local, memories.shared, memories.parameters)

    def run(self) -> None:
        """From block 0 to an exit, alone."""
        for wait in self.steps():
            raise NotImplementedError(wait)

    def steps(self) -> Running:
        """From block 0 to an exit, with a stop wherever it waits for others."""
        index = count = 0
        while True:
            part = self._code.parts[index]
            for steps, stop in part.runs:
                for step in steps:
                    step(self)
                if stop is not None and (stop.guard is None or self._holds(stop.guard)):
                    yield from self._wait(stop)
                    count += _WAIT_STEPS
            match part.terminator:
                case Jump(target):
                    index = target
                case Branch(guard, taken, otherwise):
                    index = taken if self._holds(guard) else otherwise
                case Switch(_, targets):
                    index = targets[self.cells[part.selector]]
                case Exit():
                    self._code.steps = max(self._code.steps, count)
                    return
                case other:
                    raise NotImplementedError(other)
            count += part.count
            if count > self._code.steps_max:
                raise RuntimeError("the thread does not end")

    def _holds(self, guard: Guard) -> bool:
        value = self.cells[guard.register.index]
        if value is None:
            raise ValueError("a guard that was never written")
        return (value == 1) is not guard.negated

    def _wait(self, stop: _Stop) -> Running:
        i = stop.instruction
        values = [self.cells[source] for source in stop.sources]
        if None in values:
            raise ValueError("an operand that was never written")
        for position in i.negated:
            values[position] = 1 - values[position]
        results = yield Wait(i, tuple(values), stop.kind, stop.is_barrier)
        for register, result in zip(i.destinations, results, strict=False):
            if register is not None:
                self.cells[register.index] = result & ((1 << register.type.bits) - 1)
