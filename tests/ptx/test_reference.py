"""The page of what PTX runs here: fresh, complete, and true to the table and the compiler."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tensor_wasm.abi import limits
from tensor_wasm.compiler.special import SUPPORTED
from tensor_wasm.ptx.forms import Category, form
from tensor_wasm.ptx.opcodes import FORMS, TABLE
from tensor_wasm.ptx.parser import _TUNING
from tensor_wasm.ptx.program import Special
from tensor_wasm.ptx.reference import PARTS, page, spell
from tensor_wasm.ptx.specials import SPECIALS

PAGE = Path(__file__).parents[2] / "docs" / "ptx-support.md"
TEXT = PAGE.read_text("utf-8")


def test_the_page_of_the_documentation_is_fresh() -> None:
    assert page() == TEXT, "run: python -m tensor_wasm.ptx.reference > docs/ptx-support.md"


@pytest.mark.parametrize("root", FORMS)
def test_every_form_of_a_root_stands_under_its_category_as_compiled_or_with_its_reason(root: str) -> None:
    for row in FORMS[root]:
        section = TEXT.partition(f"\n## {row.category.value.capitalize()}\n")[2].partition("\n## ")[0]
        verdict = "Compiled:" if row.reason is None else f"Refused: {row.reason}."
        block = section.partition(f"{verdict}\n\n```\n")[2].partition("```")[0]
        assert spell(row) in block.splitlines(), row


@pytest.mark.parametrize("root", FORMS)
def test_every_root_is_listed_once_at_a_glance(root: str) -> None:
    rows = dict(re.findall(r"^\| (compiled|in part|refused) \| (.*) \|$", TEXT, re.MULTILINE))
    lowered = {row.is_lowered for row in FORMS[root]}
    expected = {frozenset({True}): "compiled", frozenset({False}): "refused"}.get(frozenset(lowered), "in part")
    assert [name for name, roots in rows.items() if f"`{root}`" in roots.split()] == [expected]


def test_forms_are_spelled_as_the_page_explains() -> None:
    def spelled(root: str, parts: str, operands: str) -> str:
        return " ".join(spell(form(root, parts, operands, Category.OTHER)).split())

    assert spelled("setp", "eq|ne and|or|xor ftz? f32", ">pred|pred? t t !pred") == (
        "setp.(eq|ne).bool{.ftz}.f32 d:pred{|p}, a, b, !p"
    )
    assert spelled("cvt", "s16|u8 f32", ">t0~ t1~") == "cvt.(u8|s16).f32 d:1st~, a:2nd~"
    assert spelled("ld", "v2|v4? b8", ">t~*v [] policy?") == "ld{.vec}.b8 d~..., [a]{, policy}"
    assert spelled("mul", "wide u16", ">w t t") == "mul.wide.u16 d:wide, a, b"
    assert spelled("brx", "idx", "u32 table") == "brx.idx a:u32, table"
    assert spelled("ret", "uni?", "") == "ret{.uni}"


@pytest.mark.parametrize("name", PARTS)
def test_every_name_for_parts_stands_for_what_a_form_has(name: str) -> None:
    parts = frozenset(PARTS[name].split("|"))
    assert any(slot.names == parts for row in TABLE for slot in row.parts)
    assert not any(name[1:] in slot.names for row in TABLE for slot in row.parts), "it is a part itself"


def test_the_special_registers_are_those_the_compiler_knows() -> None:
    assert {register.name for register in SPECIALS.values() if isinstance(register, Special)} == SUPPORTED
    for name in SUPPORTED:
        assert f"`%{name}" in TEXT, name


def test_the_directives_without_effect_are_read() -> None:
    row = next(line for line in TEXT.splitlines() if ".minnctapersm" in line)
    named = set(re.findall(r"`(\.\w+)`", row))
    assert named <= _TUNING.keys() | {".pragma", ".attribute", ".unified"}


def test_the_size_of_a_text_is_the_guest_contract_s() -> None:
    assert f"| the text | {limits.PTX_MAX_BYTES >> 20} MiB |" in TEXT
