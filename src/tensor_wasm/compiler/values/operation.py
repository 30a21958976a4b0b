"""One instruction while its code is written, and the rows that say which instructions have an emitter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.values.formula import Scope, Value, absolute, constant
from tensor_wasm.compiler.values.lanes import fixed, is_single, pick, with_sign
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Immediate, Instruction, Register, ScalarType
from tensor_wasm.wasm import Body, ValType

if TYPE_CHECKING:
    from tensor_wasm.compiler.library import Library

#: Pushes source ``position`` as a canonical value of a type.
Push = Callable[[int, ScalarType], None]

#: The smallest number that is not subnormal, of f32 (True) and of f64.
SMALLEST_NORMAL: Final = {True: 2.0**-126, False: 2.0**-1022}

DIRECTED = ("rz", "rm", "rp")


class Operation(Scope):
    """An instruction being written: its operands as formulas, its helpers, its locals."""

    __slots__ = ("_library", "_push", "instruction", "type")

    def __init__(self, body: Body, instruction: Instruction, push: Push, library: Library) -> None:
        super().__init__(body)
        self.instruction = instruction
        self.type = instruction.type
        self._push = push
        self._library = library

    def has(self, modifier: str) -> bool:
        """Whether the instruction carries ``modifier``."""
        return modifier in self.instruction.modifiers

    @property
    def is_flushing(self) -> bool:
        """``.ftz``."""
        return "ftz" in self.instruction.modifiers

    @property
    def rounding(self) -> str:
        """The float rounding modifier; ``"rn"`` when there is none."""
        return next((mode for mode in DIRECTED if mode in self.instruction.modifiers), "rn")

    def source(self, position: int, kind: ScalarType | None = None) -> Value:
        """Source ``position`` as a value of ``kind`` (default: the instruction's own type).

        It may be pushed many times. What may differ from one read to the next is read once, here.
        """
        kind = self.type if kind is None else kind
        push, chosen = self._push, kind
        value = Value(carrier(chosen), lambda _body: push(position, chosen))
        if isinstance(self.instruction.sources[position], Register | Immediate):
            return value
        return self.let(value)

    def real(self, position: int, kind: ScalarType | None = None) -> Value:
        """As :meth:`source`, for floats: flushed when the instruction has ``.ftz`` and the type is f32."""
        value = self.source(position, kind)
        if not self.is_flushing or not is_single(value) or self._is_normal_constant(position):
            return value
        return self.flush(value)

    def flush(self, value: Value) -> Value:
        """``value`` with subnormal numbers turned into zeros of their sign."""
        kept = self.let(value)
        is_subnormal = absolute(kept).compare("lt", SMALLEST_NORMAL[is_single(kept)])
        return self.let(pick(is_subnormal, with_sign(0.0, kept), kept))

    def finish(self, value: Value) -> None:
        """Push a float result after what ``.ftz`` and ``.sat`` do to it."""
        if self.is_flushing and is_single(value):
            value = self.flush(value)
        if self.has("sat"):
            value = self.saturate(value)
        value.push(self.body)

    def saturate(self, value: Value) -> Value:
        """``value`` limited to [0, 1]; NaN and -0 give +0."""
        kept = self.let(value)
        below_one = pick(kept.compare("lt", 1.0), kept, 1.0)
        return pick(kept.compare("gt", 0.0), below_one, 0.0)

    def constant(self, position: int, kind: ScalarType | None = None) -> int | None:
        """The bits of an immediate source, cut to ``kind`` (default: the own type); None for anything else."""
        source = self.instruction.sources[position]
        bits = (kind or self.type).bits
        if not isinstance(source, Immediate) or source.type.bits < bits:
            return None
        return source.bits & ((1 << bits) - 1)

    def call(self, helper: str, *arguments: Value) -> Value:
        """The result of a helper function of the library."""
        function = self._library.function(helper)

        def push(body: Body) -> None:
            for argument in arguments:
                argument.push(body)
            body.call(function)

        return Value(function.type.results[0], push)

    def refuse(self, reason: str) -> PtxError:
        """The error for a form that cannot be compiled."""
        at = self.instruction
        return PtxError(f"{at.text}: {reason}", at.line, at.column)

    def _is_normal_constant(self, position: int) -> bool:
        bits = self.constant(position)
        if bits is None or self.type is not ScalarType.F32:
            return False
        return bits & 0x7F80_0000 != 0 or bits & 0x7FFF_FFFF == 0


Emitter = Callable[[Operation], None]


class Result(Enum):
    """Of which types an instruction's results are."""

    TYPE = "the instruction's last type"
    FIRST = "the instruction's first type"
    WIDE = "an integer twice as wide as the instruction's type"
    COUNT = "u32"
    DOT = "s32 if either type is signed, else u32"
    TRUTH = "a predicate for each destination"
    TYPE_AND_TRUTH = "the instruction's type, then a predicate"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: instructions of one root and one shape, and what writes them.

    ``types`` holds a set for each type of the instruction, in the order of the text; ``modifiers`` those that may
    occur; ``sources`` the numbers of sources there may be.
    """

    root: str
    types: tuple[frozenset[ScalarType], ...]
    modifiers: frozenset[str]
    sources: tuple[int, ...]
    result: Result
    emit: Emitter

    def accepts(self, instruction: Instruction) -> bool:
        """Whether this row is for ``instruction``."""
        return (
            len(instruction.types) == len(self.types)
            and len(instruction.sources) in self.sources
            and instruction.address is None
            and all(kind in allowed for kind, allowed in zip(instruction.types, self.types, strict=True))
            and self.modifiers.issuperset(instruction.modifiers)
        )


def canonical_nan(sample: Value) -> Value:
    """The NaN that GPUs make, all bits set but the sign, as a float of the type or shape of ``sample``."""
    bits = 0x7FFF_FFFF if is_single(sample) else 0x7FFF_FFFF_FFFF_FFFF
    return fixed(sample.bits(), bits).as_float()


def all_ones(kind: ValType) -> Value:
    """An integer with every bit set."""
    return constant(kind, -1)
