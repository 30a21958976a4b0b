"""Every file of the corpus is read, and nothing in it is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Graph, find_kernel, read, support

CORPUS = Path(__file__).parent.parent / "corpus"
FILES = sorted(CORPUS.glob("*.ptx"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_is_lowered_whole(path: Path) -> None:
    assert support(read(path.read_bytes())) == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_instruction_of_the_text_is_in_the_program(path: Path) -> None:
    """Compilers leave no unreachable code: the lines of the program are those that have an instruction."""
    program = read(path.read_bytes())
    code = [re.sub(r"//.*", "", line) for line in path.read_text().splitlines()]
    expected = {
        number
        for number, line in enumerate(code, 1)
        if re.match(r"[\s{]*(@!?%p\d+\s+)?[a-z][\w.]*(:?::\w+)*(\s[^:]*)?;", line)
        and not re.search(r"\b(bra|ret)\b", line)
    }
    lines = {each.line for kernel in program.kernels for block in kernel.blocks for each in block.instructions}
    assert lines == expected
    assert expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_compilers_make_reducible_graphs(path: Path) -> None:
    for kernel in read(path.read_bytes()).kernels:
        assert Graph(kernel).is_reducible


def test_a_known_kernel_in_full() -> None:
    kernel = find_kernel(read((CORPUS / "vector_add.ptx").read_bytes()), "vector_add")
    assert [(each.name, each.type.ptx_name, each.offset) for each in kernel.parameters] == [
        ("vector_add_param_0", "u64", 0),
        ("vector_add_param_1", "u64", 8),
        ("vector_add_param_2", "u64", 16),
        ("vector_add_param_3", "u32", 24),
    ]
    assert kernel.parameter_bytes == 28
    assert [[each.text for each in block.instructions] for block in kernel.blocks] == [
        [*["ld.param.u64"] * 3, "ld.param.u32", *["mov.u32"] * 3, "mad.lo.s32", "setp.ge.s32"],
        [
            "cvta.global.to.u64", "mul.wide.s32", "add.s64", "cvta.global.to.u64", "add.s64", "ld.global.nc.f32",
            "ld.global.nc.f32", "add.f32", "cvta.global.to.u64", "add.s64", "st.global.f32",
        ],
        [],
    ]  # fmt: skip


def test_unknown_entries_are_refused_with_the_names_there_are() -> None:
    program = read((CORPUS / "half_axpy.ptx").read_bytes())
    with pytest.raises(PtxError, match=r"no entry 'main'; there is 'half_axpy', 'half_to_float_scale', 'half2_add'$"):
        find_kernel(program, "main")
    with pytest.raises(PtxError, match="no kernel at all"):
        find_kernel(read(".version 8.0\n.target sm_80\n"), "main")
    many = "".join(f".entry k{number}() {{ ret; }}\n" for number in range(8))
    with pytest.raises(PtxError, match=r"'k4' and more$"):
        find_kernel(read(".version 8.0\n.target sm_80\n" + many), "x" * 1000)
