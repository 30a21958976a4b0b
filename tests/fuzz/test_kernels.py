"""Random kernels do what the interpreter says; and that this finds what is wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from compiler.launch import Machine
from fuzz import case as cases
from fuzz.arguments import NUMBERS
from fuzz.case import Difference, compare, expected, make
from fuzz.kernels import LIMIT_S, prepare
from fuzz.opcodes import FORMS_DRAWN
from fuzz.reduce import reduced
from fuzz.workers import Plan, report, run
from tensor_wasm.compiler import CompiledKernel, compile_kernel
from tensor_wasm.ptx.program import Instruction, Kernel, Program
from thinning import some

_SEED = 20_261_125
_KERNELS = 48


@pytest.mark.parametrize("batch", some(range(4), 1))
def test_random_kernels_do_what_the_interpreter_does(machine: Machine, batch: int) -> None:
    for number in range(_SEED + batch, _SEED + _KERNELS, 4):
        case = make(number)
        try:
            compare(case, machine)
        except Difference as difference:
            pytest.fail(f"{number}: {difference}\n{case.launch}\n{case.text}")


@pytest.mark.slow
def test_many_more_random_kernels_do_what_the_interpreter_does() -> None:
    seed = random.SystemRandom().randrange(NUMBERS)
    done, findings = run(Plan(prepare, seed, NUMBERS, 25.0, 2, LIMIT_S), print)
    assert not findings, report(findings)
    assert done > 20


def test_a_number_always_makes_the_same_kernel() -> None:
    assert make(_SEED) == make(_SEED)
    assert make(_SEED).text != make(_SEED + 1).text


def test_no_kernel_has_a_race() -> None:
    """The result does not depend on which threads go first."""
    for number in range(_SEED, _SEED + 16):
        case = make(number)
        assert expected(case)[0] == expected(case, backwards=True)[0], number


def test_every_opcode_and_construct_occurs() -> None:
    text = "\n".join(make(_SEED + number).text for number in range(300))
    roots = set(re.findall(r"(?m)^ +(?:@!?%p\d+ )?(\w+)", text))
    assert {form.root for form in FORMS_DRAWN} <= roots
    others = "ld st atom red mov bra brx bar barrier shfl vote match redux cvta addc subc madc ret"
    assert set(others.split()) <= roots
    parts = ".extern .shared,.local .align,.const .align,.global .align,.reqntid,red.shared,bar.arrive,brx.idx"
    assert [part for part in parts.split(",") if part not in text] == []


def _with(change: Callable[[Instruction], Instruction]) -> Callable[[Kernel, Program], CompiledKernel]:
    """A compiler that takes some instructions for others."""

    def wrong(kernel: Kernel, program: Program, *, width: int | None = None) -> CompiledKernel:
        blocks = tuple(replace(b, instructions=tuple(map(change, b.instructions))) for b in kernel.blocks)
        other = Kernel(
            kernel.name,
            kernel.parameters,
            kernel.parameter_bytes,
            kernel.registers,
            kernel.variables,
            blocks,
            kernel.line,
        )
        return compile_kernel(other, replace(program, kernels=(other,)), width=width)

    return wrong


def _subtracts(i: Instruction) -> Instruction:
    return replace(i, root="add") if i.root == "sub" and "cc" not in i.modifiers and i.type.bits == 32 else i


def _forgets_guards(i: Instruction) -> Instruction:
    return replace(i, guard=None) if i.root == "mov" else i


@pytest.mark.slow
@pytest.mark.parametrize("change", [_subtracts, _forgets_guards])
def test_a_wrong_translation_is_found_and_made_small(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, change: Callable[[Instruction], Instruction]
) -> None:
    monkeypatch.setattr(cases, "compile_kernel", _with(change))
    for number in range(_SEED, _SEED + 40):
        case = make(number)
        try:
            compare(case, machine)
        except Difference:
            break
    else:
        pytest.fail("nothing was found")
    small = reduced(case, machine, seconds=60)
    assert len(small.text.splitlines()) < min(30, len(case.text.splitlines()))
    with pytest.raises(Difference, match=r"is 0x|stopped"):
        compare(small, machine)
    monkeypatch.undo()
    compare(small, machine)
