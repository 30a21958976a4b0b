"""What float instructions compute: a function of bit patterns, by exact fractions rounded once.

Sums, products, quotients and roots of ``f32`` and ``f64`` to nearest are taken from the host's doubles, which have more
than twice the bits of an ``f32``. NaN results have the pattern of all ones but the sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from struct import Struct

from compiler.values import oracle
from compiler.values.oracle import BF16, F16, F32, F64, NAN_BITS, Format
from fuzz.integer_meaning import RELATIONS, Function, limit, mask_of, top_of
from tensor_wasm.ptx.program import Instruction, ScalarType

S = ScalarType
FORMATS = {S.F16: F16, S.BF16: BF16, S.F32: F32, S.F64: F64, S.F16X2: F16, S.BF16X2: BF16}
_TF32 = Format(19, 11, 127)
_ROUNDINGS = ("rn", "rz", "rm", "rp")
_INTEGRAL = ("rni", "rzi", "rmi", "rpi")
_LAYOUTS = {32: (Struct("<I"), Struct("<f")), 64: (Struct("<Q"), Struct("<d"))}


def meaning(i: Instruction) -> Function:
    """The function of an arithmetic instruction on floats of any size, or pairs of them."""
    form = FORMATS[i.type]
    function = _with_modifiers(i, form, _ARITHMETIC[i.root](i, form))
    return _of_pairs(function) if i.type in (S.F16X2, S.BF16X2) else function


def _of_pairs(function: Function) -> Function:
    def both(*operands: int) -> int:
        high = function(*(operand >> 16 for operand in operands))
        return high << 16 | function(*(operand & 0xFFFF for operand in operands))

    return both


def _with_modifiers(i: Instruction, form: Format, function: Function) -> Function:
    inner = function
    if "ftz" in i.modifiers:
        flush = form.flush
        function = lambda *operands: flush(inner(*map(flush, operands)))  # noqa: E731
    middle = function
    if "sat" in i.modifiers:
        function = lambda *operands: form.saturate(middle(*operands))  # noqa: E731
    elif "relu" in i.modifiers:
        function = lambda *operands: _rectified(form, middle(*operands))  # noqa: E731
    return function


def _rectified(form: Format, bits: int) -> int:
    return 0 if form.is_negative(bits) and not form.is_nan(bits) else bits


def _mode(i: Instruction) -> str:
    return next((word for word in i.modifiers if word in _ROUNDINGS), "rn")


# --- arithmetic ---------------------------------------------------------------------------------------------


def _by_host(form: Format, host: Callable[..., float], exact: Function) -> Function:
    """To nearest by the host's doubles; what they cannot do is left to ``exact``."""
    words, floats = _LAYOUTS[form.bits]
    pack, unpack, of_float, to_float = words.pack, words.unpack, floats.pack, floats.unpack

    def compute(*operands: int) -> int:
        try:
            value = host(*[to_float(pack(operand))[0] for operand in operands])
            return NAN_BITS[form.bits] if value != value else unpack(of_float(value))[0]
        except (ArithmeticError, ValueError):
            return exact(*operands)

    return compute


def _rounded(i: Instruction, form: Format, host: Callable[..., float], exact: Callable[..., int]) -> Function:
    mode = _mode(i)
    slow: Function = lambda *operands: exact(form, *operands, mode)  # noqa: E731
    return _by_host(form, host, slow) if mode == "rn" and form.bits > 16 else slow


def _add(i: Instruction, form: Format) -> Function:
    return _rounded(i, form, lambda a, b: a + b, oracle.add)


def _sub(i: Instruction, form: Format) -> Function:
    return _rounded(i, form, lambda a, b: a - b, lambda form, a, b, mode: oracle.add(form, a, b ^ form.sign, mode))


def _mul(i: Instruction, form: Format) -> Function:
    return _rounded(i, form, lambda a, b: a * b, oracle.multiply)


def _div(i: Instruction, form: Format) -> Function:
    return _rounded(i, form, lambda a, b: a / b, oracle.divide)


def _rcp(i: Instruction, form: Format) -> Function:
    one = form.round(Fraction(1), "rn")
    return _rounded(i, form, lambda a: 1.0 / a, lambda form, a, mode: oracle.divide(form, one, a, mode))


def _sqrt(i: Instruction, form: Format) -> Function:
    return _rounded(i, form, math.sqrt, oracle.square_root)


def _fma(i: Instruction, form: Format) -> Function:
    mode = _mode(i)
    return lambda a, b, c: oracle.fused(form, a, b, c, mode)


def _abs(_: Instruction, form: Format) -> Function:
    return lambda a: a & ~form.sign


def _neg(_: Instruction, form: Format) -> Function:
    return lambda a: a ^ form.sign


def _copysign(_: Instruction, form: Format) -> Function:
    return lambda a, b: b & ~form.sign | a & form.sign


def _extreme(i: Instruction, form: Format) -> Function:
    choose = min if i.root == "min" else max
    gives_nan, is_absolute = "NaN" in i.modifiers, "xorsign" in i.modifiers

    def key(bits: int) -> int:
        """Ordered by sign and size: -0 comes before +0."""
        return -(bits ^ form.sign) - 1 if bits & form.sign else bits

    def extreme(a: int, b: int) -> int:
        sign = (a ^ b) & form.sign
        operands = (a & ~form.sign, b & ~form.sign) if is_absolute else (a, b)
        numbers = [bits for bits in operands if not form.is_nan(bits)]
        if not numbers or (gives_nan and len(numbers) < 2):
            return NAN_BITS[form.bits]
        found = choose(numbers, key=key)
        return found | sign if is_absolute else found

    return extreme


_ARITHMETIC: Mapping[str, Callable[[Instruction, Format], Function]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "rcp": _rcp,
    "sqrt": _sqrt,
    "fma": _fma,
    "mad": _fma,
    "abs": _abs,
    "neg": _neg,
    "copysign": _copysign,
    "min": _extreme,
    "max": _extreme,
}


def approximation(i: Instruction) -> Function:
    """One of the instructions on ``f32`` whose results have an error, without one."""
    functions: Mapping[str, Callable[..., float]] = {
        "sin": math.sin,
        "cos": math.cos,
        "lg2": math.log2,
        "ex2": lambda a: 2.0**a,
        "tanh": math.tanh,
        "rsqrt": lambda a: 1 / math.sqrt(a),
    }
    outside = {"lg2": F32.sign | F32.infinity, "rsqrt": F32.infinity}

    def exact(a: int) -> int:
        """Of zeros and what is less, or no number."""
        if F32.is_zero(a) and i.root in outside:
            return outside[i.root] | (a & F32.sign)
        return NAN_BITS[32]

    return _with_modifiers(i, F32, _by_host(F32, functions[i.root], exact))


def test_property(i: Instruction) -> Function:
    """``testp``."""
    form = FORMATS[i.type]
    tests: Mapping[str, Callable[[int], bool]] = {
        "finite": lambda a: not form.is_nan(a) and not form.is_infinite(a),
        "infinite": form.is_infinite,
        "number": lambda a: not form.is_nan(a),
        "notanumber": form.is_nan,
        "normal": lambda a: not form.is_nan(a) and not form.is_infinite(a) and not form.is_subnormal(a),  # zeros are
        "subnormal": form.is_subnormal,
    }
    test = tests[i.modifiers[0]]
    return lambda a: int(test(a))


# --- comparisons --------------------------------------------------------------------------------------------


def relation(i: Instruction, kind: ScalarType) -> Callable[[int, int], bool]:
    """The relation that ``setp`` and ``set`` name, on numbers of ``kind``; of pairs, that of a half."""
    name = i.modifiers[0]
    form = FORMATS.get(kind)
    if form is None:
        top, holds = top_of(kind), RELATIONS[name]
        return lambda a, b: holds(a ^ top, b ^ top)
    flush = form.flush if "ftz" in i.modifiers else (lambda a: a)

    def order(bits: int) -> int:
        """A number in the order of the floats; both zeros are 0."""
        return -(bits ^ form.sign) if bits & form.sign else bits

    def compare(a: int, b: int) -> bool:
        a, b = flush(a), flush(b)
        is_unordered = form.is_nan(a) or form.is_nan(b)
        if name in ("num", "nan"):
            return is_unordered == (name == "nan")
        plain = name[:2] if len(name) == 3 else name
        return plain != name if is_unordered else RELATIONS[plain](order(a), order(b))

    return compare


# --- conversions --------------------------------------------------------------------------------------------


def _to_integer(value: Fraction, mode: str) -> int:
    floor = math.floor(value)
    match mode:
        case "rmi":
            return floor
        case "rpi":
            return math.ceil(value)
        case "rzi":
            return math.trunc(value)
    return round(value)


def narrowed(source: Format, target: Format, bits: int, mode: str) -> int:
    """A number of one format in another; what is not finite stays so."""
    if source.is_nan(bits):
        return NAN_BITS[32] if target is _TF32 else NAN_BITS[target.bits]
    sign = target.sign if source.is_negative(bits) else 0
    if source.is_infinite(bits):
        return sign | target.infinity
    return target.round(source.value(bits), mode, sign)


def convert(i: Instruction) -> Function:
    """``cvt`` between integers and floats."""
    to, source = i.types
    if to in (S.F16X2, S.BF16X2):
        half = _from_float(i, F32, FORMATS[to], to)
        return lambda a, b: half(a) << 16 | half(b)
    if to is S.TF32:
        return _to_tf32(i)
    destination = i.destinations[0]
    assert destination is not None
    wide = mask_of(destination.type)
    if to in FORMATS:
        form = FORMATS[to]
        return _from_float(i, FORMATS[source], form, to) if source in FORMATS else _from_integer(i, form, source)
    number = _float_to_integer(i, FORMATS[source]) if source in FORMATS else _number(source)
    mask, top = mask_of(to), top_of(to)
    if "sat" in i.modifiers and source not in FORMATS:
        return lambda a: limit(number(a), to) & wide
    return lambda a: (((number(a) & mask) ^ top) - top) & wide


def _number(kind: ScalarType) -> Function:
    mask, top = mask_of(kind), top_of(kind)
    return lambda a: ((a & mask) ^ top) - top


def _float_to_integer(i: Instruction, form: Format) -> Function:
    to, source = i.types
    mode = next(word for word in i.modifiers if word in _INTEGRAL)
    is_flushed = "ftz" in i.modifiers

    def number(bits: int) -> int:
        bits &= (1 << form.bits) - 1
        if form.is_nan(bits):
            return 1 << to.bits - 1 if source is S.F64 or to.bits == 64 else 0
        if form.is_infinite(bits):
            return limit(-1 << 99 if form.is_negative(bits) else 1 << 99, to)
        return limit(_to_integer(form.value(form.flush(bits) if is_flushed else bits), mode), to)

    return number


def _finished(i: Instruction, form: Format, result: int) -> int:
    if "relu" in i.modifiers:
        result = _rectified(form, result)
    if "satfinite" in i.modifiers and form.is_infinite(result):
        result -= 1
    return form.saturate(result) if "sat" in i.modifiers else result


def _from_integer(i: Instruction, form: Format, kind: ScalarType) -> Function:
    number, mode = _number(kind), _mode(i)
    return lambda a: _finished(i, form, form.round(Fraction(number(a)), mode))


def _from_float(i: Instruction, source: Format, target: Format, to: ScalarType) -> Function:
    mode = _mode(i)
    integral = next((word for word in i.modifiers if word in _INTEGRAL), None)
    flushes = "ftz" in i.modifiers

    def changed(bits: int) -> int:
        bits &= (1 << source.bits) - 1
        if flushes and source is F32:
            bits = F32.flush(bits)
        if integral is not None and not source.is_nan(bits) and not source.is_infinite(bits):
            whole = _to_integer(source.value(bits), integral)
            return _finished(i, target, target.round(Fraction(whole), "rn", bits & source.sign))
        result = narrowed(source, target, bits, mode)
        if flushes and target is F32:
            result = F32.flush(result)
        return _finished(i, target, result)

    return changed


def _to_tf32(i: Instruction) -> Function:
    def changed(bits: int) -> int:
        if F32.is_nan(bits):
            return NAN_BITS[32]
        result = _away(bits) if "rna" in i.modifiers else narrowed(F32, _TF32, bits, _mode(i))
        return _finished(i, _TF32, result) << 13

    return changed


def _away(bits: int) -> int:
    """To the nearest of ten stored bits, ties away from zero."""
    if F32.is_infinite(bits):
        return bits >> 13
    return (bits + (1 << 12)) >> 13
