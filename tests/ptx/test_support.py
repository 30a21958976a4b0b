"""What support lists, with its place and reason."""

from __future__ import annotations

import pytest

from ptx.spelling import DECLARATIONS, module
from tensor_wasm.ptx import find_kernel, read, support
from tensor_wasm.ptx.support import Unsupported

FIRST_LINE = len(DECLARATIONS.splitlines()) + 6


def listed(body: str, before: str = "") -> list[tuple[int, int, str, str]]:
    text = module(f"{DECLARATIONS}\n{body}", before=before)
    return [(each.line - FIRST_LINE + 1, each.column, each.opcode, each.reason) for each in support(read(text))]


def test_nothing_is_listed_for_what_is_lowered() -> None:
    assert listed("add.s32 %s32, %s32, 1; isspacep.shared %pred, %b64; mov.u32 %b32, %dynamic_smem_size;") == []


@pytest.mark.parametrize(
    ("body", "before", "opcode", "part"),
    [
        ("  bar.sync 0;", "", "bar.sync", "barriers"),
        ("  ld.shared.u32 %u32, [%b32];", "", "ld.shared.u32", "shared memory"),
        ("  cvta.to.shared.u64 %b64, %b64;", "", "cvta.shared.to.u64", "shared memory"),
        ("  mov.u32 %u32, tile;", ".shared .b8 tile[4];", "mov.u32", "shared memory"),
        ("  mov.u32 %u32, dyn;", ".extern .shared .b8 dyn[];", "mov.u32", "shared memory"),
        ("  ld.u32 %u32, [tile];", ".shared .b8 tile[4];", "ld.u32", "shared memory"),
        ("  atom.global.add.u32 %u32, [%b64], 1;", "", "atom.global.add.u32", "atomic"),
        ("  add.rn.f16 %b16, %b16, %b16;", "", "add.rn.f16", "16-bit"),
        ("  activemask.b32 %b32;", "", "activemask.b32", "across a warp"),
        ("  call f;", ".extern .func f();", "call", "calls"),
        ("  mov.u64 %b64, f;", ".extern .func f();", "mov.u64", "f is defined in another module"),
        ("  ld.global.b32 %b32, [x];", ".extern .global .b32 x;", "ld.global.b32", "x is defined in another module"),
        ("  mov.u64 %b64, t;", ".func f() {ret;} .global .u64 t[2] = {0, f};", "mov.u64", "f is defined in another"),
        ("  mov.u64 %b64, t;", ".global .texref t;", "mov.u64", "t is defined in another"),
        ("  mov.b128 %b128, {%b64, %b64};", "", "mov.b128", "128-bit"),
        ("  ld.global.b128 %b128, [%b64];", "", "ld.global.b128", "128-bit"),
        ("  cp.async.wait_all;", "", "cp.async.wait_all", "asynchronous"),
        ("  alloca.u64 %u64, %u64;", "", "alloca.u64", "stack"),
    ],
)
def test_what_is_not_lowered_is_listed_once_with_its_place(body: str, before: str, opcode: str, part: str) -> None:
    ((line, column, text, reason),) = listed(body, before)
    assert (line, column, text) == (1, 3, opcode)
    assert part in reason
    assert reason.endswith("in this release")


def test_parameters_of_calls_are_listed() -> None:
    found = listed(".param .b32 a; st.param.b32 [a], 1;\ncall f, (a);", ".extern .func f(.param .b32 x);")
    assert [each[2] for each in found] == ["st.param.b32", "call"]


def test_places_come_in_the_order_of_the_text() -> None:
    body = "bra B;\nA: bar.sync 0;\nret;\nB: bar.sync 1; @%pred bra A;\nactivemask.b32 %b32;"
    assert [each[0] for each in listed(body)] == [2, 4, 5]


def test_code_that_nothing_reaches_is_not_listed() -> None:
    assert listed("ret;\nbar.sync 0;") == []


def test_variables_that_nothing_uses_are_not_listed() -> None:
    assert listed(".shared .b8 mine[4]; ret;", ".shared .b8 tile[4]; .extern .global .b32 x;") == []


def test_a_loop_with_two_entries_is_listed_with_its_line() -> None:
    ((_, column, opcode, reason),) = listed("@%pred bra B;\nA: add.s32 %s32, %s32, 1;\nB: @%pred bra A;")
    assert (column, opcode) == (1, "bra")
    assert "more than one place" in reason


def test_programs_list_kernel_by_kernel() -> None:
    text = module("bar.sync 0;", before=".entry first() { bar.sync 0; } .entry fine() { ret; } ")
    program = read(text)
    reason = "barriers are not supported in this release"
    assert support(program) == (
        Unsupported("first", 4, 18, "bar.sync", reason),
        Unsupported("k", 6, 1, "bar.sync", reason),
    )
    assert support(find_kernel(program, "k")) == support(program)[1:]
    assert support(find_kernel(program, "fine")) == ()
