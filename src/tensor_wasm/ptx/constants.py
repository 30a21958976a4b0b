"""Constants: numbers and expressions of numbers as they are written, and their bits in a type.

PTX ISA, "Constants": integers are 64 bits wide, signed unless they end in ``U`` or do not fit; floats are 64 bits
wide; hexadecimal floats are exact. A constant takes the size of the operand where it stands.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.lexer import Lexer, is_number, is_word, quote
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.ptx.syntax import Constant, Notation

#: Digits of the longest number; 64 bits need 64 at most.
NUMBER_LENGTH_MAX = 80
#: Parentheses and signs within one another in an expression.
EXPRESSION_DEPTH_MAX = 32
#: Operators of one precedence in a row.
EXPRESSION_TERMS_MAX = 256
#: Lanes of a warp, the constant WARP_SZ.
WARP_SIZE = 32

_MASK = (1 << 64) - 1
_SIGN = 1 << 63
_BASES: Final[Mapping[str, int]] = MappingProxyType({"x": 16, "X": 16, "b": 2, "B": 2})

#: A value and whether it is unsigned.
_Number = tuple[int, bool]


def _shifted_right(left: int, right: int) -> int:
    return left >> right if 0 <= right < 64 else (-1 if left < 0 else 0)


def _shifted_left(left: int, right: int) -> int:
    return left << right if 0 <= right < 64 else 0


_PRECEDENCE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
        "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
    }
)  # fmt: skip
_BINARY: Final[Mapping[str, Callable[[int, int], int]]] = MappingProxyType(
    {
        "||": lambda a, b: int(bool(a) or bool(b)),
        "&&": lambda a, b: int(bool(a) and bool(b)),
        "|": operator.or_,
        "^": operator.xor,
        "&": operator.and_,
        "==": lambda a, b: int(a == b),
        "!=": lambda a, b: int(a != b),
        "<": lambda a, b: int(a < b),
        ">": lambda a, b: int(a > b),
        "<=": lambda a, b: int(a <= b),
        ">=": lambda a, b: int(a >= b),
        "<<": _shifted_left,
        ">>": _shifted_right,
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
        "%": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1),
    }
)


def literal(lexer: Lexer) -> Constant:
    """The number at the cursor, which goes past it."""
    current, offset = lexer.current, lexer.start
    if len(current) > NUMBER_LENGTH_MAX:
        raise lexer.error(f"the number {quote(current)} is too long")
    prefix = current[1:2]
    if current[0] == "0" and prefix in ("f", "F"):
        constant = Constant(_digits(current[2:], 16), Notation.F32, offset)
    elif current[0] == "0" and prefix in ("d", "D"):
        constant = Constant(_digits(current[2:], 16), Notation.F64, offset)
    elif prefix not in _BASES and not current.rstrip("U").isdecimal():
        constant = Constant(_bits(float(current)), Notation.F64, offset)
    else:
        constant = Constant(_integer(lexer)[0] & _MASK, Notation.INTEGER, offset)
    lexer.advance()
    return constant


def constant(lexer: Lexer) -> Constant:
    """The constant at the cursor: a number or an expression of integers; the cursor goes past it."""
    offset = lexer.start
    is_negative = False
    if lexer.current in ("-", "+"):
        is_negative = lexer.current == "-"
        lexer.advance()
    if is_number(lexer.current) and _is_float(lexer.current):
        found = literal(lexer)
        if is_negative:
            found.bits ^= 1 << 31 if found.notation is Notation.F32 else _SIGN
        found.offset = offset
        return found
    first = _unary(lexer, 0)
    if is_negative:
        first = _fitted(-first[0], first[1])
    value, _ = _binary(lexer, first, 0, 0)
    return Constant(value & _MASK, Notation.INTEGER, offset)


def integer(lexer: Lexer) -> int:
    """The value of the integer expression at the cursor; the cursor goes past it."""
    return _binary(lexer, _unary(lexer, 0), 0, 0)[0]


def signed(value: int) -> int:
    """A 64-bit value as a signed one, whatever it was: distances between addresses are."""
    return _fitted(value, is_unsigned=False)[0]


def bits_in(constant: Constant, kind: ScalarType) -> int | None:
    """The bits of a constant as a value of ``kind``, zero-extended; None where its notation does not fit."""
    if constant.notation is Notation.INTEGER:
        if kind is ScalarType.PRED:
            return int(constant.bits != 0)
        if kind.is_float:
            return None
        if kind.bits > 64 and constant.bits & _SIGN:
            return constant.bits | (_MASK << 64)
        return constant.bits & ((1 << kind.bits) - 1)
    if not (kind.is_float or kind.kind == "b"):
        return None
    match kind.bits, constant.notation:
        case (32, Notation.F32) | (64, Notation.F64):
            return constant.bits
        case 16, _:
            return _pack("<e", _value(constant), 0x7C00, 15)
        case 32, _:
            return _pack("<f", _value(constant), 0x7F80_0000, 31)
        case 64, _:
            return _bits(_value(constant))
    return None


def _is_float(current: str) -> bool:
    return current[1:2] in ("f", "F", "d", "D") or (current[1:2] not in _BASES and not current.rstrip("U").isdecimal())


def _integer(lexer: Lexer) -> _Number:
    current = lexer.current
    digits = current.rstrip("U")
    try:
        base = _BASES.get(digits[1:2])
        value = _digits(digits, 8 if digits[0] == "0" else 10) if base is None else _digits(digits[2:], base)
    except ValueError:
        raise lexer.error(f"{quote(current)} is not a number") from None
    if value > _MASK:
        raise lexer.error(f"the number {quote(current)} does not fit in 64 bits")
    return value, digits != current or value >= _SIGN


def _digits(digits: str, base: int) -> int:
    return int(digits, base)


def _value(constant: Constant) -> float:
    if constant.notation is Notation.F32:
        return float(struct.unpack("<f", constant.bits.to_bytes(4, "little"))[0])
    return float(struct.unpack("<d", constant.bits.to_bytes(8, "little"))[0])


def _bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def _pack(code: str, value: float, infinity: int, sign_place: int) -> int:
    try:
        return int.from_bytes(struct.pack(code, value), "little")
    except OverflowError:
        return infinity | (int(value < 0) << sign_place)


def _fitted(value: int, is_unsigned: bool) -> _Number:
    value &= _MASK
    if not is_unsigned and value & _SIGN:
        value -= 1 << 64
    return value, is_unsigned


def _unary(lexer: Lexer, depth: int) -> _Number:
    current = lexer.current
    if depth > EXPRESSION_DEPTH_MAX:
        raise lexer.error("the expression is nested too deeply")
    if is_number(current):
        if len(current) > NUMBER_LENGTH_MAX:
            raise lexer.error(f"the number {quote(current)} is too long")
        if _is_float(current):
            raise lexer.unexpected("an integer")
        number = _integer(lexer)
        lexer.advance()
        return number
    if current == "WARP_SZ":
        lexer.advance()
        return WARP_SIZE, False
    if current == "(":
        return _parenthesis(lexer, depth)
    if current in ("-", "+", "~", "!"):
        lexer.advance()
        value, is_unsigned = _unary(lexer, depth + 1)
        match current:
            case "-":
                return _fitted(-value, is_unsigned)
            case "~":
                return _fitted(~value, is_unsigned)
            case "!":
                return int(value == 0), False
        return value, is_unsigned
    raise lexer.unexpected("a number" if not is_word(current) else "a number, not a name")


def _parenthesis(lexer: Lexer, depth: int) -> _Number:
    """``(expression)``, or a cast ``(.s64) operand``."""
    if lexer.advance() in (".s64", ".u64"):
        is_unsigned = lexer.current == ".u64"
        lexer.advance()
        _close(lexer)
        return _fitted(_unary(lexer, depth + 1)[0], is_unsigned)
    number = _binary(lexer, _unary(lexer, depth + 1), 0, depth + 1)
    _close(lexer)
    return number


def _close(lexer: Lexer) -> None:
    if lexer.current != ")":
        raise lexer.unexpected("')'")
    lexer.advance()


def _binary(lexer: Lexer, left: _Number, least: int, depth: int) -> _Number:
    """Go on with an expression of which ``left`` was read, as far as operators bind tighter than ``least``."""
    terms = 0
    while True:
        sign = lexer.current
        precedence = _PRECEDENCE.get(sign, 0)
        if precedence <= least:
            break
        terms += 1
        if terms == EXPRESSION_TERMS_MAX:
            raise lexer.error("the expression is too long")
        offset = lexer.start
        lexer.advance()
        right = _binary(lexer, _unary(lexer, depth + 1), precedence, depth + 1)
        left = _apply(lexer, sign, left, right, offset)
    if lexer.current == "?" and least == 0:
        return _conditional(lexer, left, depth)
    return left


def _conditional(lexer: Lexer, condition: _Number, depth: int) -> _Number:
    lexer.advance()
    chosen = _binary(lexer, _unary(lexer, depth + 1), 0, depth + 1)
    if lexer.current != ":":
        raise lexer.unexpected("':'")
    lexer.advance()
    other = _binary(lexer, _unary(lexer, depth + 1), 0, depth + 1)
    return chosen if condition[0] else other


def _apply(lexer: Lexer, sign: str, left: _Number, right: _Number, offset: int) -> _Number:
    if sign in ("/", "%") and right[0] == 0:
        raise lexer.error("division by zero in a constant expression", offset)
    is_unsigned = left[1] if sign in ("<<", ">>") else left[1] or right[1]
    first = _fitted(left[0], is_unsigned)[0]
    second = right[0] if sign in ("<<", ">>") else _fitted(right[0], is_unsigned)[0]
    is_truth = _PRECEDENCE[sign] in (1, 2, 6, 7)
    return _fitted(_BINARY[sign](first, second), is_unsigned and not is_truth)


def error_of_notation(constant: Constant, kind: ScalarType, opcode: str) -> PtxError:
    """What to say about a constant whose notation does not fit; without a place."""
    if constant.notation is Notation.INTEGER:
        return PtxError(f"{opcode} needs a float constant here: write 0f3F800000, 0d3FF0000000000000 or 1.0")
    return PtxError(f"{opcode} needs an integer constant of type .{kind.ptx_name} here")
