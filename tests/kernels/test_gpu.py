"""The comparison of a GPU with the CPU device: what it compares, and that it notices a difference.

The comparisons themselves are the tests of this folder where ``TENSOR_WASM_TEST_GPU`` names a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor_wasm as tw
from kernels import differing
from kernels.gpu import GpuMachine, compare
from kernels.loading import kernel, program
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.runtime import Engine

_TEXT = """.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out)
{{
    .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %rd<9>; .reg .b16 %h<9>;
    ld.param.u64 %rd1, [out];
    {0}
    st.global.u32 [%rd1], %r1;
    ret;
}}
"""


@pytest.mark.parametrize(
    ("code", "reasons"),
    [
        ("mov.u32 %r1, %tid.x;", ()),
        ("div.rn.f32 %f1, %f2, %f3; sqrt.rn.f32 %f1, %f1;", ()),
        ("sin.approx.f32 %f1, %f2;", (differing.APPROXIMATE,)),
        ("div.full.f32 %f1, %f2, %f3;", (differing.APPROXIMATE,)),
        ("red.global.add.u32 [%rd1], 1;", ()),
        ("red.global.inc.u32 [%rd1], 7;", (differing.ORDER,)),
        ("atom.global.add.u32 %r2, [%rd1], 1;", ()),
        ("atom.global.add.u32 %r1, [%rd1], 1;", (differing.ORDER,)),
        ("atom.global.exch.b32 %r2, [%rd1], 1;", (differing.ORDER,)),
        ("red.global.add.f32 [%rd1], %f1;", (differing.FLOAT_ATOMICS,)),
        ("activemask.b32 %r1;", (differing.CONVERGENCE,)),
        ("ld.volatile.global.u32 %r1, [%rd1];", (differing.WAITING,)),
        ("ld.volatile.shared.u32 %r1, [%rd1];", ()),
        ("mov.u32 %r1, %smid;", (differing.PLACES,)),
        ("mov.u32 %r1, %clock;", (differing.PLACES,)),
    ],
)
def test_what_may_differ_is_read_from_the_program(code: str, reasons: tuple[str, ...]) -> None:
    (found,) = read(_TEXT.format(code)).kernels
    assert differing.reasons(found) == reasons


def test_sums_in_matrices_of_floats_may_differ() -> None:
    assert differing.MATRICES in differing.reasons(find_kernel(program("tensors"), "bfloats"))
    assert not differing.reasons(find_kernel(program("tensors"), "signed_bytes"))


def test_every_rounding_is_named() -> None:
    text = (
        "add.f32 a; sub.ftz.f32 a; mul.sat.f64 a; mul.ftz.sat.f16x2 a; add.s32 a; mul.lo.u32; add.rz.f32; red.add.f32"
    )
    assert differing.rounded(text) == (
        "add.rn.f32 a; sub.rn.ftz.f32 a; mul.rn.sat.f64 a; mul.rn.ftz.sat.f16x2 a; add.s32 a; mul.lo.u32; "
        "add.rz.f32; red.add.f32"
    )


class _Stand:
    """A device on which every kernel leaves ``left`` in its first array."""

    def __init__(self, left: np.ndarray) -> None:
        self._left = left
        self.texts: list[str] = []

    def load_ptx(self, text: str, entry: str) -> _Stand:
        self.texts.append(text)
        return self

    def launch(self, grid: object, block: object, args: list[Any], shared_mem: int, timeout: float) -> None:
        args[0][...] = self._left


def _run(engine: Engine, device: Any, source: str, entry: str, *arguments: Any) -> None:
    GpuMachine(device, engine).run(kernel(source, entry), 1, 32, *arguments)


def test_one_bit_is_a_difference(engine: Engine) -> None:
    x, average, total = (
        np.arange(40, dtype=np.uint8).reshape(10, 4),
        np.zeros((10, 4), np.uint8),
        np.zeros((10, 4), np.uint8),
    )
    arguments = x, x.copy(), average, total, 10
    stand = _Stand(x.copy())
    with pytest.raises(pytest.fail.Exception, match=r"elements blend : array 2 .* 39 of 40 differ .* first at 1: "):
        _run(engine, stand, "elements", "blend", *arguments)
    with tw.open_device("cpu") as device:
        _run(engine, device, "elements", "blend", *arguments)
    assert (average == x).all()


def test_what_may_differ_is_left_to_the_references(engine: Engine) -> None:
    x, out = np.ones(32, np.float32), np.zeros(32, np.float32)
    stand = _Stand(x.copy())
    _run(engine, stand, "rows", "activate", x, out, 0, 32)
    assert len(stand.texts) == 1
    assert not out.any()


def test_with_every_rounding_named_as_well_as_without(engine: Engine) -> None:
    x, y = np.arange(8, dtype=np.float64), np.zeros(8)
    factors = np.ones(7)
    with tw.open_device("cpu") as device:
        texts = []
        loads = device.load_ptx
        device.load_ptx = lambda text, entry: texts.append(text) or loads(text, entry)  # type: ignore[method-assign]
        _run(engine, device, "elements", "polynomial", x, y, factors, 6, 8)
    assert len(texts) == 2
    assert texts[0] == differing.rounded(texts[1]) != texts[1]


def test_one_nan_is_as_good_as_another() -> None:
    found = np.array([0x7FC00000, 0x7FFFFFFF], np.uint32)
    expected = np.array([0x7FFFFFFF, 0x7FC00001], np.uint32)
    compare("floats", found.view(np.float32), expected.view(np.float32))
    with pytest.raises(pytest.fail.Exception):
        compare("words", found, expected)
