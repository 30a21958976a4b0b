"""What each instruction that computes values from values does, as a function of bit patterns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compiler.values.oracle import Format
from fuzz import float_meaning, integer_meaning
from fuzz.float_meaning import FORMATS, relation
from tensor_wasm.ptx.program import Instruction, ScalarType

S = ScalarType
Function = Callable[..., object]

_COMBINATIONS: Mapping[str, Callable[[bool, bool], bool]] = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
}
_PAIRS = (S.F16X2, S.BF16X2)


def meaning(i: Instruction) -> Function:
    """The function of the sources' patterns: the destination's pattern, or a tuple where there are several.

    Raises :class:`NotImplementedError` for what is no such instruction.
    """
    special = _SPECIAL.get(i.root)
    if special is not None:
        return special(i)
    if i.type in FORMATS:
        return float_meaning.meaning(i)
    builder = integer_meaning.BUILDERS.get(i.root)
    if builder is None:
        raise NotImplementedError(i.text)
    return builder(i)


def _combination(i: Instruction) -> Callable[[bool, bool], bool] | None:
    return next((_COMBINATIONS[word] for word in i.modifiers[1:] if word in _COMBINATIONS), None)


def _setp(i: Instruction) -> Function:
    holds, combine = relation(i, i.type), _combination(i)
    if i.type in _PAIRS:

        def halves(a: int, b: int, c: int = 0) -> tuple[int, int]:
            low, high = holds(a & 0xFFFF, b & 0xFFFF), holds(a >> 16, b >> 16)
            return (int(combine(low, c == 1)), int(combine(high, c == 1))) if combine else (int(low), int(high))

        return halves
    if len(i.destinations) == 1:
        if combine is None:
            return lambda a, b: int(holds(a, b))
        return lambda a, b, c: int(combine(holds(a, b), c == 1))

    def both(a: int, b: int, c: int = 0) -> tuple[int, int]:
        truth = holds(a, b)
        return (int(combine(truth, c == 1)), int(combine(not truth, c == 1))) if combine else (int(truth), 1 - truth)

    return both


def _set(i: Instruction) -> Function:
    holds, combine = relation(i, i.type), _combination(i)
    to = i.types[0]
    form: Format | None = FORMATS.get(to)
    yes = 0xFFFF if i.type in _PAIRS or (form is None and to.bits == 16) else 0xFFFF_FFFF
    if form is not None:
        yes = (2 * form.exponent_max + 1) // 2 << form.precision - 1  # one

    def value(a: int, b: int, c: int = 0) -> int:
        truth = holds(a, b)
        return yes if (combine(truth, c == 1) if combine else truth) else 0

    if i.type in _PAIRS:
        return lambda a, b, *c: value(a >> 16, b >> 16, *c) << 16 | value(a & 0xFFFF, b & 0xFFFF, *c)
    return value


def _slct(i: Instruction) -> Function:
    form = FORMATS.get(i.type)
    if form is None:
        return lambda a, b, c: b if c >> 31 else a
    flush = form.flush if "ftz" in i.modifiers else (lambda c: c)

    def choose(a: int, b: int, c: int) -> int:
        c = flush(c)
        return b if form.is_nan(c) or (form.is_negative(c) and not form.is_zero(c)) else a

    return choose


_SPECIAL: Mapping[str, Callable[[Instruction], Function]] = {
    "setp": _setp,
    "set": _set,
    "selp": integer_meaning.BUILDERS["selp"],
    "slct": _slct,
    "testp": float_meaning.test_property,
    "cvt": float_meaning.convert,
    **dict.fromkeys(("sin", "cos", "lg2", "ex2", "tanh", "rsqrt"), float_meaning.approximation),
}
