"""What support lists, with its place and reason."""

from __future__ import annotations

import pytest

from ptx.spelling import DECLARATIONS, module
from tensor_wasm.ptx import find_kernel, read, support

FIRST_LINE = len(DECLARATIONS.splitlines()) + 6


def listed(body: str, before: str = "") -> list[tuple[int, int, str, str]]:
    text = module(f"{DECLARATIONS}\n{body}", before=before)
    return [(each.line - FIRST_LINE + 1, each.column, each.opcode, each.reason) for each in support(read(text))]


def test_nothing_is_listed_for_what_is_lowered() -> None:
    assert listed("add.s32 %s32, %s32, 1; isspacep.shared %pred, %b64; mov.u32 %b32, %dynamic_smem_size;") == []


@pytest.mark.parametrize(
    ("body", "before", "opcode", "part"),
    [
        ("  mbarrier.inval.shared.b64 [%b64];", "", "mbarrier.shared.inval.b64", "mbarrier"),
        ("  atom.global.exch.b128 %b128, [%b64], %b128;", "", "atom.global.exch.b128", "128 bits"),
        ("  fma.rn.oob.f16 %b16, %b16, %b16, %b16;", "", "fma.rn.oob.f16", "sm_90"),
        ("  call f;", ".extern .func f();", "call", "f is defined in another module"),
        ("  call f;", ".func f();", "call", "f is defined in another module"),
        ("  call (%b64), malloc, (8);", ".extern .func (.param .b64 r) malloc(.param .b64 n);", "call", "allocate"),
        ("  mov.u64 %b64, o;", ".entry o() { ret; }", "mov.u64", "o is defined in another module"),
        ("  ld.global.b32 %b32, [x];", ".extern .global .b32 x;", "ld.global.b32", "x is defined in another module"),
        ("  mov.u64 %b64, t;", ".entry o() {ret;} .global .u64 t[2] = {0, o};", "mov.u64", "o is defined in another"),
        ("  mov.u64 %b64, t;", ".global .texref t;", "mov.u64", "t is defined in another"),
        ("  mov.b128 %b128, {%b64, %b64};", "", "mov.b128", "128-bit"),
        ("  ld.global.b128 %b128, [%b64];", "", "ld.global.b128", "128-bit"),
        ("  alloca.u64 %u64, %u64;", "", "alloca.u64", "stack"),
    ],
)
def test_what_is_not_lowered_is_listed_once_with_its_place(body: str, before: str, opcode: str, part: str) -> None:
    ((line, column, text, reason),) = listed(body, before)
    assert (line, column, text) == (1, 3, opcode)
    assert part in reason
    assert reason.endswith("in this release")


def test_places_come_in_the_order_of_the_text() -> None:
    body = "bra B;\nA: alloca.u64 %u64, 8;\nret;\nB: alloca.u64 %u64, 9; @%pred bra A;\nalloca.u64 %u64, 10;"
    assert [each[0] for each in listed(body)] == [2, 4, 5]


def test_code_that_nothing_reaches_is_not_listed() -> None:
    assert listed("ret;\nalloca.u64 %u64, 8;") == []


def test_variables_that_nothing_uses_are_not_listed() -> None:
    assert listed(".shared .b8 mine[4]; ret;", ".shared .b8 tile[4]; .extern .global .b32 x;") == []


def test_programs_list_kernel_by_kernel() -> None:
    lack = ".reg .u64 %u; alloca.u64 %u, 8;"
    text = module(lack, before=f".entry first() {{ {lack} }} .entry fine() {{ ret; }} ")
    program = read(text)
    first, second = support(program)
    assert (first.kernel, first.opcode, first.line) == ("first", "alloca.u64", 4)
    assert (second.kernel, second.opcode, second.line) == ("k", "alloca.u64", 6)
    assert first.reason == second.reason
    assert support(find_kernel(program, "k")) == (second,)
    assert support(find_kernel(program, "fine")) == ()
