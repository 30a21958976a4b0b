"""What integer and bit instructions compute: a function of bit patterns, by the pseudo code of the PTX ISA.

A pattern is a number from 0 up to all ones. ``number`` of a pattern is ``(a ^ top) - top``, where ``top`` is the weight
of the sign bit for signed types and 0 for others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne

from compiler.values.oracle import PERMUTES
from tensor_wasm.ptx.program import Instruction, ScalarType

Function = Callable[..., int]
Builder = Callable[[Instruction], Function]

RELATIONS: Mapping[str, Callable[[object, object], bool]] = {
    "eq": eq,
    "ne": ne,
    "lt": lt,
    "le": le,
    "gt": gt,
    "ge": ge,
    "lo": lt,
    "ls": le,
    "hi": gt,
    "hs": ge,
}
_WORD = 0xFFFF_FFFF


def mask_of(kind: ScalarType) -> int:
    """All ones of a type."""
    return (1 << kind.bits) - 1


def top_of(kind: ScalarType) -> int:
    """The sign bit's weight; 0 for types without a sign."""
    return 1 << kind.bits - 1 if kind.is_signed else 0


def signed(value: int, bits: int) -> int:
    """The low ``bits`` of a value as a two's complement number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def limit(value: int, kind: ScalarType) -> int:
    """The number nearest to ``value`` that the type has."""
    least = -top_of(kind)
    return min(max(value, least), least + mask_of(kind))


def _add(i: Instruction) -> Function:
    mask, top = mask_of(i.type), top_of(i.type)
    if "sat" in i.modifiers:
        return lambda a, b: limit((a ^ top) - top + (b ^ top) - top, i.type) & mask
    return lambda a, b: (a + b) & mask


def _sub(i: Instruction) -> Function:
    mask, top = mask_of(i.type), top_of(i.type)
    if "sat" in i.modifiers:
        return lambda a, b: limit(((a ^ top) - top) - ((b ^ top) - top), i.type) & mask
    return lambda a, b: (a - b) & mask


def _mul(i: Instruction) -> Function:
    mask, top, shift = mask_of(i.type), top_of(i.type), 0
    if "wide" in i.modifiers:
        mask = mask << i.type.bits | mask
    elif "hi" in i.modifiers:
        shift = i.type.bits
    return lambda a, b: (((a ^ top) - top) * ((b ^ top) - top) >> shift) & mask


def _mad(i: Instruction) -> Function:
    mask, top, shift = mask_of(i.type), top_of(i.type), 0
    if "sat" in i.modifiers:
        return lambda a, b, c: limit((signed(a, 32) * signed(b, 32) >> 32) + signed(c, 32), i.type) & mask
    if "wide" in i.modifiers:
        mask = mask << i.type.bits | mask
    elif "hi" in i.modifiers:
        shift = i.type.bits
    return lambda a, b, c: ((((a ^ top) - top) * ((b ^ top) - top) >> shift) + c) & mask


def _mul24(i: Instruction) -> Function:
    shift = 16 if "hi" in i.modifiers else 0
    low = (lambda a: signed(a, 24)) if i.type.is_signed else (lambda a: a & 0xFF_FFFF)
    return lambda a, b: (low(a) * low(b) >> shift) & _WORD


def _mad24(i: Instruction) -> Function:
    product = _mul24(i)
    if "sat" in i.modifiers:
        return lambda a, b, c: limit((signed(a, 24) * signed(b, 24) >> 16) + signed(c, 32), ScalarType.S32) & _WORD
    return lambda a, b, c: (product(a, b) + c) & _WORD


def _sad(i: Instruction) -> Function:
    mask, top = mask_of(i.type), top_of(i.type)
    return lambda a, b, c: (c + abs((a ^ top) - (b ^ top))) & mask


def _quotient(a: int, b: int) -> int:
    """Towards zero; all ones for a zero divisor."""
    if b == 0:
        return -1
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _div(i: Instruction) -> Function:
    mask, top = mask_of(i.type), top_of(i.type)
    return lambda a, b: _quotient((a ^ top) - top, (b ^ top) - top) & mask


def _rem(i: Instruction) -> Function:
    mask, top = mask_of(i.type), top_of(i.type)

    def remainder(a: int, b: int) -> int:
        x, y = (a ^ top) - top, (b ^ top) - top
        return (x - y * _quotient(x, y) if y else -1) & mask

    return remainder


def _abs(i: Instruction) -> Function:
    mask, top = mask_of(i.type), top_of(i.type)
    return lambda a: abs((a ^ top) - top) & mask


def _neg(i: Instruction) -> Function:
    mask = mask_of(i.type)
    return lambda a: -a & mask


def _min(i: Instruction) -> Function:
    top = top_of(i.type)
    return lambda a, b: a if (a ^ top) < (b ^ top) else b


def _max(i: Instruction) -> Function:
    top = top_of(i.type)
    return lambda a, b: a if (a ^ top) > (b ^ top) else b


def _and(_: Instruction) -> Function:
    return lambda a, b: a & b


def _or(_: Instruction) -> Function:
    return lambda a, b: a | b


def _xor(_: Instruction) -> Function:
    return lambda a, b: a ^ b


def _not(i: Instruction) -> Function:
    mask = mask_of(i.type)
    return lambda a: a ^ mask


def _cnot(_: Instruction) -> Function:
    return lambda a: int(a == 0)


def _shl(i: Instruction) -> Function:
    bits, mask = i.type.bits, mask_of(i.type)
    return lambda a, b: (a << b) & mask if b < bits else 0


def _shr(i: Instruction) -> Function:
    bits, mask, top = i.type.bits, mask_of(i.type), top_of(i.type)
    return lambda a, b: ((a ^ top) - top >> min(b, bits)) & mask


def _shf(i: Instruction) -> Function:
    amount = (lambda c: min(c, 32)) if "clamp" in i.modifiers else (lambda c: c & 31)
    if "l" in i.modifiers:
        return lambda a, b, c: ((b << 32 | a) << amount(c) >> 32) & _WORD
    return lambda a, b, c: ((b << 32 | a) >> amount(c)) & _WORD


def _popc(_: Instruction) -> Function:
    return int.bit_count


def _clz(i: Instruction) -> Function:
    bits = i.type.bits
    return lambda a: bits - a.bit_length()


def _bfind(i: Instruction) -> Function:
    bits, top = i.type.bits, top_of(i.type)

    def place(a: int) -> int:
        number = (a ^ top) - top
        found = (number if number >= 0 else ~number).bit_length() - 1
        if "shiftamt" in i.modifiers and found >= 0:
            found = bits - 1 - found
        return found & _WORD

    return place


def _brev(i: Instruction) -> Function:
    bits = i.type.bits
    return lambda a: int(f"{a:0{bits}b}"[::-1], 2)


def _bfe(i: Instruction) -> Function:
    bits, mask = i.type.bits, mask_of(i.type)

    def extract(a: int, b: int, c: int) -> int:
        place, length = b & 0xFF, c & 0xFF
        found = a >> place & ((1 << length) - 1)
        if i.type.is_signed and length and a >> min(place + length - 1, bits - 1) & 1:
            found |= -1 << min(length, max(bits - place, 0))
        return found & mask

    return extract


def _bfi(i: Instruction) -> Function:
    mask = mask_of(i.type)

    def insert(a: int, b: int, c: int, d: int) -> int:
        place, length = c & 0xFF, d & 0xFF
        field = ((1 << length) - 1) << place & mask
        return b & ~field | a << place & field

    return insert


def _bmsk(i: Instruction) -> Function:
    def mask(a: int, b: int) -> int:
        if "clamp" in i.modifiers:
            start, count = min(a, 32), min(b, 32)
        else:
            start, count = a & 31, b & 31
        return ((1 << count) - 1) << start & _WORD

    return mask


def _szext(i: Instruction) -> Function:
    def extend(a: int, b: int) -> int:
        if "clamp" in i.modifiers and b >= 32:
            return a
        count = b & 31
        if count == 0:
            return 0
        return (signed(a, count) if i.type.is_signed else a & ((1 << count) - 1)) & _WORD

    return extend


def _fns(_: Instruction) -> Function:
    def find(mask: int, base: int, offset: int) -> int:
        step = signed(offset, 32)
        if step == 0:
            return base if base < 32 and mask >> base & 1 else _WORD
        places = range(base, 32) if step > 0 else range(base, -1, -1)
        if base >= 32:
            return _WORD
        found = [place for place in places if mask >> place & 1]
        return found[abs(step) - 1] if abs(step) <= len(found) else _WORD

    return find


def _parts(value: int, bits: int, kind: ScalarType) -> list[int]:
    found = [value >> at & ((1 << bits) - 1) for at in range(0, 32, bits)]
    return [signed(part, bits) for part in found] if kind.is_signed else found


def _dp4a(i: Instruction) -> Function:
    first, second = i.types
    return lambda a, b, c: (
        (c + sum(x * y for x, y in zip(_parts(a, 8, first), _parts(b, 8, second), strict=True))) & _WORD
    )


def _dp2a(i: Instruction) -> Function:
    first, second = i.types
    start = 2 if "hi" in i.modifiers else 0
    return lambda a, b, c: (
        (c + sum(x * y for x, y in zip(_parts(a, 16, first), _parts(b, 8, second)[start:], strict=False))) & _WORD
    )


def _prmt(i: Instruction) -> Function:
    def permute(a: int, b: int, c: int) -> int:
        nibbles = [c >> 4 * index & 15 for index in range(4)]
        if i.modifiers:
            nibbles = [int(digit) for digit in reversed(PERMUTES[i.modifiers[0]][c & 3])]
        data = b << 32 | a
        result = 0
        for index, nibble in enumerate(nibbles):
            byte = data >> 8 * (nibble & 7) & 0xFF
            if nibble & 8:
                byte = 0xFF if byte & 0x80 else 0
            result |= byte << 8 * index
        return result

    return permute


def _lop3(i: Instruction) -> Function:
    def look_up(a: int, b: int, c: int, table: int) -> int:
        result = 0
        for index in range(8):
            if table >> index & 1:
                x, y, z = ((word if index >> at & 1 else ~word) for word, at in ((a, 2), (b, 1), (c, 0)))
                result |= x & y & z
        return result & _WORD

    def with_predicate(a: int, b: int, c: int, table: int, p: int) -> tuple[int, int]:
        word = look_up(a, b, c, table)
        return word, int(word != 0 and p) if "and" in i.modifiers else int(word != 0 or p)

    return with_predicate if i.modifiers else look_up  # type: ignore[return-value]


def _selp(_: Instruction) -> Function:
    return lambda a, b, p: a if p else b


BUILDERS: Mapping[str, Builder] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "mad": _mad,
    "mul24": _mul24,
    "mad24": _mad24,
    "sad": _sad,
    "div": _div,
    "rem": _rem,
    "abs": _abs,
    "neg": _neg,
    "min": _min,
    "max": _max,
    "and": _and,
    "or": _or,
    "xor": _xor,
    "not": _not,
    "cnot": _cnot,
    "shl": _shl,
    "shr": _shr,
    "shf": _shf,
    "popc": _popc,
    "clz": _clz,
    "bfind": _bfind,
    "brev": _brev,
    "bfe": _bfe,
    "bfi": _bfi,
    "bmsk": _bmsk,
    "szext": _szext,
    "fns": _fns,
    "dp4a": _dp4a,
    "dp2a": _dp2a,
    "prmt": _prmt,
    "lop3": _lop3,
    "selp": _selp,
}
