"""What the front end makes of this folder, and that it is what its sources give."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import PackageNotFoundError

import pytest
from nvrtc import BuildError, Nvrtc

from kernels.build import COMPILERS, PRODUCTS, VARIANTS, is_current, main
from kernels.loading import REFUSED, fast, program, refused
from kernels.products import FOLDER, REQUIREMENTS, Compiler, Product


def _is_fast(product: Product) -> bool:
    return product.variant in fast(product.source, "", VARIANTS[product.source])


@pytest.mark.parametrize(
    "product",
    [pytest.param(each, marks=() if _is_fast(each) else pytest.mark.slow) for each in PRODUCTS],
    ids=lambda product: product.name,
)
def test_nothing_is_refused_but_what_is_on_purpose(product: Product) -> None:
    entries = [kernel.name for kernel in program(product.source, product.variant).kernels]
    assert entries
    for entry in entries:
        reasons = {lack.reason for lack in refused(product.source, entry, product.variant)}
        expected = REFUSED.get((product.source, entry))
        assert len(reasons) == (expected is not None), reasons
        assert all(expected and expected in reason for reason in reasons), reasons


def test_every_source_is_built_and_every_file_has_a_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.cu")} == {source for source in VARIANTS if "/" not in source}
    assert set(FOLDER.rglob("*.ptx")) == {product.path for product in PRODUCTS}


def test_every_variant_of_a_compiler_is_among_the_fast_ones_of_several_kernels() -> None:
    fast_ones: Counter[str] = Counter()
    for source, words in VARIANTS.items():
        entries = re.findall(r"\.entry\s+(\w+)", Product(source).path.read_text("utf-8"))
        for entry in entries if "/" not in source else [""]:
            chosen = fast(source, entry, words)
            assert chosen[0] == ""
            assert len(set(chosen)) == len(chosen) <= 2
            assert set(chosen) <= set(words)
            fast_ones.update(chosen)
    of_cuda = {word for source, words in VARIANTS.items() if "/" not in source for word in words}
    assert min(fast_ones[word] for word in of_cuda) >= 2


def test_the_readme_tells_what_is_built_of_each_source() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    section = readme[readme.index("## CUDA C") : readme.index("## Python")]
    told = {
        name: set(re.findall(r"`([\w-]+)`", words))
        for name, words in re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", section, re.MULTILINE)
    }
    everywhere = {"", "quick", "nvrtc12"}
    built = {source: set(words) - everywhere for source, words in VARIANTS.items() if "/" not in source}
    assert told == built
    assert [source for source in built if not everywhere <= set(VARIANTS[source])] == ["words"]


def test_the_readme_counts_what_is_there() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    told = re.search(
        r"(\d+) kernels in CUDA C, (\d+) in Python for Numba and (\d+)\s+for Triton; .* ([\d,]+) entry", readme
    )
    assert told
    entries = {p: len(re.findall(r"\.entry\b", p.path.read_text("utf-8"))) for p in PRODUCTS}
    of_cuda = sum(count for p, count in entries.items() if "/" not in p.source and not p.variant)
    of_numba, of_triton = (sum(s.startswith(f"from_{name}/") for s in VARIANTS) for name in ("numba", "triton"))
    counts = (of_cuda, of_numba, of_triton, sum(entries.values()))
    assert tuple(int(number.replace(",", "")) for number in told.groups()) == counts


def test_the_exact_versions_are_those_of_the_readme() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    versions = re.findall(r"^[\w-]+(?:\[\w+\])?==(\S+)$", REQUIREMENTS.read_text("utf-8"), re.MULTILINE)
    assert len(versions) == 7
    assert [version for version in versions if version not in readme] == []


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_no_file_tells_where_it_was_built(product: Product) -> None:
    text = product.path.read_text("utf-8")
    assert not re.search(r'\.file[^\n"]*"[^"\n]*/', text)
    numbers = re.findall(r"^\s*\.b8\s+([\d, ]+)", text, re.MULTILINE)
    assert not re.search(rb"/[\w.-]+/", bytes(int(number) for line in numbers for number in line.split(",")))


@pytest.mark.slow
@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: compiler.name)
def test_every_committed_file_is_what_its_source_gives(compiler: Compiler) -> None:
    lack = compiler.lack()
    if lack and compiler.is_optional:
        pytest.skip(lack)
    assert [p.name for p in compiler.products if not is_current(p, compiler.build(p))] == []


def test_the_check_names_a_file_that_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kernels.build.is_current", lambda product, text: product.variant != "quick")
    monkeypatch.setattr("kernels.build.COMPILERS", COMPILERS[:1])
    assert main(["--check", "scans"]) == 1
    assert capsys.readouterr().out == "scans.quick.ptx differs from what its source gives\n"


@pytest.mark.parametrize("compiler", [c for c in COMPILERS if c.is_optional], ids=lambda compiler: compiler.name)
def test_the_check_names_a_compiler_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], compiler: Compiler
) -> None:
    def nothing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("kernels.build.COMPILERS", (compiler,))
    monkeypatch.setattr("importlib.metadata.version", nothing)
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == f"{compiler.name} skipped: not installed\n"


def test_the_check_names_a_version_that_did_not_make_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kernels.build.COMPILERS", COMPILERS[1:2])
    monkeypatch.setattr("importlib.metadata.version", lambda package: "12.0")
    assert main(["--check"]) == 0
    assert "NVRTC 12 skipped: nvidia-cuda-nvrtc-cu12 12.0 is installed" in capsys.readouterr().out


def test_a_source_that_does_not_compile_is_told_with_its_place() -> None:
    with pytest.raises(BuildError, match=r"wrong\.cu\(1\).*undeclared"):
        Nvrtc().compile("__global__ void k() { undeclared = 1; }", "wrong.cu")
