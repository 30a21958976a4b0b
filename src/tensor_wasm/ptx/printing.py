"""``vprintf`` and ``__assertfail``, the two functions that every CUDA program has: calls of them become records.

``printf`` puts the values of its arguments, one after the other and aligned, in local memory and calls
``vprintf(format, arguments)``. Which values there are is in the format: it is looked for through the moves and choices
that lead to the register. Where only constants lead there, each gives a record of its own, loaded where it is the one;
where something else does too, the record is the address alone, and the text is printed as it stands, its values left
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Final, TypeGuard

from tensor_wasm.ptx import formats
from tensor_wasm.ptx.calls import Call, size_bytes
from tensor_wasm.ptx.drafts import Draft
from tensor_wasm.ptx.program import (
    Address,
    Emit,
    Guard,
    Immediate,
    Instruction,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Variable,
)

_B32, _B64 = ScalarType.B32, ScalarType.B64

#: The functions, with the types of their parameters.
LIBRARY: Final[Mapping[str, tuple[ScalarType, ...]]] = MappingProxyType(
    {
        "vprintf": (_B64, _B64),
        "__assertfail": (_B64, _B64, _B32, _B64, _B64),
    }
)

#: Bytes of what a launch may print before records are dropped.
BUFFER_BYTES = 256 << 10
#: Instructions that all printing of a kernel may need, and bytes of all its formats.
PRINTING_MAX = 100_000
FORMATS_BYTES_MAX = 1 << 20
#: Formats that one call may choose between.
CHOICES_MAX = 16
#: Registers and definitions that are looked at for one format, and for all of a kernel.
_STEPS_MAX = 256
_STEPS_TOTAL_MAX = 1_000_000

_AXES: Final = tuple(Special(name, axis, ScalarType.U32) for name in ("ctaid", "tid") for axis in "xyz")


def misfit(call: Call) -> str | None:
    """How a call differs from the function of the library, or None."""
    kinds = LIBRARY[call.callee]
    is_right = len(call.arguments) == len(kinds) and len(call.results) <= 1
    for kind, argument in zip(kinds, call.arguments, strict=False):
        if isinstance(argument, Variable | Parameter | Register):
            is_right = is_right and size_bytes(argument) == kind.size_bytes
    for result in call.results:
        is_right = is_right and (result is None or size_bytes(result) == _B32.size_bytes)
    return None if is_right else f"{call.callee} has other arguments or results"


def to_records(drafts: Sequence[Draft], registers: list[Register]) -> None:
    """Replace the calls of the library in a kernel; new registers are added."""
    if not any(_is_library(instruction) for draft in drafts for instruction in draft.instructions):
        return
    printer = _Printer(drafts, registers)
    for draft in drafts:
        changed: list[Instruction] = []
        for instruction in draft.instructions:
            if not _is_library(instruction):
                changed.append(instruction)
            elif instruction.callee == "vprintf":
                changed += printer.print(instruction)
            else:
                message, file, line, function, _ = instruction.sources
                types = (_B64, _B64, _B32, _B64, *(_B32,) * len(_AXES))
                changed.append(_emit(instruction, "assert", types, (message, file, line, function, *_AXES)))
        draft.instructions = changed


def _is_library(instruction: Instruction) -> TypeGuard[Call]:
    return isinstance(instruction, Call) and instruction.callee in LIBRARY and instruction.reason is None


@dataclass(frozen=True, slots=True)
class _Format:
    """A format: its text, the bytes of its values, and how many conversions it has."""

    text: bytes
    sizes: tuple[int, ...]
    conversions: int


class _Printer:
    """Makes records of the calls of ``vprintf`` in one kernel."""

    def __init__(self, drafts: Sequence[Draft], registers: list[Register]) -> None:
        self._registers = registers
        self._origins = _Origins(drafts)
        self._formats: dict[Symbol, _Format | None] = {}
        self._made = 0
        self._format_bytes = 0

    def print(self, call: Call) -> list[Instruction]:
        """What a call becomes."""
        if self._made > PRINTING_MAX or self._format_bytes > FORMATS_BYTES_MAX:
            reason = f"what is printed needs more than {PRINTING_MAX:,} instructions or {FORMATS_BYTES_MAX:,} bytes"
            return [replace(call, sources=(), destinations=(), reason=reason)]
        written, values = call.sources
        count = call.destinations[0]
        assert count is not None
        symbols = self._origins.of(written) or []
        found = {symbol: known for symbol in symbols if (known := self._format(symbol)) is not None}
        if not found or len(found) != len(symbols):
            return [_emit(call, "text", (_B64,), (written,)), _set(call, count, 0)]
        made: list[Instruction] = []
        for symbol, known in found.items():
            guard = None
            if len(found) > 1:
                register = self._register("%is_format", ScalarType.PRED)
                guard = Guard(register, negated=False)
                made.append(
                    Instruction(
                        "setp", ("eq",), (ScalarType.U64,), (register,), (written, symbol), None, call.line, call.column
                    )
                )
            made += self._record(call, known, values, guard)
            made.append(_set(call, count, known.conversions, guard))
        self._made += len(made)
        return made

    def _format(self, symbol: Symbol) -> _Format | None:
        """What is known of the format at a constant address."""
        if symbol not in self._formats:
            text = _text(symbol)
            known = None
            if text is not None:
                takes = [piece.sizes for piece in formats.parse(text) if isinstance(piece, formats.Conversion)]
                known = _Format(text, tuple(chain.from_iterable(takes)), sum(1 for sizes in takes if sizes))
                self._format_bytes += len(text)
            self._formats[symbol] = known
        return self._formats[symbol]

    def _record(self, call: Instruction, known: _Format, values: Operand, guard: Guard | None) -> list[Instruction]:
        """Load the values of a format's conversions, and emit them."""
        made: list[Instruction] = []
        loaded: list[Register] = []
        place = 0
        for size in known.sizes:
            kind = _B64 if size == 8 else _B32
            place = -(-place // size) * size
            register = self._register("%value", kind)
            at = _address(values, place)
            made.append(
                Instruction("ld", (), (kind,), (register,), (), guard, call.line, call.column, at, Space.GENERIC)
            )
            loaded.append(register)
            place += size
        types = tuple(register.type for register in loaded)
        made.append(replace(_emit(call, "print", types, tuple(loaded)), guard=guard, format=known.text))
        return made

    def _register(self, name: str, kind: ScalarType) -> Register:
        register = Register(name, kind, len(self._registers))
        self._registers.append(register)
        return register


def _address(values: Operand, place: int) -> Address:
    """The address of a value that is ``place`` bytes behind the first."""
    match values:
        case Register():
            return Address(values, place)
        case Immediate(bits):
            return Address(None, bits + place)
        case Symbol(target, offset):
            return Address(target, offset + place)
    return Address(None, place)


def _text(symbol: Symbol) -> bytes | None:
    """The characters at a constant address, up to the NUL that ends them."""
    variable = symbol.target
    if not isinstance(variable, Variable) or variable.initial is None or variable.pointers:
        return None
    if not 0 <= symbol.offset < variable.size_bytes:
        return None
    end = variable.initial.find(0, symbol.offset)
    if end < 0 and len(variable.initial) == variable.size_bytes:
        return None
    return variable.initial[symbol.offset : end if end >= 0 else None][: formats.FORMAT_BYTES_MAX]


def _set(call: Instruction, register: Register, value: int, guard: Guard | None = None) -> Instruction:
    return Instruction("mov", (), (_B32,), (register,), (Immediate(value, _B32),), guard, call.line, call.column)


def _emit(call: Instruction, what: str, types: tuple[ScalarType, ...], values: tuple[Operand, ...]) -> Emit:
    return Emit("emit", (what,), types, (), values, None, call.line, call.column)


class _Origins:
    """Where the values of registers come from."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._steps_left = _STEPS_TOTAL_MAX
        self._made: dict[Register, list[Instruction]] = {}
        for draft in drafts:
            for instruction in draft.instructions:
                for register in instruction.destinations:
                    if register is not None:
                        self._made.setdefault(register, []).append(instruction)

    def of(self, operand: Operand) -> list[Symbol] | None:
        """The addresses that an operand may be; None when it may be something else, or when they are many."""
        found: dict[Symbol, None] = {}
        seen: set[tuple[Operand, int]] = set()
        waiting: list[tuple[Operand, int]] = [(operand, 0)]
        steps = 0
        while waiting:
            item = waiting.pop()
            if item in seen:
                continue
            seen.add(item)
            current, offset = item
            if isinstance(current, Symbol):
                found[Symbol(current.target, current.offset + offset)] = None
                continue
            if not isinstance(current, Register):
                return None
            made = self._made.get(current, [])
            steps += 1 + len(made)
            self._steps_left -= 1 + len(made)
            if steps > _STEPS_MAX or self._steps_left < 0 or len(found) > CHOICES_MAX:
                return None
            for instruction in made:
                following = _sources(instruction, offset)
                if following is None:
                    return None
                waiting += following
        return list(found) if 0 < len(found) <= CHOICES_MAX else None


def _sources(instruction: Instruction, offset: int) -> list[tuple[Operand, int]] | None:
    """What an instruction hands on, each with what is added to it; None when it computes something."""
    sources = instruction.sources
    if len(instruction.destinations) != 1:
        return None
    match instruction.root:
        case "mov" if len(sources) == 1:
            return [(sources[0], offset)]
        case "cvta" if instruction.space in (Space.GLOBAL, Space.CONST):
            return [(sources[0], offset)]
        case "selp":
            return [(sources[0], offset), (sources[1], offset)]
        case "add" if instruction.type.bits == 64 and not instruction.modifiers:
            for value, added in (sources, reversed(sources)):
                if isinstance(added, Immediate):
                    number = added.bits - (1 << 64) if added.bits >> 63 else added.bits
                    return [(value, offset + number)]
    return None
