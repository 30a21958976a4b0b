"""PTX text under construction: lines, labels, registers of six sorts, and which of them have a value where.

Sorts are named by the letter of their registers: ``p`` predicates, ``h r d`` bits (16, 32, 64), ``f g`` floats (32,
64).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from compiler.values.oracle import F32, F64, float_edges

SORTS = {"p": "pred", "h": "b16", "r": "b32", "d": "b64", "f": "f32", "g": "f64"}
BITS = {"h": 16, "r": 32, "d": 64, "f": 32, "g": 64}
SPECIALS = ("%tid.x", "%tid.x", "%tid.x", "%tid.y", "%ctaid.x", "%ntid.x", "%laneid", "%tid.z", "%nctaid.x", "%warpid")


@dataclass
class Writer:
    """A kernel's body. ``visible`` holds the registers that have a value here, by sort, newest last."""

    source: random.Random
    lines: list[str] = field(default_factory=list)
    #: Whether control can come here.
    is_dead: bool = False

    def __post_init__(self) -> None:
        self.counts = dict.fromkeys(SORTS, 0)
        self.visible: dict[str, list[str]] = {sort: [] for sort in SORTS}
        self.pools: dict[str, list[str]] = {sort: [] for sort in SORTS}
        self._labels = 0

    def add(self, text: str, guard: str = "") -> None:
        """A line with an instruction, which is left out where control cannot come."""
        if not self.is_dead:
            self.lines.append(f"    {guard} {text};" if guard else f"    {text};")

    # --- registers ------------------------------------------------------------------------------------

    def new(self, sort: str) -> str:
        """A register's name, that nothing else will read or write unless told."""
        self.counts[sort] += 1
        return f"%{sort}{self.counts[sort] - 1}"

    def keep(self, register: str) -> str:
        """Let the register be read from here on, to the end of the scope."""
        self.visible[register[1]].append(register)
        return register

    def fresh(self, sort: str) -> str:
        """A new register that the next instruction writes, whatever happens."""
        return self.keep(self.new(sort))

    def any(self, sort: str) -> str:
        """A register that has a value, new ones more often."""
        found = self.visible[sort]
        return self.source.choice(found[-5:] if self.source.random() < 0.5 else found)

    def target(self, sort: str) -> str:
        """A register to write under a guard."""
        return self.source.choice(self.pools[sort])

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Code whose new registers have no value after it."""
        before = {sort: len(found) for sort, found in self.visible.items()}
        yield
        for sort, length in before.items():
            del self.visible[sort][length:]

    # --- control --------------------------------------------------------------------------------------

    def label(self) -> str:
        """A new label's name."""
        self._labels += 1
        return f"L{self._labels}"

    def place(self, label: str) -> None:
        """The label stands here."""
        self.lines.append(f"{label}:")
        self.is_dead = False

    def jump(self, label: str, guard: str = "") -> None:
        """Go to a label, always or under a guard."""
        self.add(f"bra {label}", guard)
        self.is_dead = self.is_dead or not guard

    # --- operands -------------------------------------------------------------------------------------

    def constant(self, sort: str) -> str:
        """A constant, often one at an edge."""
        chance = self.source
        match sort:
            case "p":
                raise ValueError("there are no constant predicates")
            case "f":
                return f"0f{chance.choice(_EDGES['f']):08X}"
            case "g":
                return f"0d{chance.choice(_EDGES['g']):016X}"
        bits = BITS[sort]
        if chance.random() < 0.6:
            return str(chance.choice((0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 63, 64, -1, -2, -4)))
        return hex(chance.choice((1 << bits - 1, (1 << bits - 1) - 1, chance.getrandbits(bits))))

    def value(self, sort: str) -> str:
        """A register, constant, or special register."""
        choice = self.source.random()
        if choice < 0.2 and sort != "p":
            return self.constant(sort)
        if choice < 0.26 and sort == "r":
            return self.source.choice(SPECIALS)
        return self.any(sort)

    def clean(self, sort: str) -> str:
        """A float of which a NaN is always the same: its sign and payload may then be looked at."""
        register = self.any(sort)
        kind, nan = ("f32", "0f7FC00000") if sort == "f" else ("f64", "0d7FF8000000000000")
        predicate, result = self.new("p"), self.new(sort)
        self.add(f"testp.notanumber.{kind} {predicate}, {register}")
        self.add(f"selp.{kind} {result}, {nan}, {register}, {predicate}")
        return result

    def guard(self) -> str:
        """``@p`` or ``@!p``."""
        return f"@{self.source.choice(('', '!'))}{self.any('p')}"

    def declarations(self) -> Sequence[str]:
        """The registers' lines."""
        return [f"    .reg .{SORTS[sort]} %{sort}<{count}>;" for sort, count in self.counts.items() if count]


_EDGES = {"f": float_edges(F32), "g": float_edges(F64)}
