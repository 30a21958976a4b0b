"""``mov`` and ``cvta`` of a strip: copies, packing of registers into one and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler.region import SHARED_WINDOW
from tensor_wasm.compiler.strips.operands import is_own, lanes_of
from tensor_wasm.compiler.strips.strip import Strip, is_double, shuffle
from tensor_wasm.ptx.program import Instruction, Register, ScalarType, Space, Special

#: Writes a unit of the first or of another destination: ``(destination's position, unit)``.
Write = Callable[[int, int], None]

_WORD = ScalarType.B32
_LONG = ScalarType.B64


def writer(strip: Strip, instruction: Instruction) -> Write | None:
    """What writes the vectors of an instruction's results, None where there is no vector form."""
    if instruction.root == "cvta":
        return _address(strip, instruction)
    sources, destinations = instruction.sources, instruction.destinations
    if len(sources) == 1 == len(destinations):
        return _copy(strip, instruction)
    if instruction.type.is_float or not all(isinstance(source, Register) for source in sources):
        return None
    bits = instruction.type.bits
    if len(sources) == 2 and bits == 64 and _have(sources, 32):
        return _pack_words(strip, instruction)
    if len(destinations) == 2 and bits == 64 and _have(destinations, 32):
        return _unpack_words(strip, instruction)
    if len(sources) == 2 and bits == 32 and _have(sources, 16):
        return _pack_halves(strip, instruction)
    if len(destinations) == 2 and bits == 32 and _have(destinations, 16):
        return _unpack_halves(strip, instruction)
    return None


def _have(operands: Sequence[object], bits: int) -> bool:
    return all(operand is None or (isinstance(operand, Register) and operand.type.bits == bits) for operand in operands)


def _copy(strip: Strip, instruction: Instruction) -> Write | None:
    (source,), (register,) = instruction.sources, instruction.destinations
    if register is None or instruction.type.bits == 128:
        return None
    kind = instruction.type
    if isinstance(source, Special) and is_own(source):
        return None
    if isinstance(source, Register | Special) and source.type.bits != register.type.bits:
        return None
    if kind.bits != register.type.bits:
        return None

    def write(_position: int, unit: int) -> None:
        lanes_of(strip, source, kind, unit, is_wide=is_double(kind)).push(strip.body)

    return write


def _address(strip: Strip, instruction: Instruction) -> Write | None:
    (source,), (register,) = instruction.sources, instruction.destinations
    is_long = isinstance(source, Register) and is_double(source.type)
    if register is None or not is_double(register.type) or (isinstance(source, Register) and not is_long):
        return None

    def write(_position: int, unit: int) -> None:
        value = lanes_of(strip, source, ScalarType.U64, unit, is_wide=True)
        if instruction.space is Space.SHARED:
            moved = value - SHARED_WINDOW if "to" in instruction.modifiers else value + SHARED_WINDOW
            moved.push(strip.body)
        else:
            value.push(strip.body)

    return write


def _pack_words(strip: Strip, instruction: Instruction) -> Write:
    def write(_position: int, unit: int) -> None:
        for source in instruction.sources:
            lanes_of(strip, source, _WORD, unit // 2, is_wide=False).push(strip.body)
        shuffle(strip.body, (2, 6, 3, 7) if unit % 2 else (0, 4, 1, 5))

    return write


def _unpack_words(strip: Strip, instruction: Instruction) -> Write:
    def write(position: int, unit: int) -> None:
        for half in (0, 1):
            lanes_of(strip, instruction.sources[0], _LONG, 2 * unit + half, is_wide=True).push(strip.body)
        shuffle(strip.body, (1, 3, 5, 7) if position else (0, 2, 4, 6))

    return write


def _pack_halves(strip: Strip, instruction: Instruction) -> Write:
    low, high = instruction.sources

    def write(_position: int, unit: int) -> None:
        bits = ScalarType.B16
        value = lanes_of(strip, high, bits, unit, is_wide=False) << 16
        (value | lanes_of(strip, low, bits, unit, is_wide=False)).push(strip.body)

    return write


def _unpack_halves(strip: Strip, instruction: Instruction) -> Write:
    def write(position: int, unit: int) -> None:
        value = lanes_of(strip, instruction.sources[0], _WORD, unit, is_wide=False)
        (value.shr_u(16) if position else value & 0xFFFF).push(strip.body)

    return write


def emit(strip: Strip, instruction: Instruction, write: Write) -> None:
    """Write all results; sources may be among the registers written, so all are computed first."""
    mask = strip.guarded_mask(instruction.guard)
    body = strip.body
    results = []
    for position, register in enumerate(instruction.destinations):
        if register is None:
            continue
        for unit in range(len(strip.vectors(register))):
            write(position, unit)
            local = body.local(strip.vectors(register)[unit].type)
            body.set(local)
            results.append((register, unit, local))
    for register, unit, local in results:
        body.get(local)
        strip.set_vector(register, unit, mask if strip.must_blend(register, instruction.guard) else None)
        body.release(local)
    for register in dict.fromkeys(register for register, _, _ in results):
        strip.find_bits(register)
    strip.release_mask(mask)
