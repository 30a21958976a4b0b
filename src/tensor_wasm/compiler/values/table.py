"""Which instructions compute values from values, and what writes each: a row per root and shape of types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tensor_wasm.compiler.values import (
    approximations,
    bits,
    comparisons,
    conversions,
    division,
    fields,
    floats,
    half_conversions,
    halves,
    integers,
    lane_helpers,
    lookup,
    packed,
    rounding,
)
from tensor_wasm.compiler.values.helper import builders
from tensor_wasm.compiler.values.operation import Emitter, Result, Row
from tensor_wasm.ptx.program import ScalarType

if TYPE_CHECKING:
    from tensor_wasm.compiler.library import Builder

_BY_NAME = {kind.ptx_name: kind for kind in ScalarType}


def _types(names: str) -> frozenset[ScalarType]:
    return frozenset(_BY_NAME[name] for name in names.split())


def _row(
    root: str,
    types: str | tuple[str, ...],
    modifiers: str,
    emit: Emitter,
    *,
    sources: int | tuple[int, ...],
    result: Result = Result.TYPE,
) -> Row:
    shapes = (types,) if isinstance(types, str) else types
    counts = (sources,) if isinstance(sources, int) else sources
    return Row(root, tuple(map(_types, shapes)), frozenset(modifiers.split()), counts, result, emit)


_BITS = "b16 b32 b64"
_INTEGERS = "u16 s16 u32 s32 u64 s64"
_SIGNED = "s16 s32 s64"
_WORDS = "u32 s32"
_WIDE_WORDS = "u32 s32 u64 s64"
_REALS = "f32 f64"
_ALL_INTEGERS = "u8 s8 u16 s16 u32 s32 u64 s64"
_ANY = f"{_BITS} {_INTEGERS} {_REALS}"
_ROUNDING = "rn rz rm rp"
_COMPARISON = " ".join(sorted(comparisons.RELATIONS | comparisons.COMBINATIONS))
_HALVES = "lo hi"
_WRAPPING = "clamp wrap"
_HALF_FLOATS = "f16 bf16"
_PACKED_FLOATS = "f16x2 bf16x2"
_SMALL_FLOATS = f"{_HALF_FLOATS} {_PACKED_FLOATS}"

ROWS: Final[tuple[Row, ...]] = (
    # Integer arithmetic
    _row("add", _INTEGERS, "", integers.add, sources=2),
    _row("add", "s32", "sat", integers.add, sources=2),
    _row("sub", _INTEGERS, "", integers.subtract, sources=2),
    _row("sub", "s32", "sat", integers.subtract, sources=2),
    _row("mul", _INTEGERS, _HALVES, integers.multiply, sources=2),
    _row("mul", "u16 s16 u32 s32", "wide", integers.multiply, sources=2, result=Result.WIDE),
    _row("mad", _INTEGERS, _HALVES, integers.multiply_add, sources=3),
    _row("mad", "s32", "hi sat", integers.multiply_add, sources=3),
    _row("mad", "u16 s16 u32 s32", "wide", integers.multiply_add, sources=3, result=Result.WIDE),
    _row("mul24", _WORDS, _HALVES, integers.multiply_24, sources=2),
    _row("mad24", _WORDS, _HALVES, integers.multiply_add_24, sources=3),
    _row("mad24", "s32", "hi sat", integers.multiply_add_24, sources=3),
    _row("sad", _INTEGERS, "", integers.sum_of_difference, sources=3),
    _row("div", _INTEGERS, "", division.quotient, sources=2),
    _row("rem", _INTEGERS, "", division.remainder, sources=2),
    _row("abs", _SIGNED, "", integers.absolute, sources=1),
    _row("neg", _SIGNED, "", integers.negate, sources=1),
    _row("min", _INTEGERS, "", integers.minimum, sources=2),
    _row("min", "s16 s32", "relu", integers.minimum, sources=2),
    _row("max", _INTEGERS, "", integers.maximum, sources=2),
    _row("max", "s16 s32", "relu", integers.maximum, sources=2),
    _row("dp4a", (_WORDS, _WORDS), "", integers.dot_4, sources=3, result=Result.DOT),
    _row("dp2a", (_WORDS, _WORDS), _HALVES, integers.dot_2, sources=3, result=Result.DOT),
    # Bits
    _row("and", f"pred {_BITS}", "", bits.conjunction, sources=2),
    _row("or", f"pred {_BITS}", "", bits.disjunction, sources=2),
    _row("xor", f"pred {_BITS}", "", bits.exclusive, sources=2),
    _row("not", f"pred {_BITS}", "", bits.complement, sources=1),
    _row("cnot", _BITS, "", bits.logical_complement, sources=1),
    _row("shl", _BITS, "", bits.shift_left, sources=2),
    _row("shr", f"{_BITS} {_INTEGERS}", "", bits.shift_right, sources=2),
    _row("shf", "b32", f"l r {_WRAPPING}", bits.funnel, sources=3),
    _row("popc", "b32 b64", "", bits.population, sources=1, result=Result.COUNT),
    _row("clz", "b32 b64", "", bits.leading_zeros, sources=1, result=Result.COUNT),
    _row("bfind", _WIDE_WORDS, "shiftamt", bits.find_leading, sources=1, result=Result.COUNT),
    _row("brev", "b32 b64", "", bits.reverse, sources=1),
    _row("prmt", "b32", " ".join(bits.PERMUTE_MODES), bits.permute, sources=3),
    _row("lop3", "b32", "", lookup.lookup, sources=4),
    _row("lop3", "b32", "and or", lookup.lookup, sources=5, result=Result.TYPE_AND_TRUTH),
    _row("bfe", _WIDE_WORDS, "", fields.extract, sources=3),
    _row("bfi", "b32 b64", "", fields.insert, sources=4),
    _row("bmsk", "b32", _WRAPPING, fields.bit_mask, sources=2),
    _row("szext", _WORDS, _WRAPPING, fields.extend, sources=2),
    _row("fns", "b32", "", fields.find_nth, sources=3),
    # Comparison and selection
    _row("setp", _ANY, f"{_COMPARISON} ftz", comparisons.set_predicate, sources=(2, 3), result=Result.TRUTH),
    _row(
        "set", ("u32 s32 f32", _ANY), f"{_COMPARISON} ftz", comparisons.set_value, sources=(2, 3), result=Result.FIRST
    ),
    _row("selp", _ANY, "", comparisons.choose_by_predicate, sources=3),
    _row("slct", (_ANY, "s32 f32"), "ftz", comparisons.choose_by_sign, sources=3, result=Result.FIRST),
    _row("testp", _REALS, " ".join(comparisons.PROPERTIES), comparisons.test_property, sources=1, result=Result.TRUTH),
    # Floats
    _row("add", "f32", f"{_ROUNDING} ftz sat", floats.add, sources=2),
    _row("add", "f64", _ROUNDING, floats.add, sources=2),
    _row("sub", "f32", f"{_ROUNDING} ftz sat", floats.subtract, sources=2),
    _row("sub", "f64", _ROUNDING, floats.subtract, sources=2),
    _row("mul", "f32", f"{_ROUNDING} ftz sat", floats.multiply, sources=2),
    _row("mul", "f64", _ROUNDING, floats.multiply, sources=2),
    _row("fma", "f32", f"{_ROUNDING} ftz sat", floats.multiply_add, sources=3),
    _row("fma", "f64", _ROUNDING, floats.multiply_add, sources=3),
    _row("mad", "f32", f"{_ROUNDING} ftz sat", floats.multiply_add, sources=3),
    _row("mad", "f64", _ROUNDING, floats.multiply_add, sources=3),
    _row("div", "f32", f"{_ROUNDING} approx full ftz", floats.divide, sources=2),
    _row("div", "f64", _ROUNDING, floats.divide, sources=2),
    _row("rcp", "f32", f"{_ROUNDING} approx ftz", floats.reciprocal, sources=1),
    _row("rcp", "f64", f"{_ROUNDING} approx ftz", floats.reciprocal, sources=1),
    _row("sqrt", "f32", f"{_ROUNDING} approx ftz", floats.square_root, sources=1),
    _row("sqrt", "f64", _ROUNDING, floats.square_root, sources=1),
    _row("rsqrt", _REALS, "approx ftz", floats.reciprocal_root, sources=1),
    _row("neg", _REALS, "ftz", floats.negate, sources=1),
    _row("abs", _REALS, "ftz", floats.magnitude, sources=1),
    _row("copysign", _REALS, "", floats.copy_sign, sources=2),
    _row("min", "f32", "ftz NaN xorsign abs", floats.minimum, sources=(2, 3)),
    _row("min", "f64", "", floats.minimum, sources=2),
    _row("max", "f32", "ftz NaN xorsign abs", floats.maximum, sources=(2, 3)),
    _row("max", "f64", "", floats.maximum, sources=2),
    _row("sin", "f32", "approx ftz", floats.sine, sources=1),
    _row("cos", "f32", "approx ftz", floats.cosine, sources=1),
    _row("lg2", "f32", "approx ftz", floats.logarithm, sources=1),
    _row("ex2", "f32", "approx ftz", floats.exponential, sources=1),
    _row("tanh", "f32", "approx", floats.hyperbolic_tangent, sources=1),
    # Halves
    _row("add", _SMALL_FLOATS, "rn ftz sat", packed.add, sources=2),
    _row("sub", _SMALL_FLOATS, "rn ftz sat", packed.subtract, sources=2),
    _row("mul", _SMALL_FLOATS, "rn ftz sat", packed.multiply, sources=2),
    _row("fma", _SMALL_FLOATS, "rn ftz sat relu", packed.multiply_add, sources=3),
    _row("neg", _SMALL_FLOATS, "ftz", packed.negate, sources=1),
    _row("abs", _SMALL_FLOATS, "ftz", packed.magnitude, sources=1),
    _row("min", _SMALL_FLOATS, "ftz NaN xorsign abs", packed.minimum, sources=2),
    _row("max", _SMALL_FLOATS, "ftz NaN xorsign abs", packed.maximum, sources=2),
    _row("ex2", _SMALL_FLOATS, "approx ftz", packed.exponential, sources=1),
    _row("tanh", _SMALL_FLOATS, "approx", packed.hyperbolic_tangent, sources=1),
    _row("setp", _SMALL_FLOATS, f"{_COMPARISON} ftz", packed.set_predicate, sources=(2, 3), result=Result.TRUTH),
    _row(
        "set",
        (f"{_HALF_FLOATS} u16 s16 u32 s32 f32", _HALF_FLOATS),
        f"{_COMPARISON} ftz",
        packed.set_value,
        sources=(2, 3),
        result=Result.FIRST,
    ),
    *(
        _row(
            "set",
            (f"{kind} u32 s32", kind),
            f"{_COMPARISON} ftz",
            packed.set_value,
            sources=(2, 3),
            result=Result.FIRST,
        )
        for kind in _PACKED_FLOATS.split()
    ),
    # Conversion
    *(
        _row(
            "cvt",
            types,
            " ".join(half_conversions.MODIFIERS),
            half_conversions.convert,
            sources=1,
            result=Result.FIRST,
        )
        for types in (
            (_HALF_FLOATS, f"{_ALL_INTEGERS} {_REALS} {_HALF_FLOATS}"),
            (f"{_ALL_INTEGERS} {_REALS}", _HALF_FLOATS),
        )
    ),
    _row(
        "cvt",
        (_PACKED_FLOATS, "f32"),
        "rn rz relu satfinite",
        half_conversions.convert_pair,
        sources=2,
        result=Result.FIRST,
    ),
    _row(
        "cvt",
        ("tf32", "f32"),
        " ".join(half_conversions.TF32_MODES),
        half_conversions.convert_tf32,
        sources=1,
        result=Result.FIRST,
    ),
    _row(
        "cvt",
        (f"{_ALL_INTEGERS} {_REALS}", f"{_ALL_INTEGERS} {_REALS}"),
        " ".join(conversions.MODIFIERS),
        conversions.convert,
        sources=1,
        result=Result.FIRST,
    ),
)


def _by_root(rows: Iterable[Row]) -> Mapping[str, tuple[Row, ...]]:
    found: dict[str, tuple[Row, ...]] = {}
    for row in rows:
        found[row.root] = (*found.get(row.root, ()), row)
    return MappingProxyType(found)


BY_ROOT: Final = _by_root(ROWS)

#: Helper functions that emitters call, for a :class:`~tensor_wasm.compiler.library.Library`.
BUILDERS: Final[Mapping[str, Builder]] = MappingProxyType(
    builders(
        {
            **approximations.HELPERS,
            **bits.HELPERS,
            **fields.HELPERS,
            **halves.HELPERS,
            **integers.HELPERS,
            **lane_helpers.HELPERS,
            **rounding.HELPERS,
        },
    )
)
