"""Numbers, constant expressions, and their bits in a type."""

from __future__ import annotations

import struct

import pytest

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.constants import bits_in, constant, integer
from tensor_wasm.ptx.lexer import Lexer
from tensor_wasm.ptx.program import ScalarType
from tensor_wasm.ptx.syntax import Notation


def read(text: str) -> int:
    lexer = Lexer(text)
    value = integer(lexer)
    assert not lexer.current, "the expression was not read to its end"
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("42U", 42),
        ("0x1F", 31),
        ("0b1010", 10),
        ("017", 15),
        ("-5", -5),
        ("--5", 5),
        ("~0", -1),
        ("~0U", 2**64 - 1),
        ("!3", 0),
        ("!0", 1),
        ("9223372036854775808", 2**63),
        ("-9223372036854775808", 2**63),
        ("18446744073709551615", 2**64 - 1),
        ("9223372036854775807+1", -(2**63)),
        ("2+3*4-1", 13),
        ("(2+3)*4", 20),
        ("10-2-3", 5),
        ("-7/2", -3),
        ("-7 % 2", -1),
        ("7%-2", 1),
        ("1<<4|3", 19),
        ("-16>>2", -4),
        ("-1>>100", -1),
        ("1<<64", 0),
        ("0xFFFFFFFFFFFFFFFF>>60", 15),
        ("1<2", 1),
        ("-1<0U", 0),
        ("-1<0", 1),
        ("3==3&&2!=2", 0),
        ("0||5", 1),
        ("6&3^1", 3),
        ("1?10:20", 10),
        ("0?10:1?30:40", 30),
        ("(.u64)-1>>63", 1),
        ("(.s64)0xFFFFFFFFFFFFFFFF", -1),
        ("WARP_SZ*2", 64),
        ("+3", 3),
    ],
)
def test_integer_expressions(text: str, value: int) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("18446744073709551616", 1, "does not fit in 64 bits"),
        ("089", 1, "'089' is not a number"),
        ("1/0", 2, "division by zero"),
        ("1%(2-2)", 2, "division by zero"),
        ("1.5", 1, "expected an integer"),
        ("foo", 1, "a number, not a name"),
        ("(1", 3, "expected ')'"),
        ("1?2", 4, "expected ':'"),
        ("(" * 40 + "1", 34, "nested too deeply"),
        ("-" * 40 + "1", 34, "nested too deeply"),
        ("1" + "+1" * 300, 512, "too long"),
        ("9" * 100, 1, "too long"),
    ],
)
def test_bad_expressions_are_refused_where_they_go_wrong(text: str, column: int, part: str) -> None:
    with pytest.raises(PtxError) as caught:
        read(text)
    assert part in caught.value.text
    assert (caught.value.line, caught.value.column) == (1, column)


@pytest.mark.parametrize(
    ("text", "kind", "bits"),
    [
        ("-1", ScalarType.U32, 0xFFFFFFFF),
        ("-1", ScalarType.S64, 2**64 - 1),
        ("-1", ScalarType.B8, 0xFF),
        ("0x1FFFFFFFF", ScalarType.B32, 0xFFFFFFFF),
        ("65536", ScalarType.U16, 0),
        ("-1", ScalarType.PRED, 1),
        ("2", ScalarType.PRED, 1),
        ("0", ScalarType.PRED, 0),
        ("-1", ScalarType.B128, 2**128 - 1),
        ("0f3F800000", ScalarType.F32, 0x3F800000),
        ("0fFFC00001", ScalarType.B32, 0xFFC00001),
        ("-0f3F800000", ScalarType.F32, 0xBF800000),
        ("0d3FF0000000000000", ScalarType.F64, 0x3FF0000000000000),
        ("0d7FF8000000000123", ScalarType.B64, 0x7FF8000000000123),
        ("0d3FF0000000000000", ScalarType.F32, 0x3F800000),
        ("0f3F800000", ScalarType.F64, 0x3FF0000000000000),
        ("1.5", ScalarType.F32, 0x3FC00000),
        ("-1.5", ScalarType.F64, 0xBFF8000000000000),
        ("0.1", ScalarType.F32, int.from_bytes(struct.pack("<f", 0.1), "little")),
        ("1e300", ScalarType.F32, 0x7F800000),
        ("-1e300", ScalarType.F32, 0xFF800000),
        ("1e999", ScalarType.F64, 0x7FF0000000000000),
        ("1.0", ScalarType.F16, 0x3C00),
        ("-70000.0", ScalarType.F16, 0xFC00),
    ],
)
def test_bits_of_a_constant_in_a_type(text: str, kind: ScalarType, bits: int) -> None:
    assert bits_in(constant(Lexer(text)), kind) == bits


@pytest.mark.parametrize(
    ("text", "kind"),
    [("1", ScalarType.F32), ("1", ScalarType.F64), ("1.0", ScalarType.S32), ("0f00000000", ScalarType.U32)],
)
def test_a_notation_that_does_not_fit_has_no_bits(text: str, kind: ScalarType) -> None:
    assert bits_in(constant(Lexer(text)), kind) is None


def test_the_notation_is_kept() -> None:
    assert constant(Lexer("0F3f800000")).notation is Notation.F32
    assert constant(Lexer("0D3ff0000000000000")).notation is Notation.F64
    assert constant(Lexer("1.")).notation is Notation.F64
    assert constant(Lexer("0x10")).notation is Notation.INTEGER
