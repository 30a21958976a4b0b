"""Variables: sizes, initial values, addresses in them, and declarations that meet."""

from __future__ import annotations

import struct

import pytest

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Variable

HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"


def variable(text: str) -> Variable:
    return read(HEADING + text).variables[-1]


@pytest.mark.parametrize(
    ("text", "size", "initial"),
    [
        (".global .b32 x;", 4, None),
        (".common .global .align 8 .u64 x;", 8, None),
        (".global .b32 x = 5;", 4, b"\5\0\0\0"),
        (".global .b8 x[4] = {1, -1, 0x10, 300};", 4, b"\1\xff\x10\x2c"),
        (".global .b8 x[8] = {1, 2};", 8, b"\1\2"),
        (".global .b8 x[] = {1, 2, 3};", 3, b"\1\2\3"),
        (".global .u16 x[3] = {1, 2+3, -1};", 6, struct.pack("<3H", 1, 5, 0xFFFF)),
        (".global .b16 x[2][2] = {{1, 2}, {3, 4}};", 8, struct.pack("<4H", 1, 2, 3, 4)),
        (".global .b16 x[2][3] = {{1}, {2}};", 12, struct.pack("<4H", 1, 0, 0, 2)),
        (".global .b8 x[][2] = {{1, 2}, {3}};", 4, b"\1\2\3"),
        (".const .f32 x[3] = {0f3F800000, -1.5, 2.};", 12, struct.pack("<3f", 1, -1.5, 2)),
        (".const .f64 x[2] = {0dBFF8000000000000, 0.1};", 16, struct.pack("<2d", -1.5, 0.1)),
        (".global .align 16 .v4 .f32 x;", 16, None),
        (".global .v2 .b32 x[3];", 24, None),
        (".global .b64 x[2] = {9223372036854775808, 18446744073709551615};", 16, struct.pack("<2Q", 2**63, 2**64 - 1)),
        (".global .s32 x[6] = {1, 2, 3, -4, 5, 6,};", 24, struct.pack("<6i", 1, 2, 3, -4, 5, 6)),
        (".global .b8 x[0];", 0, None),
        (".global .attribute(.managed) .align 4 .b8 x[4];", 4, None),
    ],
)
def test_sizes_and_initial_bytes(text: str, size: int, initial: bytes | None) -> None:
    found = variable(text)
    assert found.name == "x"
    assert found.size_bytes == size
    assert found.initial == initial


def test_the_alignment_is_that_of_the_type_or_more() -> None:
    assert variable(".global .b64 x;").alignment == 8
    assert variable(".global .align 2 .b64 x;").alignment == 8
    assert variable(".global .align 32 .b8 x[3];").alignment == 32
    assert variable(".global .v4 .f32 x;").alignment == 16


def test_addresses_as_initial_values() -> None:
    text = ".global .b8 data[16]; .global .u64 x[4] = {data, 7, generic(data)+8, data-4};"
    found = variable(text)
    assert found.initial == struct.pack("<4Q", 0, 7, 0, 0)
    assert [(place, target.name, addend) for place, target, addend in found.pointers] == [
        (0, "data", 0),
        (16, "data", 8),
        (24, "data", -4),
    ]


def test_several_variables_in_one_declaration() -> None:
    found = read(HEADING + ".global .b32 a, b[2] = {1, 2}, c = 3;").variables
    assert [(each.name, each.size_bytes, each.initial) for each in found] == [
        ("a", 4, None),
        ("b", 8, struct.pack("<2I", 1, 2)),
        ("c", 4, struct.pack("<I", 3)),
    ]


def test_a_definition_may_follow_an_extern_declaration() -> None:
    found = read(HEADING + ".extern .global .b32 x; .global .b32 x = 1; .extern .global .b32 x;").variables
    assert [(each.name, each.is_extern, each.initial) for each in found] == [("x", False, b"\1\0\0\0")]


@pytest.mark.parametrize("reference", [".texref", ".samplerref", ".surfref"])
def test_texture_references_are_opaque(reference: str) -> None:
    assert variable(f".global {reference} x;").is_extern


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (".global .b8 x[99999999999];", "too large"),
        (".global .b32 x[100000][100000];", "'x' is too large"),
        (".global .b64 x[268435456];", "'x' is too large"),
        (".global .b8 x[-1];", "too large"),
        (".global .b8 x[1][1][1][1][1][1][1][1][1];", "at most 8 dimensions"),
        (".global .b8 x[2][];", "only the first dimension"),
        (".global .b8 x[];", "'x' needs a size"),
        (".global .b8 x[2] = {1, 2, 3};", "more initial values than elements"),
        (".global .b8 x[2] = {1+0, 2+0, 3+0};", "more initial values than elements"),
        (".global .b8 x[2][2] = {{1, 2, 3}};", "more initial values than elements"),
        (".global .b8 x[2] = {{1}};", "nested deeper than the array"),
        (".global .b32 x = {1, 2};", "more initial values than elements"),
        (".global .b8 x[2] = {1 2};", "expected ',' or '}'"),
        (".global .f32 x = 1;", "'x' needs a float constant"),
        (".global .f32 x[4] = {1, 2, 3};", "'x' needs a float constant"),
        (".global .s32 x = 1.5;", "'x' needs an integer constant"),
        (".global .u64 x = y;", "'y' is not declared"),
        (".global .u64 x = x;", "'x' is not declared"),
        (".global .u32 y; .global .u32 x = y;", "needs a 64-bit integer type"),
        (".global .u8 y; .global .u8 x[8] = {0xFF(y)};", "parts of an address"),
        (".shared .b32 x = 1;", "only .global and .const variables can"),
        (".extern .global .b32 x = 1;", "only .global and .const variables can"),
        (".global .b32 x; .global .b32 x;", "'x' is declared twice"),
        (".func x() { ret; } .global .b32 x;", "'x' is declared twice"),
        (".global .b32 x; .func x() { ret; }", "'x' is declared twice"),
        (".func x() { ret; } .func x() { ret; }", "'x' is declared twice"),
        (".global .align 3 .b32 x;", "power of two"),
        (".global .align 0 .b32 x;", "power of two"),
        (".global .align 131072 .b32 x;", "power of two"),
        (".global .pred x;", "expected a type"),
        (".global x;", "expected a type"),
        (".global .b32 5;", "expected a variable name"),
        (".global .b8 x[100000000][1] = {" + "{}," * 99 + "};", None),
        (".global .b8 x[300][1000000] = {" + "{}," * 100 + "{1}};", "'x' is too large"),
        (".global .b8 x[100][1000000] = {" + "{}," * 90 + "{1}};", "initial values are too large"),
    ],
)
def test_bad_declarations_are_refused(text: str, part: str | None) -> None:
    if part is None:
        assert variable(text).initial == b""
        return
    with pytest.raises(PtxError) as caught:
        read(HEADING + text)
    assert part in caught.value.text
    assert caught.value.line == 4


def test_a_function_may_be_declared_before_it_is_defined() -> None:
    read(HEADING + ".func f(.param .b32 a); .func f(.param .b32 a) { ret; } .extern .func f(.param .b32 a);")
