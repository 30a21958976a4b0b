"""Arguments become an export's parameters exactly, or an error says why not."""

from __future__ import annotations

import math
import struct

import pytest

from tensor_wasm.errors import InvalidArguments, TooManyArguments
from tensor_wasm.node import Export
from tensor_wasm.node.arguments import convert


def one(kind: str, value: object) -> int | float:
    (result,) = convert(Export("f", (kind,), ()), [value])
    return result


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("i32", -(2**31), -(2**31)),
        ("i32", 2**31, -(2**31)),
        ("i32", 2**32 - 1, -1),
        ("i64", 2**53 + 1, 2**53 + 1),
        ("i64", 2**64 - 1, -1),
        ("i64", -(2**63), -(2**63)),
        ("i32", 3.0, 3),
        ("f64", 2**53 + 1, float(2**53)),
        ("f64", 0.1, 0.1),
        ("f32", 0.1, struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        ("f32", 3.4028235e38, struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]),
        ("f64", "Infinity", math.inf),
        ("f32", "-Infinity", -math.inf),
    ],
)
def test_values_in_range_are_taken_exactly(kind: str, value: object, expected: float) -> None:
    assert one(kind, value) == expected


def test_nan_is_given_as_a_string() -> None:
    assert math.isnan(one("f32", "NaN"))
    assert math.isnan(one("f64", "NaN"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("i32", 2**32),
        ("i32", -(2**31) - 1),
        ("i64", 2**64),
        ("i64", -(2**63) - 1),
        ("i64", 2.0**53 + 2),
        ("i32", 1.5),
        ("i32", "1"),
        ("i32", "NaN"),
        ("i32", True),
        ("i32", None),
        ("i32", [1]),
        ("f32", 3.5e38),
        ("f32", 10**400),
        ("f64", 10**400),
        ("f64", "1.0"),
        ("f64", "nan"),
        ("f64", False),
        ("f64", {}),
        ("v128", 1),
        ("externref", 1),
    ],
)
def test_what_does_not_fit_is_refused_naming_argument_and_export(kind: str, value: object) -> None:
    with pytest.raises(InvalidArguments, match="f\\("):
        one(kind, value)


def test_a_wrong_count_is_refused() -> None:
    export = Export("add", ("i32", "i32"), ("i32",))
    with pytest.raises(InvalidArguments, match="takes 2 arguments, not 1"):
        convert(export, [1])
    with pytest.raises(TooManyArguments, match="takes 2 arguments, not 3"):
        convert(export, [1, 2, 3])
