"""Which instructions are warp operations, and what their plans say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from compiler.warp.harness import instruction
from tensor_wasm.compiler import warp
from tensor_wasm.compiler.warp import IN_WORDS, OUT_WORDS, RESOLVERS, Operand, Plan
from tensor_wasm.compiler.warp.mma import PRODUCTS
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Immediate, ScalarType

B32, B64, S32, F32, F64 = ScalarType.B32, ScalarType.B64, ScalarType.S32, ScalarType.F32, ScalarType.F64
PRED = ScalarType.PRED
CORPUS = Path(__file__).parents[2] / "corpus"
ROOTS = ("shfl", "vote", "match", "redux", "activemask", "elect", "mma", "ldmatrix", "movmatrix")


def words(*kinds: ScalarType) -> tuple[Operand, ...]:
    return tuple(Operand(position, kind) for position, kind in enumerate(kinds))


R2, R4 = "{%r1, %r2}", "{%r1, %r2, %r3, %r4}"
F4 = "{%f1, %f2, %f3, %f4}"
PLANS = {
    "shfl.sync.down.b32 %r1|%p1, %r2, 3, 31, -1;": Plan("shfl.down", words(B32, B32, B32), 3, (B32, PRED)),
    "shfl.sync.idx.b32 %r1, %r2, %r3, 31, %r4;": Plan("shfl.idx", words(B32, B32, B32), 3, (B32,)),
    "shfl.up.b32 %r1|%p1, %r2, 3, 0;": Plan("shfl.up", words(B32, B32, B32), None, (B32, PRED)),
    "vote.sync.all.pred %p1, !%p2, %r1;": Plan("vote.all", words(PRED), 1, (PRED,)),
    "vote.uni.pred %p1, %p2;": Plan("vote.uni", words(PRED), None, (PRED,)),
    "vote.sync.ballot.b32 %r1, %p1, -1;": Plan("vote.ballot", words(PRED), 1, (B32,)),
    "match.any.sync.b64 %r1, %rd1, -1;": Plan("match.any.b64", words(B64), 1, (B32,)),
    "match.all.sync.b32 %r1|%p1, %r2, -1;": Plan("match.all.b32", words(B32), 1, (B32, PRED)),
    "match.all.sync.b32 %r1, %r2, -1;": Plan("match.all.b32", words(B32), 1, (B32,)),
    "redux.sync.min.s32 %r1, %r2, -1;": Plan("redux.min.s32", words(S32), 1, (S32,)),
    "redux.sync.xor.b32 %r1, %r2, -1;": Plan("redux.xor.b32", words(B32), 1, (B32,)),
    "activemask.b32 %r1;": Plan("activemask", (), None, (B32,), waits=False),
    "elect.sync _|%p1, -1;": Plan("elect", (), 0, (B32, PRED)),
    "bar.warp.sync %r1;": Plan("bar.warp", (), 0),
    f"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {F4}, {R4}, {R2}, {F4};": Plan(
        "mma.m16n8k16.f32.f16.f16.f32", words(*[B32] * 6, *[F32] * 4), None, (F32,) * 4
    ),
    f"mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {R2}, {R4}, {R2}, {R2};": Plan(
        "mma.m16n8k16.f16.f16.f16.f16", words(*[B32] * 8), None, (B32,) * 2
    ),
    f"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {F4}, {R4}, {R2}, {F4};": Plan(
        "mma.m16n8k8.f32.tf32.tf32.f32", words(*[B32] * 6, *[F32] * 4), None, (F32,) * 4
    ),
    f"mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.u8.s32 {R4}, {R4}, {R2}, {R4};": Plan(
        "mma.m16n8k32.satfinite.s32.s8.u8.s32", words(*[B32] * 6, *[S32] * 4), None, (S32,) * 4
    ),
    f"mma.sync.aligned.m16n8k64.row.col.s32.s4.u4.s32 {R4}, {R4}, {R2}, {R4};": Plan(
        "mma.m16n8k64.s32.s4.u4.s32", words(*[B32] * 6, *[S32] * 4), None, (S32,) * 4
    ),
    f"mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc {R2}, {{%r1}}, {{%r2}}, {R2};": Plan(
        "mma.m8n8k128.s32.b1.b1.s32.xor", words(B32, B32, S32, S32), None, (S32,) * 2
    ),
    "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%fd1, %fd2}, {%fd3}, {%fd4}, {%fd5, %fd6};": Plan(
        "mma.m8n8k4.f64.f64.f64.f64", words(*[F64] * 4), None, (F64,) * 2
    ),
    f"ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {R2}, [rows];": Plan("ldmatrix.x2.trans", (), None, (B32,) * 2),
    f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {R4}, [rows];": Plan("ldmatrix.x4", (), None, (B32,) * 4),
    "movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r2;": Plan("movmatrix", words(B32), None, (B32,)),
}

REFUSED = (
    "add.u32 %r1, %r2, %r3;",
    "bar.sync 0;",
    "barrier.sync.aligned 0;",
    "bar.red.popc.u32 %r1, 0, %p1;",
    # Four products of quarter warps, in the layout of Volta.
    f"mma.sync.aligned.m8n8k4.row.col.f16.f16.f16.f16 {R4}, {R2}, {R2}, {R4};",
    # Combinations that the ISA does not have.
    f"mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {F4}, {R4}, {R2}, {F4};",
    f"mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32 {R4}, {R2}, {{%r1}}, {R4};",
    # A wrong number of registers where the text does not say how many there are.
    f"mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {R4}, {R4}, {R4}, {R4};",
)


@pytest.mark.parametrize("statement", PLANS)
def test_plans(statement: str) -> None:
    found = instruction(statement)
    assert warp.handles(found)
    assert warp.plan(found) == PLANS[statement]
    assert warp.plan(found).resolver in RESOLVERS
    assert len(found.destinations) == len(warp.plan(found).results)


@pytest.mark.parametrize("statement", REFUSED)
def test_what_is_no_warp_operation_is_refused_at_its_place(statement: str) -> None:
    found = instruction(statement)
    assert not warp.handles(found)
    with pytest.raises(PtxError, match="is not supported") as caught:
        warp.plan(found)
    assert (caught.value.line, caught.value.column) == (found.line, found.column)
    assert found.line > 0


@pytest.mark.parametrize("statement", PLANS)
def test_a_plan_belongs_to_its_number_of_operands(statement: str) -> None:
    found = instruction(statement)
    assert not warp.handles(dataclasses.replace(found, destinations=(*found.destinations, None, None)))
    assert not warp.handles(dataclasses.replace(found, sources=(*found.sources, Immediate(0, B32))))


def test_every_operation_fits_a_mailbox() -> None:
    for product in PRODUCTS:
        assert 1 + product.a_words + product.b_words + product.c_words <= IN_WORDS
        assert product.d_words <= OUT_WORDS


def test_every_warp_operation_of_the_corpus_has_a_resolver() -> None:
    met = set()
    for path in sorted(CORPUS.glob("*.ptx")):
        for kernel in read(path.read_text()).kernels:
            for found in (found for block in kernel.blocks for found in block.instructions):
                if found.root in ROOTS:
                    assert warp.plan(found).resolver in RESOLVERS
                    met.add(found.root)
                else:
                    assert not warp.handles(found)
    assert met >= {"shfl", "mma", "ldmatrix"}
