"""Basic blocks: where they start and end."""

from __future__ import annotations

from ptx.spelling import module
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Branch, Exit, Jump, Kernel, Register, Switch, Trap


def kernel(body: str) -> Kernel:
    return read(module(f".reg .pred p; .reg .b32 x;\n{body}")).kernels[0]


def counts(found: Kernel) -> list[int]:
    return [len(block.instructions) for block in found.blocks]


def test_an_empty_kernel_is_one_block_that_ends() -> None:
    found = kernel("")
    assert [block.terminator for block in found.blocks] == [Exit()]
    assert found.blocks[0].line == found.line == 4


def test_a_body_without_ret_ends_at_its_end() -> None:
    assert [type(block.terminator) for block in kernel("mov.b32 x, 1;").blocks] == [Exit]


def test_a_branch_goes_on_behind_it_when_its_guard_does_not_hold() -> None:
    found = kernel("@!p bra.uni L; mov.b32 x, 1; L: mov.b32 x, 2; ret;")
    branch = found.blocks[0].terminator
    assert isinstance(branch, Branch)
    assert (branch.taken, branch.otherwise, branch.is_uniform, branch.guard.negated) == (2, 1, True, True)
    assert found.blocks[1].terminator == Jump(2)
    assert counts(found) == [0, 1, 1]


def test_labels_that_nothing_goes_to_cut_nothing() -> None:
    found = kernel("a: mov.b32 x, 1; b: mov.b32 x, 2; c: d: mov.b32 x, 3; ret; e:")
    assert counts(found) == [3]


def test_several_labels_at_one_place_are_one_block() -> None:
    found = kernel("mov.b32 x, 0; a: b: mov.b32 x, 1; @p bra a; @p bra b; ret;")
    first, second = found.blocks[1].terminator, found.blocks[2].terminator
    assert isinstance(first, Branch)
    assert isinstance(second, Branch)
    assert first.taken == second.taken == 1


def test_a_loop_may_start_at_the_entry() -> None:
    found = kernel("again: @p bra again;")
    assert [type(block.terminator) for block in found.blocks] == [Branch, Exit]
    assert found.blocks[0].terminator == Branch(found.blocks[0].terminator.guard, 0, 1)  # type: ignore[union-attr]


def test_guarded_ends_become_branches() -> None:
    found = kernel("@p ret; @p exit; @p trap; mov.b32 x, 1; ret;")
    ends = [block.terminator for block in found.blocks]
    taken = [ends[end.taken] for end in ends if isinstance(end, Branch)]
    assert taken == [Exit(), Exit(), Trap(7)]
    assert counts(found)[3] == 1


def test_breakpoints_end_as_traps_do() -> None:
    assert kernel("brkpt;").blocks[0].terminator == Trap(7)
    assert kernel("\ntrap;").blocks[0].terminator == Trap(8)


def test_code_that_nothing_reaches_is_left_out() -> None:
    found = kernel("bra L; mov.b32 x, 1; M: mov.b32 x, 2; bra M; L: ret; mov.b32 x, 3;")
    assert counts(found) == [0, 0]
    assert [block.index for block in found.blocks] == [0, 1]


def test_a_branch_table_is_a_switch() -> None:
    found = kernel("ts: .branchtargets A, B, A; brx.idx x, ts; A: mov.b32 x, 1; ret; B: ret;")
    switch = found.blocks[0].terminator
    assert isinstance(switch, Switch)
    assert switch.targets == (1, 2, 1)
    assert isinstance(switch.selector, Register)
    assert switch.selector.name == "x"


def test_a_guarded_branch_table_goes_on_behind_it() -> None:
    found = kernel("ts: .branchtargets A; @p brx.idx x, ts; mov.b32 x, 1; A: ret;")
    branch = found.blocks[0].terminator
    assert isinstance(branch, Branch)
    assert isinstance(found.blocks[branch.taken].terminator, Switch)
    assert len(found.blocks[branch.otherwise].instructions) == 1


def test_blocks_know_their_lines() -> None:
    found = kernel("@p bra L;\n\nmov.b32 x, 1;\nL:\nmov.b32 x, 2;\nret;")
    assert [block.line for block in found.blocks] == [7, 9, 11]


def test_instructions_without_effect_on_anything_are_dropped() -> None:
    assert counts(kernel("pmevent 3; mov.b32 x, 1; ret;")) == [1]
