"""The table of emitters: what it accepts, what it refuses, what types come out."""

from __future__ import annotations

import pytest

from compiler.values.harness import Machine, instruction
from tensor_wasm.compiler import values
from tensor_wasm.compiler.library import Library
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Immediate, ScalarType
from tensor_wasm.wasm import Body, Module

S = ScalarType


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("vote.sync.any.pred", 2),
        ("add.cc.u32", 2),
        ("add.rm.f16", 2),
        ("add.u8", 2),
        ("add.sat.u32", 2),
        ("add.s32", 3),
        ("mul.wide.u64", 2),
        ("min.NaN.f64", 2),
        ("popc.u32", 1),
        ("cvt.rn.satfinite.e4m3x2.f32", 2),
        ("cvt.f32", 1),
        ("tanh.approx.ftz.f32", 1),
        ("fma.rn.f32", 2),
    ],
)
def test_what_no_row_describes_is_refused_with_its_place(text: str, sources: int) -> None:
    form = instruction(text, [S.B32] * sources)
    assert not values.handles(form)
    for use in (
        lambda: values.result_types(form),
        lambda: values.emit(Body([], []), form, lambda _position, _kind: None, Library(Module())),
    ):
        with pytest.raises(PtxError, match=text.split(".", maxsplit=1)[0]) as caught:
            use()
        assert (caught.value.line, caught.value.column) == (1, 1)


@pytest.mark.parametrize(
    ("text", "sources", "destinations", "expected"),
    [
        ("add.s16", 2, 1, [S.S16]),
        ("mul.wide.u16", 2, 1, [S.U32]),
        ("mad.wide.s32", 3, 1, [S.S64]),
        ("popc.b64", 1, 1, [S.U32]),
        ("clz.b64", 1, 1, [S.U32]),
        ("bfind.s64", 1, 1, [S.U32]),
        ("setp.lt.f32", 2, 1, [S.PRED]),
        ("setp.lt.f32", 2, 2, [S.PRED, S.PRED]),
        ("set.lt.f32.s32", 2, 1, [S.F32]),
        ("slct.f64.s32", 3, 1, [S.F64]),
        ("testp.normal.f64", 1, 1, [S.PRED]),
        ("cvt.rzi.s8.f32", 1, 1, [S.S8]),
        ("dp4a.u32.u32", 3, 1, [S.U32]),
        ("dp2a.lo.u32.s32", 3, 1, [S.S32]),
        ("lop3.or.b32", 5, 2, [S.B32, S.PRED]),
        ("not.pred", 1, 1, [S.PRED]),
        ("add.bf16x2", 2, 1, [S.BF16X2]),
        ("setp.lt.f16x2", 2, 2, [S.PRED, S.PRED]),
        ("set.lt.u32.f16x2", 2, 1, [S.U32]),
        ("cvt.rn.f16x2.f32", 2, 1, [S.F16X2]),
        ("cvt.rna.tf32.f32", 1, 1, [S.TF32]),
        ("cvt.f64.bf16", 1, 1, [S.F64]),
    ],
)
def test_result_types(text: str, sources: int, destinations: int, expected: list[ScalarType]) -> None:
    form = instruction(text, [S.B32] * sources, destinations=destinations)
    assert values.handles(form)
    assert list(values.result_types(form)) == expected


def test_a_truth_table_must_be_a_small_constant(machine: Machine) -> None:
    for last in (S.B32, Immediate(256, S.B32)):
        form = instruction("lop3.b32", [S.B32, S.B32, S.B32, last])
        with pytest.raises(PtxError, match="0 to 255"):
            machine.run(form, [(0, 0, 0, 0)])


def test_a_comparison_must_be_named_and_fit_the_type(machine: Machine) -> None:
    for text in ("setp.s32", "setp.ltu.s32", "setp.num.u64"):
        with pytest.raises(PtxError, match="compar"):
            machine.run(instruction(text, [S.S32] * 2), [(0, 0)])


def test_locals_are_given_back() -> None:
    """A long kernel does not run out of locals: emitting again reuses them."""
    body, library = Body([], []), Library(Module())

    def push(_position: int, _kind: ScalarType) -> None:
        body.f32_const(1.0)

    form = instruction("fma.rn.ftz.sat.f32", [S.F32] * 3)
    values.emit(body, form, push, library)
    first, _ = body.finish()
    for _ in range(50):
        body.op("drop")
        values.emit(body, form, push, library)
    again, _ = body.finish()
    assert again[:4] == first[:4]  # the same declarations of locals


def test_every_helper_can_be_built() -> None:
    library = Library(Module())
    for name in values.BUILDERS:
        assert library.function(name) is library.function(name)


def test_no_row_is_shadowed() -> None:
    """The first row that accepts an instruction is taken: each must be reachable."""
    for index, row in enumerate(values.ROWS):
        for earlier in values.ROWS[:index]:
            shadows = (
                earlier.root == row.root
                and len(earlier.types) == len(row.types)
                and all(mine <= theirs for mine, theirs in zip(row.types, earlier.types, strict=True))
                and row.modifiers <= earlier.modifiers
                and set(row.sources) <= set(earlier.sources)
            )
            assert not shadows, row.root
