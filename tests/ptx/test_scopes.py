"""Names: scopes, ranges of registers, and declarations that clash."""

from __future__ import annotations

import time

import pytest

from ptx.spelling import module
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Jump, Kernel, Register


def kernel(body: str) -> Kernel:
    return read(module(body)).kernels[0]


def written(found: Kernel) -> list[Register]:
    return [
        register
        for block in found.blocks
        for instruction in block.instructions
        for register in instruction.destinations
        if register is not None
    ]


def test_registers_of_a_range_exist_once_they_are_named() -> None:
    start = time.perf_counter()
    found = kernel(".reg .b32 %r<1000000000>; mov.b32 %r999999999, 0; mov.b32 %r0, 1; mov.b32 %r0, 2;")
    assert time.perf_counter() - start < 1
    assert [(each.name, each.index) for each in found.registers] == [("%r999999999", 0), ("%r0", 1)]


@pytest.mark.parametrize("name", ["%r5", "%r10", "%r05", "%r", "%r-1", "%rx"])
def test_registers_beyond_a_range_are_not_declared(name: str) -> None:
    with pytest.raises(PtxError):
        kernel(f".reg .b32 %r<5>; mov.b32 {name}, 0;")


def test_a_number_is_split_wherever_a_range_fits() -> None:
    first, second = written(kernel(".reg .b32 %r<3>; .reg .b64 %r1<20>; mov.b32 %r2, 0; mov.b64 %r12, 0;"))
    assert (first.type.bits, second.type.bits) == (32, 64)


def test_a_register_of_two_ranges_is_refused() -> None:
    with pytest.raises(PtxError, match="'%r12' is of two declarations"):
        kernel(".reg .b32 %r<20>; .reg .b64 %r1<20>; mov.b32 %r12, 0;")


def test_an_inner_scope_hides_and_ends() -> None:
    first, second, third = written(kernel(".reg .b32 x; mov.b32 x, 0; { .reg .b64 x; mov.b64 x, 0; } mov.b32 x, 1;"))
    assert first is third
    assert second is not first
    assert second.name == first.name
    with pytest.raises(PtxError, match="'y' is not declared"):
        kernel("{ .reg .b32 y; } mov.b32 y, 0;")


def test_an_inner_scope_sees_the_outer_one() -> None:
    first, second = written(kernel(".reg .b32 %r<2>; mov.b32 %r1, 0; {{ mov.b32 %r1, 1; }}"))
    assert first is second


def test_labels_belong_to_their_scope() -> None:
    found = kernel(
        """.reg .pred p;
        { again: @p bra again; bra done; done: }
        { again: @p bra again; bra done; done: }
        bra done; trap; done: ret;"""
    )
    targets = [block.terminator.target for block in found.blocks if isinstance(block.terminator, Jump)]
    assert len(targets) == len(set(targets)) == 3


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (".reg .b32 x; .reg .b64 x;", "'x' is declared twice"),
        (".reg .b32 %r<5>; .reg .b64 %r<6>;", "'%r<6>' is declared twice"),
        (".reg .b32 x; .local .b32 x;", "'x' is declared twice"),
        ("L: L: ret;", "'L' is declared twice"),
        ("L: L: .branchtargets L; ret;", "'L' is declared twice"),
        ("bra nowhere;", "there is no label 'nowhere' here"),
        ("bra inner; { inner: ret; }", "there is no label 'inner' here"),
        ("{ bra outer; } { outer: ret; }", "there is no label 'outer' here"),
        (".reg .b32 x; brx.idx x, L; L: ret;", "'L' is no .branchtargets list"),
        (".reg .b32 x; ts: .branchtargets L, M; brx.idx x, ts; L: ret;", "there is no label 'M' here"),
        (".reg .v4 .f32 x;", "vector registers are not supported"),
        (".reg .b32 %r<99999999999>;", "too many"),
        (".reg .b32 %r<-1>;", "expected a number of registers"),
        (".reg b32 x;", "expected a type"),
        (".reg .b32 x y;", "expected ';'"),
    ],
)
def test_clashing_and_missing_names_are_refused(body: str, part: str) -> None:
    with pytest.raises(PtxError) as caught:
        kernel(body)
    assert part in caught.value.text
    assert caught.value.line == 6


def test_parameters_and_kernels_are_declared_once() -> None:
    with pytest.raises(PtxError, match="'a' is declared twice"):
        read(module("ret;", parameters=".param .b32 a, .param .b64 a"))
    with pytest.raises(PtxError, match="'k' is declared twice"):
        read(module("ret;", before=".entry k() { ret; } "))
