"""What a value of a kernel's may have been made of: words of the parameter block, and what was read from memory.

What is looked for are addresses, so what counts is where in a value something is. An address of a partition is above
2^32, and no program can count on it having fewer than 47 bits: what has nothing of a pointer from bit 40 on is no
pointer, and what is added to a pointer below that bit is an index. Carries and signs are left out of account, and so
is what only decides something: comparisons, and how far something is shifted.

A number from memory of which a small multiple is taken, or a product with another, is an index as well: addresses are
neither kept in parts of 2 to 16 bytes nor multiplied. As soon as such a number is shifted back, or put together with
something, it is taken for a pointer again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from tensor_wasm.ptx.program import Instruction, Operand, Parameter, Space

#: The constant that an operand is, or None.
Number = Callable[[Operand], int | None]

WORDS_MAX: Final = 512
#: All words of a parameter block, of which bit i is the word at byte offset 8 * i.
EVERYTHING: Final = (1 << WORDS_MAX) - 1
#: Something that was read from memory, or whose origin is not known.
LOADED: Final = 1 << WORDS_MAX
#: A multiple of such a thing or of a word: an index.
NUMBER: Final = LOADED << 1
#: The address of a variable of the module, of shared or of local memory.
OWN: Final = NUMBER << 1

_WORD_BYTES: Final = 8
#: What is below this bit is no address.
_INDEX_BITS: Final = 40
#: Elements of up to 2^4 bytes are indexed by shifting.
_ELEMENT_SHIFT_MAX: Final = 4
#: Of where a field of bits starts, and of how many it has, the lowest 8 bits count.
_BYTE: Final = 0xFF


class Origin(NamedTuple):
    """What is in a value.

    ``high`` may be anywhere in it, ``low`` below bit ``width`` only, which is 40 or less. Both are words of the
    parameter block and :data:`LOADED`; ``high`` is :data:`NUMBER` and :data:`OWN` as well.
    """

    high: int
    low: int
    width: int


#: Made of constants and special registers alone.
CLEAN: Final = Origin(0, 0, 0)
UNKNOWN: Final = Origin(LOADED, 0, 0)
OF_VARIABLE: Final = Origin(OWN, 0, 0)


def joined(origins: Sequence[Origin]) -> Origin:
    """What one of several values is made of, or a sum of them."""
    found = CLEAN
    for origin in origins:
        if origin in (found, CLEAN):
            continue
        if found == CLEAN:
            found = origin
        else:
            found = Origin(found.high | origin.high, found.low | origin.low, max(found.width, origin.width))
    return found


def loaded(bits: int) -> Origin:
    """What was read from memory."""
    return UNKNOWN if bits > _INDEX_BITS else Origin(0, LOADED, bits)


def of_parameter(parameter: Parameter, offset: int, size_bytes: int) -> Origin:
    """What ``ld.param`` gives. A parameter of its own with fewer than 8 bytes has no pointer."""
    if not 0 <= offset <= parameter.size_bytes - size_bytes:
        return UNKNOWN
    if not parameter.is_array and parameter.size_bytes < _WORD_BYTES:
        return CLEAN
    first = parameter.offset + offset
    last = (first + size_bytes - 1) // _WORD_BYTES
    if last >= WORDS_MAX:
        return UNKNOWN
    words = (2 << last) - (1 << first // _WORD_BYTES)
    return Origin(words, 0, 0) if size_bytes == _WORD_BYTES else Origin(0, words, 8 * size_bytes)


def made(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    """What an instruction makes of its sources. It reads no memory. ``number`` gives the constant that a source is."""
    rule = _RULES.get(instruction.root, _mixed)
    return rule(instruction, sources, number)


def part(origin: Origin, start: int, bits: int) -> Origin:
    """``bits`` bits of a value from bit ``start`` on, as a value."""
    return _cut(_lowered(origin, start) if start else origin, bits)


# --- positions --------------------------------------------------------------------------------------------------------


def _pieces(mask: int) -> int:
    """What is still there once a value is taken apart."""
    if mask & NUMBER:
        mask = mask & ~NUMBER | LOADED
    return mask & ~OWN


def _scaled(mask: int) -> int:
    return NUMBER if mask & ~OWN else 0


def _spread(origins: Sequence[Origin]) -> Origin:
    """All of several values, anywhere."""
    high = 0
    for origin in origins:
        high |= origin.high | origin.low
    return Origin(_pieces(high), 0, 0)


def _cut(origin: Origin, bits: int) -> Origin:
    """Only the lowest bits of a value."""
    high, low, width = origin
    if bits > _INDEX_BITS:
        return origin
    if high:
        return Origin(0, low | _pieces(high), bits)
    return Origin(0, low, min(width, bits)) if width > bits else origin


def _raised(origin: Origin, by: int) -> Origin:
    """A value shifted to the left."""
    high, low, width = origin
    if not by or not high | low:
        return origin
    high = _scaled(high) if by <= _ELEMENT_SHIFT_MAX else _pieces(high)
    if not low or width + by > _INDEX_BITS:
        return Origin(high | low, 0, 0)
    return Origin(high, low, width + by)


def _lowered(origin: Origin, by: int) -> Origin:
    """A value shifted to the right, by any number of bits where 0 is given."""
    high, low, width = origin
    if 64 - by <= _INDEX_BITS and high:
        return Origin(0, low | _pieces(high), 64 - by)
    return Origin(_pieces(high), low, max(width - by, 0) if low else 0)


def _product(origins: Sequence[Origin]) -> Origin:
    return Origin(_scaled(_spread(origins).high), 0, 0)


def _multiple(origin: Origin, number: int) -> Origin:
    """A value times a constant."""
    if number & (number - 1) == 0:
        return _raised(origin, number.bit_length() - 1) if number else CLEAN
    high, low, width = origin
    high, width = _scaled(high), width + number.bit_length()
    if not low or width > _INDEX_BITS:
        return Origin(high | _scaled(low), 0, 0)
    return Origin(high, low, width)


# --- instructions -----------------------------------------------------------------------------------------------------


def _mixed(_: Instruction, sources: Sequence[Origin], __: Number) -> Origin:
    """Anything."""
    return _spread(sources)


def _nothing(_: Instruction, __: Sequence[Origin], ___: Number) -> Origin:
    """A count, or the truth of something."""
    return CLEAN


def _first(_: Instruction, sources: Sequence[Origin], __: Number) -> Origin:
    return sources[0]


def _choice(_: Instruction, sources: Sequence[Origin], __: Number) -> Origin:
    return joined(sources[:2])


def _sum(instruction: Instruction, sources: Sequence[Origin], _: Number) -> Origin:
    if instruction.type.kind not in "bus":
        return _spread(sources)
    if instruction.root == "add" and instruction.sources[0] is instruction.sources[1]:
        return _raised(sources[0], 1)
    return joined(sources)


def _mov(instruction: Instruction, sources: Sequence[Origin], _: Number) -> Origin:
    if len(sources) == 1:
        return sources[0]
    # What has something in its upper part may be an address put together.
    if any(origin.high | origin.low for origin in sources[1:]) or instruction.type.bits // len(sources) > _INDEX_BITS:
        return _spread(sources)
    return sources[0]


def _cvta(instruction: Instruction, sources: Sequence[Origin], _: Number) -> Origin:
    if instruction.space is Space.PARAM:
        return UNKNOWN
    is_own = instruction.space in (Space.SHARED, Space.LOCAL) and "to" not in instruction.modifiers
    return joined((OF_VARIABLE, *sources)) if is_own else sources[0]


def _cvt(instruction: Instruction, sources: Sequence[Origin], _: Number) -> Origin:
    to, of = instruction.types[:2]
    if to.kind not in "us" or len(sources) > 1:
        return _spread(sources)
    if of.kind not in "us":
        return _product(sources)
    return _cut(_cut(sources[0], of.bits), to.bits)


def _and(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    for operand in instruction.sources:
        mask = number(operand)
        if mask is not None:
            sources = [_cut(origin, mask.bit_length()) for origin in sources]
    return joined(sources)


def _shl(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    by = number(instruction.sources[1])
    if by is None:
        return _spread(sources[:1])
    return _raised(sources[0], by) if by < instruction.type.bits else CLEAN


def _shr(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    return _lowered(sources[0], min(number(instruction.sources[1]) or 0, instruction.type.bits - 1))


def _mul(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    modifiers, kind = instruction.modifiers, instruction.type
    if kind.kind not in "bus":
        return _spread(sources)
    factors = sources[:2]
    left, right = map(number, instruction.sources[:2])
    factor = right if left is None else left
    if factor is None or "hi" in modifiers:
        product = _product(factors)
    else:
        if factor >> kind.bits - 1 and (kind.is_signed or "lo" in modifiers):
            factor = (1 << kind.bits) - factor
        product = _multiple(joined(factors), factor)
    if "wide" not in modifiers:
        product = _cut(product, kind.bits)
    return joined((product, *sources[2:]))


def _div(_: Instruction, sources: Sequence[Origin], __: Number) -> Origin:
    high, low, width = joined(sources)
    return Origin(_pieces(high), low, width)


def _rem(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    by = number(instruction.sources[1])
    if by is None or by >> instruction.type.bits - 1:
        return _div(instruction, sources, number)
    return _cut(sources[0], by.bit_length())


def _bfe(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    start, bits = map(number, instruction.sources[1:])
    lowered = _lowered(sources[0], min((start or 0) & _BYTE, 63))
    return lowered if bits is None else _cut(lowered, bits & _BYTE)


def _bfi(instruction: Instruction, sources: Sequence[Origin], number: Number) -> Origin:
    inserted, into = sources[:2]
    start, bits = map(number, instruction.sources[2:])
    if not inserted.high | inserted.low:
        return into
    if start is None or bits is None:
        return _spread((inserted, into))
    end = (start & _BYTE) + (bits & _BYTE)
    if end > _INDEX_BITS:
        return _spread((inserted, into))
    return joined((Origin(0, _spread((inserted,)).high, end), into))


_Rule = Callable[[Instruction, Sequence[Origin], Number], Origin]
#: What is not here may put anything anywhere.
_RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        **dict.fromkeys(("add", "addc", "sub", "subc", "min", "max", "abs", "neg", "sad"), _sum),
        **dict.fromkeys(("or", "xor", "not"), _sum),
        **dict.fromkeys(("mul", "mad", "madc", "mul24", "mad24"), _mul),
        **dict.fromkeys(
            ("popc", "clz", "bfind", "fns", "cnot", "set", "vote", "activemask", "bar", "barrier"), _nothing
        ),
        **dict.fromkeys(("selp", "slct"), _choice),
        "shfl": _first,
        "mov": _mov,
        "cvta": _cvta,
        "cvt": _cvt,
        "and": _and,
        "shl": _shl,
        "shr": _shr,
        "div": _div,
        "rem": _rem,
        "bfe": _bfe,
        "bfi": _bfi,
    }
)
