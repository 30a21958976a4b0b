"""Registers share locals when they are not live together, and only then."""

from __future__ import annotations

import random

import pytest

from compiler.build import Builder, immediate
from fuzz.generator import Generator
from tensor_wasm.compiler import allocation
from tensor_wasm.compiler.allocation import allocate, defined, live_at_start, used, used_at_end
from tensor_wasm.compiler.carriers import carrier
from tensor_wasm.compiler.limits import LOCALS_MAX
from tensor_wasm.compiler.module import compile_kernel
from tensor_wasm.compiler.strips import code
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Exit, Guard, Jump, Kernel, ScalarType

_SEED = 3_003


def _allocated(kernel: Kernel) -> allocation.Allocation:
    graph = Graph(kernel)
    live = live_at_start(kernel, graph.successors, graph.reverse_postorder)
    return allocate(kernel, graph.successors, graph.reverse_postorder, lambda r: carrier(r.type), live=live, kept={})


@pytest.mark.parametrize("number", range(30))
def test_registers_that_are_live_together_never_share(number: int) -> None:
    (kernel,) = read(Generator(random.Random(_SEED + number), 20, 1, (32, 1, 1)).text()).kernels
    graph = Graph(kernel)
    slots = _allocated(kernel).slots
    live = live_at_start(kernel, graph.successors, graph.reverse_postorder)
    assert live is not None
    for block in kernel.blocks:
        successors = graph.successors[block.index]
        after = {r for r in kernel.registers if any(live[successor] >> r.index & 1 for successor in successors)}
        after |= set(used_at_end(block.terminator))
        for instruction in reversed(block.instructions):
            together = after | set(defined(instruction)) | set(used(instruction))
            assert len({slots[register] for register in together}) == len(together), f"seed {_SEED + number}"
            after = (after - set(defined(instruction))) | set(used(instruction))
        assert after == {register for register in kernel.registers if live[block.index] >> register.index & 1}


def _chain(length: int) -> Builder:
    """Each register is made from the one before it and never used again."""
    builder = Builder()
    last = builder.register(ScalarType.B32)
    builder.add("mov", [ScalarType.U32], [last], [immediate(1, ScalarType.U32)])
    for _ in range(length):
        register = builder.register(ScalarType.B32)
        builder.add("add", [ScalarType.U32], [register], [last, last])
        last = register
    return builder


def test_a_long_chain_needs_a_handful_of_locals() -> None:
    builder = _chain(5_000)
    builder.end(Exit())
    assert len(set(_allocated(builder.kernel()[0]).slots.values())) <= 4


def test_a_register_read_before_it_is_written_is_known() -> None:
    builder = Builder()
    first, second = (builder.register(ScalarType.B32) for _ in range(2))
    builder.add("add", [ScalarType.U32], [second], [first, immediate(1, ScalarType.U32)])
    builder.end(Exit())
    assert _allocated(builder.kernel()[0]).undefined == (first,)


def test_a_register_that_a_guard_may_leave_as_it_was_counts_as_read() -> None:
    builder = Builder()
    register, predicate = builder.register(ScalarType.B32), builder.register(ScalarType.PRED)
    builder.add("setp.eq", [ScalarType.U32], [predicate], [immediate(1, ScalarType.U32), immediate(2, ScalarType.U32)])
    guard = Guard(predicate, False)
    builder.add("mov", [ScalarType.U32], [register], [immediate(1, ScalarType.U32)], guard=guard)
    builder.end(Exit())
    assert _allocated(builder.kernel()[0]).undefined == (register,)


def test_a_kernel_too_large_for_liveness_shares_nothing_and_still_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = _chain(50)
    block = builder.block()
    builder.end(Jump(block))
    builder.start(block)
    builder.end(Exit())
    kernel, program = builder.kernel()
    monkeypatch.setattr(allocation, "LIVENESS_BITS_MAX", 10)
    found = _allocated(kernel)
    assert len(set(found.slots.values())) == 51
    assert found.undefined == kernel.registers
    assert compile_kernel(kernel, program).wasm


@pytest.mark.parametrize("most", [5_000, pytest.param(LOCALS_MAX, marks=pytest.mark.slow)])
def test_more_registers_live_at_a_time_than_a_function_has_locals_is_refused(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(code, "LOCALS_MAX", most)
    builder = Builder()
    registers = [builder.register(ScalarType.B32) for _ in range(most)]
    for register in registers:
        builder.add("mov", [ScalarType.U32], [register], [immediate(1, ScalarType.U32)])
    total = builder.register(ScalarType.B32)
    for register in registers:
        builder.add("add", [ScalarType.U32], [total], [total, register])
    builder.end(Exit())
    with pytest.raises(PtxError, match="too large: it keeps"):
        compile_kernel(*builder.kernel())
