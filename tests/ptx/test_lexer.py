"""Tokens and their places."""

from __future__ import annotations

import contextlib
import time

import pytest

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.lexer import Lexer, decode, is_number, is_word, quote


def tokens(text: str) -> list[str]:
    lexer = Lexer(text)
    found = []
    while lexer.current:
        found.append(lexer.current)
        lexer.advance()
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add.rn.f32 %f1, %f2;", ["add.rn.f32", "%f1", ",", "%f2", ";"]),
        ("ld.global.L2::128B.f32", ["ld.global.L2::128B.f32"]),
        (".reg .b32 %r<5>;", [".reg", ".b32", "%r", "<", "5", ">", ";"]),
        (".reg.b32", [".reg", ".b32"]),
        ("@!%p1 bra $L_1;", ["@", "!", "%p1", "bra", "$L_1", ";"]),
        ("[%rd1+-8]", ["[", "%rd1", "+", "-", "8", "]"]),
        ("%r1|%p1", ["%r1", "|", "%p1"]),
        ("$L: ret", ["$L", ":", "ret"]),
        ("{fma.rn.f16 %rs2,%rs1;\n}", ["{", "fma.rn.f16", "%rs2", ",", "%rs1", ";", "}"]),
        (
            "0f3F800000 0d3FF0000000000000 0x1fU 0b101 017 42U",
            ["0f3F800000", "0d3FF0000000000000", "0x1fU", "0b101", "017", "42U"],
        ),
        ("1.5 2. .5 1e10 1.5e-3 9.5", ["1.5", "2.", ".5", "1e10", "1.5e-3", "9.5"]),
        ("1<<2>>3<=4", ["1", "<<", "2", ">>", "3", "<=", "4"]),
        ('.file 1 "a b.cu"', [".file", "1", '"a b.cu"']),
        ("a// b\nc/* d * / ; */e/**/f/***/g", ["a", "c", "e", "f", "g"]),
        ("a\r\n\tb\fc", ["a", "b", "c"]),
        ("@@DWARF .section x\nret", ["ret"]),
        ("", []),
        ("  // only a comment", []),
    ],
)
def test_text_falls_apart_into_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_kinds_show_in_the_first_character() -> None:
    assert is_word("%r1")
    assert is_word("_x")
    assert is_word("add.u32")
    assert not is_word(".u32")
    assert not is_word("")
    assert is_number("12")
    assert is_number(".5")
    assert not is_number(".u32")
    assert not is_number("")


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("ret;\n  #", 2, 3, "'#' is not PTX"),
        ("a\n b /* never", 2, 4, "never closed"),
        ('.file 1 "x\n"', 1, 9, "not closed on its line"),
        ("12abc", 1, 1, "'12abc' is not PTX"),
        ("0f3F80", 1, 1, "'0f3F80' is not PTX"),
        ("\n\n\\", 3, 1, "is not PTX"),
        ("ret\0;", 1, 4, "'\\x00' is not PTX"),
        ("caf\u00e9", 1, 4, "'\\xe9' is not PTX"),
    ],
)
def test_what_is_no_token_is_refused_where_it_stands(text: str, line: int, column: int, part: str) -> None:
    with pytest.raises(PtxError) as caught:
        tokens(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert part in caught.value.text


def test_places_count_lines_and_columns_from_one() -> None:
    lexer = Lexer("a\n  b c\r\n\n/* \n */ d")
    places = {}
    while lexer.current:
        places[lexer.current] = lexer.place()
        lexer.advance()
    assert places == {"a": (1, 1), "b": (2, 3), "c": (2, 5), "d": (5, 5)}


def test_skipped_braces_hide_braces_in_strings_and_comments() -> None:
    lexer = Lexer('{ .b8 1 "}" // }\n /* } */ / \n} ret')
    lexer.skip_braced()
    assert lexer.current == "ret"


def test_skipped_braces_must_end() -> None:
    lexer = Lexer("\n { .b8 1")
    with pytest.raises(PtxError, match=r"2:2: this \{ is never closed"):
        lexer.skip_braced()


def test_a_run_of_integers_ends_before_what_is_none() -> None:
    lexer = Lexer("1, -2,\n0x1F , 0, 4+1, 5}")
    found = lexer.integers()
    assert found is not None
    assert found.values == [1, -2, 31, 0]
    assert lexer.current == "4"
    assert lexer.integers() is None


def test_quotes_are_short_printable_and_on_one_line() -> None:
    assert quote("add") == "'add'"
    assert quote("a\n\0\x7f") == "'a\\x0a\\x00\\x7f'"
    assert quote("\u2028\ud800") == "'\\u2028\\ud800'"
    assert quote("x" * 100) == "'" + "x" * 37 + "...'"


def test_a_nul_at_the_end_is_taken_off() -> None:
    assert decode(b"ret\0") == "ret"
    assert decode("ret\0\0") == "ret"


def test_bytes_that_are_not_utf8_are_refused_with_their_place() -> None:
    with pytest.raises(PtxError, match="byte 0xFF is not UTF-8") as caught:
        decode("ab\ncd\u00e9".encode() + b"\xff")
    assert (caught.value.line, caught.value.column) == (2, 4)


@pytest.mark.parametrize(
    "text",
    [" " * 500_000, "/*" * 250_000, "/" * 500_000, '"' * 500_000, "0" * 500_000, "a.b" * 170_000, "1e" * 250_000],
)
def test_time_is_linear_in_the_text(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(PtxError):
        tokens(text)
    assert time.process_time() - start < 2
