"""Opcodes to draw from: every form of the front end's table that computes values from values with a defined result."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tensor_wasm.ptx.forms import Category, Form
from tensor_wasm.ptx.opcodes import TABLE
from tensor_wasm.ptx.plans import Expected, plan

#: Results within an error bound, or that a generator has to make otherwise.
_LEFT_OUT = ("sin", "cos", "lg2", "ex2", "tanh", "rsqrt", "mov", "cvta", "isspacep", "istypep")
_WEIGHTS = {
    Category.INTEGER: 30,
    Category.FLOAT: 18,
    Category.HALF: 10,
    Category.COMPARISON: 16,
    Category.LOGIC: 14,
    Category.CONVERSION: 10,
}
#: What index arithmetic is made of.
_COMMON = ("add", "sub", "mul", "mad", "shl", "and", "min", "max", "selp", "setp")


@dataclass(frozen=True, slots=True)
class Drawn:
    """An opcode as it is written, and what its operands must be."""

    text: str
    root: str
    operands: tuple[Expected, ...]


def _forms() -> list[Form]:
    rows = (row for row in TABLE if row.is_lowered and row.category in _WEIGHTS)
    return [row for row in rows if row.root not in _LEFT_OUT]


#: The rows that are drawn from.
FORMS_DRAWN = _forms()
_BY_CATEGORY = {category: [row for row in FORMS_DRAWN if row.category is category] for category in _WEIGHTS}
_COMMON_FORMS = [row for row in FORMS_DRAWN if row.root in _COMMON and row.category is not Category.HALF]
_CATEGORIES = list(_WEIGHTS)
_CATEGORY_WEIGHTS = list(_WEIGHTS.values())


@cache
def _ordered(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def draw(source: random.Random) -> Drawn:
    """Any opcode; half of them are of the common sort."""
    while True:
        if source.random() < 0.4:
            form = source.choice(_COMMON_FORMS)
        else:
            (category,) = source.choices(_CATEGORIES, _CATEGORY_WEIGHTS)
            form = source.choice(_BY_CATEGORY[category])
        slots = [slot for slot in form.parts if not slot.is_optional or source.random() < 0.3]
        parts = [form.root, *(source.choice(_ordered(slot.names)) for slot in slots)]
        if _is_defined(parts):
            return drawn(".".join(parts))


def _is_defined(parts: Sequence[str]) -> bool:
    """Whether the result has one value: approximations only where the nearest number is the obvious one."""
    if "approx" in parts:
        return parts[0] in ("rcp", "sqrt") and parts[-1] == "f32"
    # What .ftz does to a conversion without an f32 is not said.
    return parts[0] != "cvt" or "ftz" not in parts or "f32" in parts


def draw_approximation(source: random.Random) -> str:
    """An opcode on ``f32`` whose result has an error."""
    root = source.choice(("sin", "cos", "lg2", "ex2", "tanh", "rsqrt", "div"))
    return f"{root}.approx{source.choice(('', '.ftz')) if root != 'tanh' else ''}.f32"


@cache
def drawn(text: str) -> Drawn:
    """An opcode with its operands, all of them."""
    found = plan(text)
    return Drawn(text, found.opcode.form.root, found.by_count[max(found.by_count)])
