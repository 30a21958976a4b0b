"""What ``atom`` and ``red`` leave in memory."""

from __future__ import annotations

from collections.abc import Callable

from compiler.values import oracle
from fuzz.float_meaning import FORMATS
from fuzz.integer_meaning import mask_of, top_of
from tensor_wasm.ptx.program import Instruction, ScalarType

S = ScalarType
_NAMES = ("add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas")


def update(i: Instruction) -> Callable[..., int]:
    """The new pattern of a place, as a function of the old one and the operands."""
    name = next(word for word in i.modifiers if word in _NAMES)
    mask, top = mask_of(i.type), top_of(i.type)
    form = FORMATS.get(i.type)
    if form is not None:
        if i.type in (S.F16X2, S.BF16X2):
            return lambda old, b: (
                oracle.add(form, old >> 16, b >> 16, "rn") << 16 | oracle.add(form, old & 0xFFFF, b & 0xFFFF, "rn")
            )
        return lambda old, b: oracle.add(form, old, b, "rn")
    functions: dict[str, Callable[..., int]] = {
        "add": lambda old, b: (old + b) & mask,
        "min": lambda old, b: old if (old ^ top) < (b ^ top) else b,
        "max": lambda old, b: old if (old ^ top) > (b ^ top) else b,
        "inc": lambda old, b: 0 if old >= b else old + 1,
        "dec": lambda old, b: b if old == 0 or old > b else old - 1,
        "and": lambda old, b: old & b,
        "or": lambda old, b: old | b,
        "xor": lambda old, b: old ^ b,
        "exch": lambda _, b: b,
        "cas": lambda old, b, c: c if old == b else old,
    }
    return functions[name]
