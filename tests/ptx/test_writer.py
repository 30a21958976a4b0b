"""Kernels written as text again are the kernels they were."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kernels.build import VARIANTS
from kernels.loading import program
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Kernel, Program, read, support
from tensor_wasm.ptx.program import Emit
from tensor_wasm.ptx.writer import write


def texts(kernel: Kernel) -> list[tuple[object, ...]]:
    """What the instructions do, in order, without names."""
    return [
        (
            each.root, each.types, each.space, each.modifiers, [r and r.index for r in each.destinations],
            [getattr(source, "index", None) for source in each.sources], each.negated,
            each.guard and (each.guard.register.index, each.guard.negated), each.address and each.address.offset,
        )
        for block in kernel.blocks
        for each in block.instructions
    ]  # fmt: skip


def sound(whole: Program) -> Iterator[Kernel]:
    for kernel in whole.kernels:
        prints = any(isinstance(each, Emit) for block in kernel.blocks for each in block.instructions)
        if not support(kernel) and not prints:
            yield kernel


@pytest.mark.parametrize(
    ("source", "variant"),
    [
        pytest.param(source, word, marks=() if word == words[0] and not place % 4 else pytest.mark.slow)
        for place, (source, words) in enumerate(sorted(VARIANTS.items()))
        for word in words
    ],
)
def test_reading_what_was_written_gives_the_same(source: str, variant: str) -> None:
    whole = program(source, variant)
    for kernel in sound(whole):
        text = write(kernel, whole.version, whole.target, whole.variables)
        again = read(text)
        (copy,) = again.kernels
        assert support(copy) == ()
        assert copy.name == kernel.name
        assert copy.parameter_bytes == kernel.parameter_bytes
        assert (copy.reqntid, copy.maxntid) == (kernel.reqntid, kernel.maxntid)
        assert [register.type for register in copy.registers] == [register.type for register in kernel.registers]
        assert texts(copy) == [
            (*each[:3], tuple(part for part in each[3] if part != "L2::cache_hint"), *each[4:])
            for each in texts(kernel)
        ]


def test_nothing_of_the_old_text_but_the_kernels_name_gets_through() -> None:
    whole = read(
        """.version 8.0\n.target sm_80, debug\n.address_size 64
        .file 1 "/home/secret.cu"
        .section .debug_str { .b8 115, 101 }
        .visible .global .align 4 .u32 a_variable[2] = {1, 2};
        .func helper(.reg .u32 %x) { st.global.u32 [a_variable+4], %x; ret; }
        .visible .entry named(.param .u64 .ptr .global .align 8 a_parameter) .maxnreg 32 .pragma "nounroll";
        {
        .reg .u32 %a_register; .reg .pred %p; .loc 1 2 3
        mov.u32 %a_register, 7;
        a_label: call helper, (%a_register); setp.eq.u32 %p, %a_register, 3; @%p bra a_label; ret;
        }"""
    )
    text = write(whole.kernels[0], whole.version, whole.target, whole.variables)
    assert ".entry named(" in text
    for word in (
        "a_variable",
        "helper",
        "a_parameter",
        "a_register",
        "a_label",
        "secret",
        "section",
        "maxnreg",
        "call",
    ):
        assert word not in text
    assert "= {1,0,0,0,2}" in text


@pytest.mark.parametrize(("body", "reason"), [
    ("mov.u32 %r1, 1; { .param .b64 f; .param .b64 v; .param .b32 r; call.uni (r), vprintf, (f, v); }", "print"),
    ("call recursive;", "calls itself"),
])  # fmt: skip
def test_what_is_no_instruction_is_refused(body: str, reason: str) -> None:
    whole = read(
        f""".version 8.0\n.target sm_80\n.address_size 64
        .extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 v);
        .func recursive {{ call recursive; ret; }}
        .visible .entry k() {{ .reg .b32 %r<4>; {body} ret; }}"""
    )
    with pytest.raises(PtxError, match=reason):
        write(whole.kernels[0], whole.version, whole.target, whole.variables)


@pytest.mark.parametrize("name", ["vm0", "vk0", "va0", "vB1", "v", "wm0", "m0"])
def test_no_kernels_name_is_one_of_ours(name: str) -> None:
    whole = read(
        f""".version 8.0\n.target sm_80\n.address_size 64
        .global .u32 data;
        .visible .entry {name}(.param .u32 number) {{
        .reg .u32 %r<4>; .shared .u32 own;
        ld.param.u32 %r1, [number]; st.global.u32 [data], %r1; st.shared.u32 [own], %r1; ret; }}"""
    )
    text = write(whole.kernels[0], whole.version, whole.target, whole.variables)
    assert len(re.findall(rf"\b{name}\b", text)) == 1
    assert read(text).kernels[0].name == name
