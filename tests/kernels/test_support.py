"""What the front end makes of this folder, and that it is what its sources give."""

from __future__ import annotations

import pytest

from kernels.build import PRODUCTS, VARIANTS, BuildError, Nvrtc, Product, build, is_current, main
from kernels.loading import FOLDER, program, refused


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.path.stem)
def test_nothing_is_refused_but_what_is_there_for_that(product: Product) -> None:
    entries = {kernel.name for kernel in program(product.source, product.variant).kernels}
    assert entries
    entries -= {"recursive", "allocate"}  # of calls.cu; test_calls.py has them
    assert [lack for entry in entries for lack in refused(product.source, entry, product.variant)] == []


def test_every_source_is_built_and_every_file_has_a_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.cu")} == set(VARIANTS)
    assert set(FOLDER.glob("*.ptx")) == {product.path for product in PRODUCTS}


@pytest.mark.slow
def test_every_committed_file_is_what_its_source_gives() -> None:
    compiler = Nvrtc()
    assert [p.path.name for p in PRODUCTS if not is_current(p, build(p, compiler))] == []


def test_the_check_names_a_file_that_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kernels.build.is_current", lambda product, text: product.variant != "quick")
    assert main(["--check", "scans"]) == 1
    assert capsys.readouterr().out == "scans.quick.ptx differs from what its source gives\n"


def test_a_source_that_does_not_compile_is_told_with_its_place() -> None:
    with pytest.raises(BuildError, match=r"wrong\.cu\(1\).*undeclared"):
        Nvrtc().compile("__global__ void k() { undeclared = 1; }", "wrong.cu", ())
